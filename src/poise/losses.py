"""Loss formulas: pure functions of tensors in float32. Reductions and normalisers belong to the models.

Letters: ... any shape.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

BoxLoss = Literal["iou", "linear_iou", "giou"]


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Elementwise focal loss (Lin et al. 2017): logits and 0/1 targets of one shape (...)."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    p = torch.sigmoid(logits)
    miss = p + targets - 2 * p * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * miss**gamma * entropy


def gaussian_focal(
    logits: Tensor, targets: Tensor, alpha: float = 2.0, beta: float = 4.0, clamp: float = 1e-4
) -> Tensor:
    """Elementwise focal loss for soft targets in 0..1 whose peaks are exactly 1 (CornerNet; DirectPose spec 8)."""
    p = torch.sigmoid(logits).clamp(clamp, 1 - clamp)
    at_peak = (1 - p) ** alpha * p.log()
    elsewhere = (1 - targets) ** beta * p**alpha * (1 - p).log()
    return -torch.where(targets == 1, at_peak, elsewhere)


def smooth_l1(error: Tensor, beta: float) -> Tensor:
    """Elementwise: 0.5 e^2 / beta below ``beta``, |e| - beta / 2 above; ``beta`` = 0 is plain L1."""
    size = error.abs()
    if beta <= 0:
        return size
    return torch.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def ltrb_iou(predicted: Tensor, target: Tensor, kind: BoxLoss) -> Tensor:
    """Box loss (n,) of distances (left, top, right, bottom) (n, 4) from one shared point (UnitBox; DirectPose spec 8).

    iou = (I + 1) / (U + 1). ``iou``: -ln iou; ``linear_iou``: 1 - iou; ``giou``: 1 - (iou - (C - U) / C).
    """
    pl, pt, pr, pb = predicted.unbind(-1)
    tl, tt, tr, tb = target.unbind(-1)
    area_p, area_t = (pl + pr) * (pt + pb), (tl + tr) * (tt + tb)
    inter = (torch.minimum(pl, tl) + torch.minimum(pr, tr)) * (torch.minimum(pt, tt) + torch.minimum(pb, tb))
    union = area_p + area_t - inter
    iou = (inter + 1) / (union + 1)
    if kind == "iou":
        return -iou.log()
    if kind == "linear_iou":
        return 1 - iou
    hull = (torch.maximum(pl, tl) + torch.maximum(pr, tr)) * (torch.maximum(pt, tt) + torch.maximum(pb, tb))
    return 1 - (iou - (hull - union) / hull)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Elementwise binary cross entropy of logits with targets in 0..1."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def mean_square(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error (...) of each map of (..., h, w)."""
    return (predicted - target).square().mean((-2, -1))


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean over everything; 0, with its graph, of nothing."""
    return values.sum() / max(values.numel(), 1)


def hardest_mean(errors: Tensor, count: int) -> Tensor:
    """Mean over n of the mean of the ``count`` largest of K errors (n, K); of all where K is less (online mining)."""
    worst = errors.topk(min(count, errors.shape[-1]), dim=-1, sorted=False).values
    return mean_or_zero(worst)
