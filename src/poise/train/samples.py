"""What a trained model sees: pictures with the truth on the left and the model's poses on the right.

Letters: N persons, K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.data.records import Record
from poise.data.samples import record_image
from poise.draw import draw_poses
from poise.files import replacing
from poise.models.base import PoseModel
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor
from poise.skeletons import Skeleton
from poise.types import ImageArray, Poses

LONG_SIDES = (320, 640)
"""Drawn pictures are made larger to at least, or smaller to at most this, px."""
_CAPTION = 24


def draw_samples(model: PoseModel, device: torch.device, source: SourceConfig, count: int, folder: Path) -> list[Path]:
    """Draw ``count`` pictures with people, spread evenly over a data set.

    A top-down model is given the true boxes. If no pose reaches the score that predictions need, the best ones are
    drawn, as many as there are people.

    Args:
        model: is not changed.
        device: where it runs.
        source: the data set.
        count: how many pictures, if there are so many with people.
        folder: gets one JPEG a picture; what is in it from before is replaced.

    Returns:
        The files.

    Raises:
        OSError: a picture cannot be read, or a file cannot be written.
        ValueError: likewise.
    """
    records = _spread([record for record in read_source(source, model.skeleton) if len(record)], count)
    found, min_score = _find(model, device, records)
    paths = []
    for number, (record, poses) in enumerate(zip(records, found, strict=True)):
        path = folder / f"{number:02d}_{record.path.stem}.jpg"
        chosen = _worth_showing(poses, min_score, len(record))
        picture = Image.fromarray(side_by_side(record_image(record), true_poses(record, model.skeleton), chosen))
        with replacing(path) as temporary:
            picture.save(temporary, quality=90)
        paths.append(path)
    for old in set(folder.glob("*.jpg")) - set(paths):
        old.unlink()
    return paths


def true_poses(record: Record, skeleton: Skeleton) -> Poses:
    """The labelled keypoints of a picture as poses; those that are not labelled are NaN."""
    labelled = record.keypoints[..., 2] > 0
    points = np.where(labelled[..., None], record.keypoints[..., :2], np.nan)
    return Poses(
        points, labelled.astype(np.float32), record.boxes, np.ones(len(record), np.float32), skeleton, record.size
    )


def side_by_side(image: ImageArray, truth: Poses, found: Poses) -> ImageArray:
    """(H, W, 3) picture with truth on the left and what was found on the right, each under a line of text."""
    scores = f", scores {found.scores.min():.2f} to {found.scores.max():.2f}" if len(found) else ""
    halves = [
        _captioned(draw_poses(image, truth), f"truth: {_people(len(truth))}"),
        _captioned(draw_poses(image, found), f"model: {_people(len(found))}{scores}"),
    ]
    gap = np.full((halves[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], 1)


def _captioned(image: ImageArray, text: str) -> ImageArray:
    long_side = max(image.shape[:2])
    factor = min(max(long_side, LONG_SIDES[0]), LONG_SIDES[1]) / long_side
    if factor != 1:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=how).astype(np.uint8)
    strip = np.full((_CAPTION, image.shape[1], 3), 30, np.uint8)
    cv2.putText(strip, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([strip, image])


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _worth_showing(poses: Poses, min_score: float, people: int) -> Poses:
    good = poses.filter(min_score)
    return good if len(good) else poses[:people]


def _spread(records: list[Record], count: int) -> list[Record]:
    """So many of them, from the first to the last."""
    if count >= len(records):
        return records
    return [records[round(i)] for i in np.linspace(0, len(records) - 1, count)]


def _find(model: PoseModel, device: torch.device, records: Sequence[Record]) -> tuple[Iterator[Poses], float]:
    """All candidates in each picture, best first, and the score that predictions need."""
    if model.view.kind == "whole":
        predictor = Predictor(model, device)
        return predictor.predict_iter(map(record_image, records), min_score=0.0), predictor.min_score
    boxes = Boxes({r.image_id: PersonBoxes(r.boxes, np.ones(len(r), np.float32)) for r in records})
    finder = TopDownPredictor(model, boxes, device)
    pictures = (Named(record_image(r), str(r.path), r.image_id) for r in records)
    return finder.predict_iter(pictures, min_score=0.0), finder.min_score
