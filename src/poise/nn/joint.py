"""Deformable convolution of several maps of different sizes at once, and 3x3 convolutions at some of their cells.

A feature pyramid's coarse maps have so few cells that starting the operators takes longer than what they do. Here the
cells of all maps stand one after the other: one plan, one gather, one product serve them all.

Letters: B images, L maps, C channels, h w size of a map, P cells of all maps together, G offset groups, T taps,
c channels of a table's row (C / G), n chosen cells, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from poise.nn.gathered import gathered_products, product, weighted_rows

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

Size = tuple[int, int]
Made = TypeVar("Made")
SIDE = 3
"""Of the kernels; their step is one, and they are padded so that sizes stay."""
TAPS = SIDE * SIDE
MARGIN = 2
"""Cells of zeros around a map in a table."""
KEPT = 4
"""For so many lists of sizes what follows from them is kept."""
FEW = 4
"""Outputs up to which a convolution at many cells gathers what cells contribute, not the cells."""


class Cells(NamedTuple):
    """The cells of several maps, one map after the other, row-major inside a map."""

    sizes: tuple[Size, ...]
    """(h, w) of each map."""
    rows: Tensor
    """(P,) int64, inside the map."""
    columns: Tensor
    """(P,) int64."""
    heights: Tensor
    """(P,) int64, of the map."""
    widths: Tensor
    """(P,) int64."""
    maps: Tensor
    """(P,) int64, number of the map."""

    def __len__(self) -> int:
        return sum(h * w for h, w in self.sizes)

    def around(self, index: Tensor) -> Tensor:
        """(n, 9) int64: the 3x3 neighbourhoods of cells (n,), row-major; P where they leave the map."""
        step = torch.arange(-1, SIDE - 1, device=index.device)
        down, right = step.repeat_interleave(SIDE), step.repeat(SIDE)
        width = self.widths[index][:, None]
        row, column = self.rows[index][:, None] + down, self.columns[index][:, None] + right
        inside = (row >= 0) & (row < self.heights[index][:, None]) & (column >= 0) & (column < width)
        return torch.where(inside, index[:, None] + down * width + right, len(self))


def cells_of(sizes: Sequence[Size], device: torch.device) -> Cells:
    """The cells of maps of ``sizes``; not to be written to, as they are kept for the next picture of that size."""
    return kept(_cells_of, tuple(sizes), device)


@lru_cache(maxsize=KEPT)
def _cells_of(sizes: tuple[Size, ...], device: torch.device) -> Cells:
    counts = torch.tensor([h * w for h, w in sizes], device=device)
    maps = torch.arange(len(sizes), device=device).repeat_interleave(counts)
    sides = torch.tensor([*sizes], device=device)[maps]
    place = torch.arange(len(maps), device=device) - (counts.cumsum(0) - counts)[maps]
    width = sides[:, 1]
    row = torch.div(place, width, rounding_mode="floor")
    return Cells(sizes, row, place - row * width, sides[:, 0], width, maps)


def kept(make: _lru_cache_wrapper[Made], *arguments: Any) -> Made:
    """What ``make`` made before for such sizes, or makes now, to be used in whatever mode."""
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return make.__wrapped__(*arguments)
    with torch.inference_mode(False):
        return make(*arguments)


def joined(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h, w) as (B, P, C)."""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], 1)


