"""Measuring a model in training on the pictures of a validation set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.data.records import PoseDataset
from poise.data.views import collate, eval_views
from poise.evaluate.coco import evaluate_keypoints, read_truth
from poise.geometry.affine import invert
from poise.models.base import PoseModel
from poise.predict.mapping import mapped_back


class Validator:
    """Called with a model in eval mode: its COCO keypoint metrics on one data set.

    Args:
        source: the validation set; all its pictures count, also those without people.
        model: of the kind to be measured; says skeleton and view.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit the model's skeleton.
    """

    def __init__(self, source: SourceConfig, model: PoseModel) -> None:
        self._dataset: PoseDataset = read_source(source, model.skeleton)
        self._truth: Mapping[str, Any] = read_truth(source.annotations)

    def __call__(self, model: PoseModel) -> dict[str, float]:
        """AP and the rest of `poise.evaluate.coco.METRICS`; one picture at a time, at the size of ``model.view``."""
        device = next(cast(nn.Module, model).parameters()).device
        results: list[dict[str, Any]] = []
        for view in eval_views(self._dataset, model.view):
            images = collate([view], model.view.stride).images.to(device)
            with torch.inference_mode():
                found = model.detect(images, [view.size])[0]
            poses = model.suppress(mapped_back(found, invert(np.asarray(view.to_input)), view.image_size))
            results += poses.to_coco(view.image_id)
        return evaluate_keypoints(self._truth, results, model.skeleton)
