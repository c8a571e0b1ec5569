"""Boxes (x1, y1, x2, y2).

Letters: N persons or boxes, M other boxes, K keypoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from poise.types import FloatArray, PersonBoxRule

if TYPE_CHECKING:
    from torch import Tensor


def keypoint_boxes(
    keypoints: npt.NDArray[np.floating], rule: PersonBoxRule, image_size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Boxes around the labelled keypoints (DirectPose spec 7, SMPR spec 4).

    Args:
        keypoints: (N, K, 3) x, y, visibility.
        rule: padding and clipping.
        image_size: (height, width) of the picture, for ``clip_high``.

    Returns:
        (N, 4). A person without a labelled keypoint gets the box (0, 0, 0, 0).
    """
    points = np.asarray(keypoints, np.float64)
    seen = points[..., 2] > 0
    low = np.where(seen[..., None], points[..., :2], np.inf).min(axis=1, initial=np.inf) - rule.pad_low
    high = np.where(seen[..., None], points[..., :2], -np.inf).max(axis=1, initial=-np.inf) + rule.pad_high
    low = np.maximum(low, 0.0)
    if rule.clip_high:
        height, width = image_size
        high = np.minimum(high, np.array([width, height], np.float64))
    boxes = np.concatenate([low, high + rule.grow], axis=1)
    boxes[~seen.any(axis=1)] = 0.0
    return boxes


def box_areas(boxes: Tensor) -> Tensor:
    """Areas (N,) of boxes (N, 4); an inverted box has area 0."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) clipped to [0, width] x [0, height]; ``size`` is (height, width)."""
    import torch

    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limit)


def clipped_to(boxes: FloatArray, image_size: tuple[int, int]) -> FloatArray:
    """Boxes (N, 4) that end at the outer edges of a picture of that (height, width)."""
    height, width = image_size
    edge = np.array([width, height, width, height], np.float32) - np.float32(0.5)
    clipped: FloatArray = np.clip(boxes, np.float32(-0.5), edge)
    return clipped


def points_extent(points: Tensor) -> Tensor:
    """Boxes (..., 4) around points (..., K, 2)."""
    import torch

    return torch.cat([points.amin(-2), points.amax(-2)], -1)
