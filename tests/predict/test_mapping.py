"""From input px to image px."""

import numpy as np

from poise.geometry import affine
from poise.predict.mapping import mapped_back
from poise.skeletons import COCO17
from poise.types import Poses


def poses():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (3, 17, 2))
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return Poses(points, rng.random((3, 17)), boxes, np.array([0.9, 0.5, 0.1]))


def test_points_and_boxes_go_through_the_map():
    there = affine.compose(affine.scaling(2, 3), affine.translation(5, -4))
    found = mapped_back(poses(), there, (1000, 1000))
    np.testing.assert_allclose(found.keypoints, affine.apply(there, poses().keypoints), atol=1e-3)
    extent = np.concatenate([found.keypoints.min(1), found.keypoints.max(1)], 1)
    np.testing.assert_allclose(found.boxes, np.maximum(extent, -0.5), atol=1e-3)
    np.testing.assert_array_equal(found.keypoint_scores, poses().keypoint_scores)
    assert found.image_size == (1000, 1000)


def test_a_mirror_exchanges_left_and_right_and_their_scores():
    found = mapped_back(poses(), affine.mirror(101), (200, 101))
    left, right = COCO17.keypoints.index("left_wrist"), COCO17.keypoints.index("right_wrist")
    np.testing.assert_allclose(found.keypoints[:, left, 0], 100 - poses().keypoints[:, right, 0], atol=1e-4)
    np.testing.assert_allclose(found.keypoints[:, left, 1], poses().keypoints[:, right, 1])
    np.testing.assert_array_equal(found.keypoint_scores[:, left], poses().keypoint_scores[:, right])
    np.testing.assert_allclose(found.keypoints[:, 0, 0], 100 - poses().keypoints[:, 0, 0], atol=1e-4)
    assert (found.boxes[:, 2] > found.boxes[:, 0]).all()


def test_boxes_are_clipped_and_keypoints_are_not():
    found = mapped_back(poses(), affine.identity(), (40, 50))
    assert found.boxes[:, [0, 2]].max() == 49.5
    assert found.boxes[:, [1, 3]].max() == 39.5
    np.testing.assert_allclose(found.keypoints, poses().keypoints)


def test_nobody():
    found = mapped_back(Poses.empty(), affine.mirror(10), (4, 10))
    assert len(found) == 0
    assert found.image_size == (4, 10)
