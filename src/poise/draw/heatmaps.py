"""Heatmaps over a picture: where a network sees which keypoint.

Letters: K keypoints, h w heatmap, H W picture. Frames: heatmap px, image px.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from poise.draw.styles import Palette, keypoint_sides, person_colour
from poise.skeletons import Skeleton
from poise.types import Affine, ImageArray

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
    height, width = image.shape[:2]
    if to_image is None:
        scale = np.array([width / maps.shape[2], height / maps.shape[1]])
        to_image = np.column_stack([np.diag(scale), (scale - 1) / 2])
    strongest = float(maps.max()) if peak is None else peak
    values = np.clip(maps / strongest, 0, 1) if strongest > 0 else np.zeros_like(maps)
    best = values.argmax(0)
    weight = np.take_along_axis(values, best[None], 0)[0]
    light = _colours(len(maps), skeleton)[best] * weight[..., None]
    lifted = np.dstack([light, weight]).astype(np.float32)
    lifted = np.asarray(cv2.warpAffine(lifted, np.asarray(to_image, np.float64), (width, height)))
    base = image.astype(np.float32) * (1 - 0.45 * opacity)
    cover = opacity * lifted[..., 3:]
    mixed = np.clip(base * (1 - cover) + opacity * lifted[..., :3], 0, 255)
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
