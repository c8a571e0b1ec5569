"""DirectPose: direct end-to-end multi-person pose estimation (Tian, Chen, Shen 2019, arXiv 1911.07451).

FCOS whose box regression became keypoint regression, with features aligned to each keypoint group (KPAlign).
Read from top to bottom: settings, groups, KPAlign, head, network, losses, decoding.

Letters: B images, L levels, P locations of all levels, h w feature size of a level, H W input size, C channels,
K keypoints, G keypoint groups, c channels of a group, d values a keypoint (x, y[, visibility]), n candidates.
Frame: inside this file coordinates are *corner based*, as in the reference: the centre of the top left pixel is
(0.5, 0.5). `DirectPose.loss` and `DirectPose.decode` convert from and to pixel centres at integers (``pixel_offset``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from poise import losses
from poise.geometry.boxes import clipped_to
from poise.geometry.consensus import consensus_scores
from poise.geometry.nms import box_nms, cut_by_score
from poise.models import dense
from poise.models.dense import Candidates
from poise.models.snapping import snap
from poise.nn.backbones import build_backbone, freeze_stages
from poise.nn.blocks import Scale, conv_norm_relu, conv_tower, init_normal, norm_groups
from poise.nn.pyramids import FPN
from poise.nn.sampling import conv3x3_at, sample_bilinear, sample_groups
from poise.settings import Settings
from poise.skeletons import COCO17, Skeleton
from poise.types import PersonBoxRule, Persons, Poses, ViewSpec

PRIOR_BIAS = -math.log(99.0)
"""Initial bias of the classification outputs: probability 0.01 (RetinaNet)."""

HeadKind = Literal["naive", "kpalign", "grouped", "separate"]


# ---------------------------------------------------------------------------------------------------------- settings


class HeatmapConfig(Settings):
    """The auxiliary heatmap branch on P3 (DirectPose spec 6, 7, 8); used in training and by ``refine_keypoints``."""

    target: Literal["binary", "single", "gaussian"] = "binary"
    """``single`` keeps one keypoint a cell (official); ``gaussian`` is GluonCV's alternative."""
    norm: Literal["bn", "gn"] = "bn"
    channels: int = Field(default=128, ge=1)
    loss: Literal["focal", "mse"] = "focal"
    weight: float = 4.0
    mse_weight: float = 1.0
    background_weight: float = 1.0
    offset: bool = False
    mask_unlabelled: bool = False
    """Take no heatmap loss where a person's keypoint is not labelled (partly labelled data)."""


class DirectPoseConfig(Settings):
    """Every switch of DirectPose; the defaults are the official profile (DirectPose spec 13)."""

    system: Literal["directpose"] = "directpose"
    # backbone and pyramid
    backbone: str = "resnet50"
    anti_alias: bool = True
    freeze_at: int = Field(default=0, ge=0, le=5)
    channels: int = Field(default=256, ge=8)
    levels: Literal[3, 5] = 5
    # head
    head: HeadKind = "separate"
    groups: tuple[tuple[int, ...], ...] | None = None
    """Keypoint indices of each group, the head group first; None follows `keypoint_groups`."""
    group_channels: int = Field(default=64, ge=4)
    sample_level: Literal["same", "finer", "p3"] = "finer"
    head_group_level: Literal["p3", "finer"] = "p3"
    share_depth: int = Field(default=0, ge=0)
    cls_depth: int = Field(default=4, ge=1)
    keypoint_depth: int = Field(default=4, ge=1)
    box_depth: int = Field(default=4, ge=1)
    centerness_on: Literal["cls", "keypoint", "box"] = "cls"
    visibility: bool = False
    box_branch: bool = False
    scales: bool = False
    heatmap: HeatmapConfig | None = HeatmapConfig()
    predictor_init: Literal["normal", "kaiming"] = "normal"
    # targets
    radius: float | None = 1.5
    size_ranges: tuple[tuple[float, float], ...] = dense.SIZE_RANGES
    inclusive_area: bool = True
    pixel_offset: float = 0.5
    """Added to pixel coordinates to get the corner-based frame of the locations."""
    # losses
    keypoint_loss: Literal["official", "gluoncv"] = "official"
    smooth_l1_beta: float = 1 / 9
    cls_normaliser: Literal["official", "gluoncv"] = "gluoncv"
    box_loss: losses.BoxLoss = "giou"
    # decoding
    score_threshold: float = 0.05
    threshold_with_centerness: bool = False
    pre_nms: int = 1000
    score: Literal["sqrt", "product", "cls"] = "sqrt"
    nms_iou: float = 0.6
    max_poses: int = 100
    refine_keypoints: bool = False
    snap: float | None = Field(default=None, gt=0)
    """Draw keypoints to peaks of the heatmaps within this fraction of the pose's size, see `poise.models.snapping`
    (our own)."""
    consensus: bool = False
    """Lower the scores of poses on which neighbouring candidates disagree (`poise.geometry.consensus`; our own)."""
    view: ViewSpec = ViewSpec()

    @model_validator(mode="after")
    def _consistent(self) -> DirectPoseConfig:
        if self.centerness_on == "box" and not self.box_branch:
            raise ValueError("centerness_on = 'box' needs box_branch = true")
        if self.refine_keypoints and self.heatmap is None:
            raise ValueError("refine_keypoints needs the heatmap branch")
        if self.snap is not None and self.heatmap is None:
            raise ValueError("snap needs the heatmap branch")
        if self.visibility and self.head == "naive":
            raise ValueError("visibility needs a KPAlign head, not head = 'naive'")
        if self.group_channels % 4:
            raise ValueError(f"group_channels = {self.group_channels} must be a multiple of 4 (GroupNorm)")
        if len(self.size_ranges) < self.levels:
            raise ValueError(f"{self.levels} levels need as many size_ranges, not {len(self.size_ranges)}")
        return self


