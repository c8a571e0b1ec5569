"""SMPR: single-stage multi-person pose regression (Lin et al. 2020, arXiv 2006.15576).

Every location of a feature pyramid predicts one pose; features gathered along that pose by deformable convolutions
refine it and classify the location; a learned quality re-ranks the poses, one soft suppression ends it.
Read from top to bottom: settings, aligned features, head, network, losses, decoding, suppression.

Letters: B images, L levels, P locations of all levels, h w feature size of a level, H W input size, C channels,
K keypoints, G offset groups, n candidates.
Frame: input px plus ``pixel_offset``. The references' frame is that of pixel centres at integers (offset 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from poise.geometry.boxes import points_extent
from poise.geometry.consensus import consensus_scores
from poise.geometry.nms import Suppression, soft_box_nms, soft_oks_nms
from poise.models import dense
from poise.models.dense import Candidates
from poise.models.snapping import snap
from poise.nn.backbones import PYRAMID_STRIDES, build_backbone
from poise.nn.blocks import Scale, conv_tower, init_normal
from poise.nn.deformable import SamplingPlan, deform_convolutions, sampling_plan
from poise.nn.joint import joined
from poise.nn.pyramids import FPN, HRFPN, PAFPN
from poise.settings import Settings
from poise.skeletons import COCO17, Skeleton
from poise.types import PersonBoxRule, Persons, Poses, ViewSpec

PRIOR_BIAS = -math.log(99.0)
"""Initial bias of the class and heatmap outputs: probability 0.01 (RetinaNet)."""
CAFFE_MEAN = (102.9801, 115.9465, 122.7717)
"""BGR mean of the ResNet weights that SMPR starts from (SMPR spec 2)."""
FINEST = 3
"""Number of the pyramid's first level."""


# ---------------------------------------------------------------------------------------------------------- settings


def _reference_view() -> ViewSpec:
    """What the reference feeds its networks (SMPR spec 2, 4, 6): BGR, mean only, x' = f x, boxes without margin."""
    return ViewSpec(
        mean=CAFFE_MEAN, std=(1.0, 1.0, 1.0), value_range=1.0, channels="bgr", half_pixel=False,
        person_box=PersonBoxRule(pad_low=0, pad_high=0, grow=-1),
    )  # fmt: skip


