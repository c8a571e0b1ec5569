"""What eight bits cost, measured with annotations, and the limit of it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import DIRECTPOSE, Eager, loaded, small_model, three_photos
from typer.testing import CliRunner

from poise.cli.main import app
from poise.export import exporting
from poise.export.exporting import Plan, Report, export_model
from poise.export.parity import ParityError
from poise.export.quantise import Loss, Pictures, measure_loss
from poise.predict import loading
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.exported import ExportedPredictor
from poise.predict.people import People
from poise.runtime import ExportedModel, Found

CROWD = PersonBoxes.of([[10, 10, 100, 120], [30, 0, 120, 140]], [1.0, 0.8])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_photos(tmp_path_factory.mktemp("photos"))


def everywhere() -> People:
    return Boxes(dict.fromkeys(range(3), CROWD), {number: f"{number}.png" for number in range(3)})


def annotated(folder: Path, target: Path, model: ExportedModel, people: People | None = None) -> Path:
    """A COCO file about the first two pictures and another one, with the best poses of the model for the truth."""
    names = [f"{number}.png" for number in range(2)]
    annotations = []
    predictor = ExportedPredictor(model, people)
    for number, poses in enumerate(predictor.predict([folder / name for name in names], min_score=0.0)):
        for entry in poses[:2].to_coco(10 + number, 7):
            x, y = np.array(entry["keypoints"]).reshape(-1, 3).T[:2]
            marked = np.stack([x, y, np.full_like(x, 2)], 1).reshape(-1).tolist()
            area = float(np.ptp(x) * np.ptp(y))
            annotations.append({**entry, "id": len(annotations) + 1, "keypoints": marked, "area": area, "iscrowd": 0})
    keypoints = list(predictor.skeleton.keypoints)
    target.write_text(json.dumps({
        "images": [{"id": 10 + i, "file_name": name} for i, name in enumerate([*names, "elsewhere.png"])],
        "categories": [{"id": 7, "name": "person", "keypoints": keypoints, "skeleton": []}],
        "annotations": annotations,
    }))  # fmt: skip
    return target


class Shifted(Eager):
    """Finds everybody beside where they are."""

    def find(self, *arguments: Any) -> Found:
        found = super().find(*arguments)
        return found._replace(keypoints=found.keypoints + 40)


def test_against_annotations(photos: Path, tmp_path: Path) -> None:
    model = small_model(DIRECTPOSE)
    right, wrong = Eager(model, None), Shifted(model, None)
    truth = annotated(photos, tmp_path / "truth.json", right)
    pictures = Pictures.of(photos, truth)
    same = measure_loss(right, right, pictures)
    assert same.before == same.after > 0.5
    assert same.truth == f"{truth}, 2 pictures"
    worse = measure_loss(right, wrong, pictures)
    assert worse.before == same.before
    assert worse.after < 0.5 * worse.before


def test_annotations_that_measure_nothing(photos: Path, tmp_path: Path) -> None:
    model = Eager(small_model(DIRECTPOSE), None)
    truth = annotated(photos, tmp_path / "truth.json", model)
    content = json.loads(truth.read_text())
    for change, words in (({"annotations": []}, "nobody with keypoints"), ({"images": []}, "none of the pictures")):
        truth.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match=words):
            measure_loss(model, model, Pictures.of(photos, truth))


@pytest.fixture(scope="module")
def written(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A small RSN as an ONNX file."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return export_model(loaded("rsn"), tmp_path_factory.mktemp("rsn") / "a.onnx", Plan(photographs=photos))


def not_again(written: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes the file that is there instead of writing and checking it."""
    monkeypatch.setattr(exporting, "write_onnx", lambda graph, canvas, path, *_, **__: shutil.copy(written.path, path))
    monkeypatch.setattr(exporting, "check", lambda *_: written.parity)


def test_eight_bits_with_annotations(
    written: Report, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_again(written, monkeypatch)
    truth = annotated(photos, tmp_path / "truth.json", ExportedModel(written.path), everywhere())
    pictures = Pictures.of(photos, truth, everywhere())
    plan = Plan(int8=True, pictures=pictures, photographs=photos, max_loss=100)
    report = export_model(loaded("rsn"), tmp_path / "small.onnx", plan)
    assert report.loss is not None
    assert report.loss.truth == f"{truth}, 2 pictures"
    assert 0.5 < report.loss.before <= 1
    assert 0 <= report.loss.after <= report.loss.before
    assert ExportedModel(report.path).description["weights"] == "int8"


@pytest.mark.parametrize(
    ("after", "most", "measured", "fine"),
    [
        (0.46, 5, True, True),
        (0.44, 5, True, False),
        (0.44, 7, True, True),
        (0.49, 0, True, False),
        (0.51, 0, True, True),
        (float("nan"), 100, True, False),
        (0.1, 5, False, True),
    ],
)
def test_the_limit(
    after: float, most: float, measured: bool, fine: bool, written: Report, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A loss against annotations counts; one against the model's own poses is told only."""
    not_again(written, monkeypatch)
    monkeypatch.setattr(exporting, "quantise", lambda source, target, *_: shutil.copy(source, target))
    monkeypatch.setattr(exporting, "measure_loss", lambda *_: Loss(0.5, after, "the truth"))
    (tmp_path / "out").mkdir()
    truth = tmp_path / "truth.json" if measured else None
    plan = Plan(int8=True, pictures=Pictures(tuple(photos.iterdir()), truth), photographs=photos, max_loss=most)
    if fine:
        assert export_model(loaded("rsn"), tmp_path / "out/a.onnx", plan).loss == Loss(0.5, after, "the truth")
        return
    with pytest.raises(ParityError, match=rf"50.0 before, .* after; the truth\), more than the {most} of --max-loss"):
        export_model(loaded("rsn"), tmp_path / "out/a.onnx", plan)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_limit_on_the_command_line(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five points, or what --max-loss says."""
    plans: list[Plan] = []

    def stop(loaded: Any, path: Path, plan: Plan, *_: Any) -> Report:
        plans.append(plan)
        raise ParityError("int8 costs too much")

    truth = tmp_path / "truth.json"
    truth.write_text("{}")
    monkeypatch.setattr(exporting, "export_model", stop)
    monkeypatch.setattr(loading, "load_model", lambda *_: loaded("directpose"))
    words = ["export", "x.safetensors", "--int8", "--calibrate", str(photos), "--annotations", str(truth)]
    for more in ([], ["--max-loss", "0.5"]):
        result = CliRunner().invoke(app, [*words, *more])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "int8 costs too much" in result.stderr
    assert [plan.max_loss for plan in plans] == [5, 0.5]
    assert [plan.pictures and plan.pictures.annotations for plan in plans] == [truth, truth]


def test_a_missing_library_is_told_before_the_model_is_loaded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("too early"))
    words = ["export", "default", "--int8", "--calibrate", str(photos), "--format"]
    for format in ("onnx", "openvino"):
        result = CliRunner().invoke(app, [*words, format])
        assert result.exit_code == 1
        assert "needs onnxruntime, which is not installed" in result.stderr
