"""Files that are written, run without torch, refused when they are wrong, and never half there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import SYSTEMS, loaded, noise

import poise
from poise.checkpoints import LoadedCheckpoint
from poise.export import exporting, writers
from poise.export.exporting import Plan, Report, export_model
from poise.export.parity import MOST_PHOTOGRAPHS, ParityError, by_torch, compare, photographs
from poise.export.quantise import Pictures
from poise.extras import MissingLibraryError
from poise.predict.exported import ExportedPredictor
from poise.predict.people import FoundPeople
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor
from poise.runtime import ExportedModel

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
from poise.cli.main import run
sys.argv = ["poise", *sys.argv[1:]]
run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures: ``photos/0.png`` and ``photos/1.png``."""
    here = tmp_path_factory.mktemp("exported")
    (here / "photos").mkdir()
    for number, size in enumerate([(150, 200), (210, 130)]):
        Image.fromarray(noise(*size, seed=number)).save(here / f"photos/{number}.png")
    return here


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, tuple[LoadedCheckpoint, Report]]:
    """All systems as ONNX files: SMPR with an input of one size."""
    made = {}
    for system in SYSTEMS:
        source = loaded(system, min_score=0.2)
        plan = Plan("onnx", dynamic=system == "directpose", photographs=folder / "photos")
        made[system] = source, export_model(source, folder / f"{system}.onnx", plan, system)
    return made


