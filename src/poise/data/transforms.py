"""Changes of a `Sample`: pure functions; whatever is random takes a numpy Generator.

Letters: H W picture. Maps are (2, 3) affine matrices from the old frame to the new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from poise.data.samples import Sample, Size, Truth, clip_truth, drop_gone, map_truth
from poise.geometry import affine
from poise.types import Affine, ImageArray

Colour = tuple[int, int, int]
ColourMatrix = npt.NDArray[np.float64]
"""(3, 4): new RGB = matrix @ (R, G, B, 1), values 0..255."""

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def warp(sample: Sample, matrix: Affine, size: Size, flip_index: Sequence[int], border: Colour = (0, 0, 0)) -> Sample:
    """The sample through one affine map, resampled once.

    Args:
        sample: any sample.
        matrix: old px -> new px. If it mirrors, left and right keypoints change places.
        size: (height, width) of the new picture.
        flip_index: of the skeleton.
        border: colour of what the picture does not cover.

    Returns:
        The new sample; what lies outside the new frame is cut (`clip_truth`), who is gone is dropped (`drop_gone`).
    """
    truth = drop_gone(clip_truth(map_truth(sample.truth, matrix, flip_index), size))
    return Sample(warp_image(sample.image, matrix, size, border), truth)


def warp_image(image: ImageArray, matrix: Affine, size: Size, border: Colour | None = (0, 0, 0)) -> ImageArray:
    """The picture (H, W, 3) through an affine map, bilinear; ``size`` is (height, width) of the result.

    Outside the picture lies the colour ``border``; without one, the picture's edge goes on. Where the map shrinks to
    less than half, the picture is first halved by averaging, as often as needed, so that no pixel is skipped.
    """
    shrink = np.sqrt(affine.area_factor(matrix))
    while shrink < 0.5 and min(image.shape[:2]) >= 2:
        height, width = image.shape[:2]
        half = ((width + 1) // 2, (height + 1) // 2)
        image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        matrix = affine.compose(affine.scaling(width / half[0], height / half[1]), matrix)
        shrink *= 2
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    warped: ImageArray = cv2.warpAffine(
        image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=border or (0, 0, 0)
    )
    return warped


def flip(sample: Sample, flip_index: Sequence[int]) -> Sample:
    """Left and right exchanged: x' = W - 1 - x, and the keypoints by ``flip_index``. Twice is the identity."""
    truth = map_truth(sample.truth, affine.mirror(sample.size[1]), flip_index)
    return Sample(np.ascontiguousarray(sample.image[:, ::-1]), truth)


def crop(sample: Sample, left: int, top: int, size: Size) -> Sample:
    """The window of that (height, width) whose top left pixel is (left, top); it must lie inside the picture.

    Raises:
        ValueError: the window reaches outside.
    """
    height, width = size
    if left < 0 or top < 0 or left + width > sample.size[1] or top + height > sample.size[0] or min(size) < 1:
        raise ValueError(f"window {width}x{height} at ({left}, {top}) is not inside {sample.size[1]}x{sample.size[0]}")
    truth = drop_gone(clip_truth(shift(sample.truth, -left, -top), size))
    return Sample(np.ascontiguousarray(sample.image[top : top + height, left : left + width]), truth)


def shift(truth: Truth, dx: float, dy: float) -> Truth:
    """Truth moved by (dx, dy) pixels."""
    # a translation never mirrors, so the permutation is not looked at
    return map_truth(truth, affine.translation(dx, dy), ())


def colour_matrix(
    brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0, grey: float = 128.0
) -> ColourMatrix:
    """Saturation, hue, brightness, then contrast in one linear map; the defaults are the identity.

    Args:
        brightness: factor of all values.
        contrast: factor of the distance from ``grey``.
        saturation: factor of the distance from the pixel's own luma; 0 makes the picture grey.
        hue: turn of the colour wheel, in turns; luma is kept.
        grey: the value that contrast leaves alone.
    """
    angle = 2 * np.pi * hue
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    saturate = saturation * np.eye(3) + (1 - saturation) * _LUMA[None, :]
    linear = contrast * brightness * (_FROM_YIQ @ turn @ _TO_YIQ @ saturate)
    return np.concatenate([linear, np.full((3, 1), (1 - contrast) * grey)], axis=1)


def recolour(image: ImageArray, matrix: ColourMatrix) -> ImageArray:
    """The picture through a linear map of its colours, rounded and kept within 0..255."""
    changed: ImageArray = cv2.transform(image, matrix)
    return changed


def blur(image: ImageArray, sigma: float) -> ImageArray:
    """Gaussian blur; ``sigma`` in pixels."""
    blurred: ImageArray = cv2.GaussianBlur(image, (0, 0), sigma)
    return blurred


def similarity(
    anchor: tuple[float, float],
    target: tuple[float, float],
    factor: float,
    degrees: float = 0.0,
    mirrored: bool = False,
) -> Affine:
    """The map that takes the point ``anchor`` to ``target``: mirror, scale by ``factor``, rotate by ``degrees``."""
    matrix = factor * affine.rotation(degrees, (0.0, 0.0))
    if mirrored:
        matrix[:, 0] *= -1
    matrix[:, 2] = np.array(target) - matrix[:, :2] @ np.array(anchor)
    return matrix
