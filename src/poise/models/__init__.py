"""The systems. One file is one paper; this module only lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag
from torch import nn

from poise.models.base import PoseModel
from poise.models.directpose import PRESETS as DIRECTPOSE_PRESETS
from poise.models.directpose import DirectPose, DirectPoseConfig
from poise.models.rsn import PRESETS as RSN_PRESETS
from poise.models.rsn import RSN, RSNConfig
from poise.models.smpr import PRESETS as SMPR_PRESETS
from poise.models.smpr import SMPR, SMPRConfig
from poise.settings import nearest
from poise.skeletons import COCO17, Skeleton

__all__ = [
    "PRESETS",
    "RSN",
    "SMPR",
    "DirectPose",
    "DirectPoseConfig",
    "ModelConfig",
    "PoseModel",
    "RSNConfig",
    "SMPRConfig",
    "build_model",
    "parse_model_config",
]


def _system(data: Any) -> str:
    """Which system some settings are for; those that name none are DirectPose's."""
    system = data.get("system", "directpose") if isinstance(data, Mapping) else getattr(data, "system", None)
    return str(system)


ModelConfig = Annotated[
    Annotated[DirectPoseConfig, Tag("directpose")]
    | Annotated[SMPRConfig, Tag("smpr")]
    | Annotated[RSNConfig, Tag("rsn")],
    Discriminator(
        _system,
        custom_error_type="unknown_system",
        custom_error_message="settings of a model have a system, 'directpose', 'smpr' or 'rsn'",
    ),
]
"""Settings of any system; the field ``system`` says which."""

PRESETS: dict[str, Callable[[], DirectPoseConfig | SMPRConfig | RSNConfig]] = {
    **DIRECTPOSE_PRESETS,
    **SMPR_PRESETS,
    **RSN_PRESETS,
}
"""Named settings."""

_CONFIGS: dict[str, type[DirectPoseConfig | SMPRConfig | RSNConfig]] = {
    "directpose": DirectPoseConfig,
    "smpr": SMPRConfig,
    "rsn": RSNConfig,
}


def parse_model_config(data: Mapping[str, Any]) -> ModelConfig:
    """Settings of the system that ``data["system"]`` names.

    Raises:
        ValueError: the system is unknown or a setting does not fit.
    """
    system = str(data.get("system"))
    if system not in _CONFIGS:
        raise ValueError(f"unknown system {system!r}{nearest(system, _CONFIGS)}")
    return _CONFIGS[system].parse(data, where="model")


def build_model(
    config: ModelConfig, skeleton: Skeleton = COCO17, *, pretrained: bool = False
) -> DirectPose | SMPR | RSN:
    """The network for some settings; also an ``nn.Module`` and a `PoseModel`."""
    if isinstance(config, SMPRConfig):
        return SMPR(config, skeleton, pretrained=pretrained)
    if isinstance(config, RSNConfig):
        return RSN(config, skeleton, pretrained=pretrained)
    return DirectPose(config, skeleton, pretrained=pretrained)


def preset(name: str) -> ModelConfig:
    """The named settings; ``ValueError`` with the nearest name if there are none."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]()


def parameter_count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())
