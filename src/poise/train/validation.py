"""Measuring a model in training on the pictures of a validation set."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.data.records import PoseDataset
from poise.data.samples import record_image
from poise.evaluate.model import evaluate_model
from poise.evaluate.mpii import evaluate_mpii
from poise.models.base import PoseModel
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor

HEAD_BOXES = "gt_valid.mat"
"""Where public copies of MPII keep the head boxes of the validation set."""


class Validator:
    """Called with a model: its metrics on one data set, as ``poise evaluate`` measures them.

    These are COCO's keypoint metrics, or PCKh where the data set is in MPII's format. A model that sees one person at
    a time is given the annotated boxes.

    Args:
        source: the validation set; all its pictures count, also those without people.
        model: of the kind to be measured.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit the model's skeleton.
    """

    def __init__(self, source: SourceConfig, model: PoseModel) -> None:
        self._dataset = read_source(source, model.skeleton)  # a mistake shows now, not after hours of training
        self._source = source

    def __call__(self, model: PoseModel) -> dict[str, float]:
        """`poise.evaluate.coco.METRICS` or `poise.evaluate.mpii.METRICS`, at the size of ``model.view``.

        The model stays on its device.
        """
        device = next(cast(nn.Module, model).parameters()).device
        if self._source.kind == "mpii":
            return measure_pckh(model, device, self._source.annotations, self._dataset)
        return evaluate_model(model, self._source.annotations, self._source.images, device=device)


def measure_pckh(model: PoseModel, device: torch.device, annotations: str, dataset: PoseDataset) -> dict[str, float]:
    """PCKh of a model; if it sees one person at a time, in the annotated squares.

    Args:
        model: any.
        device: where it runs.
        annotations: MPII file. If ``gt_valid.mat`` lies beside it, as in public copies, its head boxes are taken.
        dataset: what was read from it.

    Raises:
        ValueError: a picture cannot be read, or head boxes do not fit.
    """
    if model.view.kind == "crop":
        squares = {r.image_id: PersonBoxes(r.boxes, np.ones(len(r), np.float32)) for r in dataset}
        predictor: Predictor | TopDownPredictor = TopDownPredictor(model, Boxes(squares, where=annotations), device)
    else:
        predictor = Predictor(model, device)
    pictures = (Named(record_image(r), str(r.path), r.image_id) for r in dataset)
    found = predictor.predict_iter(pictures, min_score=0.0)
    results = [entry for r, poses in zip(dataset, found, strict=True) for entry in poses.to_coco(r.image_id)]
    heads = Path(annotations).with_name(HEAD_BOXES)
    return evaluate_mpii(annotations, results, head_boxes=heads if heads.is_file() else None)
