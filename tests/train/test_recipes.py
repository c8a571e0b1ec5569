"""The named runs: they hold what the papers say, and their rules fit their models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from poise.models import DirectPose, build_model, preset
from poise.skeletons import COCO17
from poise.train.config import RunConfig
from poise.train.optimiser import freeze_parameters, frozen_batch_norms, parameter_groups
from poise.train.recipes import RECIPES, recipe
from poise.train.schedule import lr_factor


@pytest.mark.parametrize("name", RECIPES)
def test_rules_fit_the_model_and_settings_survive_yaml(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    config = recipe(name)
    with torch.device("meta"):
        model = build_model(config.model, COCO17)
    freeze_parameters(model, config.train.freeze)
    norms = frozen_batch_norms(model, config.train.freeze_batch_norm)
    assert bool(norms) == bool(config.train.freeze_batch_norm)
    groups = parameter_groups(model, config.train.optimiser)
    assert sum(len(g["names"]) for g in groups) == sum(p.requires_grad for p in model.parameters())
    path = tmp_path_factory.mktemp("recipe") / "config.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.from_yaml(path) == config


@pytest.mark.parametrize("name", ["directpose_r50", "directpose_r101"])
def test_the_official_recipe(name: str) -> None:
    """DirectPose spec 10, column O."""
    config = recipe(name)
    train, data = config.train, config.data
    assert (train.steps, data.batch, train.clip_norm, train.optimiser.lr) == (180_000, 32, 5.0, 0.01)
    assert (data.pipeline, data.sources[0].min_keypoints, data.paper.short_sides) == ("paper", 10, (480, 1600))
    groups = parameter_groups(DirectPose(config.model, COCO17), train.optimiser)
    rates = {n: (g["lr"], g["weight_decay"]) for g in groups for n in g["names"]}
    assert rates["head.cls_logits.weight"] == pytest.approx((0.1, 1e-4))
    assert rates["head.cls_logits.bias"] == pytest.approx((0.2, 0))
    assert rates["head.heatmap.output.weight"] == pytest.approx((0.1, 1e-4))
    assert rates["pyramid.lateral.0.weight"] == pytest.approx((0.01, 1e-4))
    assert rates["pyramid.lateral.0.bias"] == pytest.approx((0.02, 0))
    assert rates["backbone.body.conv1.weight"] == pytest.approx((0.01, 1e-4))


def test_the_gluoncv_recipe() -> None:
    """DirectPose spec 10, column G: one rate, no clipping, norms without decay."""
    config = recipe("directpose_r50_gluoncv")
    assert config.train.clip_norm is None
    assert config.data.sources[0].min_keypoints == 1
    groups = parameter_groups(DirectPose(config.model, COCO17), config.train.optimiser)
    assert {g["lr"] for g in groups} == {0.01}
    rates = {n: g["weight_decay"] for g in groups for n in g["names"]}
    assert rates["head.cls_tower.1.weight"] == rates["backbone.body.bn1.bias"] == 0
    assert rates["head.cls_tower.0.bias"] == 1e-4


@pytest.mark.parametrize(
    ("name", "batch", "short_sides", "clip"),
    [
        ("smpr_r50", 32, (800, 800), 35),
        ("smpr_r50_fpn", 32, (800, 800), 35),
        ("smpr_r50_multi", 32, (640, 800), 35),
        ("smpr_hrnet_w32", 32, (800, 800), None),
        ("smpr_hrnet_w48", 16, (640, 800), None),
    ],
)
def test_the_recipes_of_smpr(name: str, batch: int, short_sides: tuple[int, int], clip: float | None) -> None:
    """SMPR spec 8 and 9."""
    config = recipe(name)
    train, data = config.train, config.data
    assert (train.epochs, train.clip_norm, train.optimiser.lr, data.batch) == (100, clip, 0.02, batch)
    assert (data.pipeline, data.paper.short_sides, data.paper.long_side) == ("paper_smpr", short_sides, 1333)
    assert bool(train.freeze) == name.startswith("smpr_r50")
    steps = 100_000
    rates = [train.optimiser.lr * lr_factor(i, train.schedule, steps) for i in (0, 499, 500, 79_999, 80_000, 90_000)]
    assert rates == pytest.approx([0.02 / 3, 0.02 / 3, 0.02, 0.02, 0.002, 0.0002])


def test_the_small_models_learn_from_the_same_data() -> None:
    ours, other = recipe("smpr_mobilenetv2"), recipe("directpose_mobilenetv2")
    assert ours.model == preset("smpr_mobilenetv2")
    assert ours.train == other.train
    assert [s.annotations for s in ours.data.sources] == [s.annotations for s in other.data.sources]
    assert (ours.data.negatives, ours.data.val) == (other.data.negatives, other.data.val)
    for name, shipped in (("directpose", "directpose_mobilenetv2"), ("smpr", "smpr_mobilenetv2"), ("rsn", "rsn_small")):
        assert recipe(f"mini_{name}") == recipe(shipped)


def test_an_unknown_recipe() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe 'directpose_r5'.*did you mean 'directpose_r50'"):
        recipe("directpose_r5")


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_recipes_name_no_folder_of_a_machine(make: Callable[[], RunConfig]) -> None:
    config = make()
    assert config.data_root is None
    assert not any(s.annotations.startswith("/") or s.images.startswith("/") for s in config.data.sources)
