"""Measuring on data sets that are not COCO files."""

import json

import numpy as np
import pytest
from PIL import Image

from dots import DOTS, DotModel, dot_picture, keypoints_of, random_people
from poise.data.mpii import read_mpii, read_mpii_people
from poise.data.records import PoseDataset, Record
from poise.data.writers import write_coco, write_yolo
from poise.data.yolo import read_yolo
from poise.evaluate.dataset import annotated_boxes, predict_dataset, score_dataset, score_mpii
from poise.evaluate.model import evaluate_model
from poise.predict.boxes import read_boxes
from poise.predict.predictor import Predictor
from poise.skeletons import CROWDPOSE14, Skeleton
from poise.types import Poses

SIZES = [(90, 120), (160, 110), (64, 200)]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    records = []
    for i, size in enumerate(SIZES):
        people = random_people(rng, size, i)
        path = tmp_path / "pictures" / f"{i}.png"
        Image.fromarray(dot_picture(size, people)).save(path)
        points = np.array([np.column_stack([p, np.full(3, 2)]) for p in keypoints_of(people)]).reshape(-1, 3, 3)
        boxes = np.concatenate([points[..., :2].min(1) - 4, points[..., :2].max(1) + 4], 1).clip(0)
        areas = 0.53 * np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        records.append(Record(path, f"picture {i}", size, points, boxes, areas, np.zeros((0, 4))))
    return PoseDataset("dots", DOTS, tuple(records))


def test_any_format_scores_as_coco(dataset, tmp_path):
    told = []
    predictor = Predictor(DotModel(), "cpu")
    results = predict_dataset(predictor, dataset, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert {r["image_id"] for r in results} == {"picture 1", "picture 2"}
    root = write_coco(dataset, tmp_path / "truth.json")
    expected = evaluate_model(predictor, tmp_path / "truth.json", root)
    assert score_dataset(dataset, results) == pytest.approx(expected)
    assert expected["AP"] > 0.9
    yolo = read_yolo(write_yolo(dataset, tmp_path / "yolo"))
    again = score_dataset(yolo, predict_dataset(predictor, yolo))
    assert again["AP"] == pytest.approx(expected["AP"])
    assert score_dataset(yolo, [])["AP"] == 0


def test_other_keypoints_are_refused(dataset):
    other = PoseDataset("dots", Skeleton("abc", ("a", "b", "c"), (), (), (1, 1, 1)), dataset.records)
    with pytest.raises(ValueError, match="dots has the keypoints a, b, c; the model finds left_end"):
        predict_dataset(Predictor(DotModel(), "cpu"), other)


def test_crowdposes_own_name_of_the_head_is_no_other_keypoint(tmp_path):
    class CrowdModel(DotModel):
        def __init__(self) -> None:
            super().__init__()
            self.skeleton = CROWDPOSE14

        def decode(self, outputs, sizes):
            return [Poses.empty(CROWDPOSE14) for _ in sizes]

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 64}
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "keypoints": [5, 5, 2] * 14}
    names = [*CROWDPOSE14.keypoints[:12], "head", "neck"]
    content = {"images": [image], "annotations": [person], "categories": [{"id": 1, "keypoints": names}]}
    (tmp_path / "crowd.json").write_text(json.dumps(content))
    assert evaluate_model(CrowdModel(), tmp_path / "crowd.json", tmp_path, device="cpu")["AP"] == 0


def test_annotated_boxes(dataset):
    boxes = annotated_boxes(dataset)
    found = boxes.of_id("picture 2")
    np.testing.assert_allclose(found.boxes, dataset[2].boxes)
    assert found.scores.tolist() == [1.0, 1.0]
    assert len(boxes.of_name(str(dataset[0].path)).boxes) == 0


def mpii_set(folder, **head):
    rng = np.random.default_rng(0)
    Image.new("RGB", (120, 100)).save(folder / "a.png")
    entries = []
    for centre in ([20, 50], [90, 50]):
        joints = (rng.integers(-15, 15, (16, 2)) + centre).tolist()
        entries.append({"image": "a.png", "center": centre, "scale": 0.4, "joints": joints, "joints_vis": [1] * 16})
        entries[-1] |= head
    (folder / "valid.json").write_text(json.dumps(entries))
    return folder / "valid.json"


