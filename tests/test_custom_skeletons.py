"""A skeleton that nobody knows, without sigmas, through the command line: trained, measured, predicted, drawn and
exported by all three systems, without a line of code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from poise.checkpoints import read_header
from poise.cli.main import app
from poise.data.sigmas import TYPICAL
from poise.models import PRESETS, build_model
from poise.models.directpose import DirectPoseConfig, keypoint_groups
from poise.skeletons import Skeleton
from tiny_set import write_tiny_set

LAMP = ["shade", "left_bulb", "right_bulb", "joint", "stand"]
DENSE = {
    "backbone": "mobilenetv2_035",
    "channels": 16,
    "score_threshold": 0.0,
    "view": {"long_side": 64, "short_side": None},
}
MODELS: dict[str, dict[str, Any]] = {
    "directpose": {
        "system": "directpose", "anti_alias": False, "group_channels": 8, "cls_depth": 1, "keypoint_depth": 1,
    } | DENSE,
    "smpr": {"system": "smpr", "stride_in_1x1": False, "tower_depth": 1, "heatmap_channels": 8} | DENSE,
    "rsn": PRESETS["rsn_small"]().model_dump(mode="json"),
}  # fmt: skip
MODELS["rsn"]["view"]["size"] = (64, 64)
MODELS["smpr"]["score"] = "class"  # the product of two small numbers is no score to compare


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lamps: the first five points of the figures, with other names, edges and no sigmas."""
    root = write_tiny_set(tmp_path / "data", side=64)
    truth = json.loads((root / "tiny.json").read_text())
    truth["categories"] = [{"id": 1, "name": "lamp", "keypoints": LAMP, "skeleton": [[1, 4], [2, 4], [3, 4], [4, 5]]}]
    for lamp in truth["annotations"]:
        lamp.update(keypoints=lamp["keypoints"][: 3 * len(LAMP)], num_keypoints=len(LAMP))
    (root / "tiny.json").write_text(json.dumps(truth))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def poise(*words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return result


def train_lamps(system: str) -> Any:
    source = {"annotations": "tiny.json", "images": "pictures"}
    settings = {
        "model": MODELS[system],
        "skeleton": "data",
        "data": {"sources": [source], "val": source, "sizes": [64], "batch": 2, "workers": 0},
        "train": {"steps": 1, "samples": 1, "trackers": []},
    }
    if system == "rsn":
        settings["data"]["pipeline"] = "crop"  # type: ignore[index]
    Path("lamps.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(settings))))
    return poise("train", "lamps.yaml", "--data", "data", "--run", "runs/lamps")


@pytest.mark.parametrize("system", MODELS)
def test_trained_measured_predicted_and_drawn(folder: Path, system: str, caplog: pytest.LogCaptureFixture) -> None:
    trained = train_lamps(system)
    assert "'lamp' has no OKS sigmas; estimated: shade 0.060 (typical), left_bulb 0.060 (typical)" in caplog.text
    said = "skeleton lamp of the data: 5 keypoints, 1 pair of left and right; sigmas shade 0.060, left_bulb 0.060"
    assert said in trained.stderr
    model = trained.stdout.strip()
    skeleton = read_header(model).skeleton
    assert skeleton.keypoints == tuple(LAMP)
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.edges == ((0, 3), (1, 3), (2, 3), (3, 4))
    assert skeleton.sigmas == (TYPICAL,) * len(LAMP)
    assert list(Path("runs/lamps/samples").glob("*.jpg"))

    files = ("--model", model, "--annotations", "data/tiny.json", "--images", "data/pictures")
    boxes = ("--boxes", "data/tiny.json") if system == "rsn" else ()
    assert set(json.loads(poise("evaluate", *files, *boxes, "--json").stdout)) >= {"AP", "AR"}
    poise("predict", "data/pictures", "--model", model, *boxes, "--min-score", "0", "--out", "drawn")
    assert len(list(Path("drawn").glob("*.png"))) == 4
    with Image.open("drawn/0.png") as drawn, Image.open("data/pictures/0.png") as plain:
        assert (np.asarray(drawn) != np.asarray(plain.convert("RGB"))).any(), "somebody was drawn"


@pytest.mark.slow
@pytest.mark.parametrize("system", MODELS)
def test_exported_and_predicted_without_the_checkpoint(folder: Path, system: str) -> None:
    pytest.importorskip("onnxruntime")
    model = train_lamps(system).stdout.strip()
    exported = CliRunner().invoke(app, ["export", model, "--photos", "data/pictures", "--out", "lamps.onnx"])
    assert exported.exit_code == 0, exported.output
    boxes = ("--boxes", "data/tiny.json") if system == "rsn" else ()
    poise("predict", "data/pictures", "--model", "lamps.onnx", *boxes, "--min-score", "0", "--out", "drawn")
    assert len(list(Path("drawn").glob("*.png"))) == 4
    (category,) = json.loads(Path("drawn/poses.json").read_text())["categories"]
    assert category["keypoints"] == LAMP


def test_groups_of_any_skeleton_follow_a_rule_and_can_be_set() -> None:
    lamp = Skeleton("lamp", tuple(LAMP), (), ((1, 2),), (0.05,) * 5)
    groups = keypoint_groups(lamp)
    assert sorted(k for group in groups for k in group) == list(range(5))
    config = DirectPoseConfig.parse(MODELS["directpose"])
    assert build_model(config, lamp).head.align.groups == groups  # type: ignore[union-attr]
    chosen = config.override(["groups=[[0, 1, 2], [3, 4]]"])
    assert build_model(chosen, lamp).head.align.groups == ((0, 1, 2), (3, 4))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="must hold each of the 5 keypoints exactly once"):
        build_model(config.override(["groups=[[0, 1], [3, 4]]"]), lamp)
