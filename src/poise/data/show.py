"""``poise data show``: the truth drawn on the pictures, as annotated or as a training pipeline makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
JPEG_QUALITY = 92
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
    """Write pictures with their truth to a folder.

    Args:
        dataset: what to show.
        out: the folder; files are called ``NUMBER_NAME.jpg``, by the number of the picture in the data set.
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
        out: the folder; files are called ``NUMBER.jpg``.
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


def _write(
    pictures: Iterator[tuple[str, ImageArray]], folder: Path, total: int, progress: Progress | None
) -> list[Path]:
    written = []
    for name, image in pictures:
        with replacing(folder / name) as temporary:
            Image.fromarray(image).save(temporary, quality=JPEG_QUALITY)
        written.append(folder / name)
        if progress is not None:
            progress(len(written), total)
    return written
