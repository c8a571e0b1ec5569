"""Which parameters get which learning rate and decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from poise.nn.backbones import build_backbone
from poise.train.config import OptimiserConfig, TrainConfig
from poise.train.devices import share_batch_norms
from poise.train.optimiser import build_optimiser, frozen_batch_norms, load_optimiser, parameter_groups, set_lr


class Net(nn.Module):
    """Named as the systems are: a backbone with batch norm, a head with group norm, scales and a heatmap branch."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 1, bias=False), "bn1": nn.BatchNorm2d(4)})
        self.pyramid = nn.Conv2d(4, 4, 1)
        self.head = nn.ModuleDict(
            {
                "tower": nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
                "heatmap": nn.Conv2d(4, 2, 1),
                "scales": nn.ParameterList([torch.ones(())]),  # type: ignore[dict-item]
            }
        )


def factors(rules: list[dict[str, Any]], model: nn.Module | None = None) -> dict[str, tuple[float, float]]:
    config = OptimiserConfig.parse({"lr": 1.0, "weight_decay": 1.0, "rules": rules})
    groups = parameter_groups(model if model is not None else Net(), config)
    return {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}


def test_no_rules_is_one_group() -> None:
    groups = parameter_groups(Net(), OptimiserConfig(lr=0.3, weight_decay=0.2))
    assert len(groups) == 1
    assert sorted(groups[0]["names"]) == sorted(n for n, _ in Net().named_parameters())
    assert (groups[0]["lr"], groups[0]["base_lr"], groups[0]["weight_decay"]) == (0.3, 0.3, 0.2)


def test_directpose_official_rules() -> None:
    head = r"^head\.(?!.*scale)"
    got = factors(
        [
            {"pattern": head, "kind": "bias", "lr_factor": 20, "decay_factor": 0},
            {"pattern": head, "lr_factor": 10},
            {"kind": "bias", "lr_factor": 2, "decay_factor": 0},
        ]
    )
    assert got == {
        "backbone.conv1.weight": (1, 1),
        "backbone.bn1.weight": (1, 1),
        "backbone.bn1.bias": (2, 0),
        "pyramid.weight": (1, 1),
        "pyramid.bias": (2, 0),
        "head.tower.0.weight": (10, 1),
        "head.tower.0.bias": (20, 0),
        "head.tower.1.weight": (10, 1),
        "head.tower.1.bias": (20, 0),
        "head.heatmap.weight": (10, 1),
        "head.heatmap.bias": (20, 0),
        "head.scales.0": (1, 1),
    }


def test_norm_layers_without_decay_hide_their_biases_from_later_rules() -> None:
    got = factors([{"kind": "norm", "decay_factor": 0}, {"kind": "bias", "lr_factor": 2, "decay_factor": 0}])
    norms = {n: v for n, v in got.items() if "bn1" in n or "tower.1" in n}
    assert set(norms.values()) == {(1.0, 0.0)}
    assert len(norms) == 4
    assert got["head.tower.0.bias"] == got["pyramid.bias"] == (2.0, 0.0)


def test_smpr_names_norms_by_pattern() -> None:
    """Biases twice the rate without decay, except those of norms found by their name (SMPR spec 8)."""
    got = factors([{"pattern": r"(bn|gn)\d"}, {"kind": "bias", "lr_factor": 2, "decay_factor": 0}])
    assert got["backbone.bn1.bias"] == (1, 1)
    assert got["head.tower.1.bias"] == (2, 0)  # a norm inside a plain sequence counts as any bias


def test_frozen_parameters_are_in_no_group() -> None:
    model = Net()
    model.backbone["conv1"].weight.requires_grad_(False)
    assert "backbone.conv1.weight" not in factors([], model)


def test_a_rule_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"rule 'hed' .* fit no parameter"):
        factors([{"pattern": "hed", "lr_factor": 10}])


