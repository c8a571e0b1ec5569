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
        features: (C, H, W) of one image.
        rows: (n,) integer rows.
        columns: (n,) integer columns.

    Returns:
        (n, C, 9), taps in row-major order.
    """
    padded = F.pad(features, (1, 1, 1, 1))
    shift = torch.arange(3, device=features.device)
    r = rows[:, None] + shift.repeat_interleave(3)
    c = columns[:, None] + shift.repeat(3)
    return padded[:, r, c].permute(1, 0, 2)


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
    groups = convolution.groups
    patches = gather_patches(features, rows, columns).reshape(len(rows), groups, 9 * features.shape[0] // groups)
    weight = convolution.weight.reshape(groups, convolution.out_channels // groups, -1)
    result = torch.einsum("ngc,goc->ngo", patches, weight).reshape(len(rows), convolution.out_channels)
    return result if convolution.bias is None else result + convolution.bias
