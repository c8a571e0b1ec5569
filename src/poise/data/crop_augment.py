"""Random training crops (RSN spec 10): drawn numbers are a record, what they do is a pure function of it.

Order: upright turn, extension of the box, half body, mirror, shift, scale, rotation; then one warp, then colours and
patches. Half body comes before the mirror here and after it in mmpose, which makes no difference.

Letters: K keypoints, H W picture, h w crop. Frames: image px, input px.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.compose import recolour
from poise.data.config import AugmentConfig
from poise.data.crop_config import CropConfig
from poise.data.crops import Frame, Vector, box_frame, crop_size, frame_matrix
from poise.data.damage import erase
from poise.data.samples import Mask
from poise.geometry import affine
from poise.skeletons import lower_body
from poise.types import Affine, FloatArray, ImageArray, ViewSpec

Pair = tuple[float, float]

_NORMAL = NormalDist()
_FALLBACK_KEYPOINTS = 3


class CropDraw(NamedTuple):
    """The random numbers of one crop.

    Attributes:
        extension: 0..1, how much of ``extension_jitter`` is added to width and height.
        half_body: whether half of the body is looked at, if the person has keypoints enough.
        upper: whether that is the upper half, if both have keypoints enough.
        half_body_extension: 0..1, as ``extension``, for the box of the half.
        scale: factor on the sides, ``scale_base`` not included.
        shift: of the centre, relative to width and height.
        degrees: rotation.
        flip: whether the picture is mirrored.
        upright: whether the person is turned upright first, if it is known how.
    """

    extension: Pair = (0.0, 0.0)
    half_body: bool = False
    upper: bool = True
    half_body_extension: Pair = (0.0, 0.0)
    scale: float = 1.0
    shift: Pair = (0.0, 0.0)
    degrees: float = 0.0
    flip: bool = False
    upright: bool = False


def draw(rng: np.random.Generator, config: CropConfig) -> CropDraw:
    """Numbers for one crop; always the same number of calls of ``rng``."""
    numbers = rng.random(14).tolist()
    place = [_spread(u, config.spread) for u in numbers[6:10]]
    middle, reach = (config.scale[0] + config.scale[1]) / 2, (config.scale[1] - config.scale[0]) / 2
    shift = config.shift if numbers[10] < config.shift_p else 0.0
    turn = config.rotation if numbers[11] < config.rotation_p else 0.0
    return CropDraw(
        extension=(numbers[0], numbers[1]),
        half_body=numbers[2] < config.half_body_p,
        upper=numbers[3] < config.upper_p,
        half_body_extension=(numbers[4], numbers[5]),
        scale=middle + reach * place[0],
        shift=(shift * place[1], shift * place[2]),
        degrees=turn * place[3],
        flip=numbers[12] < config.flip_p,
        upright=numbers[13] < config.upright_p,
    )


def training_matrix(
    keypoints: FloatArray,
    box: npt.ArrayLike,
    width: int,
    drawn: CropDraw,
    config: CropConfig,
    spec: ViewSpec,
    upper: Mask,
) -> Affine:
    """The map image px -> input px of a training crop; it mirrors if ``drawn.flip``.

    Args:
        keypoints: (K, 3) of the person, image px.
        box: (4,) xyxy of the person, image px.
        width: of the picture.
        drawn: the random numbers.
        config: what they are applied to.
        spec: of the model; a ``crop`` view.
        upper: (K,) which keypoints belong to the upper half of the body.
    """
    frame = training_frame(keypoints, box, width, drawn, config, spec, upper)
    matrix = frame_matrix(frame, crop_size(spec))
    return affine.compose(affine.mirror(width), matrix) if drawn.flip else matrix


def training_frame(
    keypoints: FloatArray,
    box: npt.ArrayLike,
    width: int,
    drawn: CropDraw,
    config: CropConfig,
    spec: ViewSpec,
    upper: Mask,
) -> Frame:
    """The rectangle of a training crop, in px of the picture, or of the mirrored picture if ``drawn.flip``."""
    frame = box_frame(box, config.extension or spec.extension)
    frame = frame._replace(sides=_jittered(frame.sides, config.extension_jitter, drawn.extension))
    if drawn.half_body:
        frame = half_body(keypoints, upper, drawn, config) or frame
    centre = frame.centre
    if drawn.flip:
        centre = np.array([width - 1 - centre[0], centre[1]])
    centre = centre + frame.sides * drawn.shift
    return Frame(centre, frame.sides * (config.scale_base * drawn.scale), drawn.degrees)


def half_body(keypoints: FloatArray, upper: Mask, drawn: CropDraw, config: CropConfig) -> Frame | None:
    """The box around the labelled keypoints of the upper or lower half; None if there are too few of them."""
    labelled = keypoints[:, 2] > 0
    if labelled.sum() < config.half_body_keypoints:
        return None
    chosen = _half(labelled & upper, labelled & ~upper, drawn.upper, config)
    if chosen is None:
        return None
    points = keypoints[chosen, :2].astype(np.float64)
    low, high = points.min(0), points.max(0)
    sides = np.maximum(high - low, 1.0) * config.half_body_extension
    centre = points.mean(0) if config.half_body_centre == "mean" else (low + high) / 2
    return Frame(centre, _jittered(sides, config.half_body_jitter, drawn.half_body_extension))


def look_around(image: ImageArray, config: CropConfig, augment: AugmentConfig, rng: np.random.Generator) -> ImageArray:
    """The crop (h, w, 3) with changed colours and painted-over patches, as often as ``config`` says."""
    if config.recolour_p and rng.random() < config.recolour_p:
        image = recolour(image, augment, rng)
    if config.erase_p and rng.random() < config.erase_p:
        image, _ = erase(image, config.erase_patches, config.erase_size, rng)
    return image


def upper_mask(names: Sequence[str] | None, keypoints: Sequence[str]) -> Mask:
    """(K,) which of the skeleton's keypoints belong to the upper half of the body.

    Args:
        names: of the keypoints that do; None: all but those that `poise.skeletons.lower_body` finds.
        keypoints: of the skeleton.

    Raises:
        ValueError: a name is none of the skeleton's.
    """
    if names is None:
        return ~np.isin(np.arange(len(keypoints)), lower_body(keypoints))
    unknown = [name for name in names if name not in keypoints]
    if unknown:
        raise ValueError(
            f"crop.upper names {unknown[0]!r}, which is no keypoint of the skeleton: {', '.join(keypoints)}; "
            "name some of these, or set crop.upper to null (names decide) or crop.half_body_p to 0"
        )
    mask: Mask = np.isin(list(keypoints), list(names))
    return mask


def _half(upper: Mask, lower: Mask, prefer_upper: bool, config: CropConfig) -> Mask | None:
    """Which keypoints make the half body, or None."""
    enough_upper = upper.sum() >= config.upper_keypoints
    enough_lower = lower.sum() >= config.lower_keypoints
    if enough_upper and (prefer_upper or not enough_lower):
        return upper
    if enough_lower:
        return lower
    return upper if config.half_body_fallback and upper.sum() >= _FALLBACK_KEYPOINTS else None


def _jittered(sides: Vector, jitter: Pair, numbers: Pair) -> Vector:
    result: Vector = sides * (1 + np.array(jitter) * np.array(numbers))
    return result


def _spread(u: float, kind: str) -> float:
    """A number in [-1, 1) from a uniform one in [0, 1)."""
    if kind == "uniform":
        return 2 * u - 1
    low = _NORMAL.cdf(-1.0)
    return _NORMAL.inv_cdf(low + u * (1 - 2 * low))
