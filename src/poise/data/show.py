"""``poise data show``: the truth drawn on the pictures, as annotated or as a training pipeline makes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, Truth, record_image, record_truth
from poise.draw import draw_poses
from poise.files import replacing
from poise.skeletons import Skeleton
from poise.types import FloatArray, ImageArray, PersonBoxRule, Poses

if TYPE_CHECKING:
    from poise.data.config import DataConfig
    from poise.types import ViewSpec

IGNORED = (200, 60, 200)
"""Colour of ignore regions."""
OCCLUDED = 0.4
"""Occluded keypoints are drawn as faint as a keypoint of that score."""
JPEG_QUALITY, SHEET_QUALITY = 92, 82
SHEET_SUFFIXES = (".jpg", ".jpeg", ".png")
"""What is written to a file of such a name instead of a folder is one sheet with all pictures."""
SHEET_CELL = 240
"""Longest side of a picture on a sheet, px."""
Progress = Callable[[int, int], None]


def draw_truth(image: ImageArray, truth: Truth, skeleton: Skeleton, show_boxes: bool = True) -> ImageArray:
    """A copy of the picture with people, boxes and ignore regions on it; occluded keypoints are faint.

    Args:
        image: (H, W, 3) RGB.
        truth: in the frame of ``image``.
        skeleton: of the truth.
        show_boxes: draw the annotated boxes; ignore regions are always drawn.
    """
    canvas = np.array(image, order="C")
    for x1, y1, x2, y2 in np.rint(truth.ignore).astype(int).tolist():
        cv2.rectangle(canvas, (x1, y1), (x2, y2), IGNORED, 1)
        cv2.line(canvas, (x1, y1), (x2, y2), IGNORED, 1, cv2.LINE_AA)
        cv2.line(canvas, (x1, y2), (x2, y1), IGNORED, 1, cv2.LINE_AA)
    if show_boxes:
        for x1, y1, x2, y2 in np.rint(truth.boxes).astype(int).tolist():
            cv2.rectangle(canvas, (x1, y1), (x2, y2), (0, 0, 0), 3)
            cv2.rectangle(canvas, (x1, y1), (x2, y2), (255, 255, 255), 1)
    return draw_poses(canvas, _poses(truth.keypoints, truth.boxes, skeleton))


def show_dataset(
    dataset: PoseDataset,
    out: str | Path,
    *,
    count: int | None = None,
    seed: int | None = None,
    show_boxes: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write pictures with their truth to a folder, or on one sheet.

    Args:
        dataset: what to show.
        out: the folder; files are called ``NUMBER_NAME.jpg``, by the number of the picture in the data set. A name
            with one of `SHEET_SUFFIXES` is a file that gets all of them on one sheet.
        count: at most so many pictures; by default all.
        seed: draw the pictures at random instead of taking the first.
        show_boxes: draw boxes.
        progress: is told how far it is.

    Returns:
        What was written.

    Raises:
        ValueError: a picture cannot be read, or does not have the annotated size.
        OSError: the folder cannot be written to.
    """
    numbers = np.arange(len(dataset))
    if seed is not None:
        numbers = np.random.default_rng(seed).permutation(numbers)
    chosen = sorted(numbers[:count].tolist())

    def pictures() -> Iterator[tuple[str, ImageArray]]:
        for number in chosen:
            yield _name(number, dataset[number]), _drawn(dataset[number], dataset.skeleton, show_boxes)

    return _write(pictures(), Path(out), len(chosen), progress)


def show_training(
    dataset: PoseDataset,
    config: DataConfig,
    spec: ViewSpec,
    out: str | Path,
    *,
    count: int = 20,
    seed: int = 0,
    show_boxes: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Write what a training pipeline makes of a data set, with its truth, to a folder.

    Args:
        dataset: the only source; ``config.sources`` are not looked at.
        config: which pipeline, and its settings.
        spec: what the model wants to see.
        out: the folder, or the file of a sheet; files in the folder are called ``NUMBER.jpg``.
        count: number of pictures.
        seed: of the run; the pictures are those that its first epoch would begin with.
        show_boxes: draw boxes.
        progress: is told how far it is.

    Returns:
        What was written.

    Raises:
        ValueError: the data set has nothing to train on, or a picture cannot be read.
        OSError: the folder cannot be written to.
    """
    from poise.data.loader import BatchPlan, TrainDataset
    from poise.data.material import Source

    single = config.model_copy(update={"batch": 1})
    training = TrainDataset(single, [Source(dataset)], [], spec, seed)
    plan = BatchPlan(single, len(training), seed)

    def pictures() -> Iterator[tuple[str, ImageArray]]:
        for number in range(count):
            epoch, position = divmod(number, plan.steps_per_epoch)
            (key,) = plan.keys(epoch, position)
            yield f"{number:05d}.jpg", _drawn_sample(training.sample(key), dataset.skeleton, show_boxes)

    return _write(pictures(), Path(out), count, progress)


def _drawn(record: Record, skeleton: Skeleton, show_boxes: bool) -> ImageArray:
    truth = record_truth(record, PersonBoxRule(source="annotation"))
    return draw_truth(record_image(record), truth, skeleton, show_boxes)


def _drawn_sample(sample: Sample, skeleton: Skeleton, show_boxes: bool) -> ImageArray:
    return draw_truth(sample.image, sample.truth, skeleton, show_boxes)


def _poses(keypoints: FloatArray, boxes: FloatArray, skeleton: Skeleton) -> Poses:
    seen = keypoints[..., 2]
    points = np.where(seen[..., None] > 0, keypoints[..., :2], np.nan)
    scores = np.where(seen == 1, OCCLUDED, 1.0)
    return Poses(points, scores, boxes, np.ones(len(boxes), np.float32), skeleton)


def _name(number: int, record: Record) -> str:
    return f"{number:05d}_{record.path.stem}.jpg"


def sheet(pictures: Sequence[ImageArray], cell: int = SHEET_CELL) -> ImageArray:
    """Pictures in rows, all reduced by one factor, so that their sizes compare; the longest side becomes ``cell`` px.

    Raises:
        ValueError: there is no picture.
    """
    if not pictures:
        raise ValueError("a sheet needs a picture at least, and there is none to draw")
    factor = min(1.0, cell / max(max(p.shape[:2]) for p in pictures))
    small = [cv2.resize(p, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for p in pictures]
    height, width = (max(p.shape[axis] for p in small) + 4 for axis in (0, 1))
    columns = _columns(len(small), width / height)
    canvas = np.full((math.ceil(len(small) / columns) * height, columns * width, 3), 255, np.uint8)
    for number, picture in enumerate(small):
        row, column = divmod(number, columns)
        top, left = row * height + 2, column * width + 2
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def _columns(count: int, aspect: float) -> int:
    """Columns of cells of that width / height that leave few of them empty on a sheet of about 8:5."""

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / 1.6)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=cost)


def _write(pictures: Iterator[tuple[str, ImageArray]], out: Path, total: int, progress: Progress | None) -> list[Path]:
    written, images = [], []
    one_sheet = out.suffix.lower() in SHEET_SUFFIXES
    for number, (name, image) in enumerate(pictures, 1):
        if one_sheet:
            images.append(image)
        else:
            written.append(_save(out / name, image))
        if progress is not None:
            progress(number, total)
    return [_save(out, sheet(images), SHEET_QUALITY)] if one_sheet else written


def _save(path: Path, image: ImageArray, quality: int = JPEG_QUALITY) -> Path:
    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, quality=quality)
    return path
