"""ImageNet weights of other libraries under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_MOBILENET_V2_REPEATS = (1, 2, 3, 4, 3, 3, 1)
"""Inverted residual blocks of each stage (Sandler et al. 2018, table 2)."""

_BLURRED = re.compile(r"^(layer[234]\.0\.conv3)\.1\.")
"""A convolution behind a blur, in a file of an anti-aliased ResNet."""


def torchvision_mobilenet_v2_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename ``features.*`` of torchvision's ``mobilenet_v2`` as timm's ``mobilenetv2_100`` has them.

    The two are the same network. The last 1x1 convolution becomes ``conv_head`` and ``bn2``; the classifier is left
    out, as are ``num_batches_tracked`` counters, which no output depends on.

    Raises:
        ValueError: a name does not belong to ``mobilenet_v2``.
    """
    prefixes = _mobilenet_v2_prefixes()
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if module.startswith("classifier") or leaf == "num_batches_tracked":
            continue
        if module not in prefixes:
            raise ValueError(f"{name!r} is not a tensor of torchvision's mobilenet_v2")
        renamed[f"{prefixes[module]}.{leaf}"] = tensor
    return renamed


def torchvision_resnet_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a torchvision ResNet for timm's of the same depth: the names agree, the classifier is left out."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def resnet_to_anti_aliased(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a plain ResNet for the lpf3 variant, whose strided shortcuts begin with a blur (DirectPose spec 1).

    Files of anti-aliased ResNets count the blurs: ``downsample.2`` is what it is here, ``conv3.1`` becomes ``conv3``;
    their fixed filters (``*.filt``) are left out.
    """
    plain = not any(".downsample.2." in name for name in state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".filt"):
            continue
        if plain and name.startswith(("layer2.0.downsample.", "layer3.0.downsample.", "layer4.0.downsample.")):
            layer, _, rest = name.partition(".downsample.")
            index, _, leaf = rest.partition(".")
            renamed[f"{layer}.downsample.{int(index) + 1}.{leaf}"] = tensor
        else:
            renamed[_BLURRED.sub(r"\1.", name)] = tensor
    return renamed


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under timm's names, whether they came with timm's or with torchvision's (mobilenet_v2, ResNets)."""
    if "features.0.0.weight" in state:
        return torchvision_mobilenet_v2_to_timm(state)
    if "layer1.0.conv1.weight" in state:
        return torchvision_resnet_to_timm(state)
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _mobilenet_v2_prefixes() -> dict[str, str]:
    """Module path in torchvision -> module path in timm."""
    paths = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    number = 1
    for stage, repeats in enumerate(_MOBILENET_V2_REPEATS):
        for block in range(repeats):
            here, there = f"features.{number}.conv", f"blocks.{stage}.{block}"
            if stage == 0:  # no expansion
                parts = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
            else:
                parts = {
                    "0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3",
                }  # fmt: skip
            paths |= {f"{here}.{a}": f"{there}.{b}" for a, b in parts.items()}
            number += 1
    return paths | {f"features.{number}.0": "conv_head", f"features.{number}.1": "bn2"}
