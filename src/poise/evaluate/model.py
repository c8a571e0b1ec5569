"""Measuring a model on an annotated set of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poise.data.coco import read_coco
from poise.data.outlines import built_in
from poise.data.records import PoseDataset, Record
from poise.data.samples import record_image
from poise.evaluate.coco import evaluate_keypoints, person_category, read_truth
from poise.evaluate.dataset import AnyPredictor
from poise.geometry.oks import oks
from poise.models.base import PoseModel
from poise.predict.boxes import Boxes, read_boxes
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor
from poise.predict.views import Scale
from poise.types import Poses

Progress = Callable[[int, int], None]
"""Called after each picture with the number of pictures done and of all pictures."""


def evaluate_model(
    model: AnyPredictor | PoseModel,
    annotations: str | Path,
    images: str | Path,
    *,
    device: str | torch.device = "auto",
    batch: int | None = None,
    scales: Sequence[Scale] | None = None,
    flip: bool = False,
    truth_scores: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """COCO keypoint metrics of a model; see `poise.evaluate.coco.METRICS`.

    Args:
        model: a predictor, or a model, which is not changed; one that looks at one person at a time is given the
            annotated boxes, with score 1.
        annotations: COCO keypoint file; its pictures, and no others, are looked at.
        images: folder of the pictures.
        device: where a model is measured, as `Predictor`; a predictor stays where it is.
        batch: as `Predictor.predict`.
        scales: as `Predictor.predict`.
        flip: as `Predictor.predict`.
        truth_scores: rank the poses by `scored_by_truth` instead of their own scores.
        progress: is told how far it is.

    Raises:
        FileNotFoundError: the file, the folder or pictures are missing.
        ValueError: the file does not fit the model's skeleton, or a picture cannot be read.
    """
    predictor = _predictor(model, annotations, device)
    results = predict_annotated(
        predictor, annotations, images, batch=batch, scales=scales, flip=flip, truth_scores=truth_scores,
        progress=progress,
    )  # fmt: skip
    return evaluate_keypoints(annotations, results, predictor.skeleton)


def _predictor(model: AnyPredictor | PoseModel, annotations: str | Path, device: str | torch.device) -> AnyPredictor:
    if isinstance(model, AnyPredictor):
        return model
    if model.view.kind == "whole":
        return Predictor(model, device)
    return TopDownPredictor(model, read_boxes(annotations), device)


def predict_annotated(
    predictor: AnyPredictor,
    annotations: str | Path,
    images: str | Path,
    *,
    batch: int | None = None,
    scales: Sequence[Scale] | None = None,
    flip: bool = False,
    truth_scores: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """COCO keypoint results (see `Poses.to_coco`) on the pictures of an annotation file; arguments as `evaluate_model`.

    Poses of all scores are in them: the metrics want them. Boxes from a file are found by the ids of the pictures.
    """
    data = read_truth(annotations)
    _check_keypoints(data, predictor, annotations)
    dataset = read_coco(annotations, images, skeleton=predictor.skeleton)
    category = person_category(data) or 1
    people = getattr(predictor, "people", None)
    if isinstance(people, Boxes):
        people.require([record.image_id for record in dataset])

    def rescore(number: int, poses: Poses) -> Poses:
        return scored_by_truth(poses, dataset[number])

    found = predictor.predict_iter(
        _pictures(dataset), min_score=0.0, batch=batch, scales=scales, flip=flip,
        rescore=rescore if truth_scores else None,
    )  # fmt: skip
    results: list[dict[str, Any]] = []
    for done, (record, poses) in enumerate(zip(dataset, found, strict=True), 1):
        results += poses.to_coco(record.image_id, category)
        if progress is not None:
            progress(done, len(dataset))
    return results


def scored_by_truth(poses: Poses, record: Record) -> Poses:
    """Poses (image px) whose scores are their largest OKS with the people of the picture (SMPR spec 12).

    Measured so, a model shows how good its poses are, whatever their own scores are worth.
    """
    if not len(record):
        return replace(poses, scores=np.zeros_like(poses.scores))
    similarity = oks(poses.keypoints, record.keypoints, record.areas, poses.skeleton.sigmas)
    return replace(poses, scores=similarity.max(axis=1))


def _pictures(dataset: PoseDataset) -> Iterator[Named]:
    for record in dataset:
        yield Named(record_image(record), str(record.path), record.image_id)


def _check_keypoints(data: Mapping[str, Any], predictor: AnyPredictor, annotations: str | Path) -> None:
    """``ValueError`` if the file names other keypoints than the model, even if it has as many."""
    category = person_category(data)
    for entry in data.get("categories") or []:
        names = tuple(entry.get("keypoints") or ())
        known = built_in(names)
        if entry["id"] == category and names and predictor.skeleton.keypoints not in (names, known and known.keypoints):
            raise ValueError(
                f"{annotations} has the keypoints {', '.join(names)}; the model finds "
                f"{', '.join(predictor.skeleton.keypoints)}"
            )
