"""RSN checkpoints of the authors' code and of mmpose (RSN spec 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from poise.converters.names import load_strictly
from poise.models.rsn import BLOCKS, PRESETS, RSN, RSNConfig
from poise.models.rsn_blocks import LEVELS
from poise.skeletons import COCO17, MPII16, Skeleton

_STEM = "stem.conv.weight"
_BLOCK = {"conv_bn_relu1": "enter", "conv_bn_relu3": "exit", "conv_bn3": "exit", "downsample": "shortcut"}
_STEP = re.compile(r"conv_bn_relu2_(\d+)_(\d+)$")
_UNIT = {
    "u_skip": "lateral", "in_skip": "lateral", "up_conv": "up", "cross_conv": "cross",
    "skip1": "skip_encoder", "out_skip1": "skip_encoder", "skip2": "skip_decoder", "out_skip2": "skip_decoder",
    "res_conv1": "hidden", "res_conv2": "output",
}  # fmt: skip
_PRM = (
    ("conv_bn_relu_prm_1.", "feature."),
    ("conv_bn_relu_prm_2_1.", "weight.0."),
    ("conv_bn_relu_prm_2_2.", "weight.1."),
    ("conv_bn_relu_prm_3_1.", "attention.0."),
    ("conv_bn_relu_prm_3_2.", "attention.1."),
    ("middle_path.0.", "weight.0.conv."),
    ("middle_path.1.", "weight.0.norm."),
    ("middle_path.3.", "weight.1.conv."),
    ("middle_path.4.", "weight.1.norm."),
    ("bottom_path.0.", "attention.0."),
    ("bottom_path.1.depthwise_conv.", "attention.1."),
    ("bottom_path.1.pointwise_conv.", "attention.2."),
)
_PART = re.compile(r"(?:backbone\.multi_stage_rsn\.|stage)(\d+)\.(?:downsample\.layer(\d)\.(\d+)|upsample\.up(\d))\.")
_HEAD = re.compile(r"head\.predict_layers\.(\d+)\.")
_STEMS = ("top.conv.", "backbone.top.top.0.")


def from_official(state: Mapping[str, Tensor], *, conv_bias: bool = False) -> RSN:
    """A state dict of the authors' code. Its networks see BGR, ours RGB: the stem's filters are turned round.

    Args:
        state: its entries; a Pose Refine Machine is expected as ``prm`` inside a unit.
        conv_bias: keep the biases of the convolutions; otherwise the batch norms take them up.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names.
    """
    named = new_names(state)
    if _STEM in named:
        named[_STEM] = named[_STEM].flip(1)
    return _loaded(named, "official", conv_bias)


def from_mmpose(state: Mapping[str, Tensor]) -> RSN:
    """A state dict of mmpose, as its four public checkpoints have it; the model keeps mmpose's conventions.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names.
    """
    return _loaded(new_names(state), "mmpose", conv_bias=False)


def _loaded(named: dict[str, Tensor], form: Literal["official", "mmpose"], conv_bias: bool) -> RSN:
    what = "RSN" if form == "official" else "mmpose RSN"
    try:
        switches = _switches(named, form)
        skeleton = _skeleton(len(named["stages.0.units.0.output.conv.weight"]))
    except KeyError as error:
        raise ValueError(f"not a {what} checkpoint: it has nothing that becomes {error.args[0]}") from None
    settings = _conventions(form, skeleton).model_dump() | switches | {"conv_bias": conv_bias}
    model = RSN(RSNConfig.parse(settings, where="switches read off the checkpoint"), skeleton)
    load_strictly(model, named if conv_bias else folded_biases(named), what)
    return model.eval()


def _conventions(form: str, skeleton: Skeleton) -> RSNConfig:
    """Settings that no checkpoint tells: those that the reference has for the data of this skeleton."""
    if form == "official":
        return PRESETS["rsn18" if skeleton == COCO17 else "rsn18_mpii"]()
    config = PRESETS["rsn18_mmpose"]()
    return config if skeleton == COCO17 else config.model_copy(update={"view": PRESETS["rsn18_mpii"]().view})


def _skeleton(count: int) -> Skeleton:
    known = {len(s): s for s in (COCO17, MPII16)}
    if count not in known:
        raise ValueError(f"RSN checkpoints have {' or '.join(map(str, sorted(known)))} keypoints, not {count}")
    return known[count]


# ------------------------------------------------------------------------------------------------------------- names


def new_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, matrices of linear layers as 1x1 filters; unknown names are kept."""
    renamed = {_new_name(name): value for name, value in state.items()}
    return {name: v[..., None, None] if v.ndim == 2 else v for name, v in renamed.items()}


