"""Measuring a model in training on the pictures of a validation set."""

from __future__ import annotations

from typing import cast

from torch import nn

from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.evaluate.model import evaluate_model
from poise.models.base import PoseModel


class Validator:
    """Called with a model: its COCO keypoint metrics on one data set, as ``poise evaluate`` measures them.

    Args:
        source: the validation set; all its pictures count, also those without people.
        model: of the kind to be measured.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit the model's skeleton.
    """

    def __init__(self, source: SourceConfig, model: PoseModel) -> None:
        read_source(source, model.skeleton)  # a mistake shows now, not after hours of training
        self._source = source

    def __call__(self, model: PoseModel) -> dict[str, float]:
        """AP and the rest of `poise.evaluate.coco.METRICS`, at the size of ``model.view``, on the model's device."""
        device = next(cast(nn.Module, model).parameters()).device
        return evaluate_model(model, self._source.annotations, self._source.images, device=device)
