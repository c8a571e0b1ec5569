import math

import pytest
import torch

from poise.models import dense
from poise.types import Persons

SIZES, STRIDES = [(8, 10), (4, 5), (2, 3)], (8, 16, 32)
RANGES = ((-1.0, 16.0), (16.0, 32.0), (32.0, 1e8))


def _grid() -> dense.Grid:
    return dense.make_grid(SIZES, STRIDES, torch.device("cpu"))


def test_locations_are_row_major_with_half_a_stride() -> None:
    grid = _grid()
    assert grid.points[:2].tolist() == [[4, 4], [12, 4]]
    assert grid.points[10].tolist() == [4, 12]
    assert grid.points[80].tolist() == [8, 8]
    assert len(grid.points) == 80 + 20 + 6


def _brute_owner(
    x: float, y: float, s: float, level: int, boxes: list[list[float]], radius: float | None, extra: float
) -> int:
    best, owner = math.inf, -1
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        sides = (x - x1, y - y1, x2 - x, y2 - y)
        if radius is None:
            inside = min(sides) > 0
        else:
            cx, cy, r = (x1 + x2) / 2, (y1 + y2) / 2, radius * s
            inside = max(x1, cx - r) < x < min(x2, cx + r) and max(y1, cy - r) < y < min(y2, cy + r)
        low, high = RANGES[level]
        area = (x2 - x1 + extra) * (y2 - y1 + extra)
        if inside and low <= max(sides) <= high and area < best:
            best, owner = area, i
    return owner


@pytest.mark.parametrize("radius", [1.5, 0.75, None])
@pytest.mark.parametrize("inclusive", [True, False])
def test_assign_equals_brute_force(radius: float | None, inclusive: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(12, 2, generator=generator) * 60
    boxes = torch.cat([low, low + torch.rand(12, 2, generator=generator) * 50 + 2], 1)
    boxes = torch.cat([boxes, boxes[:2]])
    grid = _grid()
    owner = dense.assign(grid, boxes, ranges=RANGES, radius=radius, inclusive_area=inclusive)
    expected = [
        _brute_owner(*p, s, level, boxes.tolist(), radius, float(inclusive))
        for p, s, level in zip(grid.points.tolist(), grid.strides.tolist(), grid.levels.tolist(), strict=True)
    ]
    assert owner.tolist() == expected
    assert (owner >= 0).sum() > 10


def test_range_ends_are_inclusive() -> None:
    """The location (8, 8) of stride 16 is exactly 16 px from the right side of the first box, 32 of the second."""
    grid = _grid()
    index = 80
    for right, expected in ((24.0, 0), (40.0, 0), (40.5, -1), (23.5, -1)):
        box = torch.tensor([[0.0, 0.0, right, 16.0]])
        assert dense.assign(grid, box, ranges=RANGES, radius=None)[index] == expected


def test_nobody() -> None:
    matched = dense.match(_grid(), [Persons.empty(3)] * 2, ranges=RANGES)
    assert (matched.owner == -1).all()
    assert not matched.ignored.any()


def test_ignore_regions_never_hide_positives() -> None:
    truth = Persons.from_numpy([[[20, 20, 2]]], [[10, 10, 30, 30]], [400], [[0, 0, 40, 40]])
    matched = dense.match(_grid(), [truth], ranges=RANGES)
    positive = matched.owner[0] >= 0
    assert positive.any()
    assert not (matched.ignored[0] & positive).any()
    inside = (_grid().points <= 40).all(-1)
    assert (matched.ignored[0] == (inside & ~positive)).all()


def test_centerness() -> None:
    assert dense.centerness(torch.tensor([[2.0, 3, 2, 3]])).item() == 1
    assert dense.centerness(torch.tensor([[1.0, 3, 4, 3]])).item() == pytest.approx(0.5)


def test_pick_cuts_by_rank_and_keeps_the_order() -> None:
    scores = torch.tensor([0.9, 0.04, 0.5, 0.6, 0.05])
    rank = torch.tensor([0.1, 1.0, 0.3, 0.2, 1.0])
    assert dense.pick(scores, rank, 0.05, 0).tolist() == [0, 2, 3]
    assert dense.pick(scores, rank, 0.05, 2).tolist() == [2, 3]
    assert dense.pick(scores[:0], rank[:0], 0.05, 2).tolist() == []


def test_flatten_keeps_level_and_row_order() -> None:
    maps = [torch.arange(6.0).reshape(1, 1, 2, 3), torch.tensor([[[[9.0]]]])]
    assert dense.flatten_levels(maps)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 9]
