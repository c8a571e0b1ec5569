"""Augmentations one at a time: which settings they are, and what a pipeline is without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from poise.cli.main import app
from poise.data.augmentations import CANVAS, CROPS, NOTHING, augmentations, is_on, measurable, only, replaced, shown
from poise.data.config import DataConfig
from poise.data.crop_config import CropConfig
from poise.data.loader import build_train_loader
from poise.data.show import SHEET_CELL, sheet
from poise.types import ViewSpec
from tiny_set import write_tiny_set

SOURCE = {"annotations": "a.json", "images": "a"}
COMPOSE = DataConfig.parse({"sources": [SOURCE]})
CROP = DataConfig.parse({"sources": [SOURCE], "pipeline": "crop"})


def flat(config: DataConfig, part: str) -> dict[str, Any]:
    return {f"{part}.{k}": v for k, v in getattr(config, part).model_dump().items()} | {"sizes": config.sizes}


@pytest.mark.parametrize(("config", "part", "entries"), [(COMPOSE, "augment", CANVAS), (CROP, "crop", CROPS)])
def test_an_augmentation_shown_alone_changes_its_own_settings(
    config: DataConfig, part: str, entries: dict[str, Any]
) -> None:
    nothing = flat(shown(NOTHING, config), part)
    for name, entry in entries.items():
        alone = flat(shown(name, config), part)
        changed = {key for key, value in alone.items() if value != nothing[key]}
        assert changed, name
        assert changed <= {*entry.on, *entry.shown}, name
        assert all(alone[key] == 1 for key in entry.on if key.endswith("_p") and key != "augment.grey_p"), name


@pytest.mark.parametrize("config", [COMPOSE, CROP])
def test_only_takes_out_all_others_and_keeps_the_strength(config: DataConfig) -> None:
    strong = replaced(config, {"augment.rotation": 77.0, "crop.rotation": 77.0})
    assert all(not is_on(only(strong, ()), name) for name in measurable(strong))
    for name in measurable(strong):
        alone = only(strong, (name,))
        assert [n for n in measurable(strong) if is_on(alone, n)] == [name]
    part = "augment" if config.pipeline == "compose" else "crop"
    kept = getattr(only(strong, ("rotation",)), part)
    assert (kept.rotation, kept.rotation_p) == (77.0, getattr(strong, part).rotation_p)
    off = replaced(strong, {f"{part}.rotation_p": 0.0})
    assert getattr(only(off, ("rotation",)), part).rotation == {"augment": 30.0, "crop": 40.0}[part]
    assert only(strong, ()).sources == config.sources


def test_somebody_makes_the_canvases_that_mosaics_leave() -> None:
    mosaics = replaced(COMPOSE, {"augment.single": 0.0, "augment.paste": 0.0})
    assert only(mosaics, ()).augment.single == 1.0
    assert only(COMPOSE, ("mosaic",)).augment.single == COMPOSE.augment.single


def test_sizes_of_canvases_are_one_or_several() -> None:
    one = replaced(COMPOSE, {"sizes": (256,)})
    assert not is_on(one, "multi_scale")
    assert only(one, ("multi_scale",)).sizes == (192, 256, 320)
    several = replaced(COMPOSE, {"sizes": (512, 256, 384)})
    assert is_on(several, "multi_scale")
    assert only(several, ()).sizes == (384,)
    assert only(several, ("multi_scale",)).sizes == (512, 256, 384)
    assert "multi_scale" not in measurable(CROP)


@pytest.mark.parametrize(
    ("config", "field", "below", "above"),
    [(COMPOSE, "augment.single_scale", "scale", "crop"), (CROP, "crop.scale", "crop", "scale")],
)
def test_scale_and_crop_share_a_range(config: DataConfig, field: str, below: str, above: str) -> None:
    """Each has its side of 1; together they are the range."""

    def alone(low: float, high: float, *names: str) -> tuple[float, float]:
        part, name = field.split(".")
        found: tuple[float, float] = getattr(getattr(only(replaced(config, {field: (low, high)}), names), part), name)
        return found

    assert alone(0.5, 3.0, below) == (0.5, 1.0)
    assert alone(0.5, 3.0, above) == (1.0, 3.0)
    assert alone(0.5, 3.0, above, below) == alone(0.5, 3.0, below, above) == (0.5, 3.0)
    assert alone(0.5, 3.0) == (1.0, 1.0)
    assert alone(1.5, 3.0, above) == (1.5, 3.0)
    assert not is_on(replaced(config, {field: (1.5, 3.0)}), below)
    known = measurable(config)
    assert alone(1.0, 1.0, below) == known[below].on[field]
    assert alone(1.0, 1.0, above) == known[above].on[field]
    assert alone(1.0, 1.0, above, below) == {"scale": (0.75, 1.25), "single_scale": (0.7, 1.8)}[field.split(".")[1]]
    assert all(is_on(only(config, (name,)), name) for name in (above, below))


def test_every_switch_of_the_pipelines_belongs_to_one() -> None:
    """What is drawn by chance can be switched off, but for what makes the material."""
    named = {key for entry in (*CANVAS.values(), *CROPS.values()) for key in (*entry.off, *entry.on)}
    chances = {f"augment.{n}" for n in type(COMPOSE.augment).model_fields if n.endswith("_p")}
    chances |= {f"crop.{n}" for n in CropConfig.model_fields if n.endswith("_p")}
    assert chances - named == {"augment.negative_p", "augment.background_p", "augment.feather_p", "crop.upper_p"}


def test_names_and_pipelines_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="no augmentation 'rotatoin'; did you mean 'rotation'"):
        only(COMPOSE, ("rotatoin",))
    with pytest.raises(ValueError, match="unknown augmentation 'mosaic'"):
        shown("mosaic", CROP)
    with pytest.raises(ValueError, match="'paper' is as published"):
        augmentations(replaced(COMPOSE, {"pipeline": "paper"}))


def test_a_sheet_reduces_all_pictures_alike() -> None:
    pictures = [np.full((2 * SHEET_CELL, SHEET_CELL, 3), 9, np.uint8), np.full((100, 60, 3), 7, np.uint8)]
    found = sheet(pictures)
    assert (found == 9).all(2).sum() == SHEET_CELL * SHEET_CELL // 2
    assert (found == 7).all(2).sum() == 50 * 30
    assert (sheet(pictures[1:]) == 7).all(2).sum() == 100 * 60
    assert sheet(pictures[1:] * 6).shape == (2 * 104, 3 * 64, 3)
    assert sheet(pictures[1:] * 7).shape == (2 * 104, 4 * 64, 3)
    with pytest.raises(ValueError, match="there is none to draw"):
        sheet([])


def poise(*words: Any) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def test_show_one_augmentation_on_one_sheet(tmp_path: Path) -> None:
    root = write_tiny_set(tmp_path / "set")
    file = tmp_path / "sheets" / "flip.png"
    arguments = ("show", root / "tiny.json", "--images", root / "pictures", "--count", 4, "--seed", 3)
    result = poise(*arguments, "--augment", "flip", "-o", file, "--set", "data.sizes=[96]")
    assert (result.exit_code, result.stdout) == (0, f"{file}\n"), result.output
    with Image.open(file) as image:
        assert (image.width * image.height) % (100 * 100) == 0
    wrong = poise(*arguments, "--augment", "flop", "-o", file)
    assert wrong.exit_code == 1
    assert "no such augmentation or recipe; did you mean 'flip'?" in wrong.stderr
    crops = poise(*arguments, "--augment", "half_body", "-o", tmp_path / "crops")
    assert crops.exit_code == 0, crops.output
    assert len(list((tmp_path / "crops").iterdir())) == 4


@pytest.mark.parametrize("pipeline", ["compose", "crop"])
def test_mirroring_without_pairs_is_told(tmp_path: Path, pipeline: str, caplog: pytest.LogCaptureFixture) -> None:
    root = write_tiny_set(tmp_path / "set")
    truth = json.loads((root / "tiny.json").read_text())
    truth["categories"][0]["keypoints"] = [f"point_{i}" for i in range(17)]
    truth["categories"][0]["sigmas"] = [0.05] * 17
    (root / "tiny.json").write_text(json.dumps(truth))
    source = {"annotations": str(root / "tiny.json"), "images": str(root / "pictures")}
    part = "augment" if pipeline == "compose" else "crop"
    config = DataConfig.parse({"sources": [source], "pipeline": pipeline, "batch": 2, "workers": 0})
    spec = ViewSpec(kind="crop", size=(64, 64)) if pipeline == "crop" else ViewSpec()
    from poise.data.loader import read_source

    skeleton = read_source(config.sources[0]).skeleton
    build_train_loader(config, spec, skeleton, 0)
    assert "no flip pairs, but training mirrors pictures" in caplog.text
    assert f"--set data.{part}.flip_p=0" in caplog.text
    caplog.clear()
    build_train_loader(replaced(config, {f"{part}.flip_p": 0.0}), spec, skeleton, 0)
    assert "flip pairs" not in caplog.text
