"""SMPR's head as a graph: refinement and quality at some cells only, without Python's control flow.

As in `poise.models.smpr_lazy` the cells of all levels stand one after the other, so that one set of operators serves
them all: a runtime spends more on starting an operator for a coarse level than the operator does. Sizes may be symbols.

Letters: L levels, C channels, h w feature size of a level, P cells of all levels, n chosen cells, m those and their
neighbours, T taps (9), G offset groups, K keypoints, R rows of a table. Every list of chosen cells ends with cell 0,
which stands for nobody: no tensor is then ever empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d as operator_for_them

from poise.models.dense import precise
from poise.models.smpr import FeatureAlignment, SMPRHead
from poise.nn.gathered import product
from poise.nn.joint import MARGIN, SIDE, TAPS, joined

STEP = 1
"""Of the 3x3 kernels: also their padding and dilation."""


class Cells(NamedTuple):
    """Where some of the cells of all levels are."""

    rows: Tensor
    """(n,) int64, inside the level."""
    columns: Tensor
    """(n,) int64."""
    heights: Tensor
    """(n,) int64, of the level."""
    widths: Tensor
    """(n,) int64."""
    starts: Tensor
    """(n,) int64: the level's first cell."""
    origins: Tensor
    """(n,) int64: the level's first cell in a table, in which `MARGIN` cells of zeros are around each level."""

    def at(self, index: Tensor) -> Cells:
        """Those of them."""
        return Cells(*(part.index_select(0, index) for part in self))

    def around(self, count: int) -> Tensor:
        """(n, 9) int64: the 3x3 neighbourhoods of the cells, row-major; ``count`` where they leave the level."""
        rows, columns = self.rows[:, None] + _down(self.rows), self.columns[:, None] + _right(self.rows)
        inside = (rows >= 0) & (rows < self.heights[:, None]) & (columns >= 0) & (columns < self.widths[:, None])
        return torch.where(inside, self.starts[:, None] + rows * self.widths[:, None] + columns, count)


