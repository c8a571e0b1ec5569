"""RSN: residual steps network (Cai et al. 2020, arXiv 2003.04030), a top-down network: one person a view.

Each stage is an encoder of residual steps blocks and a decoder that predicts a heatmap a keypoint at four levels;
every stage but the first sees the features of the one before. Read from top to bottom: settings, presets, network,
decoding, suppression. The parts are in `poise.models.rsn_blocks`, the losses in `poise.models.rsn_loss`.

Letters: B views, K keypoints, H W input size, h w map size (a quarter of it).
Frame: input px; a point p of the picture is M p in the view (no half pixel shift).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from poise.geometry import heatmaps as geometry
from poise.geometry.nms import Suppression, mutual_oks_nms
from poise.models.dense import precise
from poise.models.rsn_blocks import LEVELS, BlockPlan, ConvNorm, DecoderUnit, Stage, StageFeatures, TrunkJoints
from poise.nn.backbones import build_backbone
from poise.settings import Settings
from poise.skeletons import COCO17, Skeleton
from poise.types import FloatArray, Persons, Poses, ViewSpec

# ---------------------------------------------------------------------------------------------------------- settings

STRIDE = 32
"""Of the coarsest features: sides of a view are multiples of it."""
TRUNK_STRIDES = (4, 8, 16, 32)
"""Of a trunk's features: those of the four layers."""
LEAST_SCORE = 1e-30
"""Suppression of people drops those who resemble a better pose, and nobody else for a low score (RSN spec 11)."""
BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Blocks of each layer by depth."""


DECODERS: dict[str, Callable[[Tensor, int], geometry.Peaks]] = {
    "official": geometry.second_peak,
    "mmpose": geometry.sign_offset,
    "parabola": geometry.log_parabola,
}
"""Heatmaps and size of the blur -> keypoints."""


def _crop(height: int, width: int, extension: tuple[float, float]) -> ViewSpec:
    return ViewSpec(kind="crop", size=(height, width), extension=extension, stride=STRIDE, half_pixel=False)


def _coco_view() -> ViewSpec:
    """What the authors' code tests with on COCO (RSN spec 10)."""
    return _crop(256, 192, (1.09, 1.135))


