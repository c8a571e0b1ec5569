"""Deformable convolution of several maps of different sizes at once, and 3x3 convolutions at some of their cells.

A feature pyramid's coarse maps have so few cells that starting the operators takes longer than what they do. Here the
cells of all maps stand one after the other: one plan, one gather, one product serve them all.

Letters: B images, L maps, C channels, h w size of a map, P cells of all maps together, G offset groups, T taps,
c channels of a table's row (C / G), n chosen cells, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from poise.nn.gathered import gathered_products, product, weighted_rows

Size = tuple[int, int]
SIDE = 3
"""Of the kernels; their step is one, and they are padded so that sizes stay."""
TAPS = SIDE * SIDE
MARGIN = 2
"""Cells of zeros around a map in a table."""
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
    """The cells of maps of ``sizes``."""
    counts = torch.tensor([h * w for h, w in sizes], device=device)
    maps = torch.arange(len(sizes), device=device).repeat_interleave(counts)
    sides = torch.tensor([*sizes], device=device)[maps]
    place = torch.arange(len(maps), device=device) - (counts.cumsum(0) - counts)[maps]
    width = sides[:, 1]
    row = torch.div(place, width, rounding_mode="floor")
    return Cells(tuple(sizes), row, place - row * width, sides[:, 0], width, maps)


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
    step = torch.arange(-1, SIDE - 1, device=planar.device)
    top = (cells.rows[:, None] + step.repeat_interleave(SIDE))[..., None]
    left = (cells.columns[:, None] + step.repeat(SIDE))[..., None]
    row, down = _cell(planar[0] + top, cells.heights)
    column, right = _cell(planar[1] + left, cells.widths)
    below = ((cells.widths + 2 * MARGIN) * groups).to(torch.int32)[:, None, None]
    group = torch.arange(groups, dtype=torch.int32, device=planar.device)
    first = row * below + column * groups + (_starts(cells.sizes, groups, cells.maps)[:, None, None] + group)
    up, back = 1 - down, 1 - right
    rows = torch.stack([first, first + groups, first + below, first + below + groups], -1)
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


def _starts(sizes: Sequence[Size], groups: int, maps: Tensor) -> Tensor:
    """(P,) int32: first row of its map's part of a table, for cells of ``maps``."""
    counts = torch.tensor(_padded_counts(sizes), dtype=torch.int32, device=maps.device) * groups
    return (counts.cumsum(0, dtype=torch.int32) - counts)[maps]


def _cell(coordinate: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """The cell before a coordinate (B, P, T, G), counted in the table, and the fraction beyond it.

    What lies outside, or is no number, reads zeros or becomes no number, but is never an address outside the table (see
    `poise.nn.deformable`).
    """
    limit = sides.to(coordinate.dtype)[:, None, None]
    bounded = torch.minimum(coordinate.clamp(min=-MARGIN), limit)
    before = bounded.floor()
    cell = torch.minimum(before.to(torch.int32).clamp(min=-MARGIN), sides.to(torch.int32)[:, None, None])
    return cell + MARGIN, bounded - before
