"""The named runs of RSN hold what the reference codes say (RSN spec 12)."""

from __future__ import annotations

import pytest

from poise.data.crop_config import crop_mmpose, crop_official, crop_official_mpii
from poise.models import preset
from poise.train.recipes import RECIPES, recipe
from poise.train.schedule import lr_factor

NETWORKS = ("rsn18", "rsn50", "rsn101", "rsn18x4", "rsn50x2", "rsn50x3", "rsn50x4", "rsn50_paper", "rsn50x4_384x288")


@pytest.mark.parametrize("name", [*NETWORKS, "rsn18_mpii", "rsn50x4_mpii"])
def test_the_official_recipes(name: str) -> None:
    config, mpii = recipe(name), name.endswith("_mpii")
    train, data = config.train, config.data
    assert config.model == preset(name)
    assert (train.steps, data.batch, data.pipeline) == (28_800 if mpii else 96_000, 32, "crop")
    assert (train.optimiser.kind, train.optimiser.lr, train.optimiser.weight_decay) == ("adam", 4e-3, 1e-5)
    assert not train.optimiser.rules
    assert (train.clip_norm, train.ema, train.sync_batch_norm, config.init) == (None, None, False, None)
    assert data.crop == (crop_official_mpii() if mpii else crop_official())
    assert config.skeleton == ("mpii16" if mpii else "coco17")
    assert {s.kind for s in (*data.sources, data.val) if s} == {"mpii" if mpii else "coco"}
    assert train.best_by == ("Mean" if mpii else "AP")


@pytest.mark.parametrize(
    ("name", "lr", "milestones"),
    [
        ("rsn18_mmpose", 2e-2, (170, 190, 200)),
        ("rsn50_mmpose", 5e-3, (170, 200)),
        ("rsn50x2_mmpose", 5e-3, (170, 200)),
        ("rsn50x3_mmpose", 5e-3, (170, 200)),
    ],
)
def test_the_recipes_of_mmpose(name: str, lr: float, milestones: tuple[int, ...]) -> None:
    config = recipe(name)
    train = config.train
    assert (train.epochs, train.optimiser.kind, train.optimiser.lr, train.optimiser.weight_decay) == (
        210,
        "adam",
        lr,
        0,
    )
    assert config.data.crop == crop_mmpose()
    steps = 585  # an epoch of 149,813 people on 8 x 32
    starts = {m * steps: 0.1 ** (i + 1) for i, m in enumerate(milestones)}
    for step, factor in {0: 0.001, 250: 0.5005, 500: 1.0, milestones[0] * steps - 1: 1.0, **starts}.items():
        assert lr_factor(step, train.schedule, 210 * steps) == pytest.approx(factor)


def test_the_small_model_learns_from_what_is_labelled() -> None:
    config = recipe("rsn_small")
    assert (config.model.unlabelled, config.model.objective) == ("ignore", "place")
    assert (config.init, config.model.trunk) == ("timm", "mobilenetv2_100")
    assert [s.weight for s in config.data.sources] == [0.65, 0.35]
    crop = config.data.crop
    assert (crop.rotation, crop.scale, crop.flip_p) == (35, (0.75, 1.3), 0.5)
    assert min(crop.half_body_p, crop.recolour_p, crop.upright_p, crop.erase_p) > 0


def test_every_size_has_a_recipe() -> None:
    assert {n for n in RECIPES if n.startswith("rsn")} >= {*NETWORKS, "rsn_small", "rsn50x4_paper"}
