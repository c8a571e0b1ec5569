"""SMPR checkpoints of the authors' code (SMPR spec 13)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from poise.converters.names import load_strictly, rename
from poise.models.smpr import SMPR, SMPRConfig
from poise.skeletons import COCO17

Rules = tuple[tuple[str, str], ...]

_HEAD = "bbox_head."

_RULES: Rules = (
    (r"backbone\.", "backbone.body."),
    (r"neck\.lateral_convs\.(\d)\.conv\.", r"pyramid.lateral.\1."),
    (r"neck\.downsample_convs\.(\d)\.conv\.", r"pyramid.down.\1."),
    (r"neck\.pafpn_convs\.(\d)\.conv\.", r"pyramid.post.\1."),
    (r"neck\.reduction_conv\.conv\.", "pyramid.reduction."),
)

HEAD: Rules = (
    (r"hm_out\.", "head.heatmap.6."),
    (r"fcos_reg\.", "head.initial."),
    (r"scales_1\.(\d)\.", r"head.initial_scales.\1."),
    (r"feature_adaption\.conv_offset\.", "head.align.offset."),
    (r"feature_adaption\.conv_adaption_reg\.", "head.align.pose."),
    (r"feature_adaption\.conv_adaption_cls\.", "head.align.person."),
    (r"fcos_refine_out\.", "head.refined."),
    (r"scales_2\.(\d)\.", r"head.refined_scales.\1."),
    (r"fcos_cls\.", "head.logits."),
    (r"fcos_rescore\.", "head.quality."),
)

_TOWERS = {"cls_convs": "person_tower", "reg_convs": "pose_tower", "hm_convs": "heatmap"}
_TOWER = re.compile(rf"({'|'.join(_TOWERS)})\.(\d+)\.(conv|gn)\.")


def from_official(state: Mapping[str, Tensor]) -> SMPR:
    """A state dict of the authors' code; the switches are read off its names and shapes.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names.
    """
    config = SMPRConfig.parse(_switches(state), where="switches read off the checkpoint")
    model = SMPR(config, COCO17)
    load_strictly(model, new_names(state), "SMPR")
    return model.eval()


def new_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names; scalars become vectors of one element."""
    head = {name.removeprefix(_HEAD): value for name, value in state.items() if name.startswith(_HEAD)}
    rest = {name: value for name, value in state.items() if not name.startswith(_HEAD)}
    renamed = {**rename(rest, (*_RULES, *_output_rules(rest))), **head_names(head)}
    return {name: value.reshape(1) if name.endswith(".scale") else value for name, value in renamed.items()}


def head_names(head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors, without ``bbox_head.``, under our names."""
    return rename({_tower_name(name): value for name, value in head.items()}, HEAD)


def _tower_name(name: str) -> str:
    """Layer i of a tower is convolution, norm and activation in a row: numbers 3 i and 3 i + 1."""
    match = _TOWER.match(name)
    if match is None:
        return name
    tower, layer, part = match.groups()
    number = 3 * int(layer) + (part == "gn")
    return f"head.{_TOWERS[tower]}.{number}.{name[match.end() :]}"


def _output_rules(neck: Mapping[str, Tensor]) -> Rules:
    """``fpn_convs`` are one convolution a lateral, then the extra levels; an HRFPN has no laterals."""
    laterals = len({name.split(".")[2] for name in neck if name.startswith("neck.lateral_convs.")})
    count = len({name.split(".")[2] for name in neck if name.startswith("neck.fpn_convs.")})
    inner = laterals or count
    return tuple(
        (rf"neck\.fpn_convs\.{i}\.conv\.", f"pyramid.output.{i}." if i < inner else f"pyramid.extra.{i - inner}.")
        for i in range(count)
    )


def _switches(state: Mapping[str, Tensor]) -> dict[str, object]:
    head = {name.removeprefix(_HEAD): value for name, value in state.items() if name.startswith(_HEAD)}
    offsets = head.get("feature_adaption.conv_offset.weight")
    tower, heatmap = head.get("reg_convs.0.conv.weight"), head.get("hm_out.weight")
    psm = "fcos_rescore.weight" in head
    switches = {
        **_backbone_switches(state),
        "neck": _neck(state),
        "align": offsets is not None,
        "psm": psm,
        "score": "product" if psm else "class",
        "heatmap": heatmap is not None,
        "tower_depth": len({name.split(".")[1] for name in head if name.startswith("reg_convs.")}) or 1,
    }
    if tower is not None:
        switches["channels"] = len(tower)
    if offsets is not None:
        switches["offset_groups"] = len(offsets) // 18
    if heatmap is not None:
        switches["heatmap_channels"] = heatmap.shape[1]
    return switches


def _backbone_switches(state: Mapping[str, Tensor]) -> dict[str, object]:
    branch = state.get("backbone.stage2.0.branches.0.0.conv1.weight")
    if branch is not None:
        return {"backbone": f"hrnet_w{len(branch)}", "stride_in_1x1": False}
    return {"backbone": "resnet101" if "backbone.layer3.22.conv1.weight" in state else "resnet50"}


def _neck(state: Mapping[str, Tensor]) -> str:
    if "neck.reduction_conv.conv.weight" in state:
        return "hrfpn"
    return "pafpn" if "neck.downsample_convs.0.conv.weight" in state else "fpn"
