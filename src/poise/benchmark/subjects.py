"""What is measured: models with weights, and presets with random ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from poise.models import PRESETS, DirectPose, PoseModel, build_model, preset
from poise.models.smpr import SMPR
from poise.predict.loading import load_model
from poise.settings import nearest
from poise.zoo import shipped

PER_PERSON = 40
"""Locations that pass the score threshold for each person in a picture: what forced candidates stand for.

On the pictures of `poise.benchmark.pictures` the trained `directpose_mobilenetv2` has 39 for each of 50 people, and 322
for a single one.
"""
_SPREAD = 2.0
"""Standard deviation of a random network's class logits, as in a trained network."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure.

    Attributes:
        name: as the user called it.
        model: in eval mode, on the CPU.
        trained: False: a preset with random weights; it finds nobody of itself.
        metadata: of the checkpoint.
    """

    name: str
    model: PoseModel
    trained: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sees_people(self) -> bool:
        """Whether it looks at one person at a time."""
        return self.model.view.kind == "crop"


def find_subject(name: str) -> Subject:
    """The model of that name: a shipped one, a checkpoint, or a preset with random weights.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: there is no such model or preset.
    """
    if name in PRESETS and name not in shipped():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_model(preset(name)).eval()
        return Subject(name, cast(PoseModel, model), trained=False)
    known = ["default", *shipped(), *PRESETS]
    if name not in known and Path(name).suffix != ".safetensors" and len(Path(name).parts) < 2:
        raise ValueError(f"unknown model or preset {name!r}{nearest(name, known)}")
    loaded = load_model(name)
    return Subject(name, loaded.model, trained=True, metadata=loaded.metadata)


@torch.inference_mode()
def spread_classes(model: PoseModel, images: Tensor) -> None:
    """Give a random network's class logits the spread of a trained one's; RSN, which has none, stays as it is.

    To be called on the network as it will run, in place.
    """
    layer = class_layer(model)
    if layer is not None:
        spread = float(_logits(model, images).std())
        layer.weight.mul_(_SPREAD / max(spread, 1e-12))


@torch.inference_mode()
def class_bias(model: PoseModel, images: Tensor, count: int) -> float | None:
    """The bias of the class with which so many locations pass the score threshold; None for RSN, which has none.

    Args:
        model: as it will run.
        images: (B, 3, H, W) that it will be shown.
        count: locations of all images and levels together.
    """
    layer = class_layer(model)
    if layer is None:
        return None
    assert layer.bias is not None
    logits = (_logits(model, images) - layer.bias.float()).sort(descending=True).values
    count = min(count, len(logits) - 1)
    limit = float(logits[0]) + 1 if count < 1 else float(logits[count - 1] + logits[count]) / 2
    threshold: float = model.config.score_threshold  # type: ignore[attr-defined]
    return math.log(threshold / (1 - threshold)) - limit


def set_class_bias(model: PoseModel, bias: float | None) -> None:
    """Set what `class_bias` found; None leaves the network as it is."""
    layer = class_layer(model)
    if bias is not None and layer is not None and layer.bias is not None:
        with torch.inference_mode():
            layer.bias.fill_(bias)


def class_layer(model: PoseModel) -> nn.Conv2d | None:
    """The layer that says where people are; None for a model that sees one person at a time."""
    if isinstance(model, DirectPose):
        return model.head.cls_logits
    return model.head.logits if isinstance(model, SMPR) else None


def _logits(model: PoseModel, images: Tensor) -> Tensor:
    outputs = cast(nn.Module, model)(images)
    return torch.cat([part.flatten().float() for part in outputs.logits])