def _mobilenet_preset() -> DirectPoseConfig:
    return DirectPoseConfig(
        backbone="mobilenetv2_100", anti_alias=False, channels=96, group_channels=16, cls_depth=2, keypoint_depth=2,
        size_ranges=((-1.0, 32.0), (32.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 1e8)),
        heatmap=HeatmapConfig(channels=64, norm="gn", mask_unlabelled=True), consensus=True, nms_iou=0.5,
        snap=0.25, view=ViewSpec(long_side=512, short_side=None),
    )  # fmt: skip


def _gluoncv_preset() -> DirectPoseConfig:
    return DirectPoseConfig(
        head_group_level="finer", centerness_on="keypoint", visibility=True, keypoint_loss="gluoncv",
        heatmap=HeatmapConfig(norm="gn"), inclusive_area=False, predictor_init="kaiming",
        view=ViewSpec(person_box=PersonBoxRule(pad_low=1, pad_high=1, grow=1, clip_high=True)),
    )  # fmt: skip


PRESETS: dict[str, Callable[[], DirectPoseConfig]] = {
    "directpose_r50": DirectPoseConfig,
    "directpose_r101": lambda: DirectPoseConfig(backbone="resnet101"),
    "directpose_r50_gluoncv": _gluoncv_preset,
    "directpose_mobilenetv2": _mobilenet_preset,
}


# ------------------------------------------------------------------------------------------------------------ groups

_HEAD_WORDS = ("nose", "eye", "ear", "head", "neck", "mouth", "face", "chin")
_LIMBS = ((("shoulder",), ("elbow", "wrist", "hand")), (("hip",), ("knee", "ankle", "foot", "heel", "toe")))


