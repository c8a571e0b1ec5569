"""``poise predict`` and ``poise evaluate`` with a top-down model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clips import moving_dots, write_clip
from console import told
from crops import ENDS, CropModel, box_of, ends_of, row_of_people, row_picture
from dots import DotModel
from poise.checkpoints import LoadedCheckpoint
from poise.cli.main import app
from poise.cli.options import model_names
from poise.evaluate.model import evaluate_model
from poise.predict import loading, opening, people
from poise.predict.exported import ExportedPredictor
from poise.zoo import DEFAULT

COUNTS = (2, 0, 3, 1)


@pytest.fixture(autouse=True)
def named_models(monkeypatch, tmp_path):
    """``dots`` finds people, everything with ``crops`` in its name refines them; the working folder is empty."""
    asked = []

    def load_model(name, weights=None):
        asked.append(str(name))
        if str(name) == "nobody":
            raise ValueError("unknown model 'nobody'")
        single = str(name) in ("default", "dots")
        return LoadedCheckpoint(DotModel(long_side=240) if single else CropModel(), {})

    monkeypatch.setattr(loading, "load_model", load_model)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.fixture
def truth(tmp_path):
    """Annotated pictures: the path of the file; the pictures are beside it."""
    images, people = [], []
    for i, count in enumerate(COUNTS):
        picture = row_picture(count, i)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        images.append({"id": 20 + i, "file_name": f"{i}.png", "height": picture.shape[0], "width": picture.shape[1]})
        for person, points in zip(row_of_people(count, i), ends_of(row_of_people(count, i)), strict=True):
            x1, y1, x2, y2 = box_of(person)
            marks = np.column_stack([points, [2, 2]]).reshape(-1).tolist()
            entry = {"image_id": 20 + i, "category_id": 4, "keypoints": marks, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            people.append({**entry, "area": 2000.0})
    category = {"id": 4, "name": "ends", "keypoints": list(ENDS.keypoints), "sigmas": list(ENDS.sigmas)}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return path


def poise(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def keypoints(document, number):
    """(N, 2, 2) of a picture in what ``predict --json`` printed."""
    found = [a["keypoints"] for a in document["annotations"] if a["image_id"] == number]
    return np.array(found).reshape(-1, 2, 3)[..., :2]


@pytest.mark.usefixtures("truth")
@pytest.mark.parametrize("flip", [(), ("--flip",)], ids=["plain", "flip"])
def test_predict_finds_then_refines(flip):
    result = poise("predict", *(f"{i}.png" for i in range(4)), "--model", "crops", "--people", "dots", "--json", *flip)
    assert result.exit_code == 0, result.output
    assert told(result) == ""
    document = json.loads(result.stdout)
    for i, count in enumerate(COUNTS):
        points = keypoints(document, i + 1)
        assert len(points) == count
        assert np.abs(points - ends_of(row_of_people(count, i))).max(initial=0) < 1
    assert document["categories"][0]["keypoints"] == list(ENDS.keypoints)
    assert all(0 < a["score"] <= 1 for a in document["annotations"])


@pytest.mark.usefixtures("truth")
def test_what_the_network_saw_is_drawn_under_the_poses(tmp_path):
    """The rest of the picture is dimmed; with people, there is light in colours."""
    for out, more in (("plain", ()), ("lit", ("--heatmaps",))):
        result = poise("predict", "0.png", "1.png", "--model", "crops", "--people", "dots", "--out", out, *more)
        assert result.exit_code == 0, result.output
    plain, lit = (np.asarray(Image.open(tmp_path / out / "0.png")).astype(int) for out in ("plain", "lit"))
    spread = np.ptp(lit, axis=2) - np.ptp(plain, axis=2)
    assert (spread > 60).sum() > 20
    nobody = np.asarray(Image.open(tmp_path / "lit/1.png")).astype(float)
    before = np.asarray(Image.open(tmp_path / "1.png")).astype(float)
    np.testing.assert_allclose(nobody, before * (1 - 0.45 * 0.8), atol=1)
    wrong = poise("predict", "0.png", "--model", "dots", "--heatmaps")
    assert wrong.exit_code == 1
    assert told(wrong) == "poise: --heatmaps draws what a top-down model saw; name one with --model\n"


@pytest.mark.usefixtures("truth")
def test_exported_files_show_no_heatmaps(monkeypatch):
    about = {"metadata": {}, "skeleton": ENDS.to_dict(), "min_score": 0.1}
    exported = SimpleNamespace(path="crops.onnx", description=about, running="onnx", looks_at_people=False)
    monkeypatch.setattr(opening, "load", lambda *a, **k: ExportedPredictor(exported))
    result = poise("predict", "0.png", "--model", "crops.onnx", "--heatmaps")
    assert result.exit_code == 1
    assert told(result) == (
        "poise: --heatmaps: crops.onnx is exported, and exported files show no heatmaps; name the checkpoint of a "
        "top-down model with --model\n"
    )


@pytest.mark.usefixtures("truth")
def test_predict_draws_and_says_who_finds_the_people(named_models):
    result = poise("predict", "0.png", "1.png", "--model", "crops")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "0.png: 2 people -> poise-out/0.png",
        "1.png: no people found -> poise-out/1.png",
    ]
    assert told(result) == f"poise: people found by {DEFAULT}; --people or --boxes say otherwise\n"
    assert named_models == ["crops", "default"]


def test_predict_in_given_boxes(truth, tmp_path):
    (tmp_path / "other.png").write_bytes((tmp_path / "0.png").read_bytes())
    result = poise("predict", "0.png", "other.png", "1.png", "--model", "crops", "--boxes", truth)
    assert result.exit_code == 1
    assert [line.split(" ->")[0] for line in result.stdout.splitlines()] == [
        "0.png: 2 people",
        "1.png: no people found",
    ]
    assert told(result) == f"poise: {truth} does not list the picture other.png\n"


def test_a_video_without_boxes_does_not_stop_the_pictures(truth, tmp_path):
    pytest.importorskip("av")
    write_clip(tmp_path / "full.mkv", moving_dots(4))
    result = poise("predict", "full.mkv", "0.png", "--model", "crops", "--boxes", truth)
    assert result.exit_code == 1
    assert [line.split(" ->")[0] for line in result.stdout.splitlines()] == ["0.png: 2 people"]
    assert told(result) == f"poise: {truth} does not list the picture full.mkv\n"


def detections(truth, category=4):
    """The true boxes as a list of detections without those of the last picture."""
    people = json.loads(truth.read_text())["annotations"]
    keys = ("image_id", "bbox")
    found = [{**{k: p[k] for k in keys}, "category_id": category, "score": 0.5} for p in people if p["image_id"] < 23]
    path = truth.with_name("detections.json")
    path.write_text(json.dumps(found))
    return path


def evaluate(truth, *options):
    return poise("evaluate", "--annotations", truth, "--images", truth.parent, "--model", "crops", *options)


def test_evaluate_in_true_boxes(truth):
    result = evaluate(truth, "--boxes", truth, "--flip", "--json", "--out", "found.json", "--details")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["AP"] == pytest.approx(1)
    assert (report["people"], report["flip"]) == (f"boxes of {truth}", True)
    assert report["details"]["pck"] == {"PCK@0.1": 1, "PCK@0.2": 1, "people": 6, "found": 6}
    results = json.loads((truth.parent / "found.json").read_text())
    assert sorted(r["image_id"] for r in results) == [20, 20, 22, 22, 22, 23]
    assert {r["category_id"] for r in results} == {4}


def test_evaluate_in_detected_boxes(truth):
    """A picture without detections is one where nobody was found."""
    result = evaluate(truth, "--boxes", detections(truth), "--json")
    assert result.exit_code == 0, result.output
    assert 0.5 < json.loads(result.stdout)["AP"] < 0.95


def test_evaluate_with_people_found(truth):
    result = evaluate(truth, "--people", "dots", "--people-min-score", "0.1", "--people-nms", "0.9")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"crops on 4 pictures of {truth}", "people: people found by dots"]
    assert lines[3].split()[0] == "100.0"
    alone = evaluate(truth)
    assert alone.stdout.splitlines()[1] == f"people: people found by {DEFAULT}"
    few = evaluate(truth, "--people-min-score", "1", "--json")
    assert json.loads(few.stdout)["AR"] < 0.6


def test_evaluate_looks_at_people_whom_predict_leaves_out(truth, monkeypatch):
    """Average precision counts poses of all scores; a threshold that is given is obeyed."""
    assert people.PEOPLE_MIN_SCORE_MEASURED < people.PEOPLE_MIN_SCORE
    monkeypatch.setattr(people, "PEOPLE_MIN_SCORE_MEASURED", 1.0)
    recall = [json.loads(evaluate(truth, *how, "--json").stdout)["AR"] for how in ((), ("--people-min-score", "0.1"))]
    assert recall[0] < 0.6
    assert recall[1] == pytest.approx(1)


def test_evaluate_a_model_without_a_predictor_takes_true_boxes(truth):
    assert evaluate_model(CropModel(), truth, truth.parent, device="cpu")["AP"] == pytest.approx(1)


def test_scores_of_the_truth(truth):
    result = evaluate(truth, "--boxes", truth, "--truth-scores", "--json")
    assert json.loads(result.stdout)["AP"] == pytest.approx(1)


@pytest.mark.parametrize("models", [("--model", "crops,crops2"), ("-m", "crops", "-m", "crops2")], ids=str)
def test_ensembles(truth, named_models, models):
    result = poise("evaluate", "--annotations", truth, "--images", truth.parent, "--boxes", truth, *models, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["AP"], report["model"]) == (pytest.approx(1), "crops,crops2")
    assert named_models == ["crops", "crops2"]


def test_names_of_models(tmp_path):
    assert model_names(None) == ["default"]
    assert model_names(["a,b", "c"]) == ["a", "b", "c"]
    assert model_names(["a,", ""]) == ["a"]
    odd = tmp_path / "a,b.safetensors"
    odd.touch()
    assert model_names([str(odd)]) == [str(odd)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "crops", "--scales", "640"), "scales are for models that look at whole pictures"),
        (("--model", "dots", "--people", "dots"), "'dots' looks at whole pictures and finds people itself"),
        (("--model", "dots,dots"), "boxes, people and ensembles are for models that look at one person"),
        (("--model", "crops", "--people", "crops"), "'crops' looks at one person at a time and cannot find people"),
        (("--model", "crops", "--people", "nobody"), "unknown model 'nobody'"),
        (("--model", "crops", "--boxes", "none.json"), "box file none.json does not exist"),
        (("--model", "crops,crops", "--weights", "w"), "weights go with one preset"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(truth, options, words):
    verbs = (("predict", "0.png"), ("evaluate", "--annotations", truth, "--images", truth.parent))
    for verb in verbs:
        result = poise(*verb, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        complaint = result.stderr.splitlines()[-1]
        assert complaint.startswith("poise: ")
        assert words in complaint


def test_boxes_of_another_set(truth):
    truth.with_name("others.json").write_text(json.dumps([{"image_id": 1, "bbox": [1, 1, 5, 5]}]))
    result = evaluate(truth, "--boxes", "others.json")
    assert result.exit_code == 1
    assert "others.json has boxes for other pictures only: its ids are like 1, not like 20" in result.stderr
    partly = json.loads(truth.read_text())
    partly["images"], partly["annotations"] = partly["images"][1:], partly["annotations"][2:]
    truth.with_name("part.json").write_text(json.dumps(partly))
    result = evaluate(truth, "--boxes", "part.json")
    assert result.exit_code == 1
    assert told(result) == "poise: part.json does not list the picture with id 20\n"


@pytest.mark.usefixtures("truth")
def test_boxes_and_people_do_not_go_together():
    for extra in (("--people", "dots"), ("--people-min-score", "0.5"), ("--people-nms", "0.5")):
        result = poise("predict", "0.png", "--model", "crops", "--boxes", "truth.json", *extra)
        assert result.exit_code == 2
        assert "--boxes" in result.stderr
