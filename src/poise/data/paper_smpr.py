"""The training pipeline of the SMPR paper (SMPR spec 9): resize, flip, crop anywhere, in the authors' way.

Resizing maps points by x' = f x, while pixels are resampled between picture edges, as in the reference. Whatever lies
outside the crop is moved to its border and stays labelled. The steps are functions of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from poise.data import transforms
from poise.data.config import PaperConfig
from poise.data.samples import Sample, Size, Truth, drop_gone, labelled_extent, map_truth, select
from poise.geometry import affine
from poise.types import FloatArray, ImageArray


def resize_flip_clip(
    sample: Sample, config: PaperConfig, flip_index: Sequence[int], rng: np.random.Generator
) -> Sample:
    """A random training picture of at most ``config.crop`` pixels a side; maybe nobody is left in it."""
    short = int(rng.integers(config.short_sides[0], config.short_sides[1] + 1))
    sample = resize_to_fit(replace(sample, truth=usable(sample.truth)), config.long_side, short)
    if rng.random() < config.flip_p:
        sample = transforms.flip(sample, flip_index)
    height, width = (min(config.crop, side) for side in sample.size)
    top = int(rng.integers(sample.size[0] - height + 1))
    left = int(rng.integers(sample.size[1] - width + 1))
    return clipped_crop(sample, left, top, (height, width))


def usable(truth: Truth) -> Truth:
    """Without persons of no area, and those whose labelled keypoints extend over less than a pixel."""
    low, high = labelled_extent(truth.keypoints)
    return select(truth, (truth.areas > 0) & (high - low >= 1).all(1))


def resize_to_fit(sample: Sample, long_side: int, short_side: int) -> Sample:
    """Scale by min(long_side / longer, short_side / shorter side), sizes rounded to the nearest pixel."""
    size = sample.size
    factor = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    image: ImageArray = np.asarray(cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_LINEAR))
    # a scaling never mirrors, so the permutation is not looked at
    truth = map_truth(sample.truth, affine.scaling(factor, factor, half_pixel=False), ())
    return Sample(image, clip_everything(truth, (height, width)))


def clipped_crop(sample: Sample, left: int, top: int, size: Size) -> Sample:
    """The window of that (height, width) whose top left pixel is (left, top).

    Keypoints outside move to the border and keep their visibility. Areas shrink with the extent of the labelled
    keypoints. Boxes are clipped, not computed anew; a person whose box vanishes is dropped.
    """
    height, width = size
    before = _extent_areas(sample.truth.keypoints)
    truth = clip_everything(transforms.shift(sample.truth, -left, -top), size)
    after = _extent_areas(truth.keypoints)
    share = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    truth = drop_gone(replace(truth, areas=truth.areas * share))
    return Sample(np.ascontiguousarray(sample.image[top : top + height, left : left + width]), truth)


def clip_everything(truth: Truth, size: Size) -> Truth:
    """Keypoints, boxes and regions moved into [0, width - 1] x [0, height - 1]; visibilities stay."""
    limit = np.array([size[1] - 1, size[0] - 1], np.float32)
    corners = np.tile(limit, 2)
    keypoints = truth.keypoints.copy()
    keypoints[..., :2] = np.clip(keypoints[..., :2], 0, limit)
    return Truth(
        keypoints,
        np.clip(truth.boxes, 0, corners),
        truth.areas,
        np.clip(truth.ignore, 0, corners),
        np.clip(truth.person_boxes, 0, corners),
    )


def _extent_areas(keypoints: FloatArray) -> FloatArray:
    low, high = labelled_extent(keypoints)
    areas: FloatArray = (high - low).prod(1).astype(np.float32)
    return areas
