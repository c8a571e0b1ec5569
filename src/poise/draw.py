"""Poses on a picture.

Letters: N poses, K keypoints, H W picture. Frame: image px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from poise.skeletons import Skeleton, mirrored_pairs
from poise.types import ImageArray, Poses

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""
Side = Literal["left", "right", "middle"]

_SHIFT = 4
_UNIT = 1 << _SHIFT
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a drawn person: the person's own left, right, and what is on or crosses the middle."""

    left: Colour = (255, 145, 20)
    right: Colour = (20, 165, 255)
    middle: Colour = (90, 225, 110)
    outline: Colour = (15, 15, 20)
    text: Colour = (255, 255, 255)


def draw_poses(
    image: ImageArray,
    poses: Poses,
    *,
    show_boxes: bool = False,
    min_keypoint_score: float = 0.0,
    scale: float | None = None,
    palette: Palette | None = None,
) -> ImageArray:
    """A copy of the picture with the poses on it; the better ones are drawn over the worse.

    Limbs and points fade with the keypoint scores. Keypoints that are not finite are left out, those outside the
    picture are drawn as far as the picture shows them.

    Args:
        image: (H, W, 3) RGB, 0..255. It is not changed.
        poses: in image px, of any skeleton.
        show_boxes: draw boxes with the scores of the poses.
        min_keypoint_score: keypoints below it, and the limbs that end in them, are left out.
        scale: factor of all line widths, which follow the size of each person; None is 1.
        palette: colours; by default orange for the person's left, blue for the right, green between.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: the picture is not (H, W, 3) of uint8, or ``scale`` is not a positive number.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"draw_poses needs an RGB picture (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
    factor = 1.0 if scale is None else scale
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"draw_poses: scale {scale!r} must be a positive number")
    canvas = np.array(image, order="C")
    colours = palette or Palette()
    for index in np.argsort(poses.scores, kind="stable"):
        pose = poses[int(index)]
        width = _line_width(pose, canvas.shape[:2]) * factor
        if show_boxes:
            _draw_box(canvas, pose, width, colours)
        _draw_pose(canvas, pose, width, min_keypoint_score, colours)
    return canvas


@lru_cache(maxsize=64)
def keypoint_sides(skeleton: Skeleton) -> tuple[Side, ...]:
    """For every keypoint the side of the body it is on, as its name says; what has no mirror image is in the middle."""
    sides: list[Side] = ["middle"] * len(skeleton)
    for left, right in mirrored_pairs(skeleton.keypoints) or skeleton.flip_pairs:
        sides[left], sides[right] = "left", "right"
    return tuple(sides)


def edge_side(a: Side, b: Side) -> Side:
    """The side of a limb with ends on sides ``a`` and ``b``: a limb from left to right is in the middle."""
    sides: set[Side] = {a, b} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _draw_pose(canvas: ImageArray, pose: Poses, width: float, min_score: float, palette: Palette) -> None:
    points, scores = pose.keypoints[0].astype(np.float64), pose.keypoint_scores[0]
    drawn = np.isfinite(points).all(1) & (np.nan_to_num(scores, nan=0.0) >= min_score)
    alphas = _opacity(scores)
    sides = keypoint_sides(pose.skeleton)
    limbs = [(a, b) for a, b in pose.skeleton.edges if drawn[a] and drawn[b]]
    for a, b in limbs:
        _draw_limb(canvas, points[a], points[b], width + _rim(width), palette.outline, 0.55 * min(alphas[a], alphas[b]))
    for a, b in limbs:
        colour = getattr(palette, edge_side(sides[a], sides[b]))
        _draw_limb(canvas, points[a], points[b], width, colour, min(alphas[a], alphas[b]))
    for k in np.flatnonzero(drawn):
        _draw_point(canvas, points[k], width, getattr(palette, sides[k]), alphas[k], palette)


def _opacity(scores: npt.NDArray[np.floating]) -> list[float]:
    """0.3 at score 0 to 1 from score 0.7 on."""
    values: list[float] = np.clip(0.3 + np.nan_to_num(scores, nan=0.0), 0.3, 1.0).tolist()
    return values


def _line_width(pose: Poses, size: tuple[int, ...]) -> float:
    """Width of a limb in px: it grows with the person, within bounds that the picture sets."""
    points = pose.keypoints[0][np.isfinite(pose.keypoints[0]).all(1)].astype(np.float64)
    extent = math.hypot(*np.ptp(points, axis=0)) if len(points) else 0.0
    longest = max(size)
    return float(np.clip(0.016 * extent, 1.2, max(2.0, 0.009 * longest)))


def _rim(width: float) -> float:
    """By how much an outline is wider than its line."""
    return max(1.4, 0.5 * width)


def _draw_limb(
    canvas: ImageArray,
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    width: float,
    colour: Colour,
    alpha: float,
) -> None:
    """A line with round ends, ``width`` px wide, as an anti-aliased polygon."""
    clipped = _clip(start, end, canvas.shape[:2], width)
    if clipped is None:
        return
    start, end = clipped
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    half_turn = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
    turns = np.concatenate([angle + half_turn, angle + math.pi + half_turn])
    centres = np.repeat([start, end], len(half_turn), axis=0)
    outline = centres + 0.5 * width * np.column_stack([np.cos(turns), np.sin(turns)])
    _fill(canvas, outline, colour, alpha)


def _draw_point(
    canvas: ImageArray, centre: npt.NDArray[np.float64], width: float, colour: Colour, alpha: float, palette: Palette
) -> None:
    """A disc with a light ring and a dark rim."""
    radius = 0.95 * width
    if _clip(centre, centre, canvas.shape[:2], 4 * width) is None:
        return
    turns = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = np.column_stack([np.cos(turns), np.sin(turns)])
    rings = (
        (radius + 0.7 * _rim(width), palette.outline),
        (radius + 0.3 * _rim(width), palette.text),
        (radius, colour),
    )
    for size, paint in rings[0 if width >= 2 else 2 :]:
        _fill(canvas, centre + size * circle, paint, alpha)


def _fill(canvas: ImageArray, polygon: npt.NDArray[np.float64], colour: Colour, alpha: float) -> None:
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


def _clip(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], size: tuple[int, ...], margin: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
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


def _draw_box(canvas: ImageArray, pose: Poses, width: float, palette: Palette) -> None:
    """The box with the score of the pose on its top edge."""
    box = pose.boxes[0].astype(np.float64)
    if not np.isfinite(box).all():
        return
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    thin = max(1.0, 0.5 * width)
    for extra, colour in ((_rim(thin), palette.outline), (0.0, palette.text)):
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _draw_limb(canvas, a, b, thin + extra, colour, 0.75)
    if math.isfinite(float(pose.scores[0])):
        _draw_label(canvas, f"{float(pose.scores[0]):.2f}", (x1, y1), width, palette)


def _draw_label(canvas: ImageArray, text: str, corner: Sequence[float], width: float, palette: Palette) -> None:
    """Text on a dark plate above the corner, moved into the picture."""
    size = min(2.0, max(0.35, 0.12 * width))
    thickness = max(1, round(1.6 * size))
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, size, thickness)
    height, picture_width = canvas.shape[:2]
    plate_width, plate_height = text_width + 6, text_height + base + 4
    left = int(np.clip(corner[0], 0, max(0, picture_width - plate_width)))
    top = int(np.clip(corner[1] - plate_height, 0, max(0, height - plate_height)))
    plate = canvas[top : top + plate_height, left : left + plate_width]
    plate[:] = np.rint(0.35 * plate + 0.65 * np.asarray(palette.outline, np.float32)).astype(np.uint8)
    origin = (left + 3, top + text_height + 2)
    cv2.putText(canvas, text, origin, _FONT, size, palette.text, thickness, cv2.LINE_AA)
