"""Reading feature maps at fractional positions, and convolutions at a few positions only.

Letters: B images, C channels, H W feature size, n positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sample_bilinear(features: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples with zeros outside: a neighbour outside the map contributes 0.

    Equal to a 1x1 deformable convolution with identity weights.

    Args:
        features: (B, C, H, W).
        x: (B, p, q) columns, in cells, integer = cell centre.
        y: (B, p, q) rows.

    Returns:
        (B, C, p, q).
    """
    height, width = features.shape[-2:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(features, grid.to(features.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


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
    return patches.masked_fill_(~inside.flatten()[:, None], 0).reshape(len(rows), 9, channels)


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
    patches = gather_patches(features, rows, columns)
    weight = convolution.weight.flatten(2).transpose(1, 2)  # (outputs, 9, C / groups)
    if groups == 1:
        result = patches.flatten(1) @ weight.flatten(1).T
    else:
        parts = patches.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2)
        result = (parts @ weight.unflatten(0, (groups, -1)).flatten(2).transpose(1, 2)).permute(1, 0, 2).flatten(1)
    return result.reshape(len(rows), outputs) if convolution.bias is None else result + convolution.bias
