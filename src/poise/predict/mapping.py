"""From the pixels of a network input back to the pixels of the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poise.geometry.affine import apply, apply_to_boxes
from poise.types import Affine, Poses


def mapped_back(poses: Poses, to_image: Affine, image_size: tuple[int, int]) -> Poses:
    """Poses in image px; keypoints are not clipped, boxes are clipped to the picture's outer edges.

    Args:
        poses: in input px.
        to_image: (2, 3) map input px -> image px.
        image_size: (height, width) of the picture.
    """
    height, width = image_size
    edge = np.array([width, height, width, height], np.float64) - 0.5
    boxes = np.clip(apply_to_boxes(to_image, poses.boxes), -0.5, edge)
    return replace(
        poses,
        keypoints=apply(to_image, poses.keypoints).astype(np.float32),
        boxes=boxes.astype(np.float32),
        image_size=image_size,
    )
