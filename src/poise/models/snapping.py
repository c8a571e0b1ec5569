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
    weight = p**2
    column = torch.arange(width, dtype=p.dtype, device=p.device)
    row = torch.arange(height, dtype=p.dtype, device=p.device)[:, None]
    sums = F.avg_pool2d(torch.stack([weight, weight * column, weight * row]), 3, 1, 1)
    centroid = sums[1:] / sums[0].clamp(min=torch.finfo(p.dtype).tiny)
    tops = torch.where(F.max_pool2d(p[None], 3, stride=1, padding=1)[0] == p, p, 0.0)
    heights, cells = tops.flatten(1).topk(min(PEAKS, height * width))
    places = centroid.flatten(2).gather(2, cells.expand(2, -1, -1)).permute(1, 2, 0)
    return Peaks(heights, places * stride + stride // 2)


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
    squared = (candidates.keypoints[:, :, None] - peaks.places[None]).square().sum(-1)
    support = peaks.heights * torch.exp(-squared / (2 * reach**2 * size[:, None, None]))
    best, which = support.max(-1)
    kind = torch.arange(which.shape[1], device=which.device).expand_as(which)
    part = (best / (best + FLOOR))[..., None]
    keypoints = torch.lerp(candidates.keypoints, peaks.places[kind, which], part)
    boxes = points_extent(keypoints) if reboxed else candidates.boxes
    return candidates._replace(keypoints=keypoints, keypoint_scores=best.sqrt(), boxes=boxes)
