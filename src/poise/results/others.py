"""Poses for other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from poise.extras import needs
from poise.types import Poses


def to_supervision(poses: Poses) -> Any:
    """``supervision.KeyPoints``; needs supervision (``pip install 'poise[supervision]'``).

    Instance scores, boxes and ids are in ``data`` as ``score``, ``xyxy`` and ``tracker_id``; keypoints that are not
    known are at (0, 0), which is how supervision marks them.
    """
    supervision = needs("supervision", "supervision", "supervision.KeyPoints")
    data: dict[str, Any] = {"score": poses.scores, "xyxy": poses.boxes, "class_name": np.array(["person"] * len(poses))}
    if poses.ids is not None:
        data["tracker_id"] = poses.ids
    known = np.asarray(np.isfinite(poses.keypoints).all(2, keepdims=True))
    points = np.where(known, poses.keypoints, np.float32(0))
    # the third argument was renamed between versions; its place was not
    return supervision.KeyPoints(points, np.zeros(len(poses), np.int64), poses.keypoint_scores, data=data)
