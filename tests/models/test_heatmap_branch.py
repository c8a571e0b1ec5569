import numpy as np
import torch

from poise.models import heatmap_branch as hb
from poise.types import Persons

SIZE, STRIDE = (6, 7), 8


def _truth(points: list[list[list[float]]]) -> Persons:
    keypoints = np.array(points, np.float32)
    n = len(keypoints)
    boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], 1)
    return Persons.from_numpy(keypoints, boxes, np.ones(n), np.zeros((0, 4)))


def _brute_nearest(x: float, y: float) -> int:
    gaps = [max(abs(x - (j * 8 + 4)), abs(y - (i * 8 + 4))) for i in range(SIZE[0]) for j in range(SIZE[1])]
    return int(np.argmin(gaps))


def test_nearest_cells_equal_brute_force_also_outside_and_on_ties() -> None:
    rng = np.random.default_rng(0)
    xy = np.concatenate([rng.uniform(-30, 90, (40, 2)), [[8, 8], [4, 8], [16, 24], [-5, 100]]]).astype(np.float32)
    ours = hb.nearest_cells(torch.from_numpy(xy), SIZE, STRIDE)
    assert ours.tolist() == [_brute_nearest(*p) for p in xy.tolist()]


def test_binary_target() -> None:
    target = hb.binary_target([_truth([[[4, 4, 2], [12, 4, 1], [50, 40, 0]]]), Persons.empty(3)], SIZE, STRIDE, 3)
    assert torch.nonzero(target).tolist() == [[0, 0, 0, 0], [0, 1, 0, 1]]


def test_single_target_lets_the_later_point_win() -> None:
    labels = hb.single_target([_truth([[[4, 4, 2], [5, 5, 2]], [[3, 3, 2], [0, 0, 0]]])], SIZE, STRIDE)
    assert labels[0, 0, 0] == 1
    assert (labels > 0).sum() == 1


def test_gaussian_target_is_the_maximum_of_windows() -> None:
    target = hb.gaussian_target([_truth([[[16, 16, 2]], [[32, 16, 2]]])], SIZE, STRIDE, 1)
    column = np.arange(7)
    row = np.exp(-((column - 2) ** 2) / 8), np.exp(-((column - 4) ** 2) / 8)
    np.testing.assert_allclose(target.maps[0, 0, 2].numpy(), np.maximum(*row), rtol=1e-6)
    assert target.cells.tolist() == [[0, 0, 2, 2], [0, 0, 2, 4]]
    assert target.offset.abs().max() == 0


def test_gaussian_target_skips_cells_outside() -> None:
    target = hb.gaussian_target([_truth([[[500, 16, 2]]])], SIZE, STRIDE, 1)
    assert target.maps.sum() == 0
    assert len(target.cells) == 0


def test_unlabelled_mask() -> None:
    truth = Persons.from_numpy([[[4, 4, 2], [0, 0, 0]]], [[0, 0, 20, 20]], [400], [[40, 30, 56, 48]])
    mask = hb.unlabelled_mask([truth], SIZE, STRIDE, 2, margin=0.0)
    assert mask[0, 1, :3, :3].sum() == 9 - 5 or mask[0, 1, :2, :2].all()
    assert not mask[0, 0, :3, :3].any()
    assert mask[0, 0, 4:, 5:].all()


def test_nobody() -> None:
    empty = [Persons.empty(4)] * 2
    assert hb.binary_target(empty, SIZE, STRIDE, 4).sum() == 0
    assert hb.single_target(empty, SIZE, STRIDE).sum() == 0
    assert hb.gaussian_target(empty, SIZE, STRIDE, 4).maps.sum() == 0
    assert not hb.unlabelled_mask(empty, SIZE, STRIDE, 4).any()
