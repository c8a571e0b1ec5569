"""Anti-aliased lines, discs and labels, blended into a picture in place. Frame: image px."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from poise.draw.styles import Colour, Palette
from poise.types import ImageArray

Point = npt.NDArray[np.float64]
"""(2,) x, y."""
_SHIFT = 4
_UNIT = 1 << _SHIFT
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def rim(width: float) -> float:
    """By how much an outline is wider than its line."""
    return max(1.4, 0.5 * width)


def draw_line(
    canvas: ImageArray,
    start: Point,
    end: Point,
    width: float,
    colour: Colour,
    alpha: float,
) -> None:
    """A line with round ends, ``width`` px wide, as an anti-aliased polygon."""
    clipped = clip_segment(start, end, canvas.shape[:2], width)
    if clipped is None:
        return
    start, end = clipped
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    half_turn = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
    turns = np.concatenate([angle + half_turn, angle + math.pi + half_turn])
    centres = np.repeat([start, end], len(half_turn), axis=0)
    outline = centres + 0.5 * width * np.column_stack([np.cos(turns), np.sin(turns)])
    fill(canvas, outline, colour, alpha)


def draw_point(
    canvas: ImageArray, centre: Point, width: float, colour: Colour, alpha: float, palette: Palette | None
) -> None:
    """A disc, with a light ring and a dark rim if a palette is given."""
    radius = 0.95 * width
    if clip_segment(centre, centre, canvas.shape[:2], 4 * width) is None:
        return
    turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.column_stack([np.cos(turns), np.sin(turns)])
    rings = [(radius, colour)]
    if palette is not None and width >= 2:
        edge = rim(width)
        rings = [(radius + 0.7 * edge, palette.outline), (radius + 0.3 * edge, palette.text), *rings]
    for size, paint in rings:
        fill(canvas, centre + size * circle, paint, alpha)


def fill(canvas: ImageArray, polygon: Point, colour: Colour, alpha: float) -> None:
    """Blend a convex polygon (points x, y) over the canvas, with anti-aliased edges; in place."""
    height, width = canvas.shape[:2]
    x1, y1 = np.maximum(np.floor(polygon.min(0)).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(polygon.max(0)).astype(int) + 2, (width, height))
    if x1 >= x2 or y1 >= y2:
        return
    mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    corners = np.rint((polygon - (x1, y1)) * _UNIT).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    weight = mask.astype(np.float32)[..., None] * (alpha / 255)
    region = canvas[y1:y2, x1:x2]
    region[:] = np.rint(region + weight * (np.asarray(colour, np.float32) - region)).astype(np.uint8)


def clip_segment(start: Point, end: Point, size: tuple[int, ...], margin: float) -> tuple[Point, Point] | None:
    """The part of a segment within ``margin`` px of the picture (Liang and Barsky); None if there is none."""
    low = np.full(2, -margin - 1)
    high = np.array([size[1], size[0]]) + margin
    delta = end - start
    enter, leave = 0.0, 1.0
    for axis in range(2):
        if delta[axis] == 0:
            if not low[axis] <= start[axis] <= high[axis]:
                return None
            continue
        near, far = sorted(((low[axis] - start[axis]) / delta[axis], (high[axis] - start[axis]) / delta[axis]))
        enter, leave = max(enter, near), min(leave, far)
    if enter > leave:
        return None
    # far away ends lose their fractions in the sums above
    return np.clip(start + enter * delta, low, high), np.clip(start + leave * delta, low, high)


def draw_label(
    canvas: ImageArray,
    text: str,
    corner: Sequence[float],
    width: float,
    palette: Palette,
    *,
    centred: bool = False,
    opacity: float = 0.65,
) -> None:
    """Text on a plate of the outline's colour above a point, moved into the picture.

    The point is the plate's lower left corner, or, if ``centred``, the middle of its lower edge.
    """
    size = min(2.0, max(0.35, 0.12 * width))
    thickness = max(1, round(1.6 * size))
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, size, thickness)
    height, picture_width = canvas.shape[:2]
    plate_width, plate_height = text_width + 6, text_height + base + 4
    start = corner[0] - centred * plate_width / 2
    left = int(np.clip(start, 0, max(0, picture_width - plate_width)))
    top = int(np.clip(corner[1] - plate_height, 0, max(0, height - plate_height)))
    plate = canvas[top : top + plate_height, left : left + plate_width]
    plate[:] = np.rint((1 - opacity) * plate + opacity * np.asarray(palette.outline, np.float32)).astype(np.uint8)
    origin = (left + 3, top + text_height + 2)
    cv2.putText(canvas, text, origin, _FONT, size, palette.text, thickness, cv2.LINE_AA)
