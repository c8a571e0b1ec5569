"""Pixels that are lost in training pictures: noise, patches that are painted over, two pictures laid on one another.

Letters: H W picture, N persons. Frame: input px.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from poise.data.samples import Mask, Sample, Truth, cover_truth, join, select
from poise.types import ImageArray


def add_noise(image: ImageArray, sigma: float, rng: np.random.Generator) -> ImageArray:
    """The picture (H, W, 3) with Gaussian noise of that standard deviation, on the scale 0..255, in every value."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noisy: ImageArray = np.clip(np.rint(image + sigma * noise), 0, 255).astype(np.uint8)
    return noisy


def erase(
    image: ImageArray, patches: tuple[int, int], size: tuple[float, float], rng: np.random.Generator
) -> tuple[ImageArray, Mask]:
    """A copy with rectangles painted over, each in a random colour.

    Args:
        image: (H, W, 3).
        patches: least and largest number of rectangles.
        size: least and largest length of their sides, relative to the picture's.
        rng: source of chance.

    Returns:
        The picture, and (H, W) where it was painted over.
    """
    image = image.copy()
    height, width = image.shape[:2]
    painted = np.zeros((height, width), np.bool_)
    for _ in range(int(rng.integers(patches[0], patches[1] + 1))):
        patch_h, patch_w = (max(1, round(side * rng.uniform(*size))) for side in (height, width))
        top, left = (int(rng.integers(1 - part // 2, side)) for part, side in ((patch_h, height), (patch_w, width)))
        patch = (slice(max(0, top), top + patch_h), slice(max(0, left), left + patch_w))
        image[patch] = rng.integers(0, 256, 3)
        painted[patch] = True
    return image, painted


def hide_truth(truth: Truth, covered: Mask, min_visible: int) -> Truth:
    """Truth after something came before the people: what they lost is still theirs, but occluded.

    Unlike `poise.data.samples.cover_truth`, which is for people who were painted over by others. Boxes stay, since they
    are the extent of whole people.

    Args:
        truth: of N persons, all inside the frame.
        covered: (H, W) True where pixels were painted over.
        min_visible: who lost keypoints and has fewer left becomes an ignore region.
    """
    left = cover_truth(truth, covered)
    lost = (left.labelled < truth.labelled) & (left.labelled < min_visible)
    keypoints = truth.keypoints.copy()
    keypoints[..., 2][left.keypoints[..., 2] < keypoints[..., 2]] = 1
    kept = select(replace(truth, keypoints=keypoints), ~lost)
    return replace(kept, ignore=np.concatenate([truth.ignore, truth.boxes[lost]]))


def mix(first: Sample, second: Sample, share: float) -> Sample:
    """Two pictures of one size laid on one another, ``share`` of it the first; the people of both are there."""
    image: ImageArray = np.asarray(cv2.addWeighted(first.image, share, second.image, 1 - share, 0.0))
    return Sample(image, join([first.truth, second.truth]))