class RSNConfig(Settings):
    """Every switch of RSN; the defaults are the authors' code with depth 18 and one stage (RSN spec 15)."""

    system: Literal["rsn"] = "rsn"
    # network
    depth: Literal[10, 18, 50, 101] = 18
    """Of each stage's encoder; 10, one block a layer, is ours."""
    trunk: str | None = None
    """A timm network whose features the first stage gets as every later stage gets those of the stage before (ours, for
    data that are too few to train from random weights); None: a stem of one convolution, as in the references."""
    trunk_stride_in_1x1: bool = False
    """The trunk is a ResNet "caffe style", as SMPR's (`stride_in_1x1` there)."""
    stages: int = Field(default=1, ge=1, le=8)
    stem: int = Field(default=64, ge=1)
    """Channels of the stem, and of what a stage hands to the next as its input."""
    planes: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the four layers, before the expansion."""
    expansion: Literal[1, 4] = 1
    """Output channels of a block are its planes times this. The paper's costs fit 4 with `branch_from` = planes."""
    branch_from: Literal["input", "planes"] = "input"
    """What the width of a block's branches is a fraction of: its input channels or its planes."""
    branch_ratio: tuple[int, int] = (26, 64)
    """That fraction, as numerator and denominator."""
    branches: int = Field(default=4, ge=2, le=8)
    unit_channels: int = Field(default=256, ge=1)
    """Channels of the decoder."""
    conv_bias: bool = False
    """A bias on every convolution, as in the authors' code; batch norm makes it redundant."""
    prm: Literal["none", "official", "mmpose"] = "none"
    """Form of the Pose Refine Machine."""
    prm_at: Literal["last", "all"] = "last"
    """Behind the final heatmaps only, or behind those of every level of every stage."""
    kaiming: Literal["encoder", "all"] = "encoder"
    """Which convolutions start from Kaiming's normal fan-out draw; the others start as torch's default."""
    output_gain: float = Field(default=1.0, gt=0)
    """Initial weight of the batch norm that ends in heatmaps. Labels reach 255 and a step of Adam moves a weight by no
    more than the learning rate: short trainings start nearer to the goal (about 20). 1 is the references'."""
    # labels and losses
    objective: Literal["height", "place"] = "height"
    """``height``: maps learn the heights of the labels (the paper). ``place``: the softmax of a map learns where its
    label lies, ours: much faster from random weights on little data. See `poise.models.rsn_loss`."""
    kernels: tuple[int, int, int, int, int] = (15, 11, 9, 7, 5)
    """Sizes of the labels' Gaussians; the last stage learns from the last four, the others from the first four."""
    label_peak: geometry.PeakRule = "maximum"
    """What is 255: the maximum of a label, or its keypoint's cell (mmpose)."""
    label_bounds: geometry.Bounds = "pixel"
    """When a keypoint is on the map: its pixel is in the view, or its truncated cell is (mmpose)."""
    occluded_in_plain_loss: bool = False
    """Draw occluded keypoints in the coarser levels too (mmpose); otherwise these are trained to zero there."""
    unlabelled: Literal["zero", "ignore"] = "zero"
    """Train keypoints that are not labelled, or not on the map, to zero in the coarser levels (authors), or leave them
    out of every term (mmpose, and for partly labelled data)."""
    plain_weight: float = Field(default=0.25, ge=0)
    """Weight of each coarser level; the finest has 1."""
    hardest: int = Field(default=8, ge=1)
    """Keypoints of a view whose errors count in the finest level."""
    # decoding
    decoding: Literal["official", "mmpose", "parabola"] = "official"
    """How a keypoint is read off a map: see `second_peak`, `sign_offset` and, our own, `log_parabola` in
    `poise.geometry.heatmaps`."""
    blur: int = Field(default=5, ge=1)
    """Size of the decoder's Gaussian; the authors take 9 on MPII."""
    score_offset: float = 0.5
    """A keypoint's score is its peak's height / 255 plus this. The references' number is kept, although it may exceed
    1: the ranking of poses depends on it. 0 gives the plain height."""
    min_keypoint_score: float | None = None
    """Only scores above it count in a pose's score, their mean (mmpose: 0.2); None: all."""
    score_power: float = Field(default=1.0, gt=0)
    """A pose's score is the mean of its keypoints' scores to this power. 1 is the references'; 2, without an offset,
    prefers poses with some sure keypoints to those whose keypoints are all half sure (ours)."""
    oks_nms: Literal["none", "hard", "soft"] = "none"
    oks_threshold: float = Field(default=0.9, gt=0, le=1)
    """Hard: poses that resemble a better one by more are dropped. Soft: scores fall by exp(-OKS^2 / threshold)."""
    oks_min_score: float | None = None
    """OKS counts the keypoints whose heights (without `score_offset`) are above it in both poses; None: all."""
    max_poses: int = 20
    """Of soft suppression."""
    view: ViewSpec = Field(default_factory=_coco_view)

    @model_validator(mode="after")
    def _consistent(self) -> RSNConfig:
        size = self.view.size
        if self.view.kind != "crop" or size is None:
            raise ValueError("RSN sees one person a view: view.kind must be 'crop'")
        if any(side % STRIDE for side in size) or self.view.stride % STRIDE:
            raise ValueError(f"view.size = {size} and view.stride = {self.view.stride} must be multiples of {STRIDE}")
        numerator, denominator = self.branch_ratio
        if numerator < 1 or denominator < 1 or min(self.stem, *self.planes) * numerator < denominator:
            raise ValueError(f"branch_ratio = {self.branch_ratio} leaves no channel to the branches of a block")
        bad = next((k for k in (*self.kernels, self.blur) if k < 1 or k % 2 == 0), None)
        if bad is not None:
            raise ValueError(f"kernels and blur are odd positive sizes, not {bad}")
        if max(self.kernels) // 2 >= min(size) // geometry.STRIDE:
            raise ValueError(f"kernels = {self.kernels} are too large for maps of a view of {size}")
        return self


