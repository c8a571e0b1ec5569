import numpy as np
import pytest

from poise.geometry import nms
from poise.geometry.nms import Suppression, mutual_oks_nms, soft_box_nms, soft_oks_nms
from poise.skeletons import COCO17


def _iou(a: np.ndarray, b: np.ndarray, extra: float) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low + extra, 0))
    return float(shared / (np.prod(a[2:] - a[:2] + extra) + np.prod(b[2:] - b[:2] + extra) - shared))


def _brute(scores: np.ndarray, similarity: np.ndarray, rule: Suppression) -> list[tuple[int, float]]:
    left = {i: float(s) for i, s in enumerate(scores)}
    taken = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        taken.append((best, left.pop(best)))
        for i in list(left):
            s = float(similarity[best, i])
            if rule.method == "gaussian":
                left[i] *= np.exp(-(s**2) / rule.sigma)
            elif rule.method == "linear":
                left[i] *= 1 - s if s > rule.threshold else 1
            elif s >= rule.threshold:
                left[i] = 0.0
            if left[i] < rule.min_score:
                del left[i]
    return taken


RULES = [
    Suppression(), Suppression(threshold=0.6, min_score=0.05), Suppression(inclusive=False),
    Suppression(method="gaussian", sigma=0.3), Suppression(method="hard", threshold=0.5),
]  # fmt: skip


def _boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 40, (count, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("limit", [0, 1, 9])
@pytest.mark.parametrize("few", [49, 50], ids=["one by one", "all at once"])
def test_boxes_equal_brute_force(rule: Suppression, limit: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms, "FEW", few)
    boxes = _boxes(50)
    scores = np.random.default_rng(2).permutation(50).astype(np.float32) / 50
    similarity = np.array([[_iou(a, b, float(rule.inclusive)) for b in boxes] for a in boxes])
    expected = _brute(scores, similarity, rule)[: limit or None]
    kept = soft_box_nms(boxes, scores, rule, limit)
    assert kept.indices.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(kept.scores, [s for _, s in expected], rtol=1e-4, atol=1e-6)
    assert (np.diff(kept.scores) <= 0).all()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_poses_equal_brute_force(rule: Suppression) -> None:
    rng = np.random.default_rng(4)
    groups = rng.uniform(0, 200, (5, 17, 2))
    keypoints = (groups.repeat(4, 0) + rng.normal(0, 6, (20, 17, 2))).astype(np.float32)
    scores = rng.permutation(20).astype(np.float32) / 20
    areas = np.ptp(keypoints, axis=1).prod(1)
    similarity = np.zeros((20, 20))
    for i in range(20):
        for j in range(20):
            d2 = ((keypoints[i] - keypoints[j]) ** 2).sum(1)
            similarity[i, j] = np.exp(-d2 / (2 * areas[i] * (2 * np.array(COCO17.sigmas)) ** 2)).mean()
    expected = _brute(scores, similarity, rule)
    kept = soft_oks_nms(keypoints, scores, COCO17.sigmas, rule)
    assert kept.indices.tolist() == [i for i, _ in expected]
    np.testing.assert_allclose(kept.scores, [s for _, s in expected], rtol=1e-4, atol=1e-6)
    assert len(kept.indices) >= 5


def test_of_equal_scores_the_first_is_taken_first() -> None:
    boxes = np.array([[0, 0, 9, 9], [50, 50, 59, 59], [100, 0, 109, 9]], np.float32)
    assert soft_box_nms(boxes, np.full(3, 0.5, np.float32), Suppression()).indices.tolist() == [0, 1, 2]


def test_the_first_is_kept_however_low_it_is() -> None:
    boxes = np.array([[0, 0, 9, 9], [50, 50, 59, 59]], np.float32)
    kept = soft_box_nms(boxes, np.array([1e-5, 1e-6], np.float32), Suppression())
    assert kept.indices.tolist() == [0]


def test_degenerate_and_no_boxes() -> None:
    rule = Suppression(inclusive=False)
    points = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    kept = soft_box_nms(points, np.array([0.4, 0.6], np.float32), rule)
    assert kept.indices.tolist() == [1, 0]
    assert np.isfinite(kept.scores).all()
    assert soft_box_nms(points[:0], np.zeros(0, np.float32), rule).indices.tolist() == []
    none = soft_oks_nms(np.zeros((0, 17, 2), np.float32), np.zeros(0, np.float32), COCO17.sigmas, rule)
    assert none.scores.shape == (0,)


def test_oks_of_the_keypoints_that_count() -> None:
    """The second pose resembles the first in the half that both have seen, and is elsewhere in the other."""
    rng = np.random.default_rng(6)
    first = rng.uniform(0, 100, (17, 2)).astype(np.float32)
    second = first + np.where(np.arange(17)[:, None] < 8, 0, 500).astype(np.float32)
    keypoints, scores = np.stack([first, second]), np.array([0.9, 0.8], np.float32)
    areas, rule = np.full(2, 1e4, np.float32), Suppression(method="hard", threshold=0.9)

    def kept(seen: np.ndarray | None) -> list[int]:
        return mutual_oks_nms(keypoints, scores, areas, COCO17.sigmas, rule, counted=seen).indices.tolist()

    seen = np.arange(17) < np.array([[8], [17]])
    assert kept(None) == [0, 1]
    assert kept(seen) == [0]
    assert kept(np.arange(17) < np.array([[9], [17]])) == [0, 1]
    assert kept(np.zeros((2, 17), np.bool_)) == [0, 1]


def test_the_input_is_not_written_to() -> None:
    boxes, scores = _boxes(20), np.linspace(0.9, 0.1, 20, dtype=np.float32)
    before = scores.copy()
    soft_box_nms(boxes, scores, Suppression())
    np.testing.assert_array_equal(scores, before)
