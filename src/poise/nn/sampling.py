"""Reading feature maps at fractional positions, and convolutions at a few positions only.

Letters: B images, C channels, H W feature size, n positions, G channel groups, g of them that are read, T taps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.gathered import weighted_rows

TAPS = 9
"""Of a 3x3 convolution."""
FEW = 4
"""Outputs of a group of a convolution up to which `conv3x3_at` gathers what cells contribute, not the cells."""


def sample_bilinear(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples with zeros outside: a neighbour outside the map contributes 0.

    Equal to a 1x1 deformable convolution with identity weights.

    Args:
        features: (B, C, H, W).
        x: (B, p, q) columns, in cells, integer = cell centre; float32 at least, whatever the features are: half
            precision holds no fraction of a column beyond the first few.
        y: (B, p, q) rows.

    Returns:
        (B, C, p, q), in the precision of the features.
    """
    height, width = features.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    mixed = features.dtype != grid.dtype
    wide = features.to(grid.dtype) if mixed else features
    sampled = F.grid_sample(wide, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.to(features.dtype) if mixed else sampled


def sample_groups(features: Tensor, x: Tensor, y: Tensor, groups: Sequence[int], total: int) -> Tensor:
    """`sample_bilinear` of one image at a few positions, with channel groups read at places of their own.

    Args:
        features: (C, H, W), quickest if the channels of a cell lie together in memory.
        x: (n, g) columns.
        y: (n, g) rows.
        groups: which group each of the g places reads.
        total: G, in which the channels are divided.

    Returns:
        (n, g, C / G).
    """
    channels, height, width = features.shape
    table = features.permute(1, 2, 0).reshape(-1, channels // total).to(x.dtype)
    left, across = _before(x, width)
    top, down = _before(y, height)
    columns, rows = torch.stack([left, left + 1, left, left + 1], -1), torch.stack([top, top, top + 1, top + 1], -1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    back, up = 1 - across, 1 - down
    weights = torch.stack([up * back, up * across, down * back, down * across], -1)
    own = torch.tensor(list(groups), device=x.device)[:, None]
    indices = torch.where(inside, (rows * width + columns) * total + own, 0)
    sampled = weighted_rows(table, indices, torch.where(inside, weights, 0.0))
    return sampled.reshape(*x.shape, channels // total)


def _before(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The cell (int64) before a coordinate, -2 to ``size`` however far away or NaN it is, and the fraction beyond."""
    bounded = coordinate.clamp(-2, size)
    floor = bounded.floor()
    return floor.to(torch.int64).clamp(-2, size), bounded - floor


def gather_patches(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """3x3 neighbourhoods (zero padded) of some cells.

    Args:
        features: (C, H, W) of one image; quickest if the channels of a cell lie together in memory.
        rows: (n,) integer rows.
        columns: (n,) integer columns.

    Returns:
        (n, 9, C), taps in row-major order.
    """
    channels, height, width = features.shape
    shift = torch.arange(-1, 2, device=features.device)
    r = rows[:, None] + shift.repeat_interleave(3)
    c = columns[:, None] + shift.repeat(3)
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    cells = (r * width + c).where(inside, torch.zeros_like(r)).flatten()
    patches = features.permute(1, 2, 0).reshape(-1, channels).index_select(0, cells)
    # zeros by choice, not by a factor: what lies at the first cell may be anything
    outside = torch.nonzero(~inside.flatten()).squeeze(1)
    return patches.index_fill_(0, outside, 0).reshape(len(rows), TAPS, channels)


def conv3x3_at(convolution: nn.Conv2d, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The output of a 3x3, stride 1, padding 1 (grouped) convolution at some cells only.

    Args:
        convolution: its groups must divide the channels, as always.
        features: (C, H, W) input map of one image.
        rows: (n,) integer rows.
        columns: (n,) integer columns.

    Returns:
        (n, out_channels), equal to the dense output up to float rounding.
    """
    groups, outputs = convolution.groups, convolution.out_channels
    weight = convolution.weight.flatten(2).transpose(1, 2)  # (outputs, 9, C / groups)
    cells = features.shape[1] * features.shape[2]
    if outputs <= FEW * groups and len(rows) * TAPS > cells:
        result = _by_responses(weight, groups, features, rows, columns)
    elif groups == 1:
        result = gather_patches(features, rows, columns).flatten(1) @ weight.flatten(1).T
    else:
        patches = gather_patches(features, rows, columns)
        parts = patches.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2)
        result = (parts @ weight.unflatten(0, (groups, -1)).flatten(2).transpose(1, 2)).permute(1, 0, 2).flatten(1)
    return result.reshape(len(rows), outputs) if convolution.bias is None else result + convolution.bias


def _by_responses(weight: Tensor, groups: int, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`conv3x3_at` (n, outputs) for many positions and few outputs, without gathering features.

    A product says what each cell would add to each output at each tap; the positions gather that from their
    neighbourhoods, which is a hundredth of the memory that the features there take.
    """
    channels, height, width = features.shape
    outputs = len(weight)
    by_cell = features.permute(1, 2, 0).reshape(-1, groups, channels // groups).transpose(0, 1)
    by_group = weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1).flatten(2)  # (groups, C / groups, 9 outputs)
    responses = (by_cell @ by_group).transpose(0, 1).unflatten(2, (TAPS, -1)).permute(2, 0, 1, 3)
    spread = responses.reshape(TAPS, height, width, outputs).permute(0, 3, 1, 2)
    found = features.new_zeros(len(rows), outputs)
    for tap, own in enumerate(spread):
        r, c = rows + tap // 3 - 1, columns + tap % 3 - 1
        inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        there = own[:, r.clamp(0, height - 1), c.clamp(0, width - 1)].T
        found += torch.where(inside[:, None], there, 0.0)
    return found
