"""Measuring a model in training on the pictures of a validation set."""

from __future__ import annotations

from typing import cast

from torch import nn

from poise.data.config import SourceConfig
from poise.data.formats import AUTO, known_kind, recognise
from poise.data.loader import read_source
from poise.evaluate.dataset import annotated_boxes, predict_dataset, score_dataset, score_mpii
from poise.evaluate.model import evaluate_model
from poise.models.base import PoseModel
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor


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
        self._kind = recognise(source.annotations) if source.kind == AUTO else known_kind(source.kind)

    def __call__(self, model: PoseModel) -> dict[str, float]:
        """`poise.evaluate.coco.METRICS` or `poise.evaluate.mpii.METRICS`, at the size of ``model.view``.

        The model stays on its device.
        """
        device = next(cast(nn.Module, model).parameters()).device
        if self._kind in ("coco", "crowdpose"):
            return evaluate_model(model, self._source.annotations, self._source.images, device=device)
        predictor: Predictor | TopDownPredictor
        if model.view.kind == "crop":
            predictor = TopDownPredictor(model, annotated_boxes(self._dataset), device)
        else:
            predictor = Predictor(model, device)
        results = predict_dataset(predictor, self._dataset)
        if self._kind == "mpii":
            return score_mpii(self._source.annotations, self._dataset, results)
        return score_dataset(self._dataset, results)
