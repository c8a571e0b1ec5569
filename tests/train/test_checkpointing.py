"""Checkpointed activations change memory and time, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn

from poise.models.rsn import RSN, RSNConfig
from poise.train.checkpointing import checkpoint_activations
from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from tiny import TinyBatches, tiny_model


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)),
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        )
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)).mean()


def one_step(
    loss_of: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, net: nn.Module
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Loss, gradients with the state afterwards, and bytes kept for the backward pass."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(images)
    loss.backward()
    grads = {f"grad.{n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    return loss, grads | net.state_dict(), kept


@pytest.mark.parametrize("pattern", ["^body$", r"^body\.\d$", "body"])
@pytest.mark.parametrize("frozen", [False, True])
def test_losses_gradients_and_statistics_stay(pattern: str, frozen: bool) -> None:
    torch.manual_seed(1)
    plain = Net().train()
    plain.body[1][1].train(not frozen)
    saving = copy.deepcopy(plain)
    names = checkpoint_activations(saving, [pattern])
    assert names == (["body.0", "body.1"] if "d" in pattern.replace("body", "") else ["body"])
    assert saving.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(2, 3, 16, 16)
    for _ in range(2):
        (loss, expected, whole), (other, got, part) = one_step(plain, images, plain), one_step(saving, images, saving)
        assert torch.equal(loss, other)
        assert expected.keys() == got.keys()
        assert all(torch.equal(expected[name], got[name]) for name in expected)
        assert part < whole / 2
    moved = plain.body[1][1].running_mean.abs().max() > 0
    assert moved == (not frozen)
    assert int(saving.body[0][1].num_batches_tracked) == 2


def test_statistics_that_processes_share_stay_too() -> None:
    torch.manual_seed(1)
    plain = cast(Net, nn.SyncBatchNorm.convert_sync_batchnorm(Net().train()))
    saving = copy.deepcopy(plain)
    checkpoint_activations(saving, ["^body$"])
    counter = saving.body[0][1].num_batches_tracked
    images = torch.randn(2, 3, 16, 16)
    for _ in range(2):
        (_, expected, _), (_, got, _) = one_step(plain, images, plain), one_step(saving, images, saving)
        assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert saving.body[0][1].num_batches_tracked is counter
    assert int(counter) == 2


def test_a_copy_is_a_model_of_its_own() -> None:
    torch.manual_seed(1)
    net = Net()
    checkpoint_activations(net, ["^body$"])
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.body[0][0].weight.zero_()
    images = torch.randn(1, 3, 8, 8)
    for mode in (True, False):
        net.train(mode)
        other.train(mode)
        assert not torch.equal(net(images), other(images))
    assert isinstance(net.body, nn.Sequential)
    assert type(net.body).__name__ == "Sequential"


def small_rsn() -> RSN:
    torch.manual_seed(2)
    view = {"kind": "crop", "size": (64, 64), "half_pixel": False}
    small = {"depth": 10, "stem": 16, "planes": (16, 16, 32, 32), "unit_channels": 16, "branch_ratio": (32, 64)}
    return RSN(RSNConfig.parse({**small, "stages": 2, "view": view, "kernels": (7, 7, 7, 5, 5)})).train()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("stages", ["stages.0", "stages.1"]),
        (r"^stages\.1\.layers$", [f"stages.1.layers.{i}" for i in range(4)]),
        (
            r"^stages\.0\.layers\.0\.0\.steps$",
            [f"stages.0.layers.0.0.steps.{i}.{j}" for i in range(4) for j in range(i + 1)],
        ),
    ],
)
def test_lists_of_modules_stand_for_the_modules_in_them(pattern: str, expected: list[str]) -> None:
    """They are never called: checkpointed themselves they would save nothing."""
    plain = small_rsn()
    saving = copy.deepcopy(plain)
    assert checkpoint_activations(saving, [pattern]) == expected
    images = torch.randn(2, 3, 64, 64)

    def step(model: RSN) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
        return one_step(lambda x: torch.stack([m.square().mean() for m in model(x).heatmaps]).sum(), images, model)

    (loss, wanted, whole), (other, got, part) = step(plain), step(saving)
    assert torch.equal(loss, other)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert part < whole


def test_a_list_without_modules_fits_nothing() -> None:
    net = Net()
    net.spare = nn.ModuleList()
    with pytest.raises(ValueError, match="'spare' fits no module"):
        checkpoint_activations(net, ["spare"])


def test_a_pattern_that_fits_nothing() -> None:
    with pytest.raises(ValueError, match=r"train\.checkpoint_activations pattern 'stages' fits no module"):
        checkpoint_activations(Net(), ["body", "stages"])


def test_a_run_is_the_same_to_the_bit() -> None:
    def weights(**more: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        settings = TrainConfig.parse({"steps": 4, "ema": 0.9, "optimiser": {"lr": 0.05}, **more})
        trainer = Trainer(tiny_model(dropout=0.3), TinyBatches(), settings, device="cpu")
        trainer.run()
        assert trainer.ema is not None
        return trainer.model.state_dict() | {f"ema.{n}": v for n, v in trainer.ema.model.state_dict().items()}

    expected, got = weights(), weights(checkpoint_activations=["backbone", "dropout"])
    assert all(torch.equal(expected[name], got[name]) for name in expected)