# ----------------------------------------------------------------------------------------------------------- presets

_NETWORKS: dict[str, dict[str, object]] = {
    "rsn18": {},
    "rsn50": {"depth": 50},
    "rsn101": {"depth": 101},
    "rsn18x4": {"stages": 4},
    "rsn50x2": {"depth": 50, "stages": 2},
    "rsn50x3": {"depth": 50, "stages": 3},
    "rsn50x4": {"depth": 50, "stages": 4},
    "rsn50_paper": {"depth": 50, "expansion": 4, "branch_from": "planes"},
    "rsn50x4_paper": {"depth": 50, "stages": 4, "expansion": 4, "branch_from": "planes"},
}
"""rsn<depth>, then x<stages>; ``_paper``: the size that the paper's costs fit, not that of the authors' code."""

_VARIANTS: dict[str, dict[str, object]] = {
    "": {},
    "_384x288": {"view": _crop(384, 288, (1.09, 1.135))},
    "_mpii": {"view": _crop(256, 256, (1.25, 1.25)), "blur": 9},
    "_mmpose": {
        "view": _crop(256, 192, (1.25, 1.25)), "kaiming": "all", "label_peak": "keypoint", "label_bounds": "cell",
        "occluded_in_plain_loss": True, "unlabelled": "ignore", "decoding": "mmpose", "min_keypoint_score": 0.2,
    },
}  # fmt: skip
"""Larger views, MPII's square views, and mmpose's conventions, which its public checkpoints need."""


def _preset(network: str, variant: str) -> Callable[[], RSNConfig]:
    return lambda: RSNConfig.model_validate({**_NETWORKS[network], **_VARIANTS[variant]})


def _small_preset(trunk: str = "mobilenetv2_100", *, stride_in_1x1: bool = False) -> RSNConfig:
    """For CPUs and for few data whose keypoints are not all labelled."""
    return RSNConfig(
        depth=10, trunk=trunk, trunk_stride_in_1x1=stride_in_1x1, stem=32, planes=(32, 64, 128, 256),
        branch_ratio=(32, 64), unit_channels=128, output_gain=20, objective="place", unlabelled="ignore",
        decoding="parabola", blur=3, score_offset=0, score_power=2, oks_nms="soft", oks_threshold=0.5, max_poses=100,
        view=_crop(256, 192, (1.2, 1.2)),
    )  # fmt: skip


PRESETS: dict[str, Callable[[], RSNConfig]] = {
    "rsn_small": _small_preset,
    "rsn_medium": lambda: _small_preset("resnet50", stride_in_1x1=True),
    **{network + variant: _preset(network, variant) for network in _NETWORKS for variant in _VARIANTS},
}


# ----------------------------------------------------------------------------------------------------------- network


class RSNOutputs(NamedTuple):
    """Heatmaps of all levels."""

    heatmaps: tuple[Tensor, ...]
    """(B, K, h, w) each: stages in order, in each the levels from coarse to fine; on a scale of 0..255 if the objective
    is ``height``."""


