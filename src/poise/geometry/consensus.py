"""Scores that count how far neighbouring locations agree on a pose.

A dense head predicts every person many times. Where a picture shows a person the network understands, the predictions
of neighbouring locations agree; where it guesses, they do not. Not part of any of the papers.

Letters: N final poses, M candidates, K keypoints.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poise.geometry.oks import paired_oks
from poise.types import FloatArray, Poses

NEIGHBOUR_IOU = 0.3
"""Candidates whose boxes overlap a pose's box by more are its neighbours."""
ENOUGH = 4.0
"""Agreeing candidates of score 1 that give half of the full support."""


def consensus_scores(poses: Poses, candidates: Poses) -> FloatArray:
    """New scores (N,) in 0..1: score x agreement x support / (support + `ENOUGH`).

    Over the neighbours of a pose among the candidates, support is the sum of score x OKS, and agreement is support over
    the sum of scores. The OKS of a pose with a candidate takes the area of the candidate's box.

    Args:
        poses: N poses, in the frame of the candidates; usually some of them.
        candidates: M poses before suppression.
    """
    pose, candidate = np.nonzero(box_iou(poses.boxes, candidates.boxes) > NEIGHBOUR_IOU)
    sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
    similar = paired_oks(
        poses.keypoints[pose], candidates.keypoints[candidate], sides.prod(1)[candidate], poses.skeleton.sigmas
    )
    weight = candidates.scores[candidate].astype(np.float64)
    support = np.bincount(pose, weight * similar, len(poses)).astype(np.float64)  # whole numbers if there is no pair
    total = np.bincount(pose, weight, len(poses)).astype(np.float64)
    agreement = np.divide(support, total, out=np.zeros_like(support), where=total > 0)
    return np.asarray(poses.scores * agreement * support / (support + ENOUGH), dtype=np.float32)


def box_iou(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float32]:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area_a = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(-1)
    area_b = np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1)
    union = area_a[:, None] + area_b[None] - inter
    iou: npt.NDArray[np.float32] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou
