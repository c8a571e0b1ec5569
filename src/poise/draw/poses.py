"""Poses on a picture.

Letters: N poses, K keypoints, H W picture. Frame: image px.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from poise.draw.shapes import draw_label, draw_line, draw_point, rim
from poise.draw.styles import STYLES, Colour, Palette, Style, edge_side, keypoint_sides, person_colour
from poise.settings import nearest
from poise.types import ImageArray, Poses


def draw_poses(
    image: ImageArray,
    poses: Poses,
    *,
    style: str | Style = "sides",
    show_boxes: bool = False,
    show_ids: bool = True,
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
        style: one of `STYLES` by name, or a `Style` of your own. By default the person's left is orange, the right
            blue, the middle green.
        show_boxes: draw boxes with the scores of the poses.
        show_ids: write the ids of people who are followed beside them.
        min_keypoint_score: keypoints below it, and the limbs that end in them, are left out.
        scale: factor of all line widths, which follow the size of each person; None is 1.
        palette: other colours than the style's.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ValueError: the picture is not (H, W, 3) of uint8, there is no such style, or ``scale`` is not positive.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"draw_poses needs an RGB picture (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
    factor = 1.0 if scale is None else scale
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"draw_poses: scale {scale!r} must be a positive number")
    look = find_style(style)
    canvas = np.array(image, order="C")
    for index in np.argsort(poses.scores, kind="stable"):
        pose = poses[int(index)]
        who = int(index) if pose.ids is None or pose.ids[0] < 0 else int(pose.ids[0])
        colours = _colours(look, palette, who)
        width = _line_width(pose, canvas.shape[:2]) * factor * look.width
        if show_boxes:
            _draw_box(canvas, pose, width, colours)
        _draw_pose(canvas, pose, width, min_keypoint_score, colours, look)
        if show_ids and pose.ids is not None and pose.ids[0] >= 0:
            _draw_id(canvas, pose, width, colours)
    return canvas


def find_style(style: str | Style) -> Style:
    """The style of that name; ``ValueError`` if there is none."""
    if isinstance(style, Style):
        return style
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}{nearest(style, STYLES)}")
    return STYLES[style]


def _colours(style: Style, palette: Palette | None, who: int) -> Palette:
    colours = palette or style.palette
    if not style.people:
        return colours
    own: Colour = person_colour(who)
    return Palette(own, own, own, colours.outline, colours.text)


def _draw_pose(canvas: ImageArray, pose: Poses, width: float, min_score: float, palette: Palette, style: Style) -> None:
    points, scores = pose.keypoints[0].astype(np.float64), pose.keypoint_scores[0]
    drawn = np.isfinite(points).all(1) & (np.nan_to_num(scores, nan=0.0) >= min_score)
    alphas = _opacity(scores)
    sides = keypoint_sides(pose.skeleton)
    limbs = [(a, b) for a, b in pose.skeleton.edges if drawn[a] and drawn[b]] if style.limbs else []
    for a, b in limbs if style.outline else ():
        alpha = 0.55 * min(alphas[a], alphas[b])
        draw_line(canvas, points[a], points[b], width + rim(width), palette.outline, alpha)
    for a, b in limbs:
        colour = getattr(palette, edge_side(sides[a], sides[b]))
        draw_line(canvas, points[a], points[b], width, colour, min(alphas[a], alphas[b]))
    for k in np.flatnonzero(drawn) if style.points else ():
        colour = getattr(palette, sides[k])
        draw_point(canvas, points[k], width, colour, alphas[k], palette if style.outline else None)


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


def _draw_box(canvas: ImageArray, pose: Poses, width: float, palette: Palette) -> None:
    """The box with the score of the pose on its top edge."""
    box = pose.boxes[0].astype(np.float64)
    if not np.isfinite(box).all():
        return
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    thin = max(1.0, 0.5 * width)
    for extra, colour in ((rim(thin), palette.outline), (0.0, palette.text)):
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            draw_line(canvas, a, b, thin + extra, colour, 0.75)
    if math.isfinite(float(pose.scores[0])):
        draw_label(canvas, f"{float(pose.scores[0]):.2f}", (x1, y1), width, palette)


def _draw_id(canvas: ImageArray, pose: Poses, width: float, palette: Palette) -> None:
    """The id on a plate of the person's colour, above the middle of the highest keypoints or of the box."""
    points = pose.keypoints[0][np.isfinite(pose.keypoints[0]).all(1)].astype(np.float64)
    if len(points):
        top = points[np.argmin(points[:, 1])] - (0, 6 * width)
    elif np.isfinite(pose.boxes[0]).all():
        top = np.array([pose.boxes[0, [0, 2]].mean(), pose.boxes[0, 1]], np.float64)
    else:
        return
    who = int(pose.ids[0]) if pose.ids is not None else 0
    plate = Palette(outline=person_colour(who), text=(0, 0, 0))
    draw_label(canvas, str(who), top.tolist(), 1.3 * width, plate, centred=True, opacity=0.9)
