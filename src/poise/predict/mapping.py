"""From the pixels of a network input back to the pixels of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poise.geometry.affine import apply, apply_to_boxes
from poise.types import Affine, Poses


def mapped_back(poses: Poses, to_image: Affine, image_size: tuple[int, int]) -> Poses:
    """Poses in image px; keypoints are not clipped, boxes are clipped to the picture's outer edges.

    A map that mirrors (negative determinant) exchanges left and right keypoints: what the network called left in a
    mirrored view is right in the picture.

    Args:
        poses: in input px.
        to_image: (2, 3) map input px -> image px.
        image_size: (height, width) of the picture.
    """
    height, width = image_size
    edge = np.array([width, height, width, height], np.float64) - 0.5
    boxes = np.clip(apply_to_boxes(to_image, poses.boxes), -0.5, edge)
    mirrored = np.linalg.det(to_image[:, :2]) < 0
    order = list(poses.skeleton.flip_index) if mirrored else slice(None)
    return replace(
        poses,
        keypoints=apply(to_image, poses.keypoints)[:, order].astype(np.float32),
        keypoint_scores=poses.keypoint_scores[:, order],
        visibility=None if poses.visibility is None else poses.visibility[:, order],
        boxes=boxes.astype(np.float32),
        image_size=image_size,
    )
