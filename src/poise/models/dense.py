"""What the single-stage heads share: locations, assignment of persons to them, and candidates.

Letters: B images, L levels, P locations of all levels together, M persons of one image, R ignore regions,
K keypoints, C channels, h w feature size of a level, n positives or candidates.
Frame: all coordinates are input px of the model's own convention (see ``pixel_offset`` of the models).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from poise.geometry.boxes import points_extent
from poise.nn.joint import kept
from poise.skeletons import Skeleton
from poise.types import Persons, Poses

SIZE_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, 1e8))
"""Largest side distance in px that a level answers for, both ends inclusive (FCOS; P3..P7)."""
HEATMAP_STRIDE = 8
"""Of the heatmaps, which are predicted on P3."""


class Grid(NamedTuple):
    """The locations of all levels, finest first, row-major inside a level."""

    points: Tensor
    """(P, 2) x, y."""
    strides: Tensor
    """(P,)."""
    levels: Tensor
    """(P,) int64."""
    sizes: tuple[tuple[int, int], ...]
    """(h, w) of each level."""


class Match(NamedTuple):
    """Which person each location of each image answers for."""

    owner: Tensor
    """(B, P) int64: index into the persons of that image, -1 = background."""
    ignored: Tensor
    """(B, P) bool: background in an ignore region; no loss there."""


def make_grid(sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Grid:
    """Locations (j s + s//2, i s + s//2) of cells (i, j) (DirectPose spec 7, SMPR spec 1); not to be written to."""
    return kept(_made_grid, tuple(sizes), tuple(strides), device)


@lru_cache(maxsize=32)
def _made_grid(sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device) -> Grid:
    points, stride_of, level_of = [], [], []
    for level, ((h, w), s) in enumerate(zip(sizes, strides, strict=True)):
        y = torch.arange(h, device=device, dtype=torch.float32) * s + s // 2
        x = torch.arange(w, device=device, dtype=torch.float32) * s + s // 2
        points.append(torch.stack([x.repeat(h), y.repeat_interleave(w)], -1))
        stride_of.append(torch.full((h * w,), float(s), device=device))
        level_of.append(torch.full((h * w,), level, device=device, dtype=torch.int64))
    return Grid(torch.cat(points), torch.cat(stride_of), torch.cat(level_of), tuple((h, w) for h, w in sizes))


def precise(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is if it is float64: what coordinates, losses and decoding are computed in."""
    # an exported graph would record the cast that does nothing, and torch 2.6 the question which type is the wider one
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, h, w) of all levels as one (B, P, C)."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) left, top, right, bottom of points (..., 2) to the sides of boxes (..., 4)."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def assign(
    grid: Grid,
    boxes: Tensor,
    *,
    ranges: Sequence[tuple[float, float]] = SIZE_RANGES,
    radius: float | None = 1.5,
    inclusive_area: bool = False,
) -> Tensor:
    """FCOS assignment with centre sampling (DirectPose spec 7, SMPR spec 4).

    A pair of location and person is valid when the location is strictly inside the box, intersected with the square
    of half side ``radius`` strides around the box centre, and the largest side distance is in its level's range. The
    valid person with the smallest box wins, the first on a tie.

    Args:
        grid: the locations.
        boxes: (M, 4).
        ranges: one (low, high) a level.
        radius: None for the whole box.
        inclusive_area: add 1 to the sides when areas are compared.

    Returns:
        (P,) int64 person of each location, -1 = background.
    """
    count = len(boxes)
    if count == 0:
        return torch.full_like(grid.levels, -1)
    points = grid.points[:, None]
    distances = side_distances(points, boxes[None])
    low_high = boxes.new_tensor(list(ranges))[grid.levels]
    reach = distances.amax(-1)
    valid = (reach >= low_high[:, :1]) & (reach <= low_high[:, 1:])
    if radius is None:
        valid &= distances.amin(-1) > 0
    else:
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (grid.strides * radius)[:, None, None]
        low = torch.maximum(centre - half, boxes[:, :2])
        high = torch.minimum(centre + half, boxes[:, 2:])
        valid &= ((points > low) & (points < high)).all(-1)
    sides = boxes[:, 2:] - boxes[:, :2] + (1.0 if inclusive_area else 0.0)
    area = torch.where(valid, sides.prod(-1), torch.inf)
    best = area.amin(1, keepdim=True)
    order = torch.arange(count, device=boxes.device).expand_as(area)
    first = torch.where((area == best) & valid, order, count).amin(1)
    return torch.where(first < count, first, -1)


def match(
    grid: Grid,
    persons: Sequence[Persons],
    *,
    ranges: Sequence[tuple[float, float]] = SIZE_RANGES,
    radius: float | None = 1.5,
    inclusive_area: bool = False,
) -> Match:
    """`assign` for every image of a batch, and the background locations inside ignore regions."""
    owners = [assign(grid, p.boxes, ranges=ranges, radius=radius, inclusive_area=inclusive_area) for p in persons]
    owner = torch.stack(owners)
    regions = [inside_any(grid.points, p.ignore) for p in persons]
    return Match(owner, torch.stack(regions) & (owner < 0))


def inside_any(points: Tensor, regions: Tensor) -> Tensor:
    """(P,) bool: points (P, 2) inside one of the regions (R, 4)."""
    if len(regions) == 0:
        return torch.zeros(len(points), dtype=torch.bool, device=points.device)
    return (side_distances(points[:, None], regions[None]).amin(-1) >= 0).any(1)


def ignored_cells(persons: Sequence[Persons], size: tuple[int, int], stride: int) -> Tensor:
    """(B, 1, h, w) bool: locations of one level, of ``size`` (h, w), inside ignore regions."""
    points = make_grid([size], [stride], persons[0].ignore.device).points
    return torch.stack([inside_any(points, p.ignore) for p in persons]).reshape(len(persons), 1, *size)


def centerness(distances: Tensor) -> Tensor:
    """FCOS centre-ness (n,) of side distances (n, 4): sqrt(min(l,r)/max(l,r) * min(t,b)/max(t,b))."""
    left, top, right, bottom = distances.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def shifted(persons: Persons, offset: float, device: torch.device) -> Persons:
    """Truth on ``device`` with ``offset`` added to every coordinate."""
    truth = persons.to(device)
    keypoints = torch.cat([truth.keypoints[..., :2] + offset, truth.keypoints[..., 2:]], -1)
    return Persons(keypoints, truth.boxes + offset, truth.areas, truth.ignore + offset)


def run_total(value: Tensor, minimum: float = 0.0) -> Tensor:
    """What to divide a term by: ``value``, summed over the processes of a run, at least ``minimum``; without gradient.

    It is divided by the number of processes, so that the mean of the processes' terms, and with it the mean of their
    gradients, is what one process with all their pictures has.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value.clamp(min=minimum)
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total.clamp(min=minimum) / torch.distributed.get_world_size()


class KeypointTargets(NamedTuple):
    """What the positive locations of a batch shall regress, image by image, in the order of the locations."""

    image: Tensor
    """(p,) int64."""
    location: Tensor
    """(p,) int64 index into the locations."""
    person: Tensor
    """(p,) int64 index into the persons of all images, one image after the other."""
    offsets: Tensor
    """(p, K, 2) keypoint minus location, over the stride; 0 where not labelled."""
    labelled: Tensor
    """(p, K) 0/1."""


def keypoint_targets(grid: Grid, owner: Tensor, truth: Sequence[Persons]) -> KeypointTargets:
    """Targets at the locations (B, P) whose ``owner`` is not -1 (DirectPose spec 7, SMPR spec 4)."""
    image, location = torch.nonzero(owner >= 0, as_tuple=True)
    first = torch.tensor([0] + [len(t) for t in truth[:-1]], device=owner.device).cumsum(0)
    person = first[image] + owner[image, location]
    keypoints = torch.cat([t.keypoints for t in truth])[person]
    labelled = (keypoints[..., 2] > 0).to(keypoints.dtype)
    points, strides = grid.points[location], grid.strides[location]
    offsets = (keypoints[..., :2] - points[:, None]) / strides[:, None, None] * labelled[..., None]
    return KeypointTargets(image, location, person, offsets, labelled)


class Candidates(NamedTuple):
    """Poses of one image that passed the score threshold, before suppression; level by level, row-major."""

    scores: Tensor
    """(n,)."""
    keypoints: Tensor
    """(n, K, 2)."""
    keypoint_scores: Tensor
    """(n, K)."""
    boxes: Tensor
    """(n, 4)."""
    levels: Tensor
    """(n,) int64."""
    points: Tensor
    """(n, 2) locations."""


def pick(scores: Tensor, rank: Tensor, threshold: float, limit: int) -> Tensor:
    """Indices (n,), ascending, of locations whose score passes the threshold, at most ``limit`` best by ``rank``.

    Args:
        scores: (p,) what is compared with the threshold.
        rank: (p,) what decides who stays when there are more than ``limit``.
        threshold: strictly exceeded by every returned location.
        limit: per level; <= 0 for no limit.
    """
    indices = torch.nonzero(scores > threshold).squeeze(1)
    if 0 < limit < len(indices):
        best = rank[indices].topk(limit, sorted=False).indices
        indices = indices[best].sort().values
    return indices


def clipped_extent(keypoints: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4) around keypoints (n, K, 2), clipped to [0, width] x [0, height]; ``size`` is (height, width)."""
    height, width = size
    limit = keypoints.new_tensor([width, height, width, height])
    return torch.minimum(points_extent(keypoints).clamp(min=0), limit)


def no_candidates(keypoint_count: int, like: Tensor) -> Candidates:
    """Nobody; tensors of the device and type of ``like``."""
    shapes = ((0,), (0, keypoint_count, 2), (0, keypoint_count), (0, 4))
    scores, keypoints, marks, boxes = (like.new_zeros(s) for s in shapes)
    return Candidates(scores, keypoints, marks, boxes, like.new_zeros(0, dtype=torch.int64), like.new_zeros(0, 2))


def join_candidates(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of several levels of one image."""
    return Candidates(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def candidate_poses(candidates: Candidates, offset: float, skeleton: Skeleton, size: tuple[int, int]) -> Poses:
    """Candidates of one view as `Poses` of a picture of ``size``, with ``offset`` taken off every coordinate."""
    return Poses(
        (candidates.keypoints - offset).cpu().numpy(),
        candidates.keypoint_scores.cpu().numpy(),
        (candidates.boxes - offset).cpu().numpy(),
        candidates.scores.cpu().numpy(),
        skeleton,
        size,
    )