class RSN(nn.Module):
    """The whole network with its losses and its decoding.

    Args:
        config: switches.
        skeleton: keypoints; decides the number of maps.
        pretrained: let timm fetch ImageNet weights of the trunk.

    Raises:
        ValueError: the trunk is not a timm network with features of strides 4, 8, 16 and 32; or weights are wanted for
            a network that has no trunk.
    """

    def __init__(self, config: RSNConfig, skeleton: Skeleton = COCO17, *, pretrained: bool = False) -> None:
        super().__init__()
        if pretrained and config.trunk is None:
            raise ValueError("RSN without a trunk is trained from scratch: there are no pretrained weights to fetch")
        self.config, self.skeleton, self.view = config, skeleton, config.view
        plan = BlockPlan(
            config.branch_ratio, config.branch_from, config.expansion, config.branches, config.conv_bias
        )  # fmt: skip
        if config.trunk is None:
            self.stem = ConvNorm(3, config.stem, 7, stride=2, bias=config.conv_bias)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.backbone = build_backbone(
                config.trunk, strides=TRUNK_STRIDES, stride_in_1x1=config.trunk_stride_in_1x1, pretrained=pretrained
            )
            widths = [p * config.expansion for p in config.planes]
            self.joints = TrunkJoints(self.backbone.channels, config.stem, widths, bias=config.conv_bias)
        self.stages = nn.ModuleList(
            Stage(config.stem, plan, config.planes, BLOCKS[config.depth], self._units(s)) for s in range(config.stages)
        )
        self._init_weights()

    def pack(self) -> None:
        """Make the network quicker on a CPU, in place, if its norms are folded; it only predicts from then on."""
        from poise.models.rsn_packed import pack

        pack(self)

    def _units(self, stage: int) -> nn.ModuleList:
        config = self.config
        last = stage == config.stages - 1

        def unit(level: int) -> DecoderUnit:
            finest = level == LEVELS - 1
            refined = config.prm_at == "all" or (last and finest)
            return DecoderUnit(
                config.planes[-1 - level] * config.expansion,
                config.unit_channels,
                len(self.skeleton),
                coarsest=level == 0,
                passes_on=not last,
                cross_channels=config.stem if finest and not last else None,
                prm=config.prm if refined and config.prm != "none" else None,
                bias=config.conv_bias,
            )

        return nn.ModuleList(unit(level) for level in range(LEVELS))

    def _init_weights(self) -> None:
        """Kaiming's fan-out draw (RSN spec 12); norm layers are 1 and 0 by default, other layers keep torch's."""
        roots: list[nn.Module] = [s.layers for s in self._stages()]
        if self.config.kaiming == "all":
            roots = [part for name, part in self.named_children() if name != "backbone"]
        for part in (p for root in roots for p in root.modules()):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        for unit in (unit for stage in self._stages() for unit in stage.decoder()):
            nn.init.constant_(unit.output.norm.weight, self.config.output_gain)

    def forward(self, images: Tensor) -> RSNOutputs:
        """Heatmaps of all stages and levels of normalised images (B, 3, H, W)."""
        maps: list[Tensor] = []
        for stage, features in self._run(images):
            maps += [stage.heatmaps(features, level) for level in range(LEVELS)]
        return RSNOutputs(tuple(maps))

    def heatmaps(self, images: Tensor) -> Tensor:
        """The final heatmaps (B, K, h, w) of normalised images (B, 3, H, W), without the work for the others."""
        *_, (stage, features) = self._run(images)
        return self._heights(stage.heatmaps(features, LEVELS - 1))

    def _heights(self, maps: Tensor) -> Tensor:
        """Final maps on the labels' scale of 0..255, whatever they have learnt."""
        if self.config.objective == "height":
            return maps
        return geometry.place_heights(maps, self.config.kernels[-1])

    def _run(self, images: Tensor) -> Iterator[tuple[Stage, StageFeatures]]:
        """The features of one stage after the other."""
        if images.shape[-2] % STRIDE or images.shape[-1] % STRIDE:
            raise ValueError(f"RSN needs sides that are multiples of {STRIDE}, not {tuple(images.shape[-2:])}")
        x, skips = self._entry(images)
        for number, stage in enumerate(self._stages(), 1):
            features = stage(x, skips)
            yield stage, features
            if number < len(self.stages):
                x, skips = stage.handed_on(features)

    def _entry(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Input and skips of the first stage."""
        if self.config.trunk is not None:
            entry: tuple[Tensor, list[Tensor]] = self.joints(self.backbone(images))
            return entry
        return self.pool(self.stem(images)), []

    def _stages(self) -> list[Stage]:
        return cast(list[Stage], list(self.stages))

    def loss(self, outputs: RSNOutputs, persons: Sequence[Persons]) -> dict[str, Tensor]:
        """Named, weighted losses; see `rsn_losses`. ``persons[b]`` is the truth of view b in input px."""
        from poise.models.rsn_loss import rsn_losses

        return rsn_losses(self.config, outputs.heatmaps, persons)

    def check_teacher(self, teacher: object) -> None:
        """``ValueError`` if this network cannot learn from another one's maps: they would mean something else."""
        if not isinstance(teacher, RSN):
            raise ValueError(f"RSN learns from the maps of an RSN, not of a {type(teacher).__name__}")
        for what, own, other in (
            ("keypoints", self.skeleton.keypoints, teacher.skeleton.keypoints),
            ("objective", self.config.objective, teacher.config.objective),
            ("kernels", self.config.kernels, teacher.config.kernels),
            ("view", self.view, teacher.view),
        ):
            if own != other:
                raise ValueError(f"RSN learns from a teacher with the same {what}: not {other} for {own}")

    def imitation(self, outputs: RSNOutputs, example: RSNOutputs) -> dict[str, Tensor]:
        """Named losses against what `check_teacher` let pass made of the same views; see `imitation_terms`."""
        from poise.models.rsn_loss import imitation_terms

        return imitation_terms(self.config, outputs.heatmaps, example.heatmaps)

    # -------------------------------------------------------------------------------------------------- decoding

    @torch.no_grad()
    def decode_heatmaps(self, heatmaps: Tensor) -> tuple[FloatArray, FloatArray]:
        """Keypoints (B, K, 2) in input px and their scores (B, K), of final heatmaps (B, K, h, w)."""
        peaks = DECODERS[self.config.decoding](precise(heatmaps), self.config.blur)
        scores = peaks.scores + self.config.score_offset
        return peaks.points.float().cpu().numpy(), scores.float().cpu().numpy()

    def pose_scores(self, keypoint_scores: FloatArray) -> FloatArray:
        """(B,) means of keypoint scores (B, K) or their powers, without the score of the person's box."""
        least, power = self.config.min_keypoint_score, self.config.score_power
        counted = np.ones_like(keypoint_scores) if least is None else np.float32(keypoint_scores > least)
        raised = keypoint_scores if power == 1 else keypoint_scores.clip(0) ** power
        means: FloatArray = (raised * counted).sum(1) / counted.sum(1).clip(1)
        return means

    def decode(self, outputs: RSNOutputs, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """One pose a view, in input px; its box is the whole view. ``sizes`` are (height, width)."""
        return self._poses(self._heights(outputs.heatmaps[-1]), sizes)

    @torch.no_grad()
    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """``decode(forward(images), sizes)`` without the work that cannot change the result."""
        return self._poses(self.heatmaps(images), sizes)

    def _poses(self, heatmaps: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        points, marks = self.decode_heatmaps(heatmaps)
        scores = self.pose_scores(marks)
        return [
            Poses(
                points[b : b + 1],
                marks[b : b + 1],
                np.array([[0, 0, size[1] - 1, size[0] - 1]], np.float32),
                scores[b : b + 1],
                self.skeleton,
                size,
            )
            for b, size in enumerate(sizes)
        ]

    def suppress(self, poses: Poses) -> Poses:
        """The poses of one picture, best first; with ``oks_nms`` without those that resemble better ones (RSN spec 11).

        The area that OKS relates distances to is that of the boxes: the extent of the persons' views, in image px. The
        scores of keypoints are heights, as predictors give them: without ``score_offset``.
        """
        config = self.config
        if config.oks_nms == "none" or len(poses) == 0:
            return poses[np.argsort(-poses.scores, kind="stable")]
        if config.oks_nms == "hard":
            rule, limit = Suppression(method="hard", threshold=config.oks_threshold, min_score=LEAST_SCORE), 0
        else:
            rule = Suppression(method="gaussian", sigma=config.oks_threshold, min_score=LEAST_SCORE)
            limit = config.max_poses
        areas = (poses.boxes[:, 2:] - poses.boxes[:, :2]).prod(1)
        counted = None if config.oks_min_score is None else poses.keypoint_scores > config.oks_min_score
        kept = mutual_oks_nms(poses.keypoints, poses.scores, areas, self.skeleton.sigmas, rule, limit, counted)
        return replace(poses[kept.indices], scores=kept.scores)
