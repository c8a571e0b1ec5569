"""Suppression of duplicate poses.

Letters: N poses.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poise.types import FloatArray


def box_nms(boxes: FloatArray, scores: FloatArray, iou_threshold: float) -> npt.NDArray[np.int64]:
    """Greedy box NMS: indices (n,) of what is kept, best first; a box is dropped when its IoU with a kept one is higher.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0..1; values <= 0 keep everything.
    """
    import torch
    from torchvision.ops import nms

    if iou_threshold <= 0 or len(boxes) == 0:
        return np.argsort(-scores, kind="stable").astype(np.int64)
    keep = nms(torch.from_numpy(np.ascontiguousarray(boxes)), torch.from_numpy(np.ascontiguousarray(scores)), iou_threshold)
    return np.asarray(keep.numpy(), dtype=np.int64)


def cut_by_score(scores: FloatArray, limit: int) -> npt.NDArray[np.bool_]:
    """Mask (N,) of the ``limit`` best and of everything that ties with the last of them; ``limit`` <= 0 keeps all."""
    if limit <= 0 or len(scores) <= limit:
        return np.ones(len(scores), dtype=np.bool_)
    threshold = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    return np.asarray(scores >= threshold)
