"""Snapping keypoints to heatmap peaks at test time (DirectPose spec 9, GluonCV ``REFINE_KPT``).

Letters: K keypoints, h w heatmap size, t peaks a keypoint, n candidates.
Frame: corner-based input px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.models.dense import Candidates

STRIDE = 8
PEAKS = 40
"""Peaks kept for each keypoint."""
MIN_PEAK = 0.1
REACH = 0.1
"""A keypoint snaps to a peak within this fraction of the longer side of the person's box."""
CLAMP = 1e-4


def refine_keypoints(candidates: Candidates, logits: Tensor, offsets: Tensor | None) -> Candidates:
    """Move each keypoint to the nearest peak of its kind, if that one peak is in the person's box and near enough.

    Args:
        candidates: of one image.
        logits: (K, h, w) heatmap logits on P3.
        offsets: (2, h, w) sub-cell offsets in cells, or None for cell centres.

    Returns:
        The candidates with moved keypoints, whose scores become the peaks'.
    """
    if candidates.scores.shape[0] == 0:
        return candidates
    score, xy = _peaks(logits.float(), offsets)
    distance = (candidates.keypoints[:, :, None] - xy[None]).norm(dim=-1)
    near, which = torch.where((score > MIN_PEAK)[None], distance, torch.inf).min(-1)
    kind = torch.arange(xy.shape[0], device=xy.device).expand_as(which)
    peak = xy[kind, which]
    low, high = candidates.boxes[:, None, :2], candidates.boxes[:, None, 2:]
    sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    snap = ((peak >= low) & (peak <= high)).all(-1) & (near < REACH * sides.amax(-1)[:, None])
    keypoints = torch.where(snap[..., None], peak, candidates.keypoints)
    marks = torch.where(snap, score[kind, which], candidates.keypoint_scores)
    return candidates._replace(keypoints=keypoints, keypoint_scores=marks)


def _peaks(logits: Tensor, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores (K, t) and positions (K, t, 2) of the best 3x3 local maxima of each keypoint."""
    p = logits.sigmoid().clamp(CLAMP, 1 - CLAMP)
    p = torch.where(F.max_pool2d(p[None], 3, stride=1, padding=1)[0] == p, p, 0.0)
    width = p.shape[-1]
    score, cell = p.flatten(1).topk(min(PEAKS, p[0].numel()))
    row, column = torch.div(cell, width, rounding_mode="floor"), cell % width
    xy = torch.stack([column, row], -1).to(p.dtype)
    xy = xy + 0.5 if offsets is None else xy + offsets.float()[:, row, column].permute(1, 2, 0)
    return score, xy * STRIDE
