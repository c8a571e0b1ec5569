"""Heatmaps over a picture: where a network sees which keypoint.

Letters: K keypoints, h w heatmap, H W picture. Frames: heatmap px, image px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from poise.draw.styles import Palette, keypoint_sides, person_colour
from poise.geometry.affine import apply_to_boxes, compose, scaling, translation
from poise.skeletons import Skeleton
from poise.types import Affine, ImageArray, Poses

if TYPE_CHECKING:
    from torch import Tensor


def overlay_heatmaps(
    image: ImageArray,
    heatmaps: npt.NDArray[np.floating] | Tensor,
    to_image: Affine | None = None,
    *,
    skeleton: Skeleton | None = None,
    opacity: float = 0.8,
    peak: float | None = None,
) -> ImageArray:
    """A copy of the picture with the heatmaps of one person, or of all, as coloured light on it.

    Where several keypoints are likely, the likeliest gives the colour; the picture is dimmed, so that weak maps show.

    Args:
        image: (H, W, 3) RGB. It is not changed.
        heatmaps: (K, h, w), array or tensor on any device; values below 0 count as 0.
        to_image: (2, 3) map heatmap px -> image px, for example of a person's crop; None: over the whole picture.
        skeleton: gives the colours of the body's sides; None: every keypoint has its own.
        opacity: of the strongest place, 0..1.
        peak: value that is shown as strongest; None: the maximum of all.

    Raises:
        ValueError: the heatmaps are not (K, h, w), or the skeleton has another K.
    """
    maps = _array(heatmaps)
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"heatmaps must have shape (K, h, w), not {maps.shape}")
    if skeleton is not None and len(skeleton) != len(maps):
        raise ValueError(f"{len(maps)} heatmaps do not go with the {len(skeleton)} keypoints of {skeleton.name!r}")
    if to_image is None:
        to_image = scaling(image.shape[1] / maps.shape[2], image.shape[0] / maps.shape[1])
    strongest = float(maps.max()) if peak is None else peak
    light = np.zeros((*image.shape[:2], 4), np.float32)
    _shine(light, maps / strongest if strongest > 0 else np.zeros_like(maps), to_image, _colours(len(maps), skeleton))
    return _blended(image, light, opacity)


def overlay_people(image: ImageArray, poses: Poses, *, opacity: float = 0.8, peak: float = 0.5) -> ImageArray:
    """A copy of the picture with what the network saw of each person as coloured light on it.

    Where maps of several people or keypoints overlap, the likeliest gives the colour.

    Args:
        image: (H, W, 3) RGB. It is not changed.
        poses: with ``heatmaps`` (``predict(..., heatmaps=True)`` of a top-down predictor), or of nobody.
        opacity: of the strongest places, 0..1.
        peak: value from which on light is strongest; 1 is the peak of a label.

    Raises:
        ValueError: the poses have no heatmaps.
    """
    light = np.zeros((*image.shape[:2], 4), np.float32)
    if len(poses):
        if poses.heatmaps is None:
            raise ValueError("these poses have no heatmaps; ask a top-down predictor for them: predict(heatmaps=True)")
        colours = _colours(len(poses.skeleton), poses.skeleton)
        for maps, to_image in zip(poses.heatmaps.maps, poses.heatmaps.to_image, strict=True):
            _shine(light, np.nan_to_num(maps, nan=0.0) / peak, to_image, colours)
    return _blended(image, light, opacity)


def _shine(
    light: npt.NDArray[np.float32], maps: npt.NDArray[np.float32], to_image: Affine, colours: npt.NDArray[np.float32]
) -> None:
    """Add maps (K, h, w) of 0..1 to the light (H, W, 4), colour times weight and weight, where they are stronger."""
    values = np.clip(maps, 0, 1)
    weight = values.max(0)
    lifted = np.dstack([colours[values.argmax(0)] * weight[..., None], weight]).astype(np.float32)
    height, width = weight.shape
    box = apply_to_boxes(to_image, np.array([-1.0, -1.0, width, height]))
    x1, y1 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(box[2:]) + 1, light.shape[1::-1]).astype(int)
    if x1 >= x2 or y1 >= y2:
        return
    onto_part = compose(to_image, translation(-x1, -y1))
    new = np.asarray(cv2.warpAffine(lifted, onto_part, (int(x2 - x1), int(y2 - y1))))
    part = light[y1:y2, x1:x2]
    np.copyto(part, new, where=new[..., 3:] > part[..., 3:])


def _blended(image: ImageArray, light: npt.NDArray[np.float32], opacity: float) -> ImageArray:
    """The picture, dimmed, under the light (H, W, 4)."""
    base = image.astype(np.float32) * (1 - 0.45 * opacity)
    mixed = np.clip(base * (1 - opacity * light[..., 3:]) + opacity * light[..., :3], 0, 255)
    return np.asarray(np.rint(mixed), np.uint8)


def _array(heatmaps: Any) -> npt.NDArray[np.float32]:
    if hasattr(heatmaps, "detach"):
        heatmaps = heatmaps.detach().float().cpu().numpy()
    return np.nan_to_num(np.asarray(heatmaps, np.float32), nan=0.0)


def _colours(count: int, skeleton: Skeleton | None) -> npt.NDArray[np.float32]:
    """(K, 3)."""
    if skeleton is None:
        return np.array([person_colour(k) for k in range(count)], np.float32)
    return np.array([getattr(Palette(), side) for side in keypoint_sides(skeleton)], np.float32)
