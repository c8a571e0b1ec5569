"""Measuring a model in training on the pictures of a validation set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from poise.data.config import SourceConfig
from poise.data.formats import AUTO, known_kind, recognise
from poise.data.loader import read_source
from poise.data.records import PoseDataset
from poise.evaluate import coco, mpii
from poise.evaluate.dataset import annotated_boxes, predict_dataset, score_dataset, score_mpii
from poise.evaluate.model import evaluate_model, require_annotated
from poise.models.base import PoseModel
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor


class Validator:
    """Called with a model: its metrics on one data set, as ``poise evaluate`` measures them.

    These are COCO's keypoint metrics (`poise.evaluate.coco.METRICS`), or PCKh (`poise.evaluate.mpii.METRICS`) where the
    data set is in MPII's format. A model that sees one person at a time is given the annotated boxes. That all of it
    fits is checked when the validator is made.

    Args:
        source: the validation set; all its pictures count, also those without people.
        model: of the kind to be measured.

    Attributes:
        metrics: names of the numbers it gives.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit each other, the model's skeleton or the metrics.
    """

    def __init__(self, source: SourceConfig, model: PoseModel) -> None:
        self._source = source
        self._kind = recognise(source.annotations) if source.kind == AUTO else known_kind(source.kind)
        self.metrics: Sequence[str] = mpii.METRICS if self._kind == "mpii" else coco.METRICS
        self._dataset: PoseDataset | None = None
        if self._kind in ("coco", "crowdpose") and source.split is None:
            require_annotated(model, source.annotations, source.images)
        else:
            self._dataset = read_source(source, model.skeleton)
            self._score(self._dataset, [])

    def __call__(self, model: PoseModel) -> dict[str, float]:
        """`poise.evaluate.coco.METRICS` or `poise.evaluate.mpii.METRICS`, at the size of ``model.view``.

        The model stays on its device.
        """
        device = next(cast(nn.Module, model).parameters()).device
        if self._dataset is None:
            return evaluate_model(model, self._source.annotations, self._source.images, device=device)
        predictor: Predictor | TopDownPredictor
        if model.view.kind == "crop":
            predictor = TopDownPredictor(model, annotated_boxes(self._dataset), device)
        else:
            predictor = Predictor(model, device)
        return self._score(self._dataset, predict_dataset(predictor, self._dataset))

    def _score(self, dataset: PoseDataset, results: Sequence[dict[str, Any]]) -> dict[str, float]:
        if self._kind == "mpii":
            return score_mpii(self._source.annotations, dataset, results, split=self._source.split)
        return score_dataset(dataset, results)