def keypoint_groups(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """The groups that share one sampling position (DirectPose spec 3), for any skeleton, read off the names.

    The head is the first group (possibly empty of meaning for figures without one: then it is left out), then for
    each limb pair, left before right, its root (shoulder, hip) and its end (elbow and wrist, knee and ankle). A
    keypoint that no rule names is a group of its own. For COCO this gives the nine groups of the reference.
    """
    names = [n.lower() for n in skeleton.keypoints]
    head = tuple(i for i, n in enumerate(names) if any(w in n.split("_") or w == n[-len(w) :] for w in _HEAD_WORDS))
    groups = [head] if head else []
    for limb in _LIMBS:
        for side in ("left", "right"):
            for words in limb:
                group = tuple(i for i, n in enumerate(names) if side in n and any(w in n for w in words))
                groups += [group] if group else []
    named = {i for g in groups for i in g}
    groups += [(i,) for i in range(len(names)) if i not in named]
    return tuple(groups)


# ----------------------------------------------------------------------------------------------------------- KPAlign


class KeypointBranch(nn.Module):
    """Keypoint regression with feature alignment (DirectPose spec 3, 4, 5): ``kpalign``, ``grouped``, ``separate``.

    The locator says, for every location and group, where to look; the sampler features are read there, and a 1x1
    predictor per group adds the rest of the way to each keypoint.
    """

    def __init__(self, config: DirectPoseConfig, skeleton: Skeleton, strides: Sequence[int]) -> None:
        super().__init__()
        coarse = config.groups if config.groups is not None else keypoint_groups(skeleton)
        if sorted(k for g in coarse for k in g) != list(range(len(skeleton))):
            raise ValueError(f"groups {coarse} must hold each of the {len(skeleton)} keypoints exactly once")
        singles = config.head == "kpalign"
        self.groups = tuple((k,) for k in range(len(skeleton))) if singles else coarse
        head_group = set(coarse[0])
        self.head_groups = tuple(set(g) <= head_group for g in self.groups)
        self.separate = config.head == "separate"
        self.values = 3 if config.visibility else 2
        self.strides = tuple(strides)
        self.sample_level, self.head_group_level = config.sample_level, config.head_group_level
        count = len(self.groups)
        self.group_channels = config.group_channels if self.separate else config.channels
        width = self.group_channels * count if self.separate else config.channels
        parts = count if self.separate else 1
        norm = width // 4 if self.separate else norm_groups(width)
        self.tower = conv_tower(config.channels, width, config.keypoint_depth, norm=norm, groups=parts)
        self.locator = nn.Conv2d(width, 2 * count, 3, padding=1, groups=parts)
        self.sampler = nn.Sequential(*conv_norm_relu(width, width, norm=norm, groups=parts))
        self.predictors = nn.ModuleList(nn.Conv2d(self.group_channels, self.values * len(g), 1) for g in self.groups)
        order = [k for g in self.groups for k in g]
        self.register_buffer("order", torch.tensor([order.index(k) for k in range(len(order))]), persistent=False)
        self.order: Tensor

    def source_level(self, level: int, group: int) -> int:
        """The level whose sampler features group ``group`` reads for locations of level ``level``."""
        finer = max(level - 1, 0)
        if self.head_groups[group]:
            return 0 if self.head_group_level == "p3" else finer
        return {"same": level, "finer": finer, "p3": 0}[self.sample_level]

    def sources(self, level: int) -> dict[int, list[int]]:
        """Groups by source level."""
        found: dict[int, list[int]] = {}
        for group in range(len(self.groups)):
            found.setdefault(self.source_level(level, group), []).append(group)
        return found

    def forward(self, towers: Sequence[Tensor]) -> list[Tensor]:
        """Keypoints (B, d K, h, w) of every level, in strides relative to the location, from tower features."""
        samplers = [self.sampler(t) for t in towers]
        return [self._predict_level(level, tower, samplers) for level, tower in enumerate(towers)]

    def _predict_level(self, level: int, tower: Tensor, samplers: Sequence[Tensor]) -> Tensor:
        b, _, h, w = tower.shape
        base = dense.precise(self.locator(tower)).reshape(b, len(self.groups), 2, h, w)
        row = torch.arange(h, device=tower.device, dtype=base.dtype)[:, None]
        column = torch.arange(w, device=tower.device, dtype=base.dtype)
        parts: list[Tensor] = [base] * len(self.groups)
        for source, groups in self.sources(level).items():
            ratio = self.strides[level] // self.strides[source]
            x = ratio * (column + base[:, groups, 0]) + ratio // 2
            y = ratio * (row + base[:, groups, 1]) + ratio // 2
            sampled = self._sample(samplers[source], groups, x, y)
            for i, g in enumerate(groups):
                parts[g] = self._finish(self.predictors[g](sampled[:, i]), base[:, g], ratio)
        return torch.cat(parts, 1)[:, self.order].flatten(1, 2)

    def _sample(self, features: Tensor, groups: list[int], x: Tensor, y: Tensor) -> Tensor:
        """Sampler features (B, len(groups), c, h, w) at x, y (B, len(groups), h, w)."""
        b, n, h, w = x.shape
        if not self.separate:
            sampled = sample_bilinear(features, x.reshape(b, n * h, w), y.reshape(b, n * h, w))
            return sampled.reshape(b, -1, n, h, w).transpose(1, 2)
        size = features.shape[-2:]
        own = features.reshape(b, len(self.groups), self.group_channels, *size)
        own = own[:, groups] if n < len(self.groups) else own
        sampled = sample_bilinear(
            own.reshape(b * n, self.group_channels, *size), x.reshape(b * n, h, w), y.reshape(b * n, h, w)
        )
        return sampled.reshape(b, n, self.group_channels, h, w)

    def _finish(self, raw: Tensor, base: Tensor, ratio: int) -> Tensor:
        """(B, n_g, d, h, w): predictor output over the ratio plus the base; visibility as it is (spec 4.4)."""
        raw = raw.unflatten(1, (-1, self.values))
        xy = raw[:, :, :2] / ratio + base[:, None]
        return xy if self.values == 2 else torch.cat([xy, raw[:, :, 2:]], 2)

    def at(self, level: int, tower: Tensor, samplers: dict[int, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
        """Keypoints (n, K, d) at cells (rows, columns) of one image; equal to the dense ones there.

        ``tower`` (C, h, w) is the level's tower feature; ``samplers`` maps source levels to (C, h, w) features;
        channels of groups nobody asks for may hold anything.
        """
        base = dense.precise(conv3x3_at(self.locator, tower, rows, columns)).reshape(len(rows), len(self.groups), 2)
        parts: list[Tensor] = [base] * len(self.groups)
        for source, groups in self.sources(level).items():
            ratio = self.strides[level] // self.strides[source]
            x = ratio * (columns[:, None] + base[:, groups, 0]) + ratio // 2
            y = ratio * (rows[:, None] + base[:, groups, 1]) + ratio // 2
            own, total = (groups, len(self.groups)) if self.separate else ([0] * len(groups), 1)
            sampled = sample_groups(samplers[source], x, y, own, total)
            for i, g in enumerate(groups):
                predictor = self.predictors[g]
                assert isinstance(predictor, nn.Conv2d)
                raw = F.linear(sampled[:, i], predictor.weight.flatten(1), predictor.bias)
                parts[g] = self._finish(raw[..., None, None], base[:, g, :, None, None], ratio)[..., 0, 0]
        return torch.cat(parts, 1)[:, self.order]


def run_groups(layers: nn.Sequential, x: Tensor, groups: Sequence[int], total: int) -> Tensor:
    """What a tower of ``total`` independent channel groups computes for some of them: (B, len(groups) c, h, w).

    The first convolution may be ungrouped; later ones are grouped, so the groups never mix.
    """
    pick = torch.tensor(list(groups), device=x.device)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.unflatten(0, (total, -1))[pick].flatten(0, 1)
            bias = None if layer.bias is None else layer.bias.unflatten(0, (total, -1))[pick].flatten()
            x = F.conv2d(x, weight, bias, padding=1, groups=1 if layer.groups == 1 else len(groups))
        elif isinstance(layer, nn.GroupNorm):
            weight = layer.weight.unflatten(0, (total, -1))[pick].flatten()
            bias = layer.bias.unflatten(0, (total, -1))[pick].flatten()
            x = F.group_norm(x, layer.num_groups * len(groups) // total, weight, bias, layer.eps)
        else:
            x = layer(x)
    return x


# -------------------------------------------------------------------------------------------------------------- head


class DirectPoseOutputs(NamedTuple):
    """Raw maps of every level, finest first."""

    logits: list[Tensor]
    """(B, 1, h, w) person logits."""
    centerness: list[Tensor]
    """(B, 1, h, w) logits."""
    keypoints: list[Tensor]
    """(B, d K, h, w): x, y in strides relative to the location[, visibility logit], keypoint-major."""
    boxes: list[Tensor] | None
    """(B, 4, h, w): left, top, right, bottom over the stride."""
    heatmaps: Tensor | None
    """(B, K, h, w) logits on P3."""
    heatmap_offsets: Tensor | None
    """(B, 2, h, w) sub-cell offset on P3, cells."""


class HeatmapBranch(nn.Module):
    """Two 3x3 convolutions and an output of one channel a keypoint on P3 (DirectPose spec 6)."""

    def __init__(self, config: HeatmapConfig, in_channels: int, keypoint_count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(2):
            width = in_channels if i == 0 else config.channels
            norm = (
                nn.BatchNorm2d(config.channels)
                if config.norm == "bn"
                else nn.GroupNorm(norm_groups(config.channels), config.channels)
            )
            layers += [nn.Conv2d(width, config.channels, 3, padding=1, bias=config.norm == "gn"), norm, nn.ReLU()]
        self.tower = nn.Sequential(*layers)
        self.output = nn.Conv2d(config.channels, keypoint_count, 3, padding=1)
        self.offset = nn.Conv2d(config.channels, 2, 3, padding=1) if config.offset else None

    def forward(self, finest: Tensor) -> tuple[Tensor, Tensor | None]:
        """Heatmap logits (B, K, h, w) and, if built, offsets (B, 2, h, w) of the P3 map."""
        features = self.tower(finest)
        return self.output(features), None if self.offset is None else self.offset(features)


class DirectPoseHead(nn.Module):
    """The head shared by all levels (DirectPose spec 3, 5, 6)."""

    def __init__(self, config: DirectPoseConfig, skeleton: Skeleton, strides: Sequence[int]) -> None:
        super().__init__()
        wide = config.channels
        self.centerness_on = config.centerness_on
        self.share = conv_tower(wide, wide, config.share_depth)
        self.cls_tower = conv_tower(wide, wide, config.cls_depth)
        self.cls_logits = nn.Conv2d(wide, 1, 3, padding=1)
        self.align: KeypointBranch | None = None
        self.naive_tower: nn.Sequential | None = None
        if config.head == "naive":
            self.naive_tower = conv_tower(wide, wide, config.keypoint_depth)
            self.naive_output = nn.Conv2d(wide, 2 * len(skeleton), 3, padding=1)
        else:
            self.align = KeypointBranch(config, skeleton, strides)
        self.box_tower = conv_tower(wide, wide, config.box_depth) if config.box_branch else None
        self.box_output = nn.Conv2d(wide, 4, 3, padding=1) if config.box_branch else None
        keypoint_width = wide if self.align is None else self.align.locator.in_channels
        self.centerness = nn.Conv2d(keypoint_width if config.centerness_on == "keypoint" else wide, 1, 3, padding=1)
        self.heatmap = None if config.heatmap is None else HeatmapBranch(config.heatmap, wide, len(skeleton))
        self.scales = nn.ModuleList(Scale() for _ in strides) if config.scales else None
        self._init_weights(config)

    def _init_weights(self, config: DirectPoseConfig) -> None:
        init_normal(self)
        nn.init.constant_(self.cls_logits.bias, PRIOR_BIAS)  # type: ignore[arg-type]
        if self.heatmap is not None:
            nn.init.constant_(self.heatmap.output.bias, PRIOR_BIAS)  # type: ignore[arg-type]
        if self.align is not None and config.predictor_init == "kaiming":
            for predictor in self.align.predictors:
                nn.init.kaiming_uniform_(predictor.weight, nonlinearity="relu")  # type: ignore[arg-type]

    @property
    def keypoint_tower(self) -> nn.Sequential:
        """The tower in front of the keypoint outputs, whichever head is built."""
        tower = self.naive_tower if self.align is None else self.align.tower
        assert tower is not None
        return tower

    def scaled(self, level: int, keypoints: Tensor, axis: int) -> Tensor:
        """Keypoints whose ``axis`` holds d values, with x and y multiplied by the level's scale."""
        if self.scales is None:
            return keypoints
        xy = self.scales[level](keypoints.narrow(axis, 0, 2))
        rest = keypoints.narrow(axis, 2, keypoints.shape[axis] - 2)
        return torch.cat([xy, rest], axis)

    def boxes_of(self, level: int, raw: Tensor) -> Tensor:
        """Side distances over the stride from the box output: scale, then ReLU."""
        return F.relu(raw if self.scales is None else self.scales[level](raw))

    def forward(self, features: Sequence[Tensor]) -> DirectPoseOutputs:
        """All maps of all levels."""
        features = [self.share(f) for f in features]
        cls_towers = [self.cls_tower(f) for f in features]
        towers = [self.keypoint_tower(f) for f in features]
        box_towers = None if self.box_tower is None else [self.box_tower(f) for f in features]
        keypoints = [self.naive_output(t) for t in towers] if self.align is None else self.align(towers)
        values = 2 if self.align is None else self.align.values
        if self.scales is not None:
            keypoints = [self.scaled(i, k.unflatten(1, (-1, values)), 2).flatten(1, 2) for i, k in enumerate(keypoints)]
        boxes = None
        if box_towers is not None and self.box_output is not None:
            boxes = [self.boxes_of(i, self.box_output(t)) for i, t in enumerate(box_towers)]
        centered = {"cls": cls_towers, "keypoint": towers, "box": box_towers}[self.centerness_on]
        assert centered is not None
        maps, offsets = (None, None) if self.heatmap is None else self.heatmap(features[0])
        return DirectPoseOutputs(
            [self.cls_logits(t) for t in cls_towers],
            [self.centerness(t) for t in centered],
            keypoints,
            boxes,
            maps,
            offsets,
        )


# ----------------------------------------------------------------------------------------------------------- network


class DirectPose(nn.Module):
    """The whole network with its losses and its decoding.

    Args:
        config: switches.
        skeleton: keypoints; decides all counts.
        pretrained: let timm fetch ImageNet weights of the backbone.
    """

    def __init__(self, config: DirectPoseConfig, skeleton: Skeleton = COCO17, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config, self.skeleton, self.view = config, skeleton, config.view
        self.backbone = build_backbone(config.backbone, anti_alias=config.anti_alias, pretrained=pretrained)
        freeze_stages(self.backbone, config.freeze_at)
        self.pyramid = FPN(self.backbone.channels, config.channels, extra_levels=config.levels - 3)
        self.strides = tuple(8 * 2**i for i in range(config.levels))
        self.head = DirectPoseHead(config, skeleton, self.strides)

    def forward(self, images: Tensor) -> DirectPoseOutputs:
        """Raw maps of normalised images (B, 3, H, W)."""
        outputs: DirectPoseOutputs = self.head(self.pyramid(self.backbone(images)))
        return outputs

    def loss(self, outputs: DirectPoseOutputs, persons: Sequence[Persons]) -> dict[str, Tensor]:
        """Named, weighted losses; see `directpose_losses`. ``persons[b]`` is the truth of image b in input px."""
        device = outputs.logits[0].device
        truth = [dense.shifted(p, self.config.pixel_offset, device) for p in persons]
        from poise.models.directpose_loss import directpose_losses

        return directpose_losses(self.config, self.strides, outputs, truth)

    # -------------------------------------------------------------------------------------------------- decoding

    def decode(self, outputs: DirectPoseOutputs, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """Candidate poses of every view, in input px, before `suppress`; ``sizes`` are (height, width) unpadded."""
        return [self._poses(c, size) for c, size in zip(self.candidates(outputs, sizes), sizes, strict=True)]

    @torch.no_grad()
    def candidates(self, outputs: DirectPoseOutputs, sizes: Sequence[tuple[int, int]]) -> list[Candidates]:
        """Candidates of every image from dense maps (DirectPose spec 9), in the corner-based frame."""
        values = outputs.keypoints[0].shape[1] // len(self.skeleton)

        def evaluate(level: int, b: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
            keypoints = outputs.keypoints[level][b].flatten(1)[:, index].T.unflatten(1, (-1, values))
            boxes = None if outputs.boxes is None else outputs.boxes[level][b].flatten(1)[:, index].T
            return keypoints, boxes

        def centerness(level: int, b: int, index: Tensor) -> Tensor:
            return outputs.centerness[level][b].flatten()[index]

        return self._collect(outputs.logits, centerness, evaluate, sizes, outputs.heatmaps, outputs.heatmap_offsets)

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """``decode(forward(images), sizes)`` without the work that cannot change the result."""
        return [self._poses(c, size) for c, size in zip(self.lazy_candidates(images, sizes), sizes, strict=True)]

    @torch.no_grad()
    def lazy_candidates(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Candidates]:
        """`candidates`, with keypoints (and box, and centre-ness) evaluated at candidate locations only.

        GroupNorm needs whole maps, so towers and sampler features are computed densely, but only on the levels, and
        for the keypoint groups, that some candidate reads.
        """
        from poise.models.directpose_lazy import LazyHead

        head = self.head
        features = [head.share(f) for f in self.pyramid(self.backbone(images))]
        cls_towers = [head.cls_tower(f) for f in features]
        logits = [head.cls_logits(t) for t in cls_towers]
        lazy = LazyHead(head, features, cls_towers, self._busy_levels(logits))
        maps, offsets = None, None
        if (self.config.refine_keypoints or self.config.snap is not None) and head.heatmap is not None:
            maps, offsets = head.heatmap(features[0])
        return self._collect(logits, lazy.centerness, lazy.evaluate, sizes, maps, offsets)

    def _busy_levels(self, logits: Sequence[Tensor]) -> list[int]:
        threshold = self.config.score_threshold
        return [i for i, level in enumerate(logits) if bool((level.float().sigmoid() > threshold).any())]

    def _collect(
        self,
        logits: Sequence[Tensor],
        centerness: Callable[[int, int, Tensor], Tensor],
        evaluate: Callable[[int, int, Tensor], tuple[Tensor, Tensor | None]],
        sizes: Sequence[tuple[int, int]],
        heatmaps: Tensor | None,
        offsets: Tensor | None,
    ) -> list[Candidates]:
        results = []
        for b, size in enumerate(sizes):
            levels = [
                self._level_candidates(level, b, logits[level][b], centerness, evaluate, size)
                for level in range(len(logits))
            ]
            merged = dense.join_candidates(levels)
            if self.config.refine_keypoints and heatmaps is not None:
                from poise.models.directpose_refine import refine_keypoints

                merged = refine_keypoints(merged, heatmaps[b], None if offsets is None else offsets[b])
            if self.config.snap is not None and heatmaps is not None:
                reboxed = not self.config.box_branch
                merged = snap(merged, heatmaps[b], self.strides[0], self.config.snap, reboxed)
            results.append(merged)
        return results

    def _level_candidates(
        self,
        level: int,
        b: int,
        logits: Tensor,
        centerness: Callable[[int, int, Tensor], Tensor],
        evaluate: Callable[[int, int, Tensor], tuple[Tensor, Tensor | None]],
        size: tuple[int, int],
    ) -> Candidates:
        config, stride = self.config, self.strides[level]
        grid = dense.make_grid([(logits.shape[-2], logits.shape[-1])], [stride], logits.device)
        probability = logits.flatten().float().sigmoid()
        index = torch.nonzero(probability > config.score_threshold).squeeze(1)
        rank = probability[index]
        if len(index):
            rank = rank * centerness(level, b, index).float().sigmoid()
            passing = rank if config.threshold_with_centerness else probability[index]
            chosen = dense.pick(passing, rank, config.score_threshold, config.pre_nms)
            index, rank = index[chosen], rank[chosen]
        if len(index) == 0:
            return dense.no_candidates(len(self.skeleton), probability)
        raw, distances = evaluate(level, b, index)
        raw, points = raw.float(), grid.points[index]
        keypoints = points[:, None] + stride * raw[..., :2]
        base = {"sqrt": rank.sqrt(), "product": rank, "cls": probability[index]}[config.score]
        marks = raw[..., 2].sigmoid() if raw.shape[-1] == 3 else base[:, None].expand(-1, len(self.skeleton))
        if distances is None:
            boxes = dense.clipped_extent(keypoints, size)
        else:
            boxes = torch.cat([points, points], -1) + stride * distances.float() * distances.new_tensor([-1, -1, 1, 1])
        return Candidates(base, keypoints, marks, boxes, torch.full_like(index, level), points)

    def _poses(self, candidates: Candidates, size: tuple[int, int]) -> Poses:
        return dense.candidate_poses(candidates, self.config.pixel_offset, self.skeleton, size)

    def suppress(self, poses: Poses) -> Poses:
        """Final poses of one picture, best first: NMS, the best ``max_poses`` (ties kept), empty boxes dropped.

        NMS works on boxes, which scale with the picture, so it may run in image px (DirectPose spec 9).
        """
        kept = poses[box_nms(poses.boxes, poses.scores, self.config.nms_iou)]
        kept = kept[cut_by_score(kept.scores, self.config.max_poses)]
        size = poses.image_size
        if self.config.box_branch and size is not None:  # boxes around keypoints were clipped before
            poses, kept = (replace(p, boxes=clipped_to(p.boxes, size)) for p in (poses, kept))
        sides = kept.boxes[:, 2:] - kept.boxes[:, :2]
        kept = kept[np.asarray((sides > 0).all(axis=1))]
        if not self.config.consensus:
            return kept
        kept = replace(kept, scores=consensus_scores(kept, poses))
        return kept[np.argsort(-kept.scores, kind="stable")]
