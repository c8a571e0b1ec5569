"""``poise evaluate`` and measuring a model on annotated pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from console import told
from dots import DOTS, DotModel, dot_picture, keypoints_of, random_people
from poise.cli.main import app
from poise.data.coco import read_coco
from poise.data.writers import write_yolo
from poise.evaluate.coco import METRICS, evaluate_keypoints
from poise.evaluate.model import evaluate_model, predict_annotated, scored_by_truth
from poise.geometry.oks import oks
from poise.predict import predictor as predictor_room
from poise.predict.people import FoundPeople
from poise.predict.predictor import Predictor
from poise.skeletons import MPII16
from poise.types import Poses

SIZES = [(90, 120), (160, 110), (90, 120), (64, 200)]


@pytest.fixture
def annotated(tmp_path):
    """Four pictures with annotations, one picture more that is not annotated; returns (annotations, folder)."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, annotations = [], []
    for i, size in enumerate(SIZES):
        people = random_people(rng, size, i)
        Image.fromarray(dot_picture(size, people)).save(folder / f"{i}.png")
        images.append({"id": 10 + i, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
        for points in keypoints_of(people):
            triples = np.column_stack([points, np.full(3, 2)])
            extent = [*points.min(0), *np.ptp(points, axis=0)]
            annotations.append(
                {"image_id": 10 + i, "category_id": 4, "keypoints": triples.reshape(-1).tolist(), "bbox": extent}
            )
            annotations[-1]["area"] = 2000.0
    Image.fromarray(dot_picture((50, 50), [])).save(folder / "extra.png")
    category = {"id": 4, "name": "dots", "keypoints": list(DOTS.keypoints), "sigmas": list(DOTS.sigmas)}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path, folder


def poise(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def dots(monkeypatch):
    monkeypatch.setattr(predictor_room, "load", lambda name, **options: Predictor(DotModel(), "cpu"))


def test_a_model_that_finds_everybody(annotated):
    told = []
    model = DotModel()
    metrics = evaluate_model(model, *annotated, progress=lambda done, total: told.append((done, total)))
    assert list(metrics) == list(METRICS)
    assert metrics["AP"] == pytest.approx(1)
    assert metrics["AR"] == pytest.approx(1)
    assert told == [(i, 4) for i in range(1, 5)]
    assert model.batches == []


def test_poses_of_all_scores_come_with_the_ids_of_the_file(annotated):
    results = predict_annotated(Predictor(DotModel(), "cpu", {"min_score": 0.99}), *annotated, batch=3)
    assert [r["image_id"] for r in results] == [11, 12, 12, 13, 13, 13]
    assert {r["category_id"] for r in results} == {4}


def test_scales_and_flip_measure_as_well(annotated):
    metrics = evaluate_model(Predictor(DotModel(), "cpu"), *annotated, scales=[200, 256], flip=True)
    assert metrics["AP"] == pytest.approx(1)


class Doubler(DotModel):
    """Finds everybody, and each a second time with a better score, two pixels of the input off."""

    def decode(self, outputs, sizes):
        found = super().decode(outputs, sizes)
        return [Poses.concatenate([p, replace(p, keypoints=p.keypoints + 2, scores=p.scores + 1)]) for p in found]


def test_scores_from_the_truth_put_the_best_poses_first(annotated):
    path, folder = annotated
    predictor = Predictor(Doubler(), "cpu")
    exact = predict_annotated(Predictor(DotModel(), "cpu"), path, folder)
    errors = {}
    for truth_scores in (False, True):
        found = predict_annotated(predictor, path, folder, truth_scores=truth_scores)
        assert len(found) == len(exact)
        gaps = []
        for entry in found:
            rivals = [e for e in exact if e["image_id"] == entry["image_id"]]
            gaps.append(min(np.abs(np.subtract(entry["keypoints"], e["keypoints"]))[::3].max() for e in rivals))
        errors[truth_scores] = gaps
    assert min(errors[False]) > 0.5
    assert max(errors[True]) < 0.1


def test_a_score_from_the_truth_is_the_largest_similarity(annotated):
    dataset = read_coco(*annotated, skeleton=DOTS)
    pose = Predictor(DotModel(), "cpu").predict(str(dataset[2].path), min_score=0)[0]
    moved = replace(pose, keypoints=pose.keypoints + 3)
    expected = oks(moved.keypoints, dataset[2].keypoints, dataset[2].areas, DOTS.sigmas)
    assert expected.shape == (2, 2)
    found = scored_by_truth(moved, dataset[2])
    assert found.scores.tolist() == pytest.approx(expected.max(1).tolist())
    assert 0 < found.scores.max() < 0.9
    assert scored_by_truth(moved, dataset[0]).scores.tolist() == [0.0, 0.0]


def test_a_model_that_finds_nobody(annotated, monkeypatch):
    monkeypatch.setattr(DotModel, "_person", lambda self, values: None)
    assert set(evaluate_model(Predictor(DotModel(), "cpu"), *annotated).values()) == {0.0}


def test_pictures_annotated_without_their_orientation(annotated):
    """Some sets annotate the stored pixels; the poses must be measured in the same frame."""
    path, folder = annotated
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "3.png") as picture:
        picture.load()
    picture.save(folder / "3.png", exif=exif)
    assert evaluate_model(Predictor(DotModel(), "cpu"), path, folder)["AP"] == pytest.approx(1)


def test_other_keypoints_are_refused(annotated):
    path, folder = annotated
    data = json.loads(path.read_text())
    data["categories"][0]["keypoints"] = ["right_end", "middle", "left_end"]
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"right_end, middle, left_end; the model finds left_end, middle, right_end"):
        evaluate_model(Predictor(DotModel(), "cpu"), path, folder)


@pytest.mark.usefixtures("dots")
def test_on_the_command_line(annotated, tmp_path):
    path, folder = annotated
    result = poise("--annotations", path, "--images", folder, "--out", tmp_path / "found/results.json")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"default on 4 pictures of {path}"
    assert lines[1].split() == list(METRICS[:5])
    assert lines[2].split()[0] == "100.0"
    assert lines[3].split() == list(METRICS[5:])
    results = json.loads((tmp_path / "found/results.json").read_text())
    assert evaluate_keypoints(path, results, DOTS)["AP"] == pytest.approx(1)


def test_sizes_that_a_model_recommends_are_told(annotated, monkeypatch):
    """Its own if it looks at pictures, those of who finds people if it looks at people."""
    path, folder = annotated
    predictor = Predictor(DotModel(), "cpu", {"scales": [[256, 256], [128, 128]]})
    monkeypatch.setattr("poise.cli.measuring.open_predictor", lambda *_, **__: predictor)
    shown = poise("--annotations", path, "--images", folder)
    assert "sizes: 256x256, 128x128 px" in shown.stdout, shown.output
    assert json.loads(poise("--annotations", path, "--images", folder, "--json").stdout)["scales"] == [
        [256, 256],
        [128, 128],
    ]
    assert FoundPeople(predictor).scales == [(256, 256), (128, 128)]


@pytest.mark.usefixtures("dots")
def test_json(annotated):
    path, folder = annotated
    options = ("--json", "--scales", "256", "--flip", "--truth-scores")
    result = poise("--annotations", path, "--images", folder, *options)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["AP"] == pytest.approx(1)
    assert (report["pictures"], report["scales"], report["flip"]) == (4, [256], True)
    assert report["truth_scores"] is True


@pytest.mark.usefixtures("dots")
def test_mistakes_are_one_line(annotated, tmp_path):
    path, folder = annotated
    (folder / "2.png").unlink()
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    for arguments, words in (
        (("--annotations", tmp_path / "none.json", "--images", folder), "none.json does not exist"),
        (("--annotations", broken, "--images", folder), "not valid JSON"),
        (("--annotations", path, "--images", tmp_path / "none"), "none does not exist"),
        (("--annotations", path, "--images", folder), "1 of 4 pictures are missing"),
    ):
        result = poise(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
        assert len(told(result).splitlines()) == 1
    assert poise("--images", folder).exit_code == 2


def test_yolo_data_scores_as_coco(annotated, dots, tmp_path):
    annotations, images = annotated
    config = write_yolo(read_coco(annotations, images), tmp_path / "yolo", "val")
    found = [
        json.loads(poise("--json", "--annotations", path, "--images", folder).stdout)
        for path, folder in ((annotations, images), (config, config.parent / "images/val"))
    ]
    assert found[0]["AP"] == found[1]["AP"] > 0.9
    assert found[1]["pictures"] == len(SIZES)
    refused = poise("--annotations", config, "--images", images, "--truth-scores")
    assert refused.exit_code == 2
    assert "--truth-scores is for COCO" in refused.stderr
    unknown = poise("--annotations", config, "--images", images, "--kind", "voc")
    assert unknown.exit_code == 1
    assert "'voc' is unknown" in unknown.stderr


def test_a_report_of_a_yolo_data_set_shows_its_pictures(annotated, dots, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("poise.evaluate.report.write_report", lambda *given, images, **more: seen.append(images))
    config = write_yolo(read_coco(*annotated), tmp_path / "yolo", "val")
    result = poise("--annotations", config, "--report", tmp_path / "report")
    assert result.exit_code == 0, result.output
    assert seen == [config.parent / "images/val"]


def test_what_predict_writes_is_evaluated_whatever_the_category_of_people(annotated, dots, tmp_path):
    path, folder = annotated
    found = tmp_path / "found"
    predicted = CliRunner().invoke(app, ["predict", str(folder / "1.png"), "--out", str(found), "--min-score", "0"])
    assert predicted.exit_code == 0, predicted.output
    data = json.loads(path.read_text())
    data["images"] = data["images"][1:2]
    for category in (4, 7):
        for entry in data["annotations"]:
            entry["category_id"] = category
        data["categories"][0]["id"] = category
        path.write_text(json.dumps(data))
        result = poise("--annotations", path, "--results", found / "poses.json", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["AP"] == pytest.approx(1)


def test_pckh_on_mpii(monkeypatch, tmp_path):
    """A model that finds one fixed pose, which is right but for a foot that is off by exactly half a head."""

    class Fixed(DotModel):
        def __init__(self):
            super().__init__(long_side=128)
            self.skeleton = MPII16

        def decode(self, outputs, sizes):
            points = np.array([[10.0 + 5 * k, 20.0] for k in range(16)], np.float32)[None]
            return [Poses(points, np.ones((1, 16)), [[5, 5, 95, 40]], [0.9], MPII16) for _ in sizes]

    monkeypatch.setattr(predictor_room, "load", lambda name, **options: Predictor(Fixed(), "cpu"))
    Image.new("RGB", (128, 64)).save(tmp_path / "a.png")
    joints = [[11.0 + 5 * k, 21.0] for k in range(16)]
    joints[0] = [11.0, 24.0]
    entry = {"image": "a.png", "center": [50, 20], "scale": 0.4, "joints": joints, "joints_vis": [1] * 16}
    path = tmp_path / "valid.json"
    path.write_text(json.dumps([entry | {"headbox": [1, 1, 9, 7]}]))
    result = poise("--annotations", path, "--images", tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1] == "PCKh: joints at most half a head away"
    assert lines[2].split() == ["Head", "Shoulder", "Elbow", "Wrist", "Hip"]
    assert lines[3].split() == ["100.0"] * 5
    assert lines[5].split()[:3] == ["100.0", "100.0", "100.0"]
    assert [line.index("Shoulder") + len("Shoulder") for line in lines[2:3]] == [len("100.0     100.0")]
    other = json.loads(poise("--annotations", path, "--images", tmp_path, "--pckh", "mmpose", "--json").stdout)
    assert (other["Ankle"], other["Knee"], other["pckh"]) == (0.5, 1.0, "mmpose")
    (tmp_path / "heads.json").write_text("[[0, 0, 40, 30]]")
    wide = poise("--annotations", path, "--images", tmp_path, "--json", "--head-boxes", tmp_path / "heads.json")
    assert json.loads(wide.stdout)["Mean@0.1"] == 1
    assert poise("--annotations", path, "--images", tmp_path, "--pckh", "x").exit_code == 2
