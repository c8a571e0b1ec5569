"""A picture in memory with its truth, and how truth changes when the picture is mapped, cut or covered.

Letters: N persons, K keypoints, R ignore regions. All arrays of one `Sample` are in the frame of its image.
Two boxes belong to a person: the annotated one, and the one that target assignment works with (`PersonBoxRule`). The
latter is computed once, when the sample is read, and is then mapped and clipped like the former, as in the
references (DirectPose spec 7 and 10): a person cut by the picture's edge keeps the box that was cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from poise.data.images import ImageError, read_image
from poise.data.records import Record
from poise.geometry import affine
from poise.geometry.boxes import keypoint_boxes
from poise.types import Affine, FloatArray, ImageArray, PersonBoxRule, Persons

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the people in a picture.

    Attributes:
        keypoints: (N, K, 3) float32 x, y, visibility.
        boxes: (N, 4) float32 xyxy, annotated boxes.
        areas: (N,) float32 segment areas.
        ignore: (R, 4) float32 xyxy regions with people who are not labelled.
        person_boxes: (N, 4) float32 xyxy boxes of target assignment.
    """

    keypoints: FloatArray
    boxes: FloatArray
    areas: FloatArray
    ignore: FloatArray
    person_boxes: FloatArray

    def __len__(self) -> int:
        """Number of persons N."""
        return len(self.areas)

    @property
    def labelled(self) -> Counts:
        """(N,) number of keypoints with visibility above 0."""
        counts: Counts = (self.keypoints[..., 2] > 0).sum(1)
        return counts

    def persons(self) -> Persons:
        """The same as tensors."""
        return Persons.from_numpy(self.keypoints, self.person_boxes, self.areas, self.ignore)

    @staticmethod
    def empty(keypoint_count: int) -> Truth:
        """Nobody is there."""
        boxes = np.zeros((0, 4), np.float32)
        return Truth(np.zeros((0, keypoint_count, 3), np.float32), boxes, np.zeros(0, np.float32), boxes, boxes)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture (H, W, 3) uint8 RGB and its truth, in the same frame."""

    image: ImageArray
    truth: Truth

    @property
    def size(self) -> Size:
        """(height, width)."""
        height, width = self.image.shape[:2]
        return height, width


def record_truth(record: Record, rule: PersonBoxRule) -> Truth:
    """The truth of a record, with the boxes of target assignment; image px.

    A keypoint labelled outside the picture counts for the box, then loses its visibility: it cannot be seen.
    """
    if rule.source == "annotation":
        person_boxes = record.boxes
    else:
        person_boxes = keypoint_boxes(record.keypoints, rule, record.size).astype(np.float32)
    keypoints = record.keypoints.copy()
    keypoints[..., 2] *= points_inside(keypoints, record.size)
    return Truth(keypoints, record.boxes, record.areas, record.ignore, person_boxes)


def record_image(record: Record) -> ImageArray:
    """The pixels of a record, in the orientation of its annotation.

    Raises:
        ImageError: as `read_image`, or the picture has not the size that the annotation says.
    """
    image = read_image(record.path)
    if image.shape[:2] != record.size:
        # some data sets annotate the stored pixels, without their EXIF orientation
        image = read_image(record.path, upright=False)
    if image.shape[:2] != record.size:
        height, width = record.size
        raise ImageError(
            f"{record.path} has {image.shape[1]}x{image.shape[0]} pixels, its annotation says {width}x{height}"
        )
    return image


def read_sample(record: Record, rule: PersonBoxRule) -> Sample:
    """Pixels and truth of a record; errors as `record_image`."""
    return Sample(record_image(record), record_truth(record, rule))


def points_inside(points: FloatArray, size: Size) -> Mask:
    """(...,) whether points (..., 2 or more) lie on a pixel of a picture of that (height, width)."""
    x, y = points[..., 0], points[..., 1]
    inside: Mask = (x >= -0.5) & (x < size[1] - 0.5) & (y >= -0.5) & (y < size[0] - 0.5)
    return inside


def clip_boxes(boxes: FloatArray, size: Size) -> FloatArray:
    """Boxes (N, 4) clipped to [0, width] x [0, height]."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def solid(boxes: FloatArray) -> Mask:
    """(N,) whether boxes (N, 4) have a positive width and height."""
    positive: Mask = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return positive


def select(truth: Truth, chosen: npt.NDArray[np.generic]) -> Truth:
    """Only the chosen persons (mask or indices); all ignore regions stay."""
    return Truth(
        truth.keypoints[chosen],
        truth.boxes[chosen],
        truth.areas[chosen],
        truth.ignore,
        truth.person_boxes[chosen],
    )


def join(parts: Sequence[Truth]) -> Truth:
    """The people and regions of several truths of one frame (at least one)."""
    return Truth(
        np.concatenate([p.keypoints for p in parts]),
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.areas for p in parts]),
        np.concatenate([p.ignore for p in parts]),
        np.concatenate([p.person_boxes for p in parts]),
    )


def map_truth(truth: Truth, matrix: Affine, flip_index: Sequence[int]) -> Truth:
    """Truth in another frame; nothing is cut.

    A map that mirrors (negative determinant) exchanges left and right keypoints. Areas follow the determinant.
    Boxes and regions become the hull of the mapped box, which holds whatever the box held. After a rotation that hull
    is too large for target assignment, so that box is cut back to the extent of the labelled keypoints plus the
    largest margin it had around them: again the extent of the keypoints with its padding. Multiples of 90 degrees
    cut nothing.
    """
    ignore = affine.apply_to_boxes(matrix, truth.ignore).astype(np.float32)
    if not len(truth):
        return replace(truth, ignore=ignore)
    keypoints = truth.keypoints.copy()
    keypoints[..., :2] = affine.apply(matrix, truth.keypoints[..., :2])
    if matrix[0, 0] * matrix[1, 1] < matrix[0, 1] * matrix[1, 0]:
        keypoints = keypoints[:, list(flip_index)]
    return Truth(
        keypoints,
        affine.apply_to_boxes(matrix, truth.boxes).astype(np.float32),
        (truth.areas * affine.area_factor(matrix)).astype(np.float32),
        ignore,
        _map_person_boxes(truth.person_boxes, truth.keypoints, keypoints, matrix),
    )