class SMPRConfig(Settings):
    """Every switch of SMPR; the defaults are the authors' code with ResNet-50 and PAFPN (SMPR spec 11, 12)."""

    system: Literal["smpr"] = "smpr"
    # backbone and neck
    backbone: str = "resnet50"
    stride_in_1x1: bool = True
    """ResNet "caffe style", as the authors' weights need it; False for weights of timm and torchvision."""
    neck: Literal["pafpn", "fpn", "hrfpn"] = "pafpn"
    neck_act: bool = True
    """ReLU after every convolution of a PAFPN."""
    channels: int = Field(default=256, ge=8)
    # head
    finest_level: Literal[3, 4, 5] = 3
    """The finest level that predicts poses; heatmaps stay those of P3. P3 has three quarters of all locations, for
    people of less than about 64 px."""
    coarsest_level: Literal[5, 6, 7] = 7
    """The last level of the pyramid."""
    tower_depth: int = Field(default=4, ge=1)
    align: bool = True
    """Build the aligned branch; without it the initial poses are final and the class comes from its plain tower."""
    offset_groups: int = Field(default=4, ge=1)
    """Offset groups of the deformable convolutions; the paper has 1."""
    psm: bool = True
    """Predict the quality of each pose (pose scoring module)."""
    heatmap: bool = True
    heatmap_channels: int = Field(default=128, ge=1)
    # targets
    radius: float | None = Field(default=1.5, gt=0)
    """Half side of the square of initial positives, strides (the paper's wording is 0.75); None: the whole box."""
    size_ranges: tuple[tuple[float, float], ...] = dense.SIZE_RANGES
    """Of the levels that predict poses, finest first."""
    positives: Literal["oks", "all"] = "oks"
    """Which initial positives are positive for class, refinement and quality: those with a good pose, or all."""
    oks_threshold: float = Field(default=0.5, ge=0, le=1)
    oks_pose: Literal["initial", "refined"] = "initial"
    """Whose OKS decides on positives, weights and quality targets; the paper says refined."""
    force_best: bool = True
    """The best pose of a person counts as good, whatever its OKS."""
    oks_area: Literal["segment", "box"] = "segment"
    ignore_regions: bool = True
    """Take no class and heatmap loss in ignore regions."""
    mask_unlabelled: bool = False
    """Take no heatmap loss where a person's keypoint is not labelled, nor in ignore regions (partly labelled data)."""
    pixel_offset: float = 0.0
    """Added to pixel coordinates to get the frame of the locations."""
    # losses
    l1_weight: Literal["oks", "none"] = "oks"
    class_loss: float = Field(default=1.0, ge=0)
    heatmap_loss: float = Field(default=4.0, ge=0)
    initial_loss: float = Field(default=0.05, ge=0)
    refined_loss: float = Field(default=0.1, ge=0)
    quality_loss: float = Field(default=1.0, ge=0)
    # decoding
    score: Literal["product", "class"] = "product"
    """``product``: class probability times predicted quality; ``class``: without the quality."""
    score_threshold: float = 0.05
    """On the class probability, whatever the score is."""
    pre_nms: int = 1000
    """Candidates a level that stay, best by score; <= 0: all."""
    snap: float | None = Field(default=None, gt=0)
    """Draw keypoints to peaks of the heatmaps within this fraction of the pose's size, see `poise.models.snapping`
    (ours); None: the heatmaps serve in training only, as published."""
    consensus: bool = False
    """Score poses by how much the candidates around them agree, see `poise.geometry.consensus` (ours)."""
    suppression: Suppression = Suppression()
    suppress_on: Literal["box", "oks"] = "box"
    max_poses: int = 20
    view: ViewSpec = Field(default_factory=_reference_view)

    @model_validator(mode="after")
    def _consistent(self) -> SMPRConfig:
        if self.psm and not self.align:
            raise ValueError("psm needs align = true: the quality is predicted from aligned features")
        if self.score == "product" and not self.psm:
            raise ValueError("score = 'product' needs psm = true; without a quality it is 'class'")
        if self.oks_pose == "refined" and not self.align:
            raise ValueError("oks_pose = 'refined' needs align = true")
        if self.channels % self.offset_groups:
            raise ValueError(f"channels = {self.channels} must be a multiple of offset_groups = {self.offset_groups}")
        if self.snap is not None and not self.heatmap:
            raise ValueError("snap needs heatmap = true: it looks at the heatmaps")
        if len(self.size_ranges) < self.levels:
            raise ValueError(f"{self.levels} levels need as many size_ranges, not {len(self.size_ranges)}")
        return self

    @property
    def levels(self) -> int:
        """How many predict poses."""
        return self.coarsest_level - self.finest_level + 1


def _ablation(**switches: object) -> Callable[[], SMPRConfig]:
    """A row of the paper's Table I (SMPR spec 12); all rows but the last have an FPN."""
    return lambda: SMPRConfig.parse({"neck": "fpn", **switches})


def _hrnet(width: int) -> Callable[[], SMPRConfig]:
    return lambda: SMPRConfig(backbone=f"hrnet_w{width}", stride_in_1x1=False, neck="hrfpn")


def _mobilenet_preset() -> SMPRConfig:
    return SMPRConfig(
        backbone="mobilenetv2_100", stride_in_1x1=False, neck="fpn", channels=96, tower_depth=2, heatmap_channels=64,
        finest_level=4, coarsest_level=6, size_ranges=((-1.0, 64.0), (64.0, 128.0), (128.0, 1e8)),
        ignore_regions=True, mask_unlabelled=True, heatmap_loss=8.0, pixel_offset=0.5, snap=0.37,
        view=ViewSpec(long_side=512, short_side=None),
    )  # fmt: skip


