"""Measuring a model on an annotated set of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from poise.data.coco import read_coco
from poise.data.coco_rules import people_category
from poise.data.outlines import built_in, outline_beside
from poise.data.records import PoseDataset, Record
from poise.data.samples import record_image
from poise.evaluate.coco import evaluate_keypoints, person_category, read_truth
from poise.evaluate.dataset import AnyPredictor
from poise.evaluate.evaluation import given_skeleton
from poise.evaluate.tables import truth_table
from poise.geometry.oks import oks
from poise.models.base import PoseModel
from poise.predict.boxes import Boxes, read_boxes
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor
from poise.predict.views import Scale
from poise.skeletons import Skeleton
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

    OKS sigmas are those that the annotations give (see `given_skeleton`), else the model's.

    Args:
        model: a predictor, or a model, which is not changed; one that looks at one person at a time is given the
            annotated boxes, with score 1. The command line lets pipelines look at everybody found with a score of 0.01
            or more: ``people_min_score`` of `poise.pipeline`.
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
    data = read_truth(annotations)
    return evaluate_keypoints(data, results, given_skeleton(data, Path(annotations)) or predictor.skeleton)


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
    dataset = _dataset(data, predictor.skeleton, annotations, images)
    category = category_of_results(data)
    sigmas = (given_skeleton(data, Path(annotations)) or predictor.skeleton).sigmas
    people = getattr(predictor, "people", None)
    if isinstance(people, Boxes):
        people.require([record.image_id for record in dataset])

    def rescore(number: int, poses: Poses) -> Poses:
        return scored_by_truth(poses, dataset[number], sigmas)

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


def require_annotated(model: PoseModel, annotations: str | Path, images: str | Path) -> None:
    """Raise what `evaluate_model` would raise for the annotation file or the folder, without running the model."""
    data = read_truth(annotations)
    dataset = _dataset(data, model.skeleton, annotations, images)
    truth_table(data, given_skeleton(data, Path(annotations)) or model.skeleton)
    if model.view.kind != "whole":
        read_boxes(annotations).require([record.image_id for record in dataset])


def category_of_results(data: Mapping[str, Any]) -> int:
    """The category that poses get among the results on a COCO file: that of its people, 1 if it lists none."""
    category = person_category(data)
    return 1 if category is None else category


def scored_by_truth(poses: Poses, record: Record, sigmas: Sequence[float] | None = None) -> Poses:
    """Poses (image px) whose scores are their largest OKS with the people of the picture (SMPR spec 12).

    Measured so, a model shows how good its poses are, whatever their own scores are worth. ``sigmas`` are by default
    those of the poses' skeleton.
    """
    if not len(record):
        return replace(poses, scores=np.zeros_like(poses.scores))
    similarity = oks(poses.keypoints, record.keypoints, record.areas, sigmas or poses.skeleton.sigmas)
    return replace(poses, scores=similarity.max(axis=1))


def _pictures(dataset: PoseDataset) -> Iterator[Named]:
    for record in dataset:
        yield Named(record_image(record), str(record.path), record.image_id)


def _dataset(data: Mapping[str, Any], skeleton: Skeleton, annotations: str | Path, images: str | Path) -> PoseDataset:
    """The pictures of a file whose content is ``data``, if it has the skeleton's keypoints."""
    _check_keypoints(data, skeleton, annotations)
    # regions without keypoints need no box: what is ignored is the evaluation's business
    return read_coco(annotations, images, skeleton=skeleton, unlabelled="background")


def _check_keypoints(data: Mapping[str, Any], skeleton: Skeleton, annotations: str | Path) -> None:
    """``ValueError`` if a file and the YAML file beside it name other keypoints than the model, even if as many."""
    outline = outline_beside(Path(annotations))
    category = people_category(data.get("categories"), annotations)
    told = [tuple(map(str, category.get("keypoints") or ())), () if outline is None else outline.keypoints]
    told = [names for names in told if names]
    known = [found.keypoints for found in map(built_in, told) if found is not None]
    if told and skeleton.keypoints not in [*told, *known]:
        raise ValueError(
            f"{annotations} has the keypoints {', '.join(told[-1])}; the model finds {', '.join(skeleton.keypoints)}"
        )