def bare(*words: str) -> subprocess.CompletedProcess[str]:
    """``poise`` where torch cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], capture_output=True, text=True, check=False, env=dict(os.environ)
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_file_agrees_and_describes_itself(system: str, files: Any) -> None:
    source, report = files[system]
    assert report.parity.poses >= 2
    assert report.parity.keypoints < 0.1
    about = ExportedModel(report.path).description
    assert about["system"] == about["name"] == system
    assert about["skeleton"]["keypoints"] == list(source.model.skeleton.keypoints)
    assert about["view"] == source.model.view.model_dump(mode="json")
    assert about["canvas"] == ([160, 160] if system == "smpr" else None)
    assert (about["weights"], about["min_score"], about["metadata"]) == ("float32", 0.2, {"min_score": 0.2})
    assert report.size == report.path.stat().st_size
    assert [p.name for p in report.path.parent.glob(".*")] == []


def test_standard_operators_only(files: Any) -> None:
    import onnx

    for system, (_, report) in files.items():
        proto = onnx.load(str(report.path))
        onnx.checker.check_model(proto)
        assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
        types = {node.op_type for node in proto.graph.node}
        assert ("DeformConv" in types) == (system == "smpr")
        assert ("GridSample" in types) == (system == "directpose")
        assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)


def test_operators_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = writers._simplified

    def older(*arguments: Any) -> Any:
        proto = original(*arguments)
        proto.opset_import[0].version = 18
        return proto

    monkeypatch.setattr(writers, "_simplified", older)
    with pytest.raises(ValueError, match=r"opset \[18\], not 20"):
        export_model(loaded("rsn"), tmp_path / "a.onnx", Plan())
    assert list(tmp_path.iterdir()) == []


def test_what_torch_cannot_write_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.onnx.OnnxExporterError("several\nlines")

    monkeypatch.setattr(writers, "recorded", lambda *_: None)
    monkeypatch.setattr(torch.onnx, "export", fail)
    for plan, words in (
        (Plan(), "cannot write this model"),
        (Plan(dynamic=True), "any size as ONNX: name a --size, or"),
    ):
        with pytest.raises(ValueError, match=words):
            export_model(loaded("directpose"), tmp_path / "a.onnx", plan)
    assert list(tmp_path.iterdir()) == []


def test_cuda_that_cannot_start_is_told(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime for CUDA goes on with the CPU where CUDA's libraries are missing."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("CUDA is there")
    path = files["rsn"][1].path
    with pytest.raises(ValueError, match="needs onnxruntime-gpu"):
        ExportedModel(path, "cuda")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(ValueError, match="cannot start CUDA here"):
        ExportedModel(path, "cuda")
    assert ExportedModel(path, "auto").running.startswith("the CPU")


def test_an_input_of_any_size_finds_what_poise_predict_finds(files: Any, folder: Path) -> None:
    source, report = files["directpose"]
    pictures = [noise(*size, seed=7) for size in [(160, 160), (300, 50), (90, 123), (40, 33)]]
    ours = Predictor(source.model, "cpu", source.metadata).predict(pictures, min_score=0.0)
    theirs = poise.load(report.path).predict(pictures, min_score=0.0)
    for a, b, picture in zip(ours, theirs, pictures, strict=True):
        assert compare(a, b, "noise").poses > 0
        assert b.image_size == picture.shape[:2]
    with_names = poise.load(str(report.path)).predict(folder / "photos/0.png")
    assert with_names[0].source == str(folder / "photos/0.png")
    assert (with_names[0].scores >= 0.2).all()


def test_find_then_refine(files: Any, folder: Path) -> None:
    people, pose = files["directpose"][1].path, files["rsn"][1].path
    exported = poise.pipeline(people=people, pose=pose)
    assert isinstance(exported, ExportedPredictor)
    source = FoundPeople(Predictor(files["directpose"][0].model, "cpu"))
    ours = TopDownPredictor(files["rsn"][0].model, source, "cpu").predict(folder / "photos/0.png", min_score=0.0)
    mixed = poise.pipeline(people=people, pose=pose).predict(folder / "photos/0.png", min_score=0.0, batch=3)
    found = exported.predict([folder / "photos/0.png"], min_score=0.0)[0]
    assert len(mixed[0]) == len(found) == len(ours[0]) > 2
    np.testing.assert_allclose(found.scores, ours[0].scores, atol=1e-3)
    # where two second peaks are as high as each other but for the last bits, a keypoint moves towards another of them
    apart = np.linalg.norm(found.keypoints - ours[0].keypoints, axis=-1)
    assert np.mean(apart < 0.01) > 0.95


def test_from_the_command_line_without_torch(files: Any, folder: Path, tmp_path: Path) -> None:
    people, pose = str(files["directpose"][1].path), str(files["rsn"][1].path)
    picture = str(folder / "photos/0.png")
    one = bare("predict", picture, "-m", people, "-o", str(tmp_path / "one"), "--min-score", "0")
    assert one.returncode == 0, one.stderr
    assert "onnxruntime" in one.stderr
    document = json.loads((tmp_path / "one/poses.json").read_text())
    assert len(document["annotations"]) == len(poise.load(people).predict(picture, min_score=0.0)[0])
    two = bare("predict", picture, "-m", pose, "--people", people, "--people-nms", "0.9", "--json")
    assert two.returncode == 0, two.stderr
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "0.png"}], "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 90, 120]}],
    }))  # fmt: skip
    three = bare("predict", picture, "-m", pose, "--boxes", str(boxes), "--json", "--min-score", "0")
    assert len(json.loads(three.stdout)["annotations"]) == 1
    for words in (["-m", "default"], ["-m", pose]):
        refused = bare("predict", picture, *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "torch, which is not installed" in refused.stderr


def test_poise_evaluate_takes_it(files: Any, folder: Path) -> None:
    from typer.testing import CliRunner

    from poise.cli.main import app

    path = str(files["directpose"][1].path)
    truth = folder / "truth.json"
    names = list(files["directpose"][0].model.skeleton.keypoints)
    truth.write_text(json.dumps({
        "images": [{"id": 4, "file_name": "0.png", "width": 200, "height": 150}],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}], "annotations": [],
    }))  # fmt: skip
    words = ["evaluate", "--annotations", str(truth), "--images", str(folder / "photos"), "-m", path, "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["AP"] == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: poise.load("nowhere.onnx"), "nowhere.onnx does not exist"),
        (lambda f: poise.load(f, weights="a.safetensors"), "has its own"),
        (lambda f: poise.load(f, half=True), "half are for checkpoints"),
        (lambda f: poise.load(f, device="cuda:7"), "'cuda:7' is not known"),
        (lambda f: poise.load(f).predict([], flip=True), "looks at each picture once"),
        (lambda f: poise.load(f).predict([], min_score=2), "0..1"),
        (lambda f: poise.load(f).predict([], batch=0), "at least 1"),
        (lambda f: poise.pipeline(people="default", pose=[f, f]), "an ensemble averages heatmaps"),
        (lambda f: poise.pipeline(people="default", pose=f), "finds people itself"),
        (lambda f: ExportedModel(f).find(np.zeros((4, 4), np.uint8)), r"shape \(4, 4\)"),
        (lambda f: ExportedModel(f).find(np.zeros((4, 4, 3), np.uint8), [[0, 0, 1, 1]]), "takes no boxes"),
    ],
)
def test_what_cannot_be_done_is_told(call: Any, words: str, files: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        call(files["directpose"][1].path)


def test_files_that_are_none(files: Any, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(str(files["rsn"][1].path))
    entry = next(e for e in proto.metadata_props if e.key == "poise")
    newer = json.dumps({**json.loads(entry.value), "format": 99})
    for name, text, words in (
        ("newer", newer, "format 99"), ("damaged", "{", "damaged"), ("foreign", "", "not written by poise export"),
    ):  # fmt: skip
        entry.value = text
        onnx.save(proto, str(tmp_path / f"{name}.onnx"))
        with pytest.raises(ValueError, match=words):
            ExportedModel(tmp_path / f"{name}.onnx")
    for suffix in (".onnx", ".xml", ".pt2", ".torchscript"):
        if suffix == ".xml":
            pytest.importorskip("openvino")
        (tmp_path / f"rubbish{suffix}").write_bytes(b"rubbish")
        with pytest.raises(ValueError, match="cannot be loaded") as caught:
            ExportedModel(tmp_path / f"rubbish{suffix}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="none of the exported models"):
        ExportedModel(Path(__file__))


def test_a_graph_that_computes_something_else_is_refused(
    files: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = files["rsn"][0]
    target = tmp_path / "wrong.onnx"
    target.write_text("the old one")

    def shifted(model: Any) -> Any:
        graph = original(model)
        forward = graph.forward

        def moved(*arguments: Any) -> Any:
            found = forward(*arguments)
            return found._replace(keypoints=found.keypoints + 0.6)

        graph.forward = moved
        return graph

    original = exporting.pose_graph
    monkeypatch.setattr(exporting, "pose_graph", shifted)
    with pytest.raises(ParityError, match="px"):
        export_model(source, target, Plan(photographs=folder / "photos"))
    assert target.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.onnx"]


def test_nobody_in_the_photographs_is_no_agreement(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black.png")
    source = loaded("directpose")
    source.model.head.cls_logits.bias.data.fill_(-9)  # type: ignore[attr-defined]
    with pytest.raises(ParityError, match="--photos"):
        export_model(source, tmp_path / "a.onnx", Plan(photographs=tmp_path))


def test_differences_are_seen(files: Any, folder: Path) -> None:
    source, report = files["rsn"]
    picture = photographs(folder / "photos")[:1]
    right = by_torch(source.model, picture, ExportedModel(report.path).description)[0]
    from dataclasses import replace

    assert compare(right, right, "x")[2:] == (0, 0, 0)
    near = compare(right, replace(right, keypoints=right.keypoints + 0.3, boxes=right.boxes - 0.2), "x")
    assert near.keypoints == pytest.approx(0.3 * 2**0.5, abs=1e-4)
    assert near.boxes == pytest.approx(0.2 * 2**0.5, abs=1e-4)
    nowhere = np.full_like(right.keypoints, np.nan)
    for wrong in (
        replace(right, keypoints=nowhere), replace(right, scores=right.scores * np.nan),
        replace(right, keypoint_scores=right.keypoint_scores * np.nan),
        replace(right, keypoints=right.keypoints + 0.4), replace(right, scores=right.scores + 0.002),
        replace(right, boxes=right.boxes * np.nan), replace(right, boxes=right.boxes + 0.4),
        replace(right, keypoint_scores=right.keypoint_scores - 0.002), right[:0],
    ):  # fmt: skip
        with pytest.raises(ParityError):
            compare(right, wrong, "x")
    with pytest.raises(ParityError, match="whom torch does not find"):
        compare(right[:0], right, "x")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan("tensorrt"), "is not known"),
        (Plan("onxx"), "onnx"),
        (Plan(half=True, int8=True), "one of them"),
        (Plan(dynamic=True, size=(64, 64)), "one of them"),
        (Plan(max_loss=-1), "0..100"),
        (Plan(max_loss=float("nan")), "0..100"),
        (Plan(int8=True), "--calibrate"),
        (Plan(pictures=Pictures(())), "for int8"),
        (Plan(size=(100, 100)), "multiples of 32"),
        (Plan("torchscript"), "ends with .torchscript"),
    ],
)
def test_plans_that_make_no_sense(plan: Plan, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        export_model(loaded("directpose"), tmp_path / "a.onnx", plan)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "format"),
    [("onnxruntime", "openvino"), ("onnxruntime", "onnx"), ("onnxscript", "openvino"), ("openvino", "openvino")],
)
def test_a_missing_library_is_told_before_any_work(
    missing: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, missing, None)
    for plan in (Plan(format), Plan(format, int8=True, pictures=Pictures(()))):
        with pytest.raises(MissingLibraryError, match=f"needs {missing}, which is not installed"):
            export_model(LoadedCheckpoint(None, {}), tmp_path / "a", plan)  # type: ignore[arg-type]


@pytest.mark.parametrize(("version", "old"), [("1.24.4", True), ("1.25.0", False), ("nightly", False)])
def test_an_old_onnxruntime_is_named_where_a_file_cannot_be_loaded(
    version: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", version)
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        ExportedModel(tmp_path / "a.onnx")
    assert ("pip install -U onnxruntime" in str(caught.value)) == old


def test_upright_and_lying_photographs_are_among_those_compared(tmp_path: Path) -> None:
    def shapes() -> list[bool]:
        return [photo.image.shape[0] > photo.image.shape[1] for photo in photographs(tmp_path)]

    assert sorted(p.image.shape[0] > p.image.shape[1] for p in photographs()) == [False, True]
    lying, upright = (Image.fromarray(noise(*size)) for size in ((20, 30), (30, 20)))
    for number in range(MOST_PHOTOGRAPHS + 2):
        lying.save(tmp_path / f"{number}.png")
    assert shapes() == [False] * MOST_PHOTOGRAPHS
    upright.save(tmp_path / "99.png")
    assert shapes() == [False] * (MOST_PHOTOGRAPHS - 1) + [True]
    upright.save(tmp_path / "2.png")
    assert shapes() == [i == 2 for i in range(MOST_PHOTOGRAPHS)]


def test_the_photographs_are_those_of_the_examples() -> None:
    ours = Path(exporting.__file__).parent / "photographs"
    examples = Path(__file__).resolve().parents[2] / "examples"
    assert [p.name for p in sorted(ours.iterdir())] == ["grace_hopper.jpg", "three_people.jpg"]
    for path in ours.iterdir():
        assert path.read_bytes() == (examples / path.name).read_bytes()
    for photograph in photographs():
        height, width = photograph.image.shape[:2]
        boxes = photograph.boxes.boxes
        assert ((boxes[:, :2] >= 0) & (boxes[:, 2:] <= [width, height])).all()