def parted(values: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """The reverse of `joined`: views, channels last in memory."""
    parts = values.split([h * w for h, w in sizes], 1)
    return [part.unflatten(1, size).permute(0, 3, 1, 2) for part, size in zip(parts, sizes, strict=True)]


class JointPlan(NamedTuple):
    """Which rows of a joint table each cell's taps read, and how much of each of the four.

    Attributes:
        rows: (B, P, T, G, 4) int32.
        weights: (B, P, T, G, 4), float32 at least.
    """

    rows: Tensor
    weights: Tensor


class TapGrid(NamedTuple):
    """What a joint plan needs to know of each cell, tap and offset group (P, T, G), whatever the offsets.

    Spread out in memory: an operator that repeats a number for each tap takes several times as long.
    """

    top: Tensor
    """Row that the tap reads without an offset."""
    left: Tensor
    """Column, likewise."""
    heights: Tensor
    """Of the cell's map."""
    widths: Tensor
    """Likewise."""
    below: Tensor
    """int32: rows of the table from a cell to the one below it."""
    first: Tensor
    """int32: row of the table of the map's first cell."""
    end: int
    """Rows of the table."""


@lru_cache(maxsize=KEPT)
def _tap_grid(sizes: tuple[Size, ...], groups: int, dtype: torch.dtype, device: torch.device) -> TapGrid:
    cells = _cells_of(sizes, device)
    step = torch.arange(-1, SIDE - 1, device=device)
    counts = _padded_counts(sizes)
    ends = (torch.tensor(counts, device=device) * groups).cumsum(0)
    first = (ends - torch.tensor(counts, device=device) * groups)[cells.maps]

    def spread(values: Tensor, kind: torch.dtype) -> Tensor:
        return values.expand(len(cells), TAPS, groups).to(kind).contiguous()

    return TapGrid(
        spread((cells.rows[:, None] + step.repeat_interleave(SIDE))[..., None], dtype),
        spread((cells.columns[:, None] + step.repeat(SIDE))[..., None], dtype),
        spread(cells.heights[:, None, None], dtype),
        spread(cells.widths[:, None, None], dtype),
        spread(((cells.widths + 2 * MARGIN) * groups)[:, None, None], torch.int32),
        spread(first[:, None, None] + torch.arange(groups, device=device), torch.int32),
        sum(counts) * groups,
    )


def joint_plan(offsets: Sequence[Tensor], cells: Cells) -> JointPlan:
    """The plan of 3x3 deformable convolutions, as `poise.nn.deformable.sampling_plan` makes it for one map.

    Args:
        offsets: of each map, (B, 2 G T, h, w) in cells: by offset group, then tap, then (dy, dx).
        cells: of the maps.
    """
    planar = joined(offsets)
    planar = planar.to(torch.promote_types(planar.dtype, torch.float32))
    planar = planar.unflatten(2, (-1, TAPS, 2)).permute(4, 0, 1, 3, 2).contiguous()  # (2, B, P, T, G)
    groups = planar.shape[-1]
    grid = kept(_tap_grid, cells.sizes, groups, planar.dtype, planar.device)
    row, down = _cell(planar[0] + grid.top, grid.heights)
    column, right = _cell(planar[1] + grid.left, grid.widths)
    first = row * grid.below + (column * groups if groups > 1 else column) + grid.first
    up, back = 1 - down, 1 - right
    second = first + grid.below
    rows = torch.stack([first, first + groups, second, second + groups], -1)
    rows.clamp_(0, grid.end - 1)  # what was no number may have become any
    return JointPlan(rows, torch.stack([up * back, up * right, down * back, down * right], -1))


def joint_table(maps: Sequence[Tensor], groups: int, dtype: torch.dtype) -> Tensor:
    """Maps (B, C, h, w), each with `MARGIN` cells of zeros around it, as one table (B, R, c)."""
    batch, channels = maps[0].shape[:2]
    counts = _padded_counts([(m.shape[2], m.shape[3]) for m in maps])
    table = maps[0].new_zeros(batch, sum(counts), channels, dtype=dtype)
    for part, m in zip(table.split(counts, 1), maps, strict=True):
        height, width = m.shape[2:]
        padded = part.view(batch, height + 2 * MARGIN, width + 2 * MARGIN, channels)
        padded[:, MARGIN : MARGIN + height, MARGIN : MARGIN + width].copy_(m.permute(0, 2, 3, 1))
    return table.view(batch, sum(counts) * groups, channels // groups)


def joint_deform_conv2d(maps: Sequence[Tensor], weight: Tensor, plan: JointPlan) -> Tensor:
    """(B, P, O): the deformable convolution of maps (B, C, h, w) with one kernel (O, C, 3, 3)."""
    table = joint_table(maps, plan.rows.shape[3], plan.weights.dtype)
    done = gathered_products([table], plan.rows, plan.weights, [_matrix(weight)])[0]
    return done.view(*plan.rows.shape[:2], -1)


def joint_deform_conv2d_at(table: Tensor, weight: Tensor, plan: JointPlan, image: int, index: Tensor) -> Tensor:
    """(n, O): the same at some cells of one image, from the image's `joint_table` (R, c)."""
    rows, weights = (part[image].index_select(0, index) for part in plan)
    return product(weighted_rows(table, rows, weights), _matrix(weight), rows.shape[:2])


def conv3x3_around(convolution: nn.Conv2d, values: Tensor, around: Tensor) -> Tensor:
    """The output (n, O) of a plain 3x3 convolution at some cells.

    Args:
        convolution: of one group, with padding 1.
        values: (P + 1, C) of all cells; the last row is zero.
        around: (n, 9) rows of ``values``, of `Cells.around`.
    """
    kernel = convolution.weight.flatten(2).permute(2, 1, 0)  # (9, C, O)
    if convolution.out_channels <= FEW and around.numel() > len(values):
        responses = values @ kernel.permute(1, 0, 2).flatten(1)  # what each cell adds to each output at each tap
        taps = torch.arange(TAPS, device=values.device)
        found = responses.unflatten(1, (TAPS, -1))[around, taps].sum(1)
    else:
        patches = values.index_select(0, around.flatten()).view(len(around), TAPS * values.shape[1])
        found = patches @ kernel.flatten(0, 1)
    result: Tensor = found if convolution.bias is None else found + convolution.bias
    return result


def _matrix(weight: Tensor) -> Tensor:
    """(1, T C, O) of a kernel (O, C, 3, 3); of one with its channels last a view."""
    return weight.permute(0, 2, 3, 1).flatten(1).t()[None]


def _padded_counts(sizes: Sequence[Size]) -> list[int]:
    return [(h + 2 * MARGIN) * (w + 2 * MARGIN) for h, w in sizes]


def _cell(coordinate: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """The cell (int32) before a coordinate (B, P, T, G), counted in the table, and the fraction beyond it.

    What lies outside reads zeros; what is no number becomes no number, and any cell.
    """
    bounded = torch.minimum(coordinate.clamp_(min=-MARGIN), sides)
    before = bounded.floor()
    fraction = bounded.sub_(before)
    return before.to(torch.int32) + MARGIN, fraction
