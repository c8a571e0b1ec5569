"""The auxiliary heatmap task of the single-stage models: targets on the stride-8 grid.

Letters: B images, K keypoints, h w heatmap size, N persons of one image, q labelled points of the batch.
Frame: input px of the model's own convention; cell (i, j) is the location (j s + s//2, i s + s//2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.models.dense import make_grid
from poise.types import Persons

WINDOW = 15
"""Side of the square that a Gaussian target fills, cells (GluonCV)."""
SIGMA = 2.0
"""Standard deviation of a Gaussian target, cells (GluonCV)."""


CellRule = Callable[[Tensor, tuple[int, int], int], Tensor]
"""From points (q, 2), the map's (h, w) and its stride to flat cells (q,): `nearest_cells` or `rounded_cells`."""


class LabelledPoints(NamedTuple):
    """All labelled keypoints of a batch, person-major."""

    image: Tensor
    """(q,) int64."""
    kind: Tensor
    """(q,) int64 keypoint index."""
    xy: Tensor
    """(q, 2)."""


def labelled_points(persons: Sequence[Persons]) -> LabelledPoints:
    """Keypoints with v > 0, image by image, person by person, in keypoint order."""
    device = persons[0].keypoints.device
    images, kinds, points = [], [], []
    for b, truth in enumerate(persons):
        person, kind = torch.nonzero(truth.keypoints[..., 2] > 0, as_tuple=True)
        images.append(torch.full_like(kind, b))
        kinds.append(kind)
        points.append(truth.keypoints[person, kind, :2])
    return LabelledPoints(torch.cat(images), torch.cat(kinds), torch.cat(points).to(device))


def nearest_cells(xy: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Flat index (q,) of the location nearest to each point (q, 2) by max(|dx|, |dy|), the first on ties."""
    grid = make_grid([size], [stride], xy.device)
    count = len(grid.points)
    nearest = []
    for chunk in xy.split(256):
        distance = (chunk[:, None] - grid.points[None]).abs().amax(-1)
        least = distance.amin(1, keepdim=True)
        order = torch.arange(count, device=xy.device).expand_as(distance)
        nearest.append(torch.where(distance == least, order, count).amin(1))
    return torch.cat(nearest) if nearest else torch.zeros(0, dtype=torch.int64, device=xy.device)


def rounded_cells(xy: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Flat index (q,) of the cell (round((y - s//2) / s), round((x - s//2) / s)) of each point (SMPR spec 4).

    It is the nearest location; a tie goes to the even cell. Points outside go to the border.
    """
    h, w = size
    cell = torch.round((xy - stride // 2) / stride).to(torch.int64)
    return cell[:, 1].clamp(0, h - 1) * w + cell[:, 0].clamp(0, w - 1)


def binary_target(persons: Sequence[Persons], size: tuple[int, int], stride: int, keypoint_count: int) -> Tensor:
    """(B, K, h, w) of 0/1: channel k is 1 at the cell nearest to every labelled keypoint k (DirectPose spec 7)."""
    h, w = size
    points = labelled_points(persons)
    target = torch.zeros(len(persons), keypoint_count, h * w, device=points.xy.device)
    target[points.image, points.kind, nearest_cells(points.xy, size, stride)] = 1.0
    return target.reshape(len(persons), keypoint_count, h, w)


def single_target(
    persons: Sequence[Persons], size: tuple[int, int], stride: int, cells: CellRule = nearest_cells
) -> Tensor:
    """(B, h, w) int64 label map: 0 = none, k + 1 = keypoint k; a later point overwrites an earlier one in its cell."""
    h, w = size
    points = labelled_points(persons)
    labels = torch.zeros(len(persons) * h * w, dtype=torch.int64, device=points.xy.device)
    flat = points.image * (h * w) + cells(points.xy, size, stride)
    order = torch.arange(len(flat), device=flat.device)
    last = torch.full_like(labels, -1).scatter_reduce_(0, flat, order, "amax")
    written = last >= 0
    labels[written] = points.kind[last[written]] + 1
    return labels.reshape(len(persons), h, w)


class GaussianTarget(NamedTuple):
    """Gaussian heatmaps with the sub-cell offsets at their centres (GluonCV)."""

    maps: Tensor
    """(B, K, h, w) in 0..1, the maximum over people."""
    window: Tensor
    """(B, K, h, w) bool: inside somebody's window."""
    cells: Tensor
    """(q, 4) int64: image, keypoint, row, column of each centre cell."""
    offset: Tensor
    """(q, 2): (x / s - column, y / s - row) at the centre cells, cells."""


def gaussian_target(
    persons: Sequence[Persons], size: tuple[int, int], stride: int, keypoint_count: int
) -> GaussianTarget:
    """Gaussians around cell int(x / s + 0.5); points whose cell is outside the map are skipped."""
    h, w = size
    points = labelled_points(persons)
    centre = torch.trunc(points.xy / stride + 0.5).to(torch.int64)
    inside = ((centre >= 0) & (centre < centre.new_tensor([w, h]))).all(-1)
    image, kind, centre, xy = points.image[inside], points.kind[inside], centre[inside], points.xy[inside]
    shape = (len(persons), keypoint_count, h, w)
    maps = torch.zeros(shape, device=xy.device)
    reach = WINDOW // 2
    step = torch.arange(-reach, reach + 1, device=xy.device)
    dy, dx = torch.meshgrid(step, step, indexing="ij")
    dx, dy = dx.reshape(1, -1), dy.reshape(1, -1)
    value = torch.exp(-(dx**2 + dy**2) / (2 * SIGMA**2)).expand(len(kind), -1)
    column, row = centre[:, :1] + dx, centre[:, 1:] + dy
    fits = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    flat = ((image * keypoint_count + kind)[:, None] * h + row) * w + column
    maps.view(-1).scatter_reduce_(0, flat[fits], value[fits], "amax")
    cells = torch.stack([image, kind, centre[:, 1], centre[:, 0]], -1)
    return GaussianTarget(maps, maps > 0, cells, xy / stride - centre)


def unlabelled_mask(
    persons: Sequence[Persons], size: tuple[int, int], stride: int, keypoint_count: int, margin: float = 0.3
) -> Tensor:
    """(B, K, h, w) bool: cells where nothing is known about keypoint k.

    True inside ignore regions, and, for a person whose keypoint k is not labelled, inside that person's box grown by
    ``margin`` of its sides: the keypoint may well be visible there.
    """
    h, w = size
    grid = make_grid([size], [stride], persons[0].keypoints.device)
    rows = []
    for truth in persons:
        sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]) * margin
        boxes = torch.cat([truth.boxes[:, :2] - sides, truth.boxes[:, 2:] + sides], -1)
        inside = _inside(grid.points, boxes)
        unlabelled = truth.keypoints[..., 2] <= 0
        unknown = (unlabelled.T.float() @ inside.float()) > 0
        ignored = _inside(grid.points, truth.ignore).any(0)
        rows.append(unknown | ignored)
    return torch.stack(rows).reshape(len(persons), keypoint_count, h, w)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """(N, P) bool: location inside box."""
    low = (points[None] >= boxes[:, None, :2]).all(-1)
    return low & (points[None] <= boxes[:, None, 2:]).all(-1)
