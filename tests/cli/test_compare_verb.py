"""``poise evaluate`` with files of results, several contestants, intervals, details and reports."""

import gzip
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
from poise.evaluate.model import evaluate_model
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor
from poise.skeletons import CROWDPOSE14, MPII16

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


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("where", ["category", "file beside"])
def test_given_sigmas_count_whoever_brings_the_poses(annotated, tmp_path, where):
    truth, folder = annotated
    usual = report_of("shaky", "--annotations", truth, "--images", folder, "--out", tmp_path / "out.json")
    assert 0 < usual["AP"] < 0.9
    if where == "category":
        data = json.loads(truth.read_text())
        data["categories"][0]["sigmas"] = [0.9] * 3
        truth.write_text(json.dumps(data))
    else:
        text = f"keypoints: [{', '.join(DOTS.keypoints)}]\nsigmas: [0.9, 0.9, 0.9]\n"
        truth.with_name("skeleton.yaml").write_text(text)
    found = report_of("shaky", "--results", tmp_path / "out.json", "--annotations", truth, "--images", folder)
    own, again = found["models"]
    assert own["AP"] == again["AP"] == pytest.approx(1)
    alone = report_of("--results", tmp_path / "out.json", "--annotations", truth)
    assert alone["AP"] == own["AP"]
    assert evaluate_model(Shaky(), truth, folder, device="cpu")["AP"] == own["AP"]


@pytest.mark.usefixtures("models")
def test_sigmas_that_only_a_model_has_are_taken(annotated, caplog):
    truth, folder = annotated
    data = json.loads(truth.read_text())
    before = report_of("shaky", "--annotations", truth, "--images", folder)
    del data["categories"][0]["sigmas"]
    truth.write_text(json.dumps(data))
    after = report_of("shaky", "--annotations", truth, "--images", folder)
    assert after["AP"] == before["AP"]
    assert "estimated" not in caplog.text


def test_details_and_report(annotated, tmp_path):
    truth, folder = annotated
    found = written(tmp_path / "results.json", truth)
    arguments = ("--annotations", truth, "--results", found, "--details", "--bootstrap", 20)
    details = report_of(*arguments, "--report", tmp_path / "report", "--images", folder)["details"]
    assert {row["error"] for row in details["losses"]} >= {"miss", "swap", "score", "missed person", "imprecision"}
    assert [row["name"] for row in details["keypoints"]] == list(DOTS.keypoints)
    assert (details["pck"]["PCK@0.1"], details["pck"]["PCK@0.2"], details["pck"]["found"]) == (1, 1, 7)
    assert details["pck"]["intervals"]["PCK@0.2"] == [1, 1]
    html = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    for words in ("where precision is lost", f"{found}: a file of results", "PCK@0.2", "of 20 sets of pictures"):
        assert words in html
    text = poise(*arguments).stdout
    for words in ("AP lost to errors", "false positive", "best threshold", "PCK0.1", "left_end"):
        assert words in text
    lines = text.splitlines()
    at = lines.index("PCK of all 7 people, each with the pose whose box fits best")
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["PCK@0.1", "PCK@0.2"], ["100.0", "100.0"], ["100.0..100.0"] * 2,
    ]  # fmt: skip


@pytest.mark.usefixtures("models")
def test_the_report_says_how_models_were_run(annotated, tmp_path):
    truth, folder = annotated
    usual = ("--annotations", truth, "--images", folder, "--report", tmp_path / "report", "--bootstrap", 0)
    result = poise("good", "shaky", *usual, "--flip", "--scales", "256,200")
    assert result.exit_code == 0, result.output
    html = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    for name in ("good", "shaky"):
        assert f"{name}: looks at whole pictures; sizes: 256, 200 px; flip: yes; turns: no" in html
    assert 'class="range"' not in html, "no pictures are drawn with --bootstrap 0"
    assert "<h2>Differences</h2>" not in html


@pytest.mark.parametrize(("options", "samples"), [((), 1000), (("--bootstrap", 0), 0), (("--bootstrap", 30), 30)])
def test_how_many_pictures_a_report_draws(annotated, tmp_path, monkeypatch, options, samples):
    asked = []
    monkeypatch.setattr("poise.evaluate.report.write_report", lambda *given, samples, **more: asked.append(samples))
    found = written(tmp_path / "results.json", annotated[0])
    usual = ("--annotations", annotated[0], "--results", found, "--report", tmp_path / "report")
    assert poise(*usual, *options).exit_code == 0
    assert asked == [samples]


@pytest.mark.usefixtures("models")
def test_where_nothing_can_be_written_is_told_before_anything_runs(annotated, tmp_path, monkeypatch):
    truth, folder = annotated
    monkeypatch.setattr(predictor_room, "load", lambda name, **options: pytest.fail("a model was opened"))
    (tmp_path / "file").write_text("")
    for option, path, words in (
        ("--out", tmp_path, "is a folder or a device, not a file; name a file with --out"),
        ("--out", tmp_path / "file/out.json", "file is a file, not a folder; name another place with --out"),
        ("--report", tmp_path / "file", "file is a file, not a folder; name another place with --report"),
        ("--report", tmp_path / "file/deep/down", "file is a file, not a folder"),
    ):
        result = poise("good", "--annotations", truth, "--images", folder, option, path)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
        assert len(told(result).splitlines()) == 1


