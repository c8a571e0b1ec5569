"""``poise evaluate`` with files of results, several contestants, intervals, details and reports."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from coco_oracle import perturbed
from console import told
from dots import DOTS, DotModel, dot_picture, keypoints_of, random_people
from poise.cli.main import app
from poise.evaluate.coco import METRICS, evaluate_keypoints
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor
from poise.skeletons import CROWDPOSE14

SIZES = [(90, 120), (160, 110), (90, 120), (64, 200), (120, 120), (100, 140)]


@pytest.fixture
def annotated(tmp_path):
    """Six pictures of dots with annotations; returns (annotations, folder of pictures)."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, people = [], []
    for i, size in enumerate(SIZES):
        crowd = random_people(rng, size, i % 4)
        Image.fromarray(dot_picture(size, crowd)).save(folder / f"{i}.png")
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
        for points in keypoints_of(crowd):
            triples = np.column_stack([points, np.full(3, 2)]).reshape(-1).tolist()
            box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
            people.append({"image_id": 10 + i, "category_id": 4, "keypoints": triples, "bbox": box, "area": 2000.0})
    category = {"id": 4, "name": "dots", "keypoints": list(DOTS.keypoints), "sigmas": list(DOTS.sigmas)}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return path, folder


class Shaky(DotModel):
    """Finds everybody, some way off."""

    def decode(self, outputs, sizes):
        found = super().decode(outputs, sizes)
        for poses in found:
            poses.keypoints[...] += 6
        return found


@pytest.fixture
def models(monkeypatch):
    """``good`` is exact, ``shaky`` is not."""

    def load(name, **options):
        if name == "nobody":
            raise ValueError("unknown model 'nobody'")
        return Predictor(Shaky() if name == "shaky" else DotModel(), "cpu")

    monkeypatch.setattr(predictor_room, "load", load)


