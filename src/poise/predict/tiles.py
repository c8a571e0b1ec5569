"""Small and far people: a picture is looked at in overlapping tiles, each as large as the network can see it.

Letters: N poses, K keypoints. Frames: image px, tile px.

The whole picture is looked at, too, at all sizes that suit the model, for those who are larger than a tile. Whoever
lies across the border of a tile is cut there and is left to the tile, or the whole picture, that shows all of them:
tiles overlap for that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from poise.data.views import whole_view
from poise.geometry import affine
from poise.geometry.consensus import box_iou
from poise.geometry.oks import oks
from poise.predict.views import Scale, ViewSource, mirrored, scaled_specs
from poise.types import FloatArray, ImageArray, IntArray, Poses, View, ViewSpec

MAX_TILES = 400
_AREA_OF_BOX = 0.53
"""Share of its box that a person covers on average."""
_EDGE = 0.01
"""A pose is cut if it comes nearer to an inner border than this share of the tile."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a picture is divided.

    Attributes:
        columns: tiles in a row; with ``size`` it is computed.
        rows: tiles in a column.
        size: side of square tiles, image px, instead of ``columns`` and ``rows``.
        overlap: share of a tile that it has in common with the next one.
        whole: look at the whole picture, too, at every size at which it is looked at without tiles.
        max_oks: of two poses with a larger object keypoint similarity the better one stays.
        max_iou: likewise of two whose boxes have a larger intersection over union: what a tile shows from near and the
            whole picture from afar may differ in the keypoints.
    """

    columns: int = 2
    rows: int = 2
    size: int | None = None
    overlap: float = 0.25
    whole: bool = True
    max_oks: float = 0.5
    max_iou: float = 0.5

    def __post_init__(self) -> None:
        """Check; ``ValueError`` names the value."""
        if min(self.columns, self.rows) < 1 or self.columns * self.rows > MAX_TILES:
            raise ValueError(f"tiles {self.columns}x{self.rows}: expected 1x1 to {MAX_TILES} tiles in all")
        if self.size is not None and self.size < 32:
            raise ValueError(f"tiles of {self.size} px are too small; the least is 32")
        if not 0 <= self.overlap < 0.9:
            raise ValueError(f"overlap {self.overlap!r} of tiles must lie in 0..0.9")
        if not 0 < self.max_oks <= 1:
            raise ValueError(f"max_oks {self.max_oks!r} must lie in 0..1")
        if not 0 < self.max_iou <= 1:
            raise ValueError(f"max_iou {self.max_iou!r} must lie in 0..1")


def parse_tiling(text: str) -> Tiling:
    """``3x2`` (columns x rows) or ``640`` (side of a tile, px); ``ValueError`` if it is something else."""
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.strip().lower())
    if match is None:
        raise ValueError(f"tiles {text!r}: write columns x rows, for example 3x2, or the side of a tile in pixels")
    first, second = match.groups()
    return Tiling(int(first), int(second)) if second else Tiling(size=int(first))


def tile_boxes(size: tuple[int, int], tiling: Tiling) -> IntArray:
    """(T, 4) x1, y1, x2, y2 of the tiles of a picture (height, width), image px; x2 and y2 are not included.

    Raises:
        ValueError: the picture needs too many tiles of this size.
    """
    height, width = size
    columns = _spans(width, tiling.columns, tiling.size, tiling.overlap)
    rows = _spans(height, tiling.rows, tiling.size, tiling.overlap)
    if len(columns) * len(rows) > MAX_TILES:
        raise ValueError(
            f"a picture of {width}x{height} has {len(columns) * len(rows)} tiles of {tiling.size} px; at most "
            f"{MAX_TILES} are looked at"
        )
    return np.array([(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns], np.int64)


def _spans(length: int, count: int, size: int | None, overlap: float) -> list[tuple[int, int]]:
    """Begin and end of the tiles along one side; the last one ends with the picture."""
    if size is None:
        span = length / (count - (count - 1) * overlap)
    else:
        span = float(min(size, length))
        count = math.ceil((length - span) / (span * (1 - overlap)) - 1e-9) + 1 if length > span else 1
    span = min(float(length), max(1.0, span))
    starts = np.linspace(0, length - span, count)
    spans = [(math.floor(start), min(length, math.ceil(start + span))) for start in starts]
    return list(dict.fromkeys(spans))


def tiled_views(
    spec: ViewSpec, tiling: Tiling, flip: bool = False, scales: Sequence[Scale] | None = None
) -> ViewSource:
    """The tiles of a picture, and the whole of it, as views of a model that looks at whole pictures.

    A tile's `View.box` says which part of the picture it shows; that of the whole picture is None.

    Args:
        spec: of the model; each tile is shown at its size.
        tiling: how the picture is divided.
        flip: show each view also mirrored.
        scales: of the whole picture, as `whole_views`.

    Raises:
        ValueError: the model looks at person boxes, or a scale is out of bounds.
    """
    if spec.kind != "whole":
        raise ValueError("this model looks at one person at a time; tiles are for the one that finds the people")
    wholes = scaled_specs(spec, scales)

    def views(image: ImageArray, number: int) -> list[View]:
        upright = upright_views(image, number)
        return [view for v in upright for view in ((v, mirrored(v)) if flip else (v,))]

    def upright_views(image: ImageArray, number: int) -> Iterator[View]:
        size = image.shape[0], image.shape[1]
        boxes = tile_boxes(size, tiling)
        if tiling.whole or len(boxes) == 1:
            yield from (whole_view(image, each, number) for each in wholes)
        for x1, y1, x2, y2 in boxes.tolist() if len(boxes) > 1 else ():
            part = whole_view(np.ascontiguousarray(image[y1:y2, x1:x2]), spec, number)
            to_input = affine.compose(affine.translation(-x1, -y1), part.to_input)
            box = np.array([x1, y1, x2, y2], np.float32)
            yield replace(part, to_input=to_input, image_size=size, box=box)

    return views


def merge_tiles(
    parts: Sequence[Poses],
    tiles: Sequence[FloatArray | None],
    size: tuple[int, int],
    suppress: Callable[[Poses], Poses],
    tiling: Tiling,
) -> Poses:
    """The poses of a picture out of the candidates of its tiles, best first.

    Each tile, and the whole picture, comes to its own conclusion first, as the model would about a picture of its own:
    a model may count how many of its candidates agree. Then who is cut is left out, and of equals the best one stays.

    Args:
        parts: candidates of each view, image px.
        tiles: what part of the picture each view shows, xyxy; None: all of it. Equal ones are views of one tile.
        size: (height, width) of the picture.
        suppress: of the model.
        tiling: as the views were made.
    """
    views: dict[tuple[float, ...] | None, list[Poses]] = {}
    for tile, poses in zip(tiles, parts, strict=True):
        views.setdefault(None if tile is None else tuple(tile.tolist()), []).append(poses)
    found = Poses.concatenate(
        [without_cut(suppress(Poses.concatenate(group)), tile, size) for tile, group in views.items()]
    )
    return found[oks_nms(found, tiling.max_oks, tiling.max_iou)]


def without_cut(poses: Poses, tile: Sequence[float] | None, size: tuple[int, int]) -> Poses:
    """The poses that a tile shows completely: not those at a border that is not the picture's own.

    Args:
        poses: of one tile, image px.
        tile: x1, y1, x2, y2, the last two not included; None: the whole picture, of which all poses are kept.
        size: (height, width) of the picture.
    """
    if tile is None or not len(poses):
        return poses
    x1, y1, x2, y2 = tile
    height, width = size
    margin = _EDGE * max(x2 - x1, y2 - y1)
    low = np.array([x1 + margin if x1 > 0 else -np.inf, y1 + margin if y1 > 0 else -np.inf])
    high = np.array([x2 - 1 - margin if x2 < width else np.inf, y2 - 1 - margin if y2 < height else np.inf])
    inside = (poses.boxes[:, :2] >= low).all(1) & (poses.boxes[:, 2:] <= high).all(1)
    return poses[inside]


def oks_nms(poses: Poses, max_oks: float, max_iou: float = 1.0) -> IntArray:
    """Indices of what is left when of two similar poses the better one stays, best first.

    The area in the similarity is that of the better one.

    Args:
        poses: N poses, image px.
        max_oks: largest object keypoint similarity of two that both stay.
        max_iou: largest intersection over union of their boxes.
    """
    points = np.nan_to_num(poses.keypoints.astype(np.float64), nan=1e9)
    persons = np.concatenate([points, np.ones_like(points[..., :1])], 2)
    areas = _AREA_OF_BOX * np.maximum((poses.boxes[:, 2:] - poses.boxes[:, :2]).astype(np.float64).prod(1), 1.0)
    left = np.argsort(-poses.scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        alike = oks(points[left], persons[best][None], areas[best][None], poses.skeleton.sigmas)[:, 0]
        overlap = box_iou(poses.boxes[left], poses.boxes[best][None])[:, 0]
        left = left[(alike <= max_oks) & (overlap <= max_iou)]
    return np.array(kept, np.int64)
