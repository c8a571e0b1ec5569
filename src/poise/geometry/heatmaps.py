"""Heatmaps: drawing labels around keypoints and reading keypoints off peaks (RSN spec 8, 11).

Letters: B views, K keypoints, N maps, h w map size, k kernel size, r its radius (k - 1) / 2.
Frames: *cells* are pixels of a map; input px are cells times `STRIDE`. Maps live on a scale of 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDE = 4
"""Input pixels a cell."""
PEAK = 255.0
"""Height of a label's peak."""
Bounds = Literal["pixel", "cell"]
PeakRule = Literal["maximum", "keypoint"]

_BINOMIAL = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: tuple(v / 256 for v in (4, 13, 30, 51, 60, 51, 30, 13, 4)),
}
_BORDER = 10
"""Cells of zeros that the official decoder puts around a map; its peaks may lie there."""
_TEMPERATURE = 16.0
"""Maps that predict a place are divided by it: their values are then of a size with those that predict heights."""
_LEAST = 1e-6
"""Nothing in a logarithm or below a fraction is smaller."""
_SHIFT = 0.25
"""How far a peak moves towards its neighbour, cells."""


class Peaks(NamedTuple):
    """Keypoints read off maps."""

    points: Tensor
    """(..., 2) x, y, input px."""
    scores: Tensor
    """(...) height of the peak / 255; a clean peak has 1."""


def place_scores(maps: Tensor) -> Tensor:
    """Log-probabilities (..., h * w) of the cells of maps (..., h, w) that predict a place rather than a height."""
    return (maps.flatten(-2) / _TEMPERATURE).log_softmax(-1)


def place_heights(maps: Tensor, kernel: int) -> Tensor:
    """Maps (..., h, w) that predict a place, as heights: a map as sure as the label of that kernel size peaks at 255.

    Less sure maps are lower, so that peaks can be read, averaged and scored as those of maps that predict heights.
    """
    sure = max(gaussian_kernel(kernel)) ** 2
    return (PEAK * place_scores(maps).exp() / sure).clamp(max=PEAK).view_as(maps)