class SMPRLevels:
    """What is computed for all cells of all levels of one picture.

    The operator is quicker where a format and its runtime have it: on one core, a convolution of 96 channels in maps of
    48 x 64 with four offset groups takes onnxruntime 16 ms with the operator and 52 ms with gathers and a product; the
    default model's files are 0.8 ms quicker with it in OpenVINO (`poise.export.openvino_files`), on two cores. In torch
    gathers are the quicker way.

    Args:
        head: of the model.
        features: (1, C, h, w) of each level.
        operator: compute the class tower's deformable convolution by the operator for it.

    Attributes:
        counts: cells of each level.
        logits: (P,) person logits.
    """

    def __init__(self, head: SMPRHead, features: Sequence[Tensor], operator: bool) -> None:
        self.head = head
        sizes = [(f.shape[2], f.shape[3]) for f in features]
        self.counts = [h * w for h, w in sizes]
        self._places = sum((h + 2 * MARGIN) * (w + 2 * MARGIN) for h, w in sizes)
        self._cells = _cells(sizes, features[0].device)
        self._around = self._cells.around(sum(self.counts))
        towers = [head.pose_tower(f) for f in features]
        maps = [head.initial_poses(number, tower) for number, tower in enumerate(towers)]
        self._initial = joined(maps)[0]
        persons = [head.person_tower(f) for f in features]
        if head.align is None:
            self.logits = _logits(head, persons)
            return
        self._table = _table(towers, head.align)
        if operator:
            shifts = [head.align.offset(initial) for initial in maps]
            weight = head.align.person.weight
            pairs = zip(persons, shifts, strict=True)
            self.logits = _logits(head, [F.relu(operator_for_them(p, s, weight, padding=STEP)) for p, s in pairs])
            self._offsets = joined(shifts)[0]
            return
        self._offsets = self._initial @ head.align.offset.weight.flatten(1).T
        self.logits = self._summed(head.logits, self._aligned(_table(persons, head.align), head.align.person))

    def at(self, chosen: Tensor, quality: bool) -> SMPRCells:
        """Poses, and if wanted their quality, at the cells where (P,) is true."""
        index = _with_last(chosen)
        initial = self._initial.index_select(0, index)
        if self.head.align is None:
            return SMPRCells(index, initial, None)
        assert self.head.refined is not None
        assert self.head.refined_scales is not None
        patches = self._patches(chosen, index)
        counted = zip(self.head.refined_scales, self.counts, strict=True)
        factors = torch.cat([scale(initial.new_ones(count)) for scale, count in counted])
        factor = factors.index_select(0, index)[:, None]
        if not quality or self.head.quality is None:
            (moves,) = _convolved([self.head.refined], patches)
            return SMPRCells(index, initial + factor * moves, None)
        moves, marks = _convolved([self.head.refined, self.head.quality], patches)
        return SMPRCells(index, initial + factor * moves, precise(marks[:, 0]).sigmoid())

    def _patches(self, chosen: Tensor, index: Tensor) -> Tensor:
        """(n, 9 C) aligned features of the pose tower around cells; zeros outside a level; each is computed once."""
        assert self.head.align is not None
        there = torch.cat([chosen.to(torch.float32), torch.zeros_like(self._initial[:1, 0])])
        near = there.index_select(0, self._around.flatten()).reshape(-1, TAPS).amax(1) > 0
        features = self._aligned(self._table, self.head.align.pose, _with_last(near))
        features = torch.cat([features, torch.zeros_like(features[:1])])
        count = near.to(torch.int64).sum().reshape(1)  # its row is that of nobody, the next one is zero
        place = (torch.cumsum(near.to(torch.int64), 0) - 1).clamp(min=0)
        rows = torch.cat([place, count + 1]).index_select(0, self._around.index_select(0, index).flatten())
        return features.index_select(0, rows).reshape(-1, TAPS * features.shape[1])

    def _aligned(self, table: Tensor, convolution: nn.Conv2d, index: Tensor | None = None) -> Tensor:
        """Aligned features (P, C) or, at some cells, (n, C)."""
        offsets, cells = self._offsets, self._cells
        if index is not None:
            offsets, cells = offsets.index_select(0, index), cells.at(index)
        assert self.head.align is not None
        groups = _groups(self.head.align)
        return F.relu(_deformed(table, convolution.weight, offsets, cells, groups, groups * self._places))

    def _summed(self, convolution: nn.Conv2d, values: Tensor) -> Tensor:
        """(P,) of a 3x3 convolution with one output: what each cell (P, C) adds to each of its neighbours, summed."""
        assert convolution.bias is not None
        given = values @ convolution.weight[0].flatten(1)
        given = torch.cat([given, torch.zeros_like(given[:1])]).flatten()
        taps = torch.arange(TAPS, device=values.device)
        return given.index_select(0, (self._around * TAPS + taps).flatten()).reshape(-1, TAPS).sum(1) + convolution.bias


class SMPRCells(NamedTuple):
    """Poses and quality at some cells."""

    cells: Tensor
    """(n,) which."""
    poses: Tensor
    """(n, 2 K) in strides."""
    quality: Tensor | None
    """(n,) 0..1."""