def _map_person_boxes(boxes: FloatArray, before: FloatArray, after: FloatArray, matrix: Affine) -> FloatArray:
    hull = affine.apply_to_boxes(matrix, boxes)
    if not (matrix[0, 0] and matrix[0, 1]):
        return hull.astype(np.float32)
    old_low, old_high = labelled_extent(before)
    new_low, new_high = labelled_extent(after)
    margin = np.concatenate([old_low - boxes[:, :2], boxes[:, 2:] - old_high], 1).max(1, keepdims=True)
    margin = margin * np.sqrt(affine.area_factor(matrix))
    tight = np.concatenate([np.maximum(hull[:, :2], new_low - margin), np.minimum(hull[:, 2:], new_high + margin)], 1)
    seen = before[..., 2:] > 0
    return np.where(seen.any(1), tight, hull).astype(np.float32)


def labelled_extent(keypoints: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Low and high corners (N, 2) of the labelled keypoints (N, K, 3); zeros where there is none."""
    seen = keypoints[..., 2:] > 0
    some = seen.any(1)
    low = np.where(seen, keypoints[..., :2], np.inf).min(1)
    high = np.where(seen, keypoints[..., :2], -np.inf).max(1)
    return np.where(some, low, 0), np.where(some, high, 0)


def clip_truth(truth: Truth, size: Size) -> Truth:
    """Truth of a frame of that (height, width): keypoints outside get visibility 0, boxes and regions are clipped.

    All N persons and R regions stay in place, even if nothing of them is left: see `drop_gone` and `settle`.
    """
    keypoints = truth.keypoints.copy()
    keypoints[..., 2] *= points_inside(keypoints, size)
    return Truth(
        keypoints,
        clip_boxes(truth.boxes, size),
        truth.areas,
        clip_boxes(truth.ignore, size),
        clip_boxes(truth.person_boxes, size),
    )


def cover_truth(truth: Truth, covered: Mask) -> Truth:
    """Truth after pixels were painted over; all N persons and R regions stay in place, as in `clip_truth`.

    Covered keypoints get visibility 0; boxes and regions shrink to the extent of what is still seen of them, and
    become (0, 0, 0, 0) where nothing is.

    Args:
        truth: all inside the frame (see `clip_truth`).
        covered: (H, W) True where pixels were painted over.
    """
    if not len(truth) and not len(truth.ignore):
        return truth
    keypoints = truth.keypoints.copy()
    column = np.clip(np.rint(keypoints[..., 0]), 0, covered.shape[1] - 1).astype(np.intp)
    row = np.clip(np.rint(keypoints[..., 1]), 0, covered.shape[0] - 1).astype(np.intp)
    hidden: Mask = covered[row, column]
    keypoints[..., 2] *= np.logical_not(hidden)
    return Truth(
        keypoints,
        _seen_boxes(truth.boxes, covered),
        truth.areas,
        _seen_boxes(truth.ignore, covered),
        _seen_boxes(truth.person_boxes, covered),
    )


def drop_gone(truth: Truth) -> Truth:
    """Without the persons whose box of assignment has vanished, and without vanished regions, as in the references.

    A person may stay without any visible keypoint.
    """
    kept = select(truth, solid(truth.person_boxes))
    return replace(kept, ignore=kept.ignore[solid(kept.ignore)])


def settle(truth: Truth, labelled_before: Counts, min_visible: int) -> Truth:
    """Truth in which everybody who is seen is either labelled or ignored.

    A person who lost keypoints and has fewer than ``min_visible`` left becomes an ignore region, as does one of
    whom only a part outside the box of assignment is seen; whoever is not seen at all is dropped.

    Args:
        truth: after `clip_truth` or `cover_truth`.
        labelled_before: (N,) `Truth.labelled` before.
        min_visible: smallest number of keypoints of a person who lost some.
    """
    if not len(truth) and not len(truth.ignore):
        return truth
    lost = (truth.labelled < labelled_before) & (truth.labelled < min_visible)
    unlabelled = lost | ~solid(truth.person_boxes)
    regions = np.concatenate([truth.ignore, truth.boxes[unlabelled]])
    return replace(select(truth, ~unlabelled), ignore=regions[solid(regions)])


def _seen_boxes(boxes: FloatArray, covered: Mask) -> FloatArray:
    """Each box (N, 4) cut to the extent of its pixels that are not covered; (0, 0, 0, 0) where none is left."""
    result = boxes.copy()
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        left, top = max(0, round(x1)), max(0, round(y1))
        part = covered[top : max(top + 1, round(y2) + 1), left : max(left + 1, round(x2) + 1)]
        if not part.any():
            continue
        columns = np.flatnonzero(~part.all(0))
        rows = np.flatnonzero(~part.all(1))
        if not len(columns):
            result[i] = 0
            continue
        seen = (left + columns[0], top + rows[0], left + columns[-1], top + rows[-1])
        result[i] = max(x1, seen[0]), max(y1, seen[1]), min(x2, seen[2]), min(y2, seen[3])
    return result
