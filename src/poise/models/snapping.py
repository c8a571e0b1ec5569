"""Keypoints of regressed poses drawn to the peaks of heatmaps: our own addition to the single-stage models.

A regressed pose knows which keypoints belong together, a heatmap knows better where they are. Each keypoint goes to
the peak that is most likely given both, in the spirit of CenterNet (Zhou et al. 2019, arXiv 1904.07850, section 5),
but with a soft idea of near instead of a hard one, and only as far as the heatmap is sure.

Letters: K keypoints, h w heatmap size, t peaks a keypoint, n candidates. Frame: input px of the model's locations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.geometry.boxes import points_extent
from poise.models.dense import Candidates, precise

PEAKS = 40
"""Peaks kept for each keypoint."""
FLOOR = 0.02
"""Support at which a keypoint goes half of the way."""
LEAST_SIZE = 8.0
"""Of a pose, px: below it, near means the same."""


class Peaks(NamedTuple):
    """The best local maxima of each keypoint's map."""

    heights: Tensor
    """(K, t) probabilities."""
    places: Tensor
    """(K, t, 2)."""


def find_peaks(logits: Tensor, stride: int) -> Peaks:
    """Maxima of 3x3 neighbourhoods of heatmap logits (K, h, w), their places the centroids of these."""
    p = precise(logits).sigmoid()
    height, width = p.shape[-2:]
    tops = torch.where(_highest_around(p) == p, p, 0.0)
    heights, cells = tops.flatten(1).topk(min(PEAKS, height * width))
    row = torch.div(cells, width, rounding_mode="floor")
    column = cells - row * width  # no remainder, which the exporter to ONNX cannot write for a free width
    step = torch.arange(3, device=p.device)
    down, right = step.repeat_interleave(3), step.repeat(3)
    around = (row[..., None] + down) * (width + 2) + column[..., None] + right
    weight = F.pad(p, (1, 1, 1, 1)).flatten(1).gather(1, around.flatten(1)).view(around.shape) ** 2
    total = weight.sum(-1).clamp(min=torch.finfo(p.dtype).tiny)
    shift = torch.stack([weight * (right - 1), weight * (down - 1)]).sum(-1) / total
    places = torch.stack([column + shift[0], row + shift[1]], -1)
    return Peaks(heights, places * stride + stride // 2)


def _highest_around(p: Tensor) -> Tensor:
    """The maximum of the 3x3 neighbourhood of each cell of maps (K, h, w) that are not negative.

    As ``max_pool2d``, which looks for the place of the maximum, too, and takes ten times as long on a CPU.
    """
    upper, lower = F.pad(p[:, :-1], (0, 0, 1, 0)), F.pad(p[:, 1:], (0, 0, 0, 1))
    column = torch.maximum(torch.maximum(upper, lower), p)
    left, right = F.pad(column[..., :-1], (1, 0)), F.pad(column[..., 1:], (0, 1))
    return torch.maximum(torch.maximum(left, right), column)


def snap(candidates: Candidates, logits: Tensor, stride: int, reach: float, reboxed: bool = True) -> Candidates:
    """Move each keypoint towards the best peak of its kind.

    The support of a peak of height p at distance d from the keypoint is p exp(-d^2 / (2 (reach s)^2)), s the root of
    the area of the candidate's box. The keypoint goes the part support / (support + `FLOOR`) of the way to the peak
    with the largest, whose root becomes the keypoint's score.

    Args:
        candidates: of one image.
        logits: (K, h, w) heatmap logits of that image.
        stride: of the heatmap.
        reach: what is near, as a fraction of the pose's size, which is that of the candidate's box.
        reboxed: boxes become the extents of the moved keypoints; otherwise they stay.
    """
    if candidates.scores.shape[0] == 0:
        return candidates
    peaks = Peaks(*(p.to(candidates.keypoints.dtype) for p in find_peaks(logits, stride)))
    sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    size = sides.prod(1).clamp(min=LEAST_SIZE**2)
    across, down = (candidates.keypoints[:, :, None, axis] - peaks.places[..., axis] for axis in (0, 1))
    squared = across * across + down * down
    support = peaks.heights * torch.exp(squared / (-2 * reach**2 * size[:, None, None]))
    best = support.amax(-1)
    numbers = torch.arange(support.shape[2], device=support.device, dtype=support.dtype)
    # the first that has it: runtimes sort to find a maximum's place
    which = torch.where(support == best[..., None], numbers, support.shape[2] - 1.0).amin(-1).long()
    kind = torch.arange(which.shape[1], device=which.device).expand_as(which)
    part = (best / (best + FLOOR))[..., None]
    step = peaks.places[kind, which] - candidates.keypoints
    keypoints = candidates.keypoints + part * step  # torch 2.6 writes no lerp of an open number of poses
    boxes = points_extent(keypoints) if reboxed else candidates.boxes
    return candidates._replace(keypoints=keypoints, keypoint_scores=best.sqrt(), boxes=boxes)
