"""Turning people upright before they are cropped: acrobats become people whose head is above their hips.

A network that learns from few pictures sees most people in everyday pictures upright; from athletes upside down it
learns little of use there, and it cannot tell their left from their right.

Letters: K keypoints. Frames: image px; *turned px* are image px after a rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.samples import Mask
from poise.geometry import affine
from poise.types import Affine, FloatArray

_GROWTH = (1.0, 1.6)
"""Limits of how much larger than the extent of the keypoints the box may be, in each direction."""


class Turned(NamedTuple):
    """A person in turned px.

    Attributes:
        matrix: image px -> turned px.
        keypoints: (K, 3).
        box: (4,) xyxy around the labelled keypoints, with the margin that the annotated box has.
    """

    matrix: Affine
    keypoints: FloatArray
    box: FloatArray


def torso_masks(lower: Sequence[str], upper: Sequence[str], keypoints: Sequence[str]) -> tuple[Mask, Mask]:
    """(K,) which keypoints are the lower and the upper end of the torso; ``ValueError`` names one that is missing."""
    for name in (*lower, *upper):
        if name not in keypoints:
            raise ValueError(
                f"crop.torso names {name!r}, which is no keypoint of the skeleton: {', '.join(keypoints)}; "
                "name some of these, or set crop.upright_p to 0"
            )
    ends: tuple[Mask, Mask] = (np.isin(list(keypoints), list(lower)), np.isin(list(keypoints), list(upper)))
    return ends


def upright(keypoints: FloatArray, box: npt.ArrayLike, torso: tuple[Mask, Mask]) -> Turned | None:
    """The person turned about the centre of the box until the torso points up.

    Args:
        keypoints: (K, 3) image px.
        box: (4,) xyxy, image px.
        torso: masks (K,) of its lower and its upper end.

    Returns:
        None if an end is not labelled or both are in the same place.
    """
    labelled = keypoints[:, 2] > 0
    degrees = lean(keypoints, torso)
    if degrees is None:
        return None
    corners = np.asarray(box, np.float64)
    centre = (corners[:2] + corners[2:]) / 2
    matrix = affine.rotation(degrees, (float(centre[0]), float(centre[1])))
    points = keypoints.copy()
    points[:, :2] = affine.apply(matrix, keypoints[:, :2])
    return Turned(matrix, points, _box(points[labelled, :2], corners, keypoints[labelled, :2]))


def lean(keypoints: FloatArray, torso: tuple[Mask, Mask]) -> float | None:
    """Degrees counter-clockwise, -180..180, by which to turn the picture until the torso points up.

    Args:
        keypoints: (K, 3), x, y and visibility.
        torso: as `upright`.

    Returns:
        None if an end is not labelled or both are in the same place.
    """
    labelled = keypoints[:, 2] > 0
    ends = [labelled & end for end in torso]
    if not all(end.any() for end in ends):
        return None
    low, high = (keypoints[end, :2].astype(np.float64).mean(0) for end in ends)
    across, along = high - low
    if np.hypot(across, along) < 1.0:
        return None
    return float(np.rad2deg(np.arctan2(across, -along)))


def _box(points: FloatArray, box: npt.NDArray[np.float64], before: FloatArray) -> FloatArray:
    """The extent of ``points``, larger by as much as ``box`` is larger than the extent of the points ``before``."""
    extent = np.maximum(before.max(0) - before.min(0), 1.0)
    growth = float(np.clip(np.sqrt(np.prod((box[2:] - box[:2]) / extent)), *_GROWTH))
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, np.maximum(high - low, 1.0) * growth / 2
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