def poise(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def report_of(*arguments):
    result = poise(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(path, truth, **changes):
    """A file of exact results of the truth."""
    data = json.loads(truth.read_text())
    results = [
        {"image_id": a["image_id"], "category_id": 4, "keypoints": a["keypoints"], "score": 0.9} | changes
        for a in data["annotations"]
    ]
    path.write_text(json.dumps(results))
    return path


def test_results_of_a_file_without_pictures(annotated, tmp_path):
    truth, folder = annotated
    found = written(tmp_path / "results.json", truth)
    for picture in folder.iterdir():
        picture.unlink()
    table = report_of("--annotations", truth, "--results", found)
    assert {name: table[name] for name in METRICS} == evaluate_keypoints(truth, json.loads(found.read_text()), DOTS)
    assert (table["model"], table["pictures"], table["people"]) == (str(found), 6, None)
    assert "intervals" not in table
    assert "details" not in table
    text = poise("--annotations", truth, "--results", found).stdout.splitlines()
    assert text[0] == f"{found} on 6 pictures of {truth}"
    assert text[1].split() == list(METRICS[:5])
    assert text[2].split()[:3] == ["100.0"] * 3


@pytest.mark.usefixtures("models")
def test_what_a_model_writes_evaluates_alike(annotated, tmp_path):
    truth, folder = annotated
    out = tmp_path / "out.json"
    own = report_of("--annotations", truth, "--images", folder, "--model", "shaky", "--out", out)
    again = report_of("--annotations", truth, "--results", out)
    assert 0 < own["AP"] < 0.9
    assert {name: own[name] for name in METRICS} == {name: again[name] for name in METRICS}


@pytest.mark.usefixtures("models")
def test_models_and_files_are_compared(annotated, tmp_path):
    truth, folder = annotated
    exact = written(tmp_path / "exact.json", truth)
    arguments = ("shaky", "good", "--results", exact, "--annotations", truth, "--images", folder, "--bootstrap", 60)
    document = report_of(*arguments)
    assert [m["model"] for m in document["models"]] == ["shaky", "good", str(exact)]
    assert document["models"][1]["AP"] == pytest.approx(1)
    shaky = document["models"][0]
    assert shaky["intervals"]["AP"][0] <= shaky["AP"] <= shaky["intervals"]["AP"][1]
    first, second = document["differences"]
    assert (first["model"], first["against"]) == ("good", "shaky")
    assert first["AP"]["difference"] == pytest.approx(document["models"][1]["AP"] - shaky["AP"])
    assert first["AP"]["low"] > 0
    assert first["AP"]["better"] == 1
    assert second["AR"]["difference"] == pytest.approx(first["AR"]["difference"])
    assert report_of(*arguments) == document
    assert report_of(*arguments, "--seed", 1)["differences"] != document["differences"]
    text = poise(*arguments).stdout
    assert text.splitlines()[0] == f"3 compared on 6 pictures of {truth}"
    assert "Differences to shaky" in text
    assert f"{100 * first['AP']['difference']:+.1f}*" in text


@pytest.mark.usefixtures("models")
def test_comparing_tells_how_sure_it_is_unless_told_not_to(annotated):
    truth, folder = annotated
    plain = report_of("good", "shaky", "--annotations", truth, "--images", folder, "--bootstrap", 0)
    assert "differences" not in plain
    assert "intervals" not in plain["models"][0]
    assert poise("good", "shaky", "--annotations", truth, "--images", folder, "--bootstrap", 0).stdout.count("\n") == 4
    assert len(report_of("good", "--annotations", truth, "--images", folder, "--bootstrap", 50)["intervals"]["AP"]) == 2


@pytest.mark.usefixtures("models")
def test_pictures_are_found_where_they_usually_are(annotated):
    truth, folder = annotated
    folder.rename(folder.with_name("images"))
    assert report_of("good", "--annotations", truth)["AP"] == pytest.approx(1)
    folder.with_name("images").rename(folder.with_name("elsewhere"))
    result = poise("good", "--annotations", truth)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "name their folder" in result.stderr


def test_details_and_report(annotated, tmp_path):
    truth, folder = annotated
    found = written(tmp_path / "results.json", truth)
    arguments = ("--annotations", truth, "--results", found, "--details", "--bootstrap", 20)
    details = report_of(*arguments, "--report", tmp_path / "report", "--images", folder)["details"]
    assert {row["error"] for row in details["losses"]} >= {"miss", "swap", "score", "missed person", "imprecision"}
    assert [row["name"] for row in details["keypoints"]] == list(DOTS.keypoints)
    assert "where precision is lost" in (tmp_path / "report/report.html").read_text(encoding="utf-8")
    text = poise(*arguments).stdout
    for words in ("AP lost to errors", "false positive", "best threshold", "PCK0.1", "left_end"):
        assert words in text


def test_crowdpose(tmp_path):
    rng = np.random.default_rng(1)
    images = [{"id": i, "crowdIndex": float(c)} for i, c in enumerate(rng.choice([0.05, 0.15, 0.5, 0.9], 40))]
    people = []
    for image in images:
        points = rng.uniform(0, 300, (14, 2))
        box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
        triples = np.column_stack([points, np.full(14, 2)]).reshape(-1).tolist()
        people.append(
            {"id": len(people) + 1, "image_id": image["id"], "keypoints": triples, "bbox": box, "area": 40_000}
        )
    names = [*CROWDPOSE14.keypoints[:-2], "head", "neck"]
    truth = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person", "keypoints": names}]}
    path = tmp_path / "crowdpose_val.json"
    path.write_text(json.dumps(truth))
    found = tmp_path / "results.json"
    found.write_text(json.dumps(perturbed(truth, 2, jitter=0.4, false_positives=0, crowded=0)))
    table = report_of("--annotations", path, "--results", found)
    assert list(table)[:13] == [*METRICS, "AP_easy", "AP_medium", "AP_hard"]
    wider = report_of("--annotations", path, "--results", found, "--crowd-limits", "0.2,0.8")
    assert wider["AP_hard"] == table["AP_hard"]
    assert wider["AP_easy"] != table["AP_easy"]
    assert poise("--annotations", path, "--results", found, "--crowd-limits", "0.2").exit_code == 2
    text = poise("--annotations", path, "--results", found).stdout
    assert text.splitlines()[5].split() == ["AP_easy", "AP_medium", "AP_hard"]


def test_another_skeleton_by_name_and_by_file(annotated, tmp_path):
    truth, _ = annotated
    found = written(tmp_path / "results.json", truth)
    data = json.loads(found.read_text())
    for entry in data:
        entry["keypoints"] = [v + 4 for v in entry["keypoints"]]
    found.write_text(json.dumps(data))
    soft = tmp_path / "soft.yaml"
    soft.write_text("keypoints: [left_end, middle, right_end]\nsigmas: [0.9, 0.9, 0.9]\n")
    usual = report_of("--annotations", truth, "--results", found)
    assert report_of("--annotations", truth, "--results", found, "--skeleton", soft)["AP"] > usual["AP"]
    result = poise("--annotations", truth, "--results", found, "--skeleton", "coco17")
    assert result.exit_code == 1
    assert "needs 51" in result.stderr


@pytest.mark.usefixtures("models")
def test_mistakes_are_one_line(annotated, tmp_path):
    truth, folder = annotated
    good = written(tmp_path / "good.json", truth)
    files = {
        "unknown.json": [{"image_id": 99, "keypoints": [0] * 9, "score": 1}],
        "nan.json": [{"image_id": 10, "keypoints": [float("nan")] * 9, "score": 1}],
        "short.json": [{"image_id": 10, "keypoints": [1, 2], "score": 1}],
        "bare.json": [{"image_id": 10}],
        "text.json": "hello",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    for name, words in (
        ("unknown.json", "picture 99, which the annotations do not list"),
        ("nan.json", "nan, which is not a finite number"),
        ("short.json", "has 2 keypoint numbers"),
        ("bare.json", "has no keypoints"),
        ("text.json", "holds neither a list of COCO results"),
        ("none.json", "does not exist"),
    ):
        result = poise("--annotations", truth, "--results", tmp_path / name, "--results", good)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
        assert len(told(result).splitlines()) == 1
    (tmp_path / "empty.json").write_text("[]")
    nothing = report_of("--annotations", truth, "--results", tmp_path / "empty.json", "--bootstrap", 9, "--details")
    assert [nothing[name] for name in METRICS] == [0] * 10
    usual = ("--annotations", truth, "--images", folder)
    for arguments in (
        ("good", "--model", "shaky", *usual),
        ("good", "shaky", *usual, "--out", tmp_path / "out.json"),
        ("--results", good, *usual, "--truth-scores"),
        ("good", *usual, "--bootstrap", "1"),
        ("good", *usual, "--crowd-limits", "a,b"),
    ):
        assert poise(*arguments).exit_code == 2
    assert not (tmp_path / "out.json").exists()


def test_mpii_results_of_a_file(tmp_path):
    joints = np.random.default_rng(0).integers(20, 180, (16, 2)).tolist()
    person = {"image": "a.jpg", "joints": joints, "joints_vis": [1] * 16, "center": [100, 100], "scale": 1.0}
    truth = tmp_path / "mpii.json"
    truth.write_text(json.dumps([person]))
    Image.new("RGB", (200, 200)).save(tmp_path / "a.jpg")
    found = tmp_path / "results.json"
    keypoints = [v for x, y in joints for v in (x, y, 1)]
    found.write_text(json.dumps([{"image_id": "a.jpg", "keypoints": keypoints, "score": 1, "bbox": [0, 0, 200, 200]}]))
    table = report_of("--annotations", truth, "--results", found)
    assert table["Mean"] == pytest.approx(1)
    twice = report_of("--annotations", truth, "--results", found, "--results", found)
    assert [m["Mean"] for m in twice["models"]] == [table["Mean"]] * 2
    assert poise("--annotations", truth, "--results", found, "--details").exit_code == 2
    found.write_text(json.dumps([{"image_id": "a.jpg", "keypoints": keypoints}]))
    result = poise("--annotations", truth, "--results", found)
    assert result.exit_code == 1
    assert "has no score" in result.stderr