@pytest.mark.usefixtures("models")
def test_a_report_that_fails_leaves_numbers_and_poses(annotated, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr("poise.evaluate.report.write_report", full)
    truth, folder = annotated
    out = tmp_path / "out.json"
    result = poise("good", "--annotations", truth, "--images", folder, "--report", tmp_path / "r", "--out", out)
    assert result.exit_code == 1
    assert "no space left" in result.stderr
    assert "AP75" in result.stdout
    assert json.loads(out.read_text())


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
        "one.json": {"annotations": [1]},
        "pictures.json": {"images": [1], "annotations": []},
        "id.json": {"images": [{"id": [1], "file_name": "0.png"}], "annotations": []},
        "list.json": {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": [1]}]},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    for name, words in (
        ("unknown.json", "picture 99, which the annotations do not list"),
        ("nan.json", "nan, which is not a finite number"),
        ("short.json", "has 2 keypoint numbers"),
        ("bare.json", "has no keypoints"),
        ("text.json", "holds neither a list of COCO results"),
        ("one.json", "a result is '1', not an object"),
        ("pictures.json", "picture 1 is no object with an id"),
        ("id.json", "picture id [1] must be a number or a text"),
        ("list.json", "picture [1], which the annotations do not list"),
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [1]}, "picture 1 is no object with an id"),
        ({"images": [{"file_name": "0.png"}]}, "picture id None must be a number or a text"),
        ({"images": [{"id": 10, "crowdIndex": {}}]}, "picture 10 has crowdIndex with {}"),
        ({"annotations": 5}, "annotations are 5; expected a list"),
        ({"annotations": {}}, "annotations are {}; expected a list"),
        ({"annotations": [{"image_id": 10, "area": -3, "bbox": [1, 1, 5, 5]}]}, "annotation 1 has area -3"),
    ],
)
def test_mistakes_in_the_annotations_are_one_line(annotated, tmp_path, changes, words):
    truth, _ = annotated
    (tmp_path / "found.json").write_text("[]")
    truth.write_text(json.dumps(json.loads(truth.read_text()) | changes))
    result = poise("--annotations", truth, "--results", tmp_path / "found.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert "internal error" not in result.stderr
    assert len(told(result).splitlines()) == 1


def test_a_part_of_an_mpii_file(tmp_path):
    joints = [[*point, 1] for point in np.random.default_rng(0).integers(20, 180, (16, 2)).tolist()]
    entry = {"objpos": [100, 100], "scale_provided": 1.0, "joint_self": joints, "headbox": [90, 1, 98, 7]}
    truth = tmp_path / "both.json"
    truth.write_text(json.dumps([entry | {"img_paths": f"{flag}.jpg", "isValidation": flag} for flag in (0, 1)]))
    for flag in (0, 1):
        Image.new("RGB", (200, 200)).save(tmp_path / f"{flag}.jpg")
    found = tmp_path / "results.json"
    keypoints = [v for x, y, _ in joints for v in (x - 1, y - 1, 1)]
    found.write_text(json.dumps([{"image_id": "1.jpg", "keypoints": keypoints, "score": 1}]))
    usual = ("--annotations", truth, "--results", found)
    reports = [report_of(*usual, *part) for part in ((), ("--split", "val"))]
    assert [(r["split"], r["pictures"], r["Mean"]) for r in reports] == [(None, 2, 0.5), ("val", 1, 1.0)]
    for part, words in (
        ("train", "picture '1.jpg', which the annotations do not list"),
        ("test", "has no part 'test'"),
        ("valid", "a data set has no part 'valid'; one of train, val, test"),
    ):
        result = poise(*usual, "--split", part)
        assert result.exit_code == 1
        assert words in " ".join(result.stderr.split())
    other = poise(*usual, "--split", "val", "--kind", "coco")
    assert other.exit_code == 2
    assert "--split is for MPII and YOLO data sets" in other.stderr


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
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(truth.read_bytes()))
    assert report_of("--annotations", packed, "--results", found)["Mean"] == table["Mean"]
    twice = report_of("--annotations", truth, "--results", found, "--results", found)
    assert [m["Mean"] for m in twice["models"]] == [table["Mean"]] * 2
    assert "details" not in table
    joints = report_of("--annotations", truth, "--results", found, "--details")["details"]["joints"]
    assert [joint["name"] for joint in joints] == list(MPII16.keypoints)
    assert joints[0] == {"name": "right_ankle", "labelled": 1, "PCKh": 1, "PCKh@0.1": 1}
    lines = poise("--annotations", truth, "--results", found, "--details").stdout.splitlines()
    assert ["labelled", "PCKh", "PCKh@0.1"] in [line.split() for line in lines]
    assert ["left_wrist", "1", "100.0", "100.0"] in [line.split() for line in lines]
    for option in (("--report", tmp_path / "report"), ("--bootstrap", "9")):
        assert poise("--annotations", truth, "--results", found, *option).exit_code == 2
    found.write_text(json.dumps([{"image_id": "a.jpg", "keypoints": keypoints}]))
    result = poise("--annotations", truth, "--results", found)
    assert result.exit_code == 1
    assert "has no score" in result.stderr