def block_name(name: str) -> str:
    """Our name of an entry inside a residual steps block."""
    part, _, rest = name.partition(".")
    step = _STEP.match(part)
    if step is not None:
        return f"steps.{int(step[1]) - 1}.{int(step[2]) - 1}.{_layer(rest)}"
    return f"{_BLOCK.get(part, part)}.{_layer(rest)}"


def prm_name(name: str) -> str:
    """Our name of an entry inside a Pose Refine Machine."""
    for theirs, ours in _PRM:
        if name.startswith(theirs):
            return ours + _layer(name.removeprefix(theirs))
    return name


def _new_name(name: str) -> str:
    for stem in _STEMS:
        if name.startswith(stem):
            return f"stem.{_layer(name.removeprefix(stem))}"
    head = _HEAD.match(name)
    if head is not None:
        number, unit = divmod(int(head[1]), LEVELS)
        return f"stages.{number}.units.{unit}.{_prediction_name(name[head.end() :])}"
    part = _PART.match(name)
    if part is None:
        return name
    stage, layer, block, unit_number = part.groups()
    rest = name[part.end() :]
    if layer is not None:
        return f"stages.{stage}.layers.{int(layer) - 1}.{block}.{block_name(rest)}"
    return f"stages.{stage}.units.{int(unit_number) - 1}.{_unit_name(rest)}"


def _unit_name(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"prm.{prm_name(rest)}" if part == "prm" else f"{_UNIT.get(part, part)}.{_layer(rest)}"


def _prediction_name(name: str) -> str:
    """Our name of an entry inside a layer of mmpose's head."""
    for theirs, ours in (("conv_layers.0.", "hidden."), ("conv_layers.1.", "output.")):
        if name.startswith(theirs):
            return ours + _layer(name.removeprefix(theirs))
    return _unit_name(name)


def _layer(name: str) -> str:
    return "norm." + name.removeprefix("bn.") if name.startswith("bn.") else name


def folded_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without biases of convolutions before a batch norm: its running mean takes them up."""
    folded = dict(state)
    for name, bias in state.items():
        mean = name.removesuffix("conv.bias") + "norm.running_mean"
        if name.endswith("conv.bias") and mean in folded:
            folded[mean] = folded[mean] - bias
            del folded[name]
    return folded


# ---------------------------------------------------------------------------------------------------------- switches


def _switches(named: Mapping[str, Tensor], form: str) -> dict[str, object]:
    """Settings that names and shapes tell; ``KeyError`` names an entry that is missing."""
    laterals = [named[f"stages.0.units.{LEVELS - 1 - i}.lateral.conv.weight"] for i in range(LEVELS)]
    stem, channels = len(named[_STEM]), [w.shape[1] for w in laterals]
    expansion = 4 if channels[0] == 4 * stem else 1
    first = named["stages.0.layers.0.0.steps.0.0.conv.weight"]
    later = named["stages.0.layers.1.0.steps.0.0.conv.weight"]
    refined = {_stage_and_unit(name) for name in named if ".prm." in name}
    return {
        "depth": _depth(named),
        "stages": len({name.split(".")[1] for name in named if name.startswith("stages.")}),
        "stem": stem,
        "planes": tuple(c // expansion for c in channels),
        "expansion": expansion,
        "branch_ratio": (len(first), stem),
        "branch_from": "input" if len(later) == channels[0] * len(first) // stem else "planes",
        "branches": len({n.split(".")[6] for n in named if n.startswith("stages.0.layers.0.0.steps.")}),
        "unit_channels": len(laterals[0]),
        "prm": form if refined else "none",
        "prm_at": "all" if len(refined) > 1 else "last",
    }


def _stage_and_unit(name: str) -> tuple[str, ...]:
    return tuple(name.split(".")[1:4:2])


def _depth(named: Mapping[str, Tensor]) -> int:
    blocks = tuple(
        len({n.split(".")[4] for n in named if n.startswith(f"stages.0.layers.{i}.")}) for i in range(LEVELS)
    )
    depth = next((d for d, b in BLOCKS.items() if b == blocks), None)
    if depth is None:
        raise ValueError(f"RSN has layers of {' or '.join(map(str, BLOCKS.values()))} blocks, not {blocks}")
    return depth
