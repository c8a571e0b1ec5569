"""DirectPose checkpoints of the GluonCV port and of the authors' code (DirectPose spec 12)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from poise.converters.names import load_strictly, rename
from poise.models.directpose import PRESETS, DirectPose, DirectPoseConfig, HeatmapConfig
from poise.skeletons import COCO17

Rules = tuple[tuple[str, str], ...]

_G_BODY, _G_HEAD = r"backbone\.bottom_up\.", r"proposal_generator\.directpose_head\."

_BODY: Rules = (
    (r"conv3\.1\.weight$", "conv3.weight"),
    (r"(.*)", r"backbone.body.\1"),
)
"""lpf3 ResNet: ``conv3`` is (blur, convolution) in the strided blocks; everything else has timm's names."""

_COMMON_HEAD: Rules = (
    (r"cls_tower\.", "head.cls_tower."),
    (r"cls_logits\.", "head.cls_logits."),
)

GLUONCV_HEAD: Rules = (
    *_COMMON_HEAD,
    (r"share_tower\.", "head.share."),
    (r"kpt_tower\.", "head.align.tower."),
    (r"bbox_tower\.", "head.box_tower."),
    (r"bbox_pred\.", "head.box_output."),
    (r"ctrness\.", "head.centerness."),
    (r"locator\.", "head.align.locator."),
    (r"sampler\.", "head.align.sampler."),
    (r"predictor\.(\d+)\.kpt_predictor\.", r"head.align.predictors.\1."),
    (r"hm_tower\.", "head.heatmap.tower."),
    (r"hm_pred\.", "head.heatmap.output."),
    (r"hm_offset_pred\.", "head.heatmap.offset."),
    (r"scales\.", "head.scales."),
)

OFFICIAL_HEAD: Rules = (
    *_COMMON_HEAD,
    (r"kps_tower\.", "head.align.tower."),
    (r"centerness\.", "head.centerness."),
    (r"kps_bases\.", "head.align.locator."),
    (r"sample_features_conv\.", "head.align.sampler."),
    (r"kps_offsets\.(\d+)\.kps_offsets\.", r"head.align.predictors.\1."),
    (r"(?:heatmaps\.)?deeplab\.seg_head\.", "head.heatmap.tower."),
    (r"(?:heatmaps\.)?deeplab\.heatmaps\.", "head.heatmap.output."),
)

_GLUONCV_PYRAMID: Rules = (
    (r"backbone\.fpn_lateral(\d)\.", "pyramid.lateral.{0-3}."),
    (r"backbone\.fpn_output(\d)\.", "pyramid.output.{0-3}."),
    (r"backbone\.top_block\.p(\d)\.", "pyramid.extra.{0-6}."),
)

_OFFICIAL_PYRAMID: Rules = (
    (r"backbone\.fpn\.fpn_inner(\d)\.", "pyramid.lateral.{0-2}."),
    (r"backbone\.fpn\.fpn_layer(\d)\.", "pyramid.output.{0-2}."),
    (r"backbone\.fpn\.top_blocks\.p(\d)\.", "pyramid.extra.{0-6}."),
)


def from_gluoncv(state: Mapping[str, Tensor]) -> DirectPose:
    """A GluonCV state dict; the switches are read off its shapes.

    A centre-ness output on 256 channels is taken to sit on the classification tower.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names.
    """
    body = _part(state, _G_BODY)
    head = _part(state, _G_HEAD)
    renamed = {
        **rename(body, _BODY, drop=(r"\.filt$",)),
        **rename(head, GLUONCV_HEAD),
        **rename(_rest(state, (_G_BODY, _G_HEAD)), _GLUONCV_PYRAMID, drop=(r"^pixel_(mean|std)$",)),
    }
    has_heatmap = "hm_pred.weight" in head
    config = PRESETS["directpose_r50_gluoncv"]().model_copy(
        update={
            **_backbone_switches(body),
            "levels": 5 if "backbone.top_block.p6.weight" in state else 3,
            "visibility": _has_visibility(head.get("predictor.0.kpt_predictor.weight")),
            "centerness_on": _centerness_tower(head),
            "box_branch": "bbox_pred.weight" in head,
            "scales": "scales.0.scale" in head,
            "share_depth": _depth(head, "share_tower"),
            "heatmap": HeatmapConfig(norm="gn", offset="hm_offset_pred.weight" in head) if has_heatmap else None,
        }
    )
    return _load(config, renamed, "GluonCV DirectPose")


def from_official(state: Mapping[str, Tensor]) -> DirectPose:
    """A state dict of the authors' code (maskrcnn-benchmark names).

    The head group reads P3 there, which the keys do not show. The names of backbone and pyramid follow
    maskrcnn-benchmark's conventions and could not be checked against a published file.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names.
    """
    body_prefix, head_prefix = r"backbone\.body\.", r"rpn\.head\."
    body = _part(state, body_prefix)
    head = {**_part(state, head_prefix), **_part(state, r"(?=heatmaps\.)"), **_part(state, r"rpn\.(?=heatmaps\.)")}
    renamed = {
        **rename(body, _BODY, drop=(r"\.filt$",)),
        **rename(head, OFFICIAL_HEAD),
        **rename(_rest(state, (body_prefix, head_prefix, r"heatmaps\.", r"rpn\.heatmaps\.")), _OFFICIAL_PYRAMID),
    }
    has_heatmap = any(k.startswith("head.heatmap.") for k in renamed)
    config = PRESETS["directpose_r50"]().model_copy(
        update={
            **_backbone_switches(body),
            "levels": 5 if "backbone.fpn.top_blocks.p6.weight" in state else 3,
            "heatmap": HeatmapConfig(target="single") if has_heatmap else None,
            "cls_normaliser": "official",
            "score": "product",
        }
    )
    return _load(config, renamed, "official DirectPose")


def _load(config: DirectPoseConfig, state: Mapping[str, Tensor], what: str) -> DirectPose:
    model = DirectPose(DirectPoseConfig.parse(config.model_dump()), COCO17)
    load_strictly(model, state, what)
    return model.eval()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = ((re.match(prefix, name), name, value) for name, value in state.items())
    return {name[match.end() :]: value for match, name, value in found if match}


def _rest(state: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not any(re.match(p, k) for p in prefixes)}


def _backbone_switches(body: Mapping[str, Tensor]) -> dict[str, object]:
    deep = "layer3.22.conv1.weight" in body
    return {"backbone": "resnet101" if deep else "resnet50", "anti_alias": "layer2.0.conv3.1.weight" in body}


def _has_visibility(head_predictor: Tensor | None) -> bool:
    return head_predictor is not None and head_predictor.shape[0] % 3 == 0


def _centerness_tower(head: Mapping[str, Tensor]) -> str:
    output, tower = head.get("ctrness.weight"), head.get("kpt_tower.0.weight")
    on_keypoints = output is not None and tower is not None and output.shape[1] == tower.shape[0]
    return "keypoint" if on_keypoints and isinstance(output, torch.Tensor) else "cls"


def _depth(head: Mapping[str, Tensor], tower: str) -> int:
    return sum(1 for k, v in head.items() if k.startswith(f"{tower}.") and k.endswith(".weight") and v.ndim == 4)
