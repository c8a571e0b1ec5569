"""Suppression of duplicates in tensors of any length, without Python's control flow: what `poise.geometry.nms` does.

Letters: M candidates, N rows of the result, K keypoints. A candidate of negative score is nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from poise.geometry.consensus import ENOUGH, NEIGHBOUR_IOU
from poise.geometry.nms import Suppression
from poise.geometry.oks import oks
from poise.models.dense import Candidates

_TINY = torch.finfo(torch.float32).tiny


class Kept(NamedTuple):
    """What is left, best first."""

    indices: Tensor
    """(N,) int64."""
    scores: Tensor
    """(N,); negative: the row is empty."""


def greedy(boxes: Tensor, scores: Tensor, iou: float, rows: int) -> Kept:
    """`poise.geometry.nms.box_nms` and the best ``rows`` of it; where fewer are left, empty rows follow."""
    order = nms(boxes, scores, iou) if iou > 0 else scores.topk(scores.shape[0]).indices
    nobody = order.new_full((rows,), 0)
    indices = torch.cat([order, nobody])[:rows]
    kept_scores = torch.cat([scores[order], torch.full_like(nobody, -1, dtype=scores.dtype)])[:rows]
    return Kept(indices, kept_scores)


def soft_boxes(boxes: Tensor, scores: Tensor, rule: Suppression, rows: int, few: bool = False) -> Kept:
    """`poise.geometry.nms.soft_box_nms` of boxes (M, 4); if there are but ``few`` all are compared at once.

    That takes less than a third of the operators, each of which costs a runtime more than what it does.
    """
    extra = float(rule.inclusive)
    if few:
        return _soft_at_once(scores, _factor(_similar(boxes[:, None], boxes, extra), rule), rule, rows)
    return _soft(scores, lambda taken: _factor(_similar(boxes[taken], boxes, extra), rule), rule, rows)


def _similar(a: Tensor, b: Tensor, extra: float) -> Tensor:
    """IoU of boxes (..., 4), whose sides are longer by ``extra``."""
    width, height = (
        (torch.minimum(a[..., i + 2], b[..., i + 2]) - torch.maximum(a[..., i], b[..., i]) + extra).clamp(min=0)
        for i in (0, 1)
    )
    area_a, area_b = ((c[..., 2] - c[..., 0] + extra) * (c[..., 3] - c[..., 1] + extra) for c in (a, b))
    shared = width * height
    return shared / (area_b + area_a - shared).clamp(min=_TINY)


def soft_poses(keypoints: Tensor, scores: Tensor, sigmas: Sequence[float], rule: Suppression, rows: int) -> Kept:
    """`poise.geometry.nms.soft_oks_nms` of poses (M, K, 2)."""
    areas = (keypoints.amax(1) - keypoints.amin(1)).prod(1)
    ones = torch.ones_like(keypoints[:1, :, :1])

    def similarity(taken: Tensor) -> Tensor:
        reference = torch.cat([keypoints[taken], ones], -1)
        return oks(keypoints, reference, areas[taken], sigmas)[:, 0]

    return _soft(scores, lambda taken: _factor(similarity(taken), rule), rule, rows)


def _soft(scores: Tensor, factor: Callable[[Tensor], Tensor], rule: Suppression, rows: int) -> Kept:
    """`poise.geometry.nms.soft_nms`, one pass after the other written out.

    Args:
        scores: (M,).
        factor: what scores (M,) are multiplied by once a pose (1,) is taken.
        rule: how scores are lowered.
        rows: N.
    """
    current, indices, taken_scores = scores, [], []
    numbers = torch.arange(scores.shape[0], device=scores.device)
    for _ in range(rows):
        taken = current.argmax().reshape(1)
        indices.append(taken)
        taken_scores.append(current[taken])
        lowered = current * factor(taken)
        current = torch.where((lowered >= rule.min_score) & (numbers != taken), lowered, -1.0)
    return Kept(torch.cat(indices), torch.cat(taken_scores))


def _soft_at_once(scores: Tensor, factors: Tensor, rule: Suppression, rows: int) -> Kept:
    """`_soft` with the factors (M, M) of all poses on all."""
    numbers = torch.arange(scores.shape[0], device=scores.device)
    factors = torch.where(numbers[:, None] == numbers, 0.0, factors)  # who is taken is gone
    current, indices, taken_scores = scores[None], [], []
    for _ in range(rows):
        taken = current.argmax(1)
        indices.append(taken)
        taken_scores.append(current.amax(1))
        lowered = current * factors.index_select(0, taken)
        current = torch.where(lowered >= rule.min_score, lowered, -1.0)
    return Kept(torch.cat(indices), torch.cat(taken_scores))


def _factor(similarity: Tensor, rule: Suppression) -> Tensor:
    if rule.method == "gaussian":
        return torch.exp(-(similarity**2) / rule.sigma)
    if rule.method == "linear":
        return torch.where(similarity > rule.threshold, 1 - similarity, 1.0)
    return torch.where(similarity > rule.threshold, 0.0, 1.0)


def consensus(found: Candidates, indices: Tensor, scores: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Scores (N,) of `poise.geometry.consensus.consensus_scores` for the rows ``indices`` of the candidates."""
    weight = found.scores.clamp(min=0)
    near = (_box_iou(found.boxes[indices], found.boxes) > NEIGHBOUR_IOU).to(weight.dtype) * weight
    persons = torch.cat([found.keypoints, torch.ones_like(found.keypoints[..., :1])], -1)
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    support = (near * oks(found.keypoints[indices], persons, areas, sigmas)).sum(1)
    total = near.sum(1)
    agreement = torch.where(total > 0, support / total.clamp(min=_TINY), 0.0)
    return scores * agreement * support / (support + ENOUGH)


def _box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union (N, M); 0 where both are empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area_a = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(-1)
    area_b = (b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1)
    return inter / (area_a[:, None] + area_b[None] - inter).clamp(min=_TINY)
