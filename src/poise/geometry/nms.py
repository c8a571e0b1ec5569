"""Suppression of duplicate poses.

Letters: N poses, K keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.geometry.oks import mutual_oks, oks
from poise.settings import Settings
from poise.types import FloatArray

Indices = npt.NDArray[np.int64]
FEW = 256
"""Boxes up to which it is quicker to compare all with all at once than each that is taken with those that are left."""


def box_nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> npt.NDArray[np.int64]:
    """Greedy box NMS: indices (n,) of what is kept, best first; who overlaps a kept box by more is dropped.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0..1; values <= 0 keep everything.
    """
    if iou_threshold <= 0 or len(boxes) == 0:
        return np.argsort(-scores, kind="stable").astype(np.int64)
    try:
        import torch
        from torchvision.ops import nms
    except ModuleNotFoundError:  # exported models run without torch
        return _box_nms(boxes, scores, iou_threshold)
    keep = nms(
        torch.from_numpy(np.ascontiguousarray(boxes)), torch.from_numpy(np.ascontiguousarray(scores)), iou_threshold
    )
    return np.asarray(keep.numpy(), dtype=np.int64)


def _box_nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> Indices:
    """`box_nms` in numpy."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, taken = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = int(left[0]), left[1:]
        taken.append(best)
        low = np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.maximum(np.minimum(boxes[left, 2:], boxes[best, 2:]) - low, 0).prod(1)
        left = left[shared <= iou_threshold * (areas[left] + areas[best] - shared)]
    return np.array(taken, np.int64)


def cut_by_score(scores: FloatArray, limit: int) -> npt.NDArray[np.bool_]:
    """Mask (N,) of the ``limit`` best and of everything that ties with the last of them; ``limit`` <= 0 keeps all."""
    if limit <= 0 or len(scores) <= limit:
        return np.ones(len(scores), dtype=np.bool_)
    threshold = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    return np.asarray(scores >= threshold)


class Suppression(Settings):
    """How a pose that was taken lowers the scores of those that resemble it (SMPR spec 6).

    With s the similarity: ``linear`` multiplies by 1 - s where s > ``threshold``; ``gaussian`` multiplies by
    exp(-s^2 / ``sigma``) everywhere; ``hard`` drops where s > ``threshold``.
    """

    method: Literal["linear", "gaussian", "hard"] = "linear"
    threshold: float = Field(default=0.3, gt=0, le=1)
    sigma: float = Field(default=0.5, gt=0)
    min_score: float = Field(default=0.001, gt=0)
    """Scores below it are dropped after each pass."""
    inclusive: bool = True
    """Boxes hold their last pixel: sides are x2 - x1 + 1, also those of the overlap."""


class Suppressed(NamedTuple):
    """What is kept, best first."""

    indices: Indices
    """(n,)."""
    scores: FloatArray
    """(n,) lowered scores, falling."""


def soft_box_nms(boxes: FloatArray, scores: FloatArray, rule: Suppression, limit: int = 0) -> Suppressed:
    """`soft_nms` with the IoU of boxes (N, 4) xyxy as similarity."""
    extra = np.float32(rule.inclusive)
    if len(boxes) <= FEW:
        everybody = _iou(boxes[:, None], boxes, extra)
        return soft_nms(scores, lambda taken, others: everybody[taken, others], rule, limit)
    return soft_nms(scores, lambda taken, others: _iou(boxes[taken], boxes[others], extra), rule, limit)


def _iou(a: FloatArray, b: FloatArray, extra: np.float32) -> FloatArray:
    """IoU of boxes (..., 4), whose sides are longer by ``extra``."""
    width, height = (
        np.maximum(np.minimum(a[..., i + 2], b[..., i + 2]) - np.maximum(a[..., i], b[..., i]) + extra, 0)
        for i in (0, 1)
    )
    area_a, area_b = ((c[..., 2] - c[..., 0] + extra) * (c[..., 3] - c[..., 1] + extra) for c in (a, b))
    shared = width * height
    ratio: FloatArray = shared / np.maximum(area_b + area_a - shared, np.finfo(np.float32).tiny)
    return ratio


def soft_oks_nms(
    keypoints: FloatArray, scores: FloatArray, sigmas: Sequence[float], rule: Suppression, limit: int = 0
) -> Suppressed:
    """`soft_nms` with the OKS of poses (N, K, 2) as similarity.

    The area of a taken pose is that of the box around its keypoints.
    """
    areas = np.ptp(keypoints, axis=1).prod(1)

    def similarity(taken: int, others: Indices) -> FloatArray:
        reference = np.concatenate([keypoints[taken], np.ones_like(keypoints[taken, :, :1])], 1)
        alike: FloatArray = oks(keypoints[others], reference[None], areas[taken, None], sigmas)[:, 0].astype(np.float32)
        return alike

    return soft_nms(scores, similarity, rule, limit)


def mutual_oks_nms(
    keypoints: FloatArray,
    scores: FloatArray,
    areas: FloatArray,
    sigmas: Sequence[float],
    rule: Suppression,
    limit: int = 0,
    counted: npt.NDArray[np.bool_] | None = None,
) -> Suppressed:
    """`soft_nms` with the OKS between two predicted poses (N, K, 2) as similarity; see `mutual_oks`.

    ``counted`` (N, K) says which keypoints OKS is the mean over; None: all.
    """
    alike = mutual_oks(keypoints, areas, sigmas, counted).astype(np.float32)
    return soft_nms(scores, lambda taken, others: alike[taken, others], rule, limit)


def soft_nms(
    scores: FloatArray, similarity: Callable[[int, Indices], FloatArray], rule: Suppression, limit: int = 0
) -> Suppressed:
    """Take the highest score, the first on a tie, lower all that resemble it, and so on (Bodla et al. 2017).

    Args:
        scores: (N,).
        similarity: of one pose with some others: (index, indices (m,)) -> (m,) in 0..1.
        rule: how scores are lowered. The very first pose is taken whatever its score.
        limit: stop after so many poses; <= 0 for all.
    """
    current = np.array(scores, np.float32)
    left = np.arange(len(current), dtype=np.int64)
    taken: list[int] = []
    while len(left) and (limit <= 0 or len(taken) < limit):
        position = int(current[left].argmax())
        best = int(left[position])
        taken.append(best)
        left = np.concatenate([left[:position], left[position + 1 :]])
        current[left] *= _factor(similarity(best, left), rule)
        left = left[current[left] >= rule.min_score]
    indices = np.array(taken, np.int64)
    return Suppressed(indices, current[indices])


def _factor(similarity: FloatArray, rule: Suppression) -> FloatArray:
    if rule.method == "gaussian":
        smooth: FloatArray = np.exp(-(similarity**2) / np.float32(rule.sigma))
        return smooth
    if rule.method == "linear":
        return np.where(similarity > rule.threshold, 1 - similarity, np.float32(1))
    return np.where(similarity > rule.threshold, np.float32(0), np.float32(1))
