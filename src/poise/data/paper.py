"""The training pipeline of the DirectPose paper (spec 10): resize, flip, crop around somebody, in one resampling.

The steps are functions of their own, so that other recipes can be composed of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poise.data import transforms
from poise.data.config import PaperConfig
from poise.data.samples import Sample, Size, Truth, map_truth
from poise.geometry import affine
from poise.types import Affine


def resize_flip_crop(
    sample: Sample, config: PaperConfig, flip_index: Sequence[int], rng: np.random.Generator
) -> Sample:
    """A random training picture of at most ``config.crop`` pixels a side.

    After the crop keypoints outside have visibility 0, boxes are clipped but not computed anew, and persons whose box
    vanished are dropped; a person may be left without a visible keypoint.
    """
    matrix, size = random_resize(sample.size, config.short_sides, config.long_side, rng)
    if rng.random() < config.flip_p:
        matrix = affine.compose(matrix, affine.mirror(size[1]))
    moved = map_truth(sample.truth, matrix, flip_index)
    left, top, window = random_window(moved, size, config.crop, rng)
    matrix = affine.compose(matrix, affine.translation(-left, -top))
    return transforms.warp(sample, matrix, window, flip_index)


def random_resize(
    size: Size, short_sides: tuple[int, int], long_side: int, rng: np.random.Generator
) -> tuple[Affine, Size]:
    """Scale the shorter side to a uniform integer within ``short_sides``, the longer to ``long_side`` at most.

    Returns:
        The map and the new (height, width), rounded to the nearest pixel.
    """
    short = int(rng.integers(short_sides[0], short_sides[1] + 1))
    factor = min(short / min(size), long_side / max(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return affine.scaling(width / size[1], height / size[0]), (height, width)


def random_window(truth: Truth, size: Size, crop: int, rng: np.random.Generator) -> tuple[int, int, Size]:
    """A window of at most ``crop`` pixels a side that holds the centre of a random person's box, if anybody is there.

    Args:
        truth: of the picture.
        size: (height, width) of the picture.
        crop: side of the window; smaller where the picture is.
        rng: source of chance.

    Returns:
        Left, top and (height, width) of the window; it lies inside the picture.
    """
    window = min(crop, size[0]), min(crop, size[1])
    low, high = np.zeros(2, np.int64), np.array([size[1] - window[1], size[0] - window[0]])
    if len(truth):
        box = truth.person_boxes[rng.integers(len(truth))]
        centre = (box[:2] + box[2:]) / 2
        side = np.array([window[1], window[0]])
        first = np.clip(np.floor(centre) - side + 1, low, high)
        high = np.clip(np.ceil(centre), low, high).astype(np.int64)
        low = np.minimum(first.astype(np.int64), high)
    left, top = (int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
    return left, top, window