def _cells(sizes: Sequence[tuple[int, int]], device: torch.device) -> Cells:
    """All cells; sizes may be symbols, so by sums alone."""
    parts, start, rows_before = [], 0, 0
    for height, width in sizes:
        rows = torch.arange(height, device=device)[:, None] + 0 * torch.arange(width, device=device)
        columns = 0 * rows + torch.arange(width, device=device)
        nothing = 0 * rows
        wide = width + 2 * MARGIN
        origin = rows_before + MARGIN * wide + MARGIN
        constant = (nothing + height, nothing + width, nothing + start, nothing + origin)
        parts.append([part.flatten() for part in (rows, columns, *constant)])
        start, rows_before = start + height * width, rows_before + (height + 2 * MARGIN) * wide
    return Cells(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _groups(align: FeatureAlignment) -> int:
    """G."""
    return align.offset.out_channels // (2 * TAPS)


def _table(maps: Sequence[Tensor], align: FeatureAlignment) -> Tensor:
    """Maps (1, C, h, w) of all levels as one table (R, C / G) of cells and, inside these, offset groups.

    At the end there are more zeros than lie between the first and the last of the four cells that a tap reads.
    """
    around = (MARGIN, MARGIN, MARGIN, MARGIN)
    parts = [F.pad(precise(m), around).permute(0, 2, 3, 1)[0] for m in maps]
    rows = torch.cat([part.flatten(0, 1) for part in (*parts, torch.zeros_like(parts[0][:2]))])
    return rows.reshape(-1, rows.shape[1] // _groups(align))


def _deformed(table: Tensor, weight: Tensor, offsets: Tensor, cells: Cells, groups: int, end: int) -> Tensor:
    """Deformable 3x3 convolution (n, O) at some cells.

    Args:
        table: (R, C / G) of all cells.
        weight: (O, C, 3, 3).
        offsets: (n, 2 G T), as `poise.nn.deformable` orders them.
        cells: (n) that are wanted.
        groups: G.
        end: rows of the table that taps may start from.
    """
    # float32 counts so far exactly, and runtimes fuse its operators, not those of integers
    kind = torch.float32 if isinstance(end, int) and end < 2**24 else torch.int32
    planar = precise(offsets).unflatten(1, (groups, TAPS, 2)).permute(3, 0, 2, 1).contiguous()  # (2, n, T, G)
    row, down = _before(planar[0], cells.rows[:, None] + _down(offsets), cells.heights)
    column, right = _before(planar[1], cells.columns[:, None] + _right(offsets), cells.widths)
    below = (cells.widths + 2 * MARGIN)[:, None, None] * groups
    origin = cells.origins[:, None, None] * groups + torch.arange(groups, device=offsets.device)
    first = row.to(kind) * below.to(kind) + column.to(kind) * groups + origin.to(kind)
    # what was no number may have become any: it must reach the output as a value, never as an address
    first = first.to(torch.int32).clamp(0, end - 1)
    below = below.to(torch.int32)
    up, back = 1 - down, 1 - right
    corners = ((0, up * back), (groups, up * right), (below, down * back), (below + groups, down * right))
    parts = [table.index_select(0, (first + step).flatten()) * share.reshape(-1, 1) for step, share in corners]
    kernel = weight.permute(2, 3, 1, 0).flatten(0, 2)[None]
    return product(parts[0] + parts[1] + parts[2] + parts[3], kernel, (offsets.shape[0], TAPS))


def _before(offsets: Tensor, grid: Tensor, sides: Tensor) -> tuple[Tensor, Tensor]:
    """The cell before coordinates (n, T, G), a whole number from -2 to the side, and the fraction beyond it.

    Args:
        offsets: (n, T, G).
        grid: (n, T) what they are added to.
        sides: (n,) of the levels: what lies outside reads zeros.
    """
    moved = (offsets + grid.to(offsets.dtype)[..., None]).clamp(min=-MARGIN)
    bounded = torch.minimum(moved, sides.to(offsets.dtype)[:, None, None])
    before = bounded.floor()
    return before, bounded - before


def _convolved(convolutions: Sequence[nn.Conv2d], patches: Tensor) -> list[Tensor]:
    """Outputs (n, O) of 3x3 convolutions of patches (n, 9 C), by one product."""
    weights = torch.cat([c.weight for c in convolutions]).permute(2, 3, 1, 0).flatten(0, 2)
    done = patches @ weights + torch.cat([c.bias for c in convolutions if c.bias is not None])
    ends = list(accumulate(c.out_channels for c in convolutions))
    # ``split`` would become a sequence in ONNX, which older versions of OpenVINO do not read
    return [done[:, end - c.out_channels : end] for c, end in zip(convolutions, ends, strict=True)]


def _logits(head: SMPRHead, persons: Sequence[Tensor]) -> Tensor:
    """(P,)."""
    return torch.cat([head.logits(person).flatten() for person in persons])


def _down(like: Tensor) -> Tensor:
    """(9,) int64: rows from a cell to its 3x3 neighbours."""
    return torch.arange(-STEP, SIDE - STEP, device=like.device).repeat_interleave(SIDE)


def _right(like: Tensor) -> Tensor:
    """(9,) int64: columns, likewise."""
    return torch.arange(-STEP, SIDE - STEP, device=like.device).repeat(SIDE)


def _with_last(chosen: Tensor) -> Tensor:
    """Where (P,) is true, and cell 0."""
    index = torch.nonzero(chosen).squeeze(1)
    return torch.cat([index, index.new_zeros(1)])
