"""From the pixels of a network input back to the pixels of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poise.geometry.affine import apply, apply_to_boxes
from poise.geometry.boxes import clipped_to
from poise.models.base import PoseModel
from poise.models.directpose import DirectPoseConfig
from poise.types import Affine, Poses


def clips_first(model: PoseModel) -> bool:
    """Whether boxes are clipped before the suppression: all but those of a box branch (DirectPose spec 9)."""
    return not (isinstance(model.config, DirectPoseConfig) and model.config.box_branch)


def mapped_back(poses: Poses, to_image: Affine, image_size: tuple[int, int], clip: bool = True) -> Poses:
    """Poses in image px; keypoints are not clipped, boxes are clipped to the picture's outer edges.

    A map that mirrors (negative determinant) exchanges left and right keypoints: what the network called left in a
    mirrored view is right in the picture.

    Args:
        poses: in input px.
        to_image: (2, 3) map input px -> image px.
        image_size: (height, width) of the picture.
        clip: clip the boxes.
    """
    boxes = apply_to_boxes(to_image, poses.boxes).astype(np.float32)
    mirrored = np.linalg.det(to_image[:, :2]) < 0
    order = list(poses.skeleton.flip_index) if mirrored else slice(None)
    return replace(
        poses,
        keypoints=apply(to_image, poses.keypoints)[:, order].astype(np.float32),
        keypoint_scores=poses.keypoint_scores[:, order],
        visibility=None if poses.visibility is None else poses.visibility[:, order],
        boxes=clipped_to(boxes, image_size) if clip else boxes,
        image_size=image_size,
    )
