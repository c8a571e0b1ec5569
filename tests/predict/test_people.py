"""People found by a single-stage model, and boxes around their keypoints."""

import numpy as np
import pytest

from crops import row_of_people, row_picture
from dots import DotModel, keypoints_of
from poise.predict.people import MARGIN, FoundPeople, pose_boxes
from poise.predict.predictor import Predictor
from poise.types import Poses


def poses_of(points, scores=None):
    points = np.asarray(points, np.float32)
    n, k = points.shape[:2]
    skeleton = DotModel().skeleton
    assert k == len(skeleton)
    return Poses(points, np.ones((n, k)), np.zeros((n, 4)), np.ones(n) if scores is None else scores, skeleton)


def test_boxes_grow_by_the_mean_side_and_end_at_the_picture():
    points = [[[40, 20], [50, 30], [80, 110]], [[1, 2], [20, 10], [37, 66]]]
    boxes = pose_boxes(poses_of(points), (120, 200), (0.1, 0.2))
    side = np.sqrt(40 * 90)
    expected = [40 - 0.1 * side, 20 - 0.2 * side, 80 + 0.1 * side, 110 + 0.2 * side]
    np.testing.assert_allclose(boxes[0], np.clip(expected, 0, [200, 120, 200, 120]), rtol=1e-6)
    assert boxes[1].tolist()[:2] == [0, 0]
    assert pose_boxes(poses_of(points), (120, 60))[0, 2] == 60


def test_unknown_keypoints_and_nobody():
    points = np.full((2, 3, 2), np.nan)
    points[0, :2] = [[10, 20], [30, 20]]
    boxes = pose_boxes(poses_of(points), (100, 100))
    assert boxes.tolist() == [[10, 20, 30, 20], [0, 0, 0, 0]]
    assert pose_boxes(poses_of(np.zeros((0, 3, 2))), (10, 10)).shape == (0, 4)


def found_people(**settings):
    return FoundPeople(Predictor(DotModel(long_side=240), "cpu", {"min_score": 0.3}), "dots", **settings)


def test_people_are_found_in_order_with_their_pictures():
    pictures = [row_picture(count, seed) for seed, count in enumerate((2, 0, 3, 1))]
    found = list(found_people().find(iter(pictures)))
    assert [f.image is not None and f.image.shape for f in found] == [p.shape for p in pictures]
    assert [len(f.people.boxes) for f in found] == [2, 0, 3, 1]
    truth = keypoints_of(row_of_people(2, 0))
    extent = np.concatenate([truth.min(1), truth.max(1)], 1)
    step = np.sqrt(np.ptp(truth, axis=1).prod(1))[:, None] * MARGIN
    np.testing.assert_allclose(found[0].people.boxes, extent + np.concatenate([-step, step], 1), atol=0.3)
    assert found[0].people.scores.tolist() == sorted(found[0].people.scores.tolist(), reverse=True)


def test_people_below_the_score_are_left_out():
    picture = row_picture(3)
    scores = next(found_people(min_score=0.0).find([picture])).people.scores
    between = float(scores[1:].mean())
    assert len(next(found_people(min_score=between).find([picture])).people.scores) == 2
    assert len(next(found_people(min_score=0.0).down_to(between).find([picture])).people.scores) == 2


def test_people_that_overlap_better_ones(monkeypatch):
    points = np.array([[[10, 10], [20, 40], [40, 60]], [[11, 10], [20, 40], [41, 60]], [[60, 10], [70, 40], [90, 60]]])
    poses = poses_of(points, np.array([0.5, 0.9, 0.7], np.float32))

    def predict_iter(self, images, **options):
        return (poses for _ in images)

    monkeypatch.setattr(Predictor, "predict_iter", predict_iter)
    picture = np.zeros((80, 120, 3), np.uint8)
    everybody = next(found_people(nms=None).find([picture])).people
    assert everybody.scores.tolist() == pytest.approx([0.5, 0.9, 0.7])
    apart = next(found_people(nms=0.5).find([picture])).people
    assert apart.scores.tolist() == pytest.approx([0.9, 0.7])
    assert apart.boxes.tolist() == everybody.boxes[1:].tolist()
    unless_asked = next(found_people().find([picture])).people
    assert unless_asked.scores.tolist() == apart.scores.tolist()
    whole = next(found_people(nms=1).find([picture])).people
    assert sorted(whole.scores.tolist()) == sorted(everybody.scores.tolist())


def test_people_outside_the_picture_have_no_box(monkeypatch):
    poses = poses_of([[[-30, 10], [-20, 40], [-40, 60]], [[60, 10], [70, 40], [90, 60]]])
    monkeypatch.setattr(Predictor, "predict_iter", lambda self, images, **options: (poses for _ in images))
    assert len(next(found_people().find([np.zeros((80, 120, 3), np.uint8)])).people.boxes) == 1


def test_few_pictures_wait():
    taken = []

    def pictures():
        for i in range(24):
            taken.append(i)
            yield row_picture(1 + i % 3)

    for done, _ in enumerate(found_people().find(pictures()), 1):
        assert len(taken) - done <= 8


def test_what_is_told():
    people = found_people()
    assert people.description == "people found by dots"
    assert people.min_score == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [{"min_score": 1.5}, {"nms": 0.0}, {"nms": 2.0}, {"margin": (-0.1, 0.0)}], ids=str)
def test_arguments_out_of_bounds(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        found_people(**bad)