def gaussian_kernel(size: int) -> tuple[float, ...]:
    """The ``size`` weights (odd) of OpenCV's Gaussian with sigma 0: fixed tables up to 9, its formula above.

    Raises:
        ValueError: ``size`` is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a Gaussian kernel has an odd positive size, not {size}")
    if size in _BINOMIAL:
        return _BINOMIAL[size]
    radius = (size - 1) // 2
    sigma = 0.3 * (radius - 1) + 0.8
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    total = sum(weights)
    return tuple(w / total for w in weights)


# ------------------------------------------------------------------------------------------------------------ labels


def keypoint_cells(points: Tensor) -> Tensor:
    """Cells (..., 2) int64 of points (..., 2) in input px, truncated toward zero as the references do."""
    return (points / STRIDE).trunc().long()


def inside(points: Tensor, size: tuple[int, int], bounds: Bounds) -> Tensor:
    """Which points (..., 2) in input px are on a map of ``size`` (h, w): bool (...).

    ``pixel``: 0 <= x <= w_in - 1, likewise y (official). ``cell``: the truncated cell is on the map, which keeps
    points up to a cell outside the left and upper border (mmpose).
    """
    limit = points.new_tensor([size[1], size[0]])
    if bounds == "pixel":
        within = (points >= 0) & (points <= limit * STRIDE - 1)
    else:
        cells = keypoint_cells(points)
        within = (cells >= 0) & (cells < limit)
    return within.all(-1)


def draw_labels(cells: Tensor, drawn: Tensor, size: tuple[int, int], kernel: int, peak: PeakRule) -> Tensor:
    """One Gaussian a keypoint: a unit impulse blurred with reflected borders, then scaled.

    A blur is separable and the impulse is one cell, so a map is the outer product of two profiles.

    Args:
        cells: (..., 2) int64 x, y; cells off the map only where ``drawn`` is False.
        drawn: (...) bool; other maps stay zero.
        size: (h, w) of the maps; both above the kernel's radius.
        kernel: size of the Gaussian.
        peak: what becomes 255: the map's ``maximum``, or the value at the ``keypoint``'s cell, beside which reflected
            mass may exceed 255 (up to 333 next to a border).

    Returns:
        (..., h, w) in the default precision.

    Raises:
        ValueError: a side of the map is not above the kernel's radius.
    """
    if min(size) <= kernel // 2:
        raise ValueError(f"a map of {size[0]} x {size[1]} cells is too small for a kernel of {kernel}")
    columns = _profile(cells[..., 0], size[1], kernel, peak)
    rows = _profile(cells[..., 1], size[0], kernel, peak)
    rows = rows * (PEAK * drawn[..., None].to(rows.dtype))
    return rows[..., :, None] * columns[..., None, :]


def _profile(cells: Tensor, length: int, kernel: int, peak: PeakRule) -> Tensor:
    """(..., length) blurred impulses at ``cells`` (...), scaled to 1."""
    radius = kernel // 2
    half = torch.tensor([*gaussian_kernel(kernel)[radius:], 0.0], device=cells.device)
    cells = cells.clamp(0, length - 1)[..., None]
    last = length - 1
    places = torch.arange(length, device=cells.device)

    def around(centre: Tensor) -> Tensor:
        return half[(places - centre).abs().clamp(max=radius + 1)]

    profile = around(cells) + around(-cells) * (cells > 0) + around(2 * last - cells) * (cells < last)
    top = profile.amax(-1, keepdim=True) if peak == "maximum" else profile.gather(-1, cells)
    return profile / top


# ---------------------------------------------------------------------------------------------------------- decoding


def blur(maps: Tensor, kernel: int, margin: int = 0) -> Tensor:
    """Gaussian blur of maps (..., h, w) surrounded by zeros.

    Returns:
        (..., h + 2 margin, w + 2 margin): the result with that many cells around it.
    """
    weights = gaussian_kernel(kernel)
    padded = F.pad(maps, [margin + kernel // 2] * 4)
    down = _weighted_sum(padded, weights, -2, maps.shape[-2] + 2 * margin)
    return _weighted_sum(down, weights, -1, maps.shape[-1] + 2 * margin)


def _weighted_sum(x: Tensor, weights: Sequence[float], dim: int, length: int) -> Tensor:
    """Neighbours along ``dim`` weighted and summed in symmetric pairs, so that mirrored maps give mirrored sums."""
    radius = len(weights) // 2
    total = x.narrow(dim, radius, length) * weights[radius]
    for i in range(radius):
        total.add_(x.narrow(dim, i, length) + x.narrow(dim, 2 * radius - i, length), alpha=weights[i])
    return total


def second_peak(maps: Tensor, kernel: int) -> Peaks:
    """The official decoder: the highest cell of the blurred map, a quarter of a cell towards the second highest.

    The map stands in ten cells of zeros, where the peak of a map without positive values lies: the result is then
    cell (0, 0). The score is the unblurred value at the rounded point.

    Args:
        maps: (..., h, w).
        kernel: of the blur.
    """
    height, width = maps.shape[-2:]
    margin = min(kernel // 2, _BORDER)
    smooth = blur(_exact(maps), kernel, margin).flatten(-2)
    wide = width + 2 * margin
    top, best = smooth.max(-1, keepdim=True)
    second, rival = smooth.scatter(-1, best, 0.0).max(-1, keepdim=True)

    def cell_of(value: Tensor, index: Tensor) -> Tensor:
        """Beyond the blur's reach all is zero: the first cell of the border wins over what is not positive."""
        cell = torch.cat([index % wide, index // wide], -1) - margin
        return torch.where(value > 0, cell, -_BORDER).to(smooth.dtype)

    point = cell_of(top, best)
    step = cell_of(second, rival) - point
    point = point + _SHIFT * step / step.norm(dim=-1, keepdim=True).clamp(min=1e-3)
    point = torch.minimum(point.clamp(min=0), point.new_tensor([width - 1, height - 1]))
    cell = point.round().long()
    height_there = maps.flatten(-2).gather(-1, cell[..., 1:] * width + cell[..., :1])[..., 0]
    return Peaks(STRIDE * point + STRIDE / 2, height_there / PEAK)


def sign_offset(maps: Tensor, kernel: int) -> Peaks:
    """The decoder of mmpose: the highest cell of the blurred map, a quarter towards its higher neighbours.

    The blurred map is scaled back to its former maximum; that is the score. Away from the border half a cell is added.
    A map without a positive value gives the point (-1, -1) in cells. Where the blurred maximum is zero the reference
    divides by zero; here the scaled map is zero, so its score is 0 and the point (-1, -1).

    Args:
        maps: (..., h, w).
        kernel: of the blur.
    """
    height, width = maps.shape[-2:]
    smooth = blur(_exact(maps), kernel)
    before, after = maps.amax((-2, -1)), smooth.amax((-2, -1))
    factor = torch.where(after == 0, 0.0, before / torch.where(after == 0, 1.0, after))
    flat = (smooth * factor[..., None, None]).flatten(-2)
    top, index = flat.max(-1)
    x, y = index % width, index // width
    interior = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    index = torch.where(interior, index, width + 1)

    def slope(step: int) -> Tensor:
        ahead, behind = (flat.gather(-1, (index + s)[..., None])[..., 0] for s in (step, -step))
        return (ahead - behind).sign() * _SHIFT + 0.5

    shift = torch.stack([slope(1), slope(width)], -1) * interior[..., None]
    point = torch.stack([x, y], -1) + shift
    point = torch.where((top > 0)[..., None], point, -1.0)
    return Peaks(STRIDE * point, top / PEAK)


def log_parabola(maps: Tensor, kernel: int) -> Peaks:
    """The summit of parabolas through the logarithms of the highest cell and its neighbours (ours).

    A Gaussian's logarithm is a parabola. As in DARK (Zhang et al. 2020, arXiv 1910.06278) the map is blurred first; the
    two axes are taken apart, and a summit lies at most a cell from the highest cell. A map without a positive value
    gives the cell (0, 0). The score is the highest value / 255 before the blur.

    Args:
        maps: (..., h, w).
        kernel: of the blur.
    """
    height, width = maps.shape[-2:]
    smooth = blur(_exact(maps), kernel).flatten(-2)
    top, best = smooth.max(-1)
    x, y = best % width, torch.div(best, width, rounding_mode="floor")
    logs = smooth.clamp(min=_LEAST).log()

    def offset(cell: Tensor, length: int, step: int) -> Tensor:
        """Offset along one axis; at a border the parabola is that of the cells beside it."""
        middle = cell.clamp(1, length - 2)
        index = best + (middle - cell) * step
        behind, here, ahead = (logs.gather(-1, (index + s)[..., None])[..., 0] for s in (-step, 0, step))
        bend = 2 * here - ahead - behind
        summit = middle - cell + 0.5 * (ahead - behind) / bend.clamp(min=_LEAST)
        return torch.where(bend > _LEAST, summit, 0.0).clamp(-1, 1)

    shift = torch.stack([offset(x, width, 1), offset(y, height, width)], -1)
    point = torch.stack([x, y], -1) + torch.where((top > 0)[..., None], shift, 0.0)
    point = torch.minimum(point.clamp(min=0), point.new_tensor([width - 1, height - 1]))
    return Peaks(STRIDE * point + STRIDE / 2, maps.amax((-2, -1)).clamp(min=0) / PEAK)


def _exact(maps: Tensor) -> Tensor:
    """Double precision where the device has it: neighbouring cells differ by little."""
    return maps.float() if maps.device.type == "mps" else maps.double()
