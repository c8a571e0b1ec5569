import sys

import numpy as np
import pytest
import torch

from poise.geometry.boxes import box_areas, clip_boxes, keypoint_boxes, points_extent
from poise.geometry.nms import box_nms, cut_by_score
from poise.types import PersonBoxRule


def test_keypoint_boxes_use_labelled_points_only() -> None:
    keypoints = np.array([[[10.0, 20, 2], [30, 5, 1], [500, 500, 0]]])
    np.testing.assert_allclose(keypoint_boxes(keypoints, PersonBoxRule(), (600, 600)), [[9, 4, 31, 21]])


def test_keypoint_boxes_rules_and_clipping() -> None:
    keypoints = np.array([[[0.3, 0.2, 2], [99.5, 49.5, 2]]])
    rule = PersonBoxRule(pad_low=1, pad_high=1, grow=1, clip_high=True)
    np.testing.assert_allclose(keypoint_boxes(keypoints, rule, (50, 100)), [[0, 0, 101, 51]])
    rule = PersonBoxRule(pad_low=0, pad_high=0, grow=-1)
    np.testing.assert_allclose(keypoint_boxes(keypoints, rule, (50, 100)), [[0.3, 0.2, 98.5, 48.5]])


def test_keypoint_boxes_of_nobody() -> None:
    assert keypoint_boxes(np.zeros((0, 5, 3)), PersonBoxRule(), (10, 10)).shape == (0, 4)
    np.testing.assert_allclose(keypoint_boxes(np.zeros((1, 5, 3)), PersonBoxRule(), (10, 10)), [[0, 0, 0, 0]])


def test_torch_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 3], [5, 5, 4, 9]])
    assert box_areas(boxes).tolist() == [12, 0]
    assert clip_boxes(torch.tensor([[-3.0, 2, 50, 60]]), (20, 30)).tolist() == [[0, 2, 30, 20]]
    assert points_extent(torch.tensor([[1.0, 5], [3, 2]])).tolist() == [1, 2, 3, 5]


def _brute_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        overlaps = []
        for j in kept:
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            inter = np.prod(np.maximum(high - low, 0))
            union = np.prod(boxes[i, 2:] - boxes[i, :2]) + np.prod(boxes[j, 2:] - boxes[j, :2]) - inter
            overlaps.append(inter / union)
        if not overlaps or max(overlaps) <= threshold:
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("torch_is_there", [True, False])
def test_box_nms_equals_brute_force(torch_is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch_is_there:
        monkeypatch.setitem(sys.modules, "torch", None)
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 50, (60, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, (60, 2))], 1).astype(np.float32)
    scores = rng.permutation(60).astype(np.float32) / 60
    assert box_nms(boxes, scores, 0.4).tolist() == _brute_nms(boxes, scores, 0.4)


def test_box_nms_off_sorts_and_empty_is_empty() -> None:
    boxes = np.zeros((3, 4), np.float32)
    assert box_nms(boxes, np.array([0.1, 0.9, 0.5], np.float32), 0.0).tolist() == [1, 2, 0]
    assert box_nms(boxes[:0], np.zeros(0, np.float32), 0.5).tolist() == []


def test_cut_keeps_ties() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32)
    assert cut_by_score(scores, 2).tolist() == [True, True, True, True, False]
    assert cut_by_score(scores, 0).all()
    assert cut_by_score(scores, 5).all()
