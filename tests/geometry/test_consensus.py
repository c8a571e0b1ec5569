import numpy as np
import pytest
import torch
from torchvision.ops import box_iou as oracle_iou

from poise.geometry.consensus import ENOUGH, box_iou, consensus_scores
from poise.skeletons import Skeleton
from poise.types import Poses

TWO = Skeleton("two", ("a", "b"), ((0, 1),), (), (0.1, 0.1))


def _poses(corners: list[tuple[float, float, float, float]], scores: list[float]) -> Poses:
    """Each pose is the two corners of its box."""
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    return Poses(boxes.reshape(-1, 2, 2), np.ones((len(boxes), 2)), boxes, np.array(scores), TWO)


def test_box_iou_equals_torchvision() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (2, 8, 2)).astype(np.float32)
    a, b = (np.concatenate([part, part + rng.uniform(1, 15, (8, 2))], 1).astype(np.float32) for part in low)
    np.testing.assert_allclose(box_iou(a, b), oracle_iou(torch.tensor(a), torch.tensor(b)).numpy(), rtol=1e-5)
    assert box_iou(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)) == 0


def test_closed_form() -> None:
    """Three equal candidates of score 0.5 agree wholly: support 1.5."""
    candidates = _poses([(0, 0, 10, 20)] * 3, [0.5] * 3)
    expected = 0.5 * 1.0 * 1.5 / (1.5 + ENOUGH)
    np.testing.assert_allclose(consensus_scores(candidates[:1], candidates), [expected], rtol=1e-5)


def test_agreement_is_worth_more_than_numbers_that_disagree() -> None:
    same, away = [(0, 0, 10, 20)] * 4, [(0, 0, 10, 20), (4, 0, 14, 20), (0, 5, 10, 25), (3, 6, 13, 26)]
    shift = [(x1 + 100, y1, x2 + 100, y2) for x1, y1, x2, y2 in away]
    candidates = _poses([*same, *shift], [0.6] * 8)
    first, second = consensus_scores(candidates[[0, 4]], candidates)
    assert first > 2 * second
    assert 0 < second < first < 0.6


def test_far_candidates_do_not_count_and_frames_do_not_matter() -> None:
    near = _poses([(0, 0, 10, 20), (1, 0, 11, 20)], [0.9, 0.4])
    far = _poses([(500, 500, 520, 540)], [0.9])
    alone = consensus_scores(near[:1], near)
    np.testing.assert_allclose(consensus_scores(near[:1], Poses.concatenate([near, far])), alone, rtol=1e-6)
    bigger = _poses([(7, 7, 57, 107), (12, 7, 62, 107)], [0.9, 0.4])
    np.testing.assert_allclose(consensus_scores(bigger[:1], bigger), alone, rtol=1e-4)


@pytest.mark.parametrize("count", [0, 3])
def test_nobody(count: int) -> None:
    candidates = _poses([(0, 0, 5, 5)] * count, [0.5] * count)
    assert consensus_scores(candidates[:0], candidates).shape == (0,)
    empty_box = _poses([(5, 5, 5, 5)], [0.7])
    assert consensus_scores(empty_box, empty_box).tolist() == [0.0]
