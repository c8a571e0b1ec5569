"""Measuring a model on a data set of any format: COCO's keypoint metrics, or PCKh on MPII."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.records import PoseDataset
from poise.data.samples import record_image
from poise.data.writers import coco_document
from poise.data.yolo import Split
from poise.evaluate.coco import evaluate_keypoints
from poise.evaluate.mpii import Formula, Matched, matched_people, pckh
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.exported import ExportedPredictor
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor
from poise.predict.views import Scale

HEAD_BOXES = "gt_valid.mat"
"""Where public copies of MPII keep the head boxes of the validation set."""
AnyPredictor = Predictor | TopDownPredictor | ExportedPredictor
Progress = Callable[[int, int], None]
"""Called after each picture with the number of pictures done and of all pictures."""


def predict_dataset(
    predictor: AnyPredictor,
    dataset: PoseDataset,
    *,
    batch: int | None = None,
    scales: Sequence[Scale] | None = None,
    flip: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """COCO keypoint results (see `Poses.to_coco`) on all pictures, by the data set's ids; poses of all scores.

    Args:
        predictor: whose skeleton has the keypoints of the data set.
        dataset: the pictures.
        batch: as `Predictor.predict`.
        scales: as `Predictor.predict`.
        flip: as `Predictor.predict`.
        progress: is told how far it is.

    Raises:
        ValueError: the keypoints differ, or a picture cannot be read.
    """
    if predictor.skeleton.keypoints != dataset.skeleton.keypoints:
        raise ValueError(
            f"{dataset.name} has the keypoints {', '.join(dataset.skeleton.keypoints)}; the model finds "
            f"{', '.join(predictor.skeleton.keypoints)}"
        )

    def pictures() -> Iterator[Named]:
        for record in dataset:
            yield Named(record_image(record), str(record.path), record.image_id)

    results: list[dict[str, Any]] = []
    found = predictor.predict_iter(pictures(), min_score=0.0, batch=batch, scales=scales, flip=flip)
    for done, (record, poses) in enumerate(zip(dataset, found, strict=True), 1):
        results += poses.to_coco(record.image_id)
        if progress is not None:
            progress(done, len(dataset))
    return results


def score_dataset(dataset: PoseDataset, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """`poise.evaluate.coco.METRICS` of results as `predict_dataset` gives them."""
    document = coco_document(dataset)
    # ids that are no numbers are counted in the document
    ids = {record.image_id: image["id"] for record, image in zip(dataset, document["images"], strict=True)}
    numbered = [{**result, "image_id": ids[result["image_id"]]} for result in results]
    return evaluate_keypoints(document, numbered, dataset.skeleton)


def annotated_boxes(dataset: PoseDataset) -> Boxes:
    """Everybody's annotated box, with score 1, for a `TopDownPredictor`."""
    people = {r.image_id: PersonBoxes(r.boxes, np.ones(len(r), np.float32)) for r in dataset}
    return Boxes(people, {r.image_id: str(r.path) for r in dataset}, dataset.name)


def score_mpii(
    annotations: str | Path,
    dataset: PoseDataset,
    results: Sequence[dict[str, Any]],
    *,
    head_boxes: str | Path | None = None,
    formula: Formula = "official",
    split: Split | None = None,
) -> dict[str, float]:
    """`poise.evaluate.mpii.METRICS` of results as `predict_dataset` gives them.

    Args:
        annotations: MPII file.
        dataset: what was read from it.
        results: of its pictures.
        head_boxes: as `evaluate_mpii`; by default ``gt_valid.mat`` beside the annotations, where public copies have it,
            but not for the part ``train``, whose people are others.
        formula: as `evaluate_mpii`.
        split: part of the file that the data set is, as `evaluate_mpii`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: something does not fit.
    """
    return pckh(*matched_mpii(annotations, dataset, results, head_boxes=head_boxes, split=split), formula)


def matched_mpii(
    annotations: str | Path,
    dataset: PoseDataset,
    results: Sequence[dict[str, Any]],
    *,
    head_boxes: str | Path | None = None,
    split: Split | None = None,
) -> Matched:
    """The people of an MPII file and the poses they were given; arguments and errors as `score_mpii`."""
    beside = Path(annotations).with_name(HEAD_BOXES)
    if head_boxes is None and split != "train" and beside.is_file():
        head_boxes = beside
    sizes = {str(record.image_id): record.size for record in dataset}
    return matched_people(annotations, results, head_boxes=head_boxes, sizes=sizes, split=split)
