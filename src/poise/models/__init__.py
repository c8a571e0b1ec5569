"""The systems. One file is one paper; this module only lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from poise.models.base import PoseModel
from poise.models.directpose import PRESETS as DIRECTPOSE_PRESETS
from poise.models.directpose import DirectPose, DirectPoseConfig
from poise.settings import nearest
from poise.skeletons import COCO17, Skeleton

__all__ = ["PRESETS", "DirectPose", "DirectPoseConfig", "ModelConfig", "PoseModel", "build_model", "parse_model_config"]

ModelConfig = DirectPoseConfig
"""Settings of any system; the field ``system`` says which."""

PRESETS: dict[str, Callable[[], ModelConfig]] = {**DIRECTPOSE_PRESETS}
"""Named settings."""

_CONFIGS: dict[str, type[ModelConfig]] = {"directpose": DirectPoseConfig}


def parse_model_config(data: Mapping[str, Any]) -> ModelConfig:
    """Settings of the system that ``data["system"]`` names.

    Raises:
        ValueError: the system is unknown or a setting does not fit.
    """
    system = str(data.get("system"))
    if system not in _CONFIGS:
        raise ValueError(f"unknown system {system!r}{nearest(system, _CONFIGS)}")
    return _CONFIGS[system].parse(data, where="model")


def build_model(config: ModelConfig, skeleton: Skeleton = COCO17, *, pretrained: bool = False) -> DirectPose:
    """The network for some settings; also an ``nn.Module`` and a `PoseModel`."""
    return DirectPose(config, skeleton, pretrained=pretrained)


def preset(name: str) -> ModelConfig:
    """The named settings; ``ValueError`` with the nearest name if there are none."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]()


def parameter_count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())