def test_pckh_of_poses_in_clipped_squares(tmp_path):
    path = mpii_set(tmp_path, headbox=[1, 1, 9, 7])
    people, data = read_mpii_people(path), read_mpii(path, tmp_path)
    results = []
    for person, score in zip(people, (0.2, 0.9), strict=True):
        x1, y1, x2, y2 = np.clip(person.box, 0, [120, 100, 120, 100]).tolist()
        points = np.column_stack([person.keypoints[:, :2], np.ones(16)]).reshape(-1).tolist()
        box = [x1, y1, x2 - x1, y2 - y1]
        results.append({"image_id": "a.png", "keypoints": points, "bbox": box, "score": score})
    assert score_mpii(path, data, results[::-1])["Mean"] == 1
    results[0]["keypoints"][0] += 3.0
    assert score_mpii(path, data, results)["Ankle"] == 1, "3 px are exactly half of the head, 0.6 x 10 px"
    assert score_mpii(path, data, results, formula="mmpose")["Ankle"] == pytest.approx(0.75)


def test_head_boxes_beside_the_annotations(tmp_path):
    io = pytest.importorskip("scipy.io")
    path = mpii_set(tmp_path)
    data = read_mpii(path, tmp_path)
    points = np.column_stack([read_mpii_people(path)[0].keypoints[:, :2] + [6.0, 0], np.ones(16)])
    results = [{"image_id": "a.png", "keypoints": points.reshape(-1).tolist(), "score": 1.0}]
    found = []
    for side in (3.0, 40.0):
        boxes = np.tile([0.0, 0.0, side, side], (2, 1))
        io.savemat(tmp_path / "gt_valid.mat", {"headboxes_src": boxes.T.reshape(2, 2, 2)})
        found.append(score_mpii(path, data, results)["Mean"])
    assert found == [0.0, 0.5]
    (tmp_path / "heads.json").write_text("[[0, 0, 3, 3], [0, 0, 3, 3]]")
    assert score_mpii(path, data, results, head_boxes=tmp_path / "heads.json")["Mean"] == 0


def test_a_part_of_an_mpii_file_has_the_head_boxes_beside_it(tmp_path):
    """Those of gt_valid.mat are the validation people's."""
    io = pytest.importorskip("scipy.io")
    joints = [[*point, 1] for point in np.random.default_rng(0).integers(20, 80, (16, 2)).tolist()]
    usual = {"objpos": [50, 50], "scale_provided": 0.5, "joint_self": joints}
    entries = []
    for flag, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (120, 100)).save(tmp_path / name)
        entries.append(usual | {"img_paths": name, "isValidation": flag})
    path = tmp_path / "both.json"
    path.write_text(json.dumps(entries))
    io.savemat(tmp_path / "gt_valid.mat", {"headboxes_src": np.array([[0.0, 0], [30, 40]]).reshape(2, 2, 1)})
    points = np.array([[x - 1, y - 1, 1] for x, y, _ in joints], float).reshape(-1).tolist()
    for part, name in (("train", "a.png"), ("val", "b.png")):
        results = [{"image_id": name, "keypoints": points, "score": 1.0}]
        assert score_mpii(path, read_mpii(path, tmp_path, split=part), results, split=part)["Mean"] == 1
    with pytest.raises(ValueError, match="1 head boxes for 2 people"):
        score_mpii(path, read_mpii(path, tmp_path), [])


def test_squares_of_an_mpii_file_as_boxes(tmp_path):
    path = mpii_set(tmp_path)
    boxes = read_boxes(path)
    expected = [p.box.tolist() for p in read_mpii_people(path)]
    for found in (boxes.of_id("a.png"), boxes.of_name(str(tmp_path / "a.png"))):
        np.testing.assert_allclose(found.boxes, expected, rtol=1e-6)
        assert found.scores.tolist() == [1, 1]
    assert str(path) in boxes.description
    with pytest.raises(ValueError, match="does not list"):
        boxes.of_name("b.png")
