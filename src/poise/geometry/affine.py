"""Affine maps between frames, as (2, 3) float64 matrices acting on points (x, y).

Letters: ... any leading axes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from poise.types import Affine, ViewSpec

FloatPoints = npt.NDArray[np.floating]


def identity() -> Affine:
    """The map that leaves every point where it is."""
    return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def scaling(factor_x: float, factor_y: float, half_pixel: bool = True) -> Affine:
    """Resizing by the given factors.

    With ``half_pixel`` the outer edge of the picture (-0.5) is the fixed point, as image resizers do:
    x' = f (x + 1/2) - 1/2. Without, x' = f x.
    """
    shift = 0.5 if half_pixel else 0.0
    return np.array([[factor_x, 0.0, shift * (factor_x - 1)], [0.0, factor_y, shift * (factor_y - 1)]])


def translation(dx: float, dy: float) -> Affine:
    """X' = x + dx, y' = y + dy."""
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])


def mirror(width: int) -> Affine:
    """Left-right mirror of a picture ``width`` pixels wide: x' = width - 1 - x."""
    return np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def rotation(degrees: float, centre: tuple[float, float]) -> Affine:
    """Rotation about ``centre`` (x, y), counter-clockwise as seen on the screen."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    x, y = centre
    return np.array([[c, s, x - c * x - s * y], [-s, c, y + s * x - c * y]])


def compose(*maps: Affine) -> Affine:
    """The map that applies ``maps`` from left to right."""
    total = np.eye(3)
    for matrix in maps:
        total = np.vstack([matrix, [0.0, 0.0, 1.0]]) @ total
    return np.ascontiguousarray(total[:2])


def invert(matrix: Affine) -> Affine:
    """The inverse map; ``ValueError`` if the map is not invertible."""
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    if not np.isfinite(determinant) or abs(determinant) < 1e-12:
        raise ValueError(f"affine map has no inverse: {matrix.tolist()}")
    return np.ascontiguousarray(np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2])


def apply(matrix: Affine, points: FloatPoints) -> npt.NDArray[np.float64]:
    """Map points (..., 2)."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def apply_to_boxes(matrix: Affine, boxes: FloatPoints) -> npt.NDArray[np.float64]:
    """Axis-aligned hull (..., 4) of mapped boxes (..., 4) xyxy."""
    boxes = np.asarray(boxes, np.float64)
    corners = boxes.reshape(*boxes.shape[:-1], 2, 1, 2)
    terms = corners * matrix[:, :2]
    low, high = terms.min(-3).sum(-1), terms.max(-3).sum(-1)
    return np.concatenate([low + matrix[:, 2], high + matrix[:, 2]], -1)


def area_factor(matrix: Affine) -> float:
    """By how much the map multiplies areas."""
    return float(abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))


def fit(image_size: tuple[int, int], spec: ViewSpec) -> tuple[Affine, tuple[int, int]]:
    """How a whole picture goes into a network input.

    The factor is min(long_side / longer side, short_side / shorter side); the sizes are rounded to the nearest
    integer. The factors of the two axes follow from the rounded sizes, so that the picture fills them exactly.

    Args:
        image_size: (height, width) of the picture.
        spec: a ``whole`` view.

    Returns:
        The map image px -> input px and the (height, width) that the picture covers in the input.
    """
    height, width = image_size
    if height < 1 or width < 1:
        raise ValueError(f"picture of size {width}x{height} (width x height) is empty")
    factor = spec.long_side / max(image_size)
    if spec.short_side is not None:
        factor = min(factor, spec.short_side / min(image_size))
    new_h, new_w = max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
    if spec.half_pixel:
        return scaling(new_w / width, new_h / height), (new_h, new_w)
    return scaling(factor, factor, half_pixel=False), (new_h, new_w)