_PLAIN: dict[str, object] = {"align": False, "psm": False, "heatmap": False, "positives": "all", "score": "class"}
_REFINE = {**_PLAIN, "align": True}
_REFINE_STAR = {**_REFINE, "positives": "oks"}
_PSM = {**_REFINE_STAR, "psm": True, "score": "product"}
_HEATMAP = {**_PSM, "heatmap": True}

PRESETS: dict[str, Callable[[], SMPRConfig]] = {
    "smpr_r50": SMPRConfig,
    "smpr_r50_fpn": lambda: SMPRConfig(neck="fpn"),
    "smpr_hrnet_w32": _hrnet(32),
    "smpr_hrnet_w48": _hrnet(48),
    "smpr_mobilenetv2": _mobilenet_preset,
    "smpr_baseline": _ablation(**_PLAIN, radius=None),
    "smpr_baseline_star": _ablation(**_PLAIN),
    "smpr_refine": _ablation(**_REFINE),
    "smpr_refine_star": _ablation(**_REFINE_STAR),
    "smpr_psm": _ablation(**_PSM),
    "smpr_heatmap": _ablation(**_HEATMAP),
    "smpr_pafpn": _ablation(**{**_HEATMAP, "neck": "pafpn"}),
}


# -------------------------------------------------------------------------------------------------- aligned features