def test_a_hidden_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"rule '\^head' .*the rules that hide it"):
        factors([{"pattern": ".", "lr_factor": 2}, {"pattern": "^head", "lr_factor": 10}])


def test_a_rule_for_frozen_parameters_is_no_error() -> None:
    model = Net()
    model.backbone.requires_grad_(False)
    assert ("backbone.conv1.weight" in factors([{"pattern": "^backbone", "lr_factor": 0.1}], model)) is False


def test_nothing_left_to_train() -> None:
    with pytest.raises(ValueError, match="no parameter is left"):
        parameter_groups(Net().requires_grad_(False), OptimiserConfig())


def test_schedule_multiplies_every_group() -> None:
    config = OptimiserConfig.parse({"lr": 0.1, "rules": [{"pattern": "^head", "lr_factor": 10}]})
    optimiser = build_optimiser(Net(), config)
    set_lr(optimiser, 0.5)
    assert sorted(g["lr"] for g in optimiser.param_groups) == pytest.approx([0.05, 0.5])
    set_lr(optimiser, 1.0)
    assert sorted(g["lr"] for g in optimiser.param_groups) == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize(
    ("kind", "cls"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_kinds(kind: str, cls: type) -> None:
    optimiser = build_optimiser(Net(), OptimiserConfig.parse({"kind": kind, "betas": (0.8, 0.95), "momentum": 0.7}))
    assert type(optimiser) is cls
    group = optimiser.param_groups[0]
    assert group["momentum"] == 0.7 if kind == "sgd" else group["betas"] == (0.8, 0.95)


def test_loading_keeps_the_configured_rates() -> None:
    old = build_optimiser(Net(), OptimiserConfig(lr=0.1, weight_decay=0.5))
    new = build_optimiser(Net(), OptimiserConfig(lr=0.2, weight_decay=0.6))
    load_optimiser(new, old.state_dict())
    assert (new.param_groups[0]["base_lr"], new.param_groups[0]["weight_decay"]) == (0.2, 0.6)


def test_a_broken_pattern_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        OptimiserConfig.parse({"rules": [{"pattern": "("}]})
    with pytest.raises(ValueError, match="not a regular expression"):
        TrainConfig.parse({"steps": 1, "freeze": ["["]})


def test_frozen_batch_norms_are_batch_norms() -> None:
    model = Net()
    assert frozen_batch_norms(model, ["."]) == [model.backbone["bn1"]]
    assert frozen_batch_norms(model, []) == []


@pytest.mark.parametrize("length", [{}, {"steps": 5, "epochs": 1}])
def test_a_run_has_one_length(length: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="exactly one of steps and epochs"):
        TrainConfig.parse(length)


@pytest.mark.parametrize(("epochs", "batches", "accumulate", "steps"), [(3, 10, 1, 30), (3, 10, 4, 7), (1, 2, 8, 1)])
def test_epochs_in_steps(epochs: int, batches: int, accumulate: int, steps: int) -> None:
    assert TrainConfig(epochs=epochs, accumulate=accumulate).total_steps(batches) == steps


class _Place:
    """As much of an accelerator as `share_batch_norms` looks at."""

    def __init__(self, processes: int, device: str) -> None:
        self.num_processes, self.device = processes, torch.device(device)


def test_batch_norms_are_shared_between_gpus_only() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    share_batch_norms(model, _Place(1, "cpu"))
    assert type(model[1]) is nn.BatchNorm2d
    with pytest.raises(ValueError, match="needs GPUs"):
        share_batch_norms(model, _Place(2, "cpu"))
    share_batch_norms(model, _Place(2, "cuda"))
    assert isinstance(model[1], nn.SyncBatchNorm)


def test_shared_norms_of_a_mobilenet_keep_weights_and_activation() -> None:
    model = build_backbone("mobilenetv2_100").eval()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(image)
        share_batch_norms(model, _Place(2, "cuda"))
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm)]
        assert {isinstance(norm, nn.SyncBatchNorm) for norm in norms} == {True}
        after = model(image)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
