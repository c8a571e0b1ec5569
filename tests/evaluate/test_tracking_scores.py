"""MOTA, IDF1 and switches, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from poise.evaluate.tracking import tracking_scores
from poise.skeletons import COCO17
from poise.types import Poses


def frame(*people):
    """People (id, x): each the same figure of 100 x 200 px, moved to x."""
    shape = np.random.default_rng(0).uniform((0, 0), (100, 200), (17, 2))
    points = np.array([np.add(shape, (x, 0)) for _, x in people]).reshape(-1, 17, 2)
    boxes = np.array([(x, 0, x + 100, 200) for _, x in people]).reshape(-1, 4)
    n = len(people)
    return Poses(points, np.ones((n, 17)), boxes, np.ones(n), COCO17, ids=np.array([i for i, _ in people], int))


A, B = (1, 0), (2, 500)


def test_all_right():
    video = [frame(A, B)] * 4
    result = tracking_scores(video, [frame((9, 500), (5, 0))] * 4)
    assert result == (1, 1, 0, 0, 0, 8, 1)


def test_a_switch_a_miss_and_a_false_alarm():
    truth = [frame(A, B)] * 4
    found = [frame((1, 0), (2, 500)), frame((1, 0), (2, 500), (3, 900)), frame((2, 0), (1, 500)), frame((2, 0))]
    result = tracking_scores(truth, found)
    assert (result.switches, result.misses, result.false_positives, result.truth) == (2, 1, 1, 8)
    assert result.mota == pytest.approx(1 - 4 / 8)
    # best assignment: A = 1 and B = 2 agree in 4 of 8 true and 8 found poses; A = 2 and B = 1 in 3
    assert result.idf1 == pytest.approx(2 * 4 / (8 + 8))
    assert result.mostly_tracked == 0.5


def test_a_gap_is_no_switch_if_the_id_comes_back():
    result = tracking_scores([frame(A)] * 3, [frame((4, 0)), frame(), frame((4, 0))])
    assert (result.switches, result.misses) == (0, 1)
    other = tracking_scores([frame(A)] * 3, [frame((4, 0)), frame(), frame((5, 0))])
    assert (other.switches, other.misses) == (1, 1)
    assert other.idf1 == pytest.approx(2 * 1 / (3 + 2))


def test_who_is_followed_is_kept_even_if_another_fits_better():
    found = [frame((1, 0)), frame((1, 8), (2, 0))]
    result = tracking_scores([frame(A)] * 2, found)
    assert (result.switches, result.false_positives) == (0, 1)


def test_two_with_the_same_last_id_share_nothing():
    truth = [frame(A), frame(B), frame((1, 0), (2, 4))]
    result = tracking_scores(truth, [frame((7, 0)), frame((7, 500)), frame((7, 0))])
    assert (result.misses, result.false_positives) == (1, 0)


def test_poses_without_an_id_do_not_count():
    result = tracking_scores([frame(A)], [frame((-1, 0))])
    assert (result.misses, result.false_positives, result.idf1) == (1, 0, 0)


def test_nobody():
    empty = [frame()] * 2
    assert tracking_scores(empty, empty) == (1, 0, 0, 0, 0, 0, 0)
    assert tracking_scores([], []).truth == 0
    assert tracking_scores([frame(A)] * 2, empty).misses == 2
    assert tracking_scores(empty, [frame(A)] * 2).false_positives == 2
    nobody_to_follow = [Poses.empty()] * 2
    assert tracking_scores([frame(A)] * 2, nobody_to_follow).misses == 2


def test_mistakes():
    with pytest.raises(ValueError, match="truth has 1 frames, the result 0"):
        tracking_scores([frame()], [])
    with pytest.raises(ValueError, match="needs poses with ids"):
        tracking_scores([replace(frame(A), ids=None)], [frame(A)])