class FeatureAlignment(nn.Module):
    """Features gathered along the initial pose: two deformable convolutions with the same offsets (SMPR spec 3).

    Args:
        in_channels: of both towers.
        out_channels: of both results.
        keypoint_count: K.
        groups: channel groups with offsets of their own.
    """

    def __init__(self, in_channels: int, out_channels: int, keypoint_count: int, groups: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(2 * keypoint_count, 2 * 9 * groups, 1, bias=False)
        self.pose = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.person = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)

    def plan(self, initial: Tensor) -> SamplingPlan:
        """Where to gather, from initial poses (B, 2 K, h, w) in strides; no gradient reaches them.

        Offsets (B, 18 G, h, w), group-major, then tap, then (dy, dx), are added to the regular 3x3 grid.
        """
        size = (initial.shape[-2], initial.shape[-1])
        return sampling_plan(self.offset(initial.detach()), 3, 1, 1, 1, size)

    def forward(self, pose: Tensor, person: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned features (B, C, h, w) of the pose and of the class tower."""
        weights = self.pose.weight, self.person.weight
        aligned = deform_convolutions((pose, person), weights, self.plan(initial))
        return F.relu(aligned[0]), F.relu(aligned[1])


# -------------------------------------------------------------------------------------------------------------- head


class SMPROutputs(NamedTuple):
    """Raw maps of every level that predicts poses, finest first."""

    logits: list[Tensor]
    """(B, 1, h, w) person logits."""
    initial: list[Tensor]
    """(B, 2 K, h, w): x, y in strides relative to the location, keypoint-major."""
    refined: list[Tensor] | None
    """The same after refinement."""
    quality: list[Tensor] | None
    """(B, 1, h, w) logits of the pose's quality."""
    heatmaps: Tensor | None
    """(B, K, h, w) logits on P3."""


class SMPRHead(nn.Module):
    """The head shared by all levels, but for two factors a level (SMPR spec 3)."""

    def __init__(self, config: SMPRConfig, skeleton: Skeleton) -> None:
        super().__init__()
        wide, values = config.channels, 2 * len(skeleton)
        self.first = config.finest_level - FINEST
        self.person_tower = conv_tower(wide, wide, config.tower_depth, bias=False)
        self.pose_tower = conv_tower(wide, wide, config.tower_depth, bias=False)
        self.initial = _output(wide, values)
        self.initial_scales = nn.ModuleList(Scale() for _ in range(config.levels))
        self.logits = _output(wide, 1)
        self.align = FeatureAlignment(wide, wide, len(skeleton), config.offset_groups) if config.align else None
        self.refined = _output(wide, values) if config.align else None
        self.refined_scales = nn.ModuleList(Scale() for _ in range(config.levels)) if config.align else None
        self.quality = _output(wide, 1) if config.psm else None
        narrow = config.heatmap_channels
        self.heatmap = (
            nn.Sequential(*conv_tower(wide, narrow, 2, bias=False), _output(narrow, len(skeleton)))
            if config.heatmap
            else None
        )
        self._init_weights()

    def _init_weights(self) -> None:
        init_normal(self)
        outputs = [self.logits] if self.heatmap is None else [self.logits, self.heatmap[-1]]
        for output in outputs:
            nn.init.constant_(output.bias, PRIOR_BIAS)  # type: ignore[arg-type]
        if self.align is not None:
            nn.init.normal_(self.align.offset.weight, std=0.1)

    def answering(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of the maps of the pyramid those of the levels that predict poses."""
        return features[self.first :]

    def initial_poses(self, level: int, tower: Tensor) -> Tensor:
        """(B, 2 K, h, w) in strides, from the pose tower of a level."""
        scaled: Tensor = self.initial_scales[level](self.initial(tower))
        return scaled

    def refined_poses(self, level: int, initial: Tensor, step: Tensor) -> Tensor:
        """The initial poses, from which no gradient flows back, and ``step``, the output of `refined`; any shape."""
        assert self.refined_scales is not None
        scaled: Tensor = self.refined_scales[level](step)
        return initial.detach() + scaled

    def forward(self, features: Sequence[Tensor]) -> SMPROutputs:
        """All maps of all levels, from those of the whole pyramid."""
        heatmaps = None if self.heatmap is None else self.heatmap(features[0])
        features = self.answering(features)
        persons = [self.person_tower(f) for f in features]
        poses = [self.pose_tower(f) for f in features]
        initial = [self.initial_poses(i, p) for i, p in enumerate(poses)]
        refined, quality = None, None
        if self.align is not None and self.refined is not None:
            aligned = [self.align(*maps) for maps in zip(poses, persons, initial, strict=True)]
            poses, persons = [a for a, _ in aligned], [b for _, b in aligned]
            refined = [self.refined_poses(i, initial[i], self.refined(p)) for i, p in enumerate(poses)]
            quality = None if self.quality is None else [self.quality(p) for p in poses]
        return SMPROutputs([self.logits(p) for p in persons], initial, refined, quality, heatmaps)


def _output(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


# ----------------------------------------------------------------------------------------------------------- network


class SMPR(nn.Module):
    """The whole network with its losses and its decoding.

    Which parameters are frozen, and that batch norms keep their statistics, is the recipe's business
    (``train.freeze``, ``train.freeze_batch_norm``).

    Args:
        config: switches.
        skeleton: keypoints; decides all counts.
        pretrained: let timm fetch ImageNet weights of the backbone.
    """

    def __init__(self, config: SMPRConfig, skeleton: Skeleton = COCO17, *, pretrained: bool = False) -> None:
        super().__init__()
        self.config, self.skeleton, self.view = config, skeleton, config.view
        self.backbone = build_backbone(
            config.backbone,
            strides=(4, *PYRAMID_STRIDES) if config.neck == "hrfpn" else PYRAMID_STRIDES,
            stride_in_1x1=config.stride_in_1x1,
            pretrained=pretrained,
        )
        self.pyramid = _build_neck(config, self.backbone.channels)
        self.strides = tuple(2**i for i in range(config.finest_level, config.coarsest_level + 1))
        self.head = SMPRHead(config, skeleton)

    def forward(self, images: Tensor) -> SMPROutputs:
        """Raw maps of normalised images (B, 3, H, W)."""
        outputs: SMPROutputs = self.head(self.pyramid(self.backbone(images)))
        return outputs

    def loss(self, outputs: SMPROutputs, persons: Sequence[Persons]) -> dict[str, Tensor]:
        """Named, weighted losses; see `smpr_losses`. ``persons[b]`` is the truth of image b in input px."""
        from poise.models.smpr_loss import smpr_losses

        device = outputs.logits[0].device
        truth = [dense.shifted(p, self.config.pixel_offset, device) for p in persons]
        return smpr_losses(self.config, self.strides, self.skeleton.sigmas, outputs, truth)

    # -------------------------------------------------------------------------------------------------- decoding

    def decode(self, outputs: SMPROutputs, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """Candidate poses of every view, in input px, before `suppress`; ``sizes`` are (height, width) unpadded."""
        return [self._poses(c, size) for c, size in zip(self.candidates(outputs, sizes), sizes, strict=True)]

    @torch.no_grad()
    def candidates(self, outputs: SMPROutputs, sizes: Sequence[tuple[int, int]]) -> list[Candidates]:
        """Candidates of every image from dense maps (SMPR spec 6), in the frame of the locations."""
        poses = joined(outputs.initial if outputs.refined is None else outputs.refined)
        qualities = None if outputs.quality is None else joined(outputs.quality)

        def quality(b: int, index: Tensor) -> Tensor:
            assert qualities is not None
            return qualities[b, index, 0]

        reader = CellReader(lambda b, index: poses[b, index], quality)
        return self._collect(outputs.logits, reader, sizes, lambda: outputs.heatmaps)

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """``decode(forward(images), sizes)`` without the work that cannot change the result."""
        return [self._poses(c, size) for c, size in zip(self.lazy_candidates(images, sizes), sizes, strict=True)]

    @torch.no_grad()
    def lazy_candidates(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Candidates]:
        """`candidates`, with refinement and quality evaluated where a pose can still come from.

        The class comes from aligned features, so both towers (GroupNorm needs whole maps), the initial poses and the
        class tower's deformable convolution stay dense. The pose tower's and what follows it do not.
        """
        from poise.models.smpr_lazy import LazyHead

        features = self.pyramid(self.backbone(images))
        lazy = LazyHead(self.head, self.head.answering(features))

        def heatmaps() -> Tensor | None:
            return None if self.head.heatmap is None else cast(Tensor, self.head.heatmap(features[0]))

        return self._collect(lazy.logits, CellReader(lazy.pose, lazy.quality), sizes, heatmaps)

    def _collect(
        self,
        logits: Sequence[Tensor],
        reader: CellReader,
        sizes: Sequence[tuple[int, int]],
        heatmaps: Callable[[], Tensor | None],
    ) -> list[Candidates]:
        """Candidates of every image; ``heatmaps`` are asked for only if somebody may be there and they are read."""
        shapes = [(maps.shape[-2], maps.shape[-1]) for maps in logits]
        grid = dense.make_grid(shapes, self.strides, logits[0].device)
        probability = dense.precise(joined(logits)[..., 0]).sigmoid()
        found = [self._found(b, probability[b], reader, grid, size) for b, size in enumerate(sizes)]
        if self.config.snap is None or not any(len(c.scores) for c in found):
            return found
        maps = heatmaps()
        if maps is None:
            return found
        return [snap(c, maps[b], dense.HEATMAP_STRIDE, self.config.snap) for b, c in enumerate(found)]

    def _found(
        self, b: int, probability: Tensor, reader: CellReader, grid: dense.Grid, size: tuple[int, int]
    ) -> Candidates:
        """Candidates of one image from the class probabilities (P,) of all levels."""
        config = self.config

        def score(index: Tensor) -> Tensor:
            if config.score == "class":
                return probability[index]
            return probability[index] * dense.precise(reader.quality(b, index)).sigmoid()

        counts = [h * w for h, w in grid.sizes]
        index, scores = preselect_levels(probability, score, config.score_threshold, config.pre_nms, counts)
        if len(index) == 0:
            return dense.no_candidates(len(self.skeleton), probability)
        points = grid.points[index]
        offsets = dense.precise(reader.pose(b, index)).unflatten(1, (-1, 2))
        keypoints = points[:, None] + grid.strides[index][:, None, None] * offsets
        low = config.pixel_offset
        high = keypoints.new_tensor([size[1] - 1 + low, size[0] - 1 + low])
        keypoints = torch.minimum(keypoints.clamp(min=low), high)
        marks = scores[:, None].expand(-1, len(self.skeleton))
        return Candidates(scores, keypoints, marks, points_extent(keypoints), grid.levels[index], points)

    def _poses(self, candidates: Candidates, size: tuple[int, int]) -> Poses:
        return dense.candidate_poses(candidates, self.config.pixel_offset, self.skeleton, size)

    def suppress(self, poses: Poses) -> Poses:
        """Final poses of one picture with their lowered scores, best first, at most ``max_poses`` (SMPR spec 6).

        Overlap is that of the boxes around the keypoints, in image px.
        """
        config = self.config
        if len(poses) == 0:
            return poses
        if config.suppress_on == "oks":
            kept = soft_oks_nms(
                poses.keypoints, poses.scores, self.skeleton.sigmas, config.suppression, config.max_poses
            )
        else:
            boxes = np.concatenate([poses.keypoints.min(1), poses.keypoints.max(1)], 1)
            kept = soft_box_nms(boxes, poses.scores, config.suppression, config.max_poses)
        final = replace(poses[kept.indices], scores=kept.scores)
        if not config.consensus:
            return final
        final = replace(final, scores=consensus_scores(final, poses))
        return final[np.argsort(-final.scores, kind="stable")]


class CellReader(NamedTuple):
    """Values at cells of all levels of an image, finest first: functions of (image, indices (n,))."""

    pose: Callable[[int, Tensor], Tensor]
    """(n, 2 K) in strides."""
    quality: Callable[[int, Tensor], Tensor]
    """(n,) logits."""


def preselect(
    probability: Tensor, score: Callable[[Tensor], Tensor], threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Locations above the threshold that are also among the ``limit`` best scores of all locations of their level.

    Scores are asked for only where they can matter: no score exceeds its location's probability, so a location whose
    probability is below the worst score of those above the threshold pushes none of them out.

    Args:
        probability: (p,) class probabilities.
        score: of some locations (n,), at most their probability.
        threshold: on the probability.
        limit: <= 0 for no limit.

    Returns:
        Indices (n,), ascending, and their scores (n,).
    """
    index = torch.nonzero(probability > threshold).squeeze(1)
    if len(index) == 0:
        return index, probability[index]
    scores = score(index)
    rivals = torch.nonzero((probability <= threshold) & (probability > scores.min())).squeeze(1)
    if not 0 < limit < len(index) + len(rivals):
        return index, scores
    everyone = torch.cat([scores, score(rivals)]) if len(rivals) else scores
    best = everyone.topk(limit, sorted=False).indices
    kept = best[best < len(index)].sort().values
    return index[kept], scores[kept]


def preselect_levels(
    probability: Tensor, score: Callable[[Tensor], Tensor], threshold: float, limit: int, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`preselect` on each level, finest first; those with no more locations than may stay are taken together.

    Args:
        probability: (P,) class probabilities of all levels, which have ``counts`` locations.
        score: of some locations of all levels.
        threshold: as `preselect`.
        limit: of each level.
        counts: locations of each level, falling.
    """
    large = [count for count in counts if 0 < limit < count]

    def part(first: int, end: int, limit: int) -> tuple[Tensor, Tensor]:
        index, scores = preselect(probability[first:end], lambda i: score(i + first), threshold, limit)
        return index + first, scores

    edges = [0, *accumulate(large)]
    found = [part(first, end, limit) for first, end in pairwise(edges)] + [part(edges[-1], len(probability), 0)]
    return torch.cat([index for index, _ in found]), torch.cat([scores for _, scores in found])


def _build_neck(config: SMPRConfig, in_channels: Sequence[int]) -> nn.Module:
    count = config.coarsest_level - FINEST + 1
    extra = count - len(PYRAMID_STRIDES)
    if config.neck == "hrfpn":
        return HRFPN(in_channels, config.channels, count)
    if config.neck == "fpn":
        return FPN(in_channels, config.channels, extra, init="xavier")
    return PAFPN(in_channels, config.channels, extra, activation=config.neck_act, init="xavier")
