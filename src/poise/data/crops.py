"""One person's box as network input: the map into the crop, and the crop as a view (RSN spec 10).

Letters: H W picture, h w crop. Frames: image px, input px. A crop does not shift by half pixels: point p maps to M p,
and the centre of a box to (w / 2, h / 2).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from poise.data.samples import Size, Truth, map_truth
from poise.data.transforms import similarity
from poise.data.views import image_tensor, normalise
from poise.geometry import affine
from poise.types import Affine, ImageArray, View, ViewSpec

Vector = npt.NDArray[np.float64]
"""(2,) x, y."""

_LARGEST_SIDE = 32_766
"""OpenCV warps no picture with a longer side."""


class Frame(NamedTuple):
    """A rectangle of the picture that becomes a crop.

    Attributes:
        centre: (2,) x, y, image px.
        sides: (2,) width and height, image px, before they take the shape of the crop.
        degrees: how far the picture is turned about the centre, counter-clockwise as seen on the screen.
    """

    centre: Vector
    sides: Vector
    degrees: float = 0.0


def crop_matrix(box: npt.ArrayLike, spec: ViewSpec, rotation: float = 0.0, turns: int = 0) -> Affine:
    """The map image px -> input px that shows a person's box.

    Args:
        box: (4,) xyxy, image px; a side shorter than a pixel counts as one pixel.
        spec: of the model; its sides are those of the box times ``extension``, the shorter one made to fit ``size``.
        rotation: of the picture about the box's centre, degrees, counter-clockwise as seen on the screen.
        turns: quarter turns of the picture, likewise; the sides of the box turn with it.

    Raises:
        ValueError: ``spec`` describes a whole view, or the box is none.
    """
    frame = box_frame(box, spec.extension)
    if turns % 2:
        frame = frame._replace(sides=(frame.sides / spec.extension)[::-1] * spec.extension)
    return frame_matrix(frame._replace(degrees=rotation + 90.0 * turns), crop_size(spec))


def crop_view(
    image: ImageArray,
    box: npt.ArrayLike,
    spec: ViewSpec,
    image_id: int | str = 0,
    box_score: float = 1.0,
    truth: Truth | None = None,
    turns: int = 0,
    rotation: float = 0.0,
) -> View:
    """A person's box as the network wants it: warped bilinearly, black where the picture ends, normalised.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy, image px.
        spec: of the model; a ``crop`` view.
        image_id: kept in the view.
        box_score: kept in the view.
        truth: of the person, image px, or None.
        turns: as `crop_matrix`.
        rotation: as `crop_matrix`.

    Raises:
        ValueError: as `crop_matrix`.
    """
    matrix = crop_matrix(box, spec, rotation, turns)
    size = crop_size(spec)
    return View(
        image=image_tensor(normalise(warp_crop(image, matrix, size), spec)),
        to_input=matrix,
        size=size,
        image_size=(image.shape[0], image.shape[1]),
        image_id=image_id,
        persons=None if truth is None else map_truth(truth, matrix, ()).persons(),
        box=np.asarray(box, np.float32),
        box_score=box_score,
    )


def crop_size(spec: ViewSpec) -> Size:
    """(height, width) of a crop view; ``ValueError`` if ``spec`` describes a whole view."""
    if spec.kind != "crop" or spec.size is None:
        raise ValueError("a crop needs a spec of kind 'crop', not 'whole'")
    return spec.size


def box_frame(box: npt.ArrayLike, extension: tuple[float, float]) -> Frame:
    """The extended box; ``ValueError`` unless it is four finite numbers x1 <= x2, y1 <= y2."""
    corners = np.asarray(box, np.float64)
    if corners.shape != (4,) or not np.isfinite(corners).all() or (corners[2:] < corners[:2]).any():
        raise ValueError(f"a person's box must be (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, not {corners.tolist()}")
    sides = np.maximum(corners[2:] - corners[:2], 1.0)
    return Frame((corners[:2] + corners[2:]) / 2, sides * extension)


def fitted_sides(sides: Vector, size: Size) -> Vector:
    """Sides (width, height) with the shorter one enlarged to the shape of a crop of that (height, width)."""
    ratio = size[1] / size[0]
    return np.array([max(sides[0], sides[1] * ratio), max(sides[1], sides[0] / ratio)])


def frame_matrix(frame: Frame, size: Size) -> Affine:
    """The map image px -> input px of a frame, for a crop of that (height, width)."""
    height, width = size
    factor = width / float(fitted_sides(frame.sides, size)[0])
    centre = float(frame.centre[0]), float(frame.centre[1])
    return similarity(centre, (width / 2, height / 2), factor, frame.degrees)


def warp_crop(image: ImageArray, matrix: Affine, size: Size) -> ImageArray:
    """The picture (H, W, 3) through a map image px -> input px, as (h, w, 3): bilinear, zeros outside the picture.

    Nothing is averaged where the map shrinks, as in the references.
    """
    if max(image.shape[:2]) > _LARGEST_SIDE:
        left, top, right, bottom = seen_window(matrix, size, (image.shape[0], image.shape[1]))
        image = image[top:bottom, left:right]
        matrix = affine.compose(affine.translation(left, top), matrix)
    warped: ImageArray = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return warped


def seen_window(matrix: Affine, size: Size, image_size: Size) -> tuple[int, int, int, int]:
    """Columns and rows x1, y1, x2, y2 (x2, y2 excluded) of the picture that a crop of (height, width) depends on.

    The window lies within the picture and holds a pixel at least, also where the crop shows nothing of the picture.
    """
    height, width = size
    hull = affine.apply_to_boxes(affine.invert(matrix), np.array([-1.0, -1.0, width, height]))
    limits = np.array([image_size[1], image_size[0]])
    low = np.clip(np.floor(hull[:2]) - 1, 0, limits - 1)
    high = np.clip(np.ceil(hull[2:]) + 2, low + 1, limits)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
