"""The parts of RSN: residual steps blocks, encoder, decoder units, Pose Refine Machine (RSN spec 2 to 7).

Letters: B views, C channels of a feature map, U channels of a decoder unit, K keypoints, h w feature size,
b width of a branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4
"""Layers of an encoder and units of a decoder."""


class ConvNorm(nn.Module):
    """Convolution that keeps the size (divided by its stride), batch norm, and ReLU unless ``relu`` is False."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(out_channels)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h', w') of (B, C, h, w)."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class ResidualStepsBlock(nn.Module):
    """Branches of 1, 2, ... 3x3 steps, each step fed by the one before it and by the branch above (RSN spec 4).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        width: b, channels of a branch.
        branches: how many.
        stride: of the first convolution.
        bias: give convolutions a bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, *, branches: int, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.branches = branches
        self.enter = ConvNorm(in_channels, branches * width, stride=stride, bias=bias)
        self.steps = nn.ModuleList(
            nn.ModuleList(ConvNorm(width, width, 3, bias=bias) for _ in range(i + 1)) for i in range(branches)
        )
        self.exit = ConvNorm(branches * width, out_channels, relu=False, bias=bias)
        self.shortcut = (
            None
            if stride == 1 and in_channels == out_channels
            else ConvNorm(in_channels, out_channels, stride=stride, relu=False, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h / stride, w / stride) of (B, C, h, w)."""
        above: list[Tensor] = []
        ends: list[Tensor] = []
        for part, steps in zip(self.enter(x).chunk(self.branches, 1), self.steps, strict=True):
            above = self._branch(part, steps, above)
            ends.append(above[-1])
        return self.joined(torch.cat(ends, 1), x)

    def joined(self, ends: Tensor, x: Tensor) -> Tensor:
        """The output (B, C', h', w') of the ends of the branches (B, branches * b, h', w') and the block's input."""
        out = self.exit(ends)
        out = out + (x if self.shortcut is None else self.shortcut(x))
        return F.relu(out, inplace=True)

    @staticmethod
    def _branch(part: Tensor, steps: nn.Module, above: list[Tensor]) -> list[Tensor]:
        """Outputs of the steps of one branch; ``above`` are those of the branch before, one fewer."""
        outputs: list[Tensor] = []
        value = part
        for j, step in enumerate(steps.children()):
            value = step(value + above[j] if j < len(above) else value)
            outputs.append(value)
        return outputs


class BlockPlan(NamedTuple):
    """What the blocks of a network have in common."""

    ratio: tuple[int, int]
    """Width of a branch, as a fraction of the channels that `branch_from` names."""
    branch_from: Literal["input", "planes"]
    expansion: int
    branches: int
    bias: bool

    def block(self, in_channels: int, planes: int, stride: int) -> ResidualStepsBlock:
        """A block of ``planes`` times expansion output channels."""
        base = in_channels if self.branch_from == "input" else planes
        width = base * self.ratio[0] // self.ratio[1]
        return ResidualStepsBlock(
            in_channels, planes * self.expansion, width, branches=self.branches, stride=stride, bias=self.bias
        )

    def layer(self, in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        """Blocks in a row, the first with the stride."""
        rest = [self.block(planes * self.expansion, planes, 1) for _ in range(blocks - 1)]
        return nn.Sequential(self.block(in_channels, planes, stride), *rest)


# ------------------------------------------------------------------------------------------------------------- trunk


class TrunkJoints(nn.Module):
    """Hands features of another network to the first stage, as a stage hands its own to the next (RSN spec 6).

    Args:
        channels: C of the trunk's features, finest first.
        stem: channels of the stage's input.
        widths: channels of the stage's layers.
        bias: give convolutions a bias.
    """

    def __init__(self, channels: Sequence[int], stem: int, widths: Sequence[int], *, bias: bool = False) -> None:
        super().__init__()
        self.cross = ConvNorm(channels[0], stem, bias=bias)
        self.skips = nn.ModuleList(ConvNorm(c, w, bias=bias) for c, w in zip(channels, widths, strict=True))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Input (B, stem, h, w) and skips, finest first, of features (B, C, h, w), finest first."""
        return self.cross(features[0]), [skip(x) for skip, x in zip(self.skips, features, strict=True)]


# ----------------------------------------------------------------------------------------------- pose refine machine


class PoseRefineMachine(nn.Module):
    """X (1 + a m): X refined maps, a a weight a channel, m attention (RSN spec 7).

    Args:
        channels: K.
        form: ``official``: attention of its own for every channel; ``mmpose``: one map for all.
        bias: give convolutions a bias; those of the channel weights of ``mmpose`` have one in the reference too.
    """

    def __init__(self, channels: int, form: Literal["official", "mmpose"], *, bias: bool = False) -> None:
        super().__init__()
        self.feature = ConvNorm(channels, channels, 3, bias=bias)
        self.weight = nn.Sequential(ConvNorm(channels, channels, bias=bias), ConvNorm(channels, channels, bias=bias))
        attention = [
            ConvNorm(channels, channels, bias=bias),
            ConvNorm(channels, channels, 9, groups=channels, bias=bias),
        ]
        if form == "mmpose":
            attention.append(ConvNorm(channels, 1, bias=bias))
        self.attention = nn.Sequential(*attention)

    def forward(self, heatmaps: Tensor) -> Tensor:
        """(B, K, h, w), not negative, of (B, K, h, w)."""
        x = self.feature(heatmaps)
        weight = self.weight(x.mean((2, 3), keepdim=True)).sigmoid()
        refined: Tensor = x * (1 + weight * self.attention(x).sigmoid())
        return refined


# ----------------------------------------------------------------------------------------------------------- decoder


class DecoderUnit(nn.Module):
    """One level of a decoder: joins encoder and coarser features, predicts maps, feeds the next stage (RSN spec 5).

    Args:
        in_channels: C of the encoder's features.
        unit_channels: U.
        keypoint_count: K.
        coarsest: there is no coarser unit.
        passes_on: another stage follows.
        cross_channels: channels of the next stage's input, in the finest unit before another stage.
        prm: form of the Pose Refine Machine behind the maps, or None.
        bias: give convolutions a bias.
    """

    def __init__(
        self,
        in_channels: int,
        unit_channels: int,
        keypoint_count: int,
        *,
        coarsest: bool,
        passes_on: bool,
        cross_channels: int | None,
        prm: Literal["official", "mmpose"] | None,
        bias: bool,
    ) -> None:
        super().__init__()
        wide = unit_channels
        self.lateral = ConvNorm(in_channels, wide, relu=False, bias=bias)
        self.up = None if coarsest else ConvNorm(wide, wide, relu=False, bias=bias)
        self.hidden = ConvNorm(wide, wide, bias=bias)
        self.output = ConvNorm(wide, keypoint_count, 3, relu=False, bias=bias)
        self.prm = None if prm is None else PoseRefineMachine(keypoint_count, prm, bias=bias)
        self.skip_encoder = ConvNorm(in_channels, in_channels, bias=bias) if passes_on else None
        self.skip_decoder = ConvNorm(wide, in_channels, bias=bias) if passes_on else None
        self.cross = None if cross_channels is None else ConvNorm(wide, cross_channels, bias=bias)

    def forward(self, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Features (B, U, h, w) of the encoder's (B, C, h, w) and of the coarser unit, if there is one."""
        features: Tensor = self.lateral(x)
        if self.up is not None and coarser is not None:
            features = features + self._enlarged(coarser, features)
        return F.relu(features, inplace=True)

    def _enlarged(self, coarser: Tensor, like: Tensor) -> Tensor:
        """Resizing and a 1x1 convolution commute, unless statistics of the batch are taken in between."""
        assert self.up is not None
        if self.training:
            enlarged: Tensor = self.up(resized(coarser, like))
            return enlarged
        return resized(self.up(coarser), like)

    def heatmaps(self, features: Tensor, like: Tensor) -> Tensor:
        """(B, K, h', w') of features (B, U, h, w), at the size of ``like``."""
        maps = resized(self.output(self.hidden(features)), like)
        return maps if self.prm is None else self.prm(maps)

    def skip(self, x: Tensor, features: Tensor) -> Tensor:
        """What the next stage adds to its encoder's features of this level: (B, C, h, w)."""
        assert self.skip_encoder is not None
        assert self.skip_decoder is not None
        added: Tensor = self.skip_encoder(x) + self.skip_decoder(features)
        return added


def resized(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the size of ``like``: bilinear, corners aligned."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=True)


# ------------------------------------------------------------------------------------------------------------- stage


class StageFeatures(NamedTuple):
    """Features inside one stage."""

    encoded: list[Tensor]
    """(B, C, h, w) of every layer, finest first."""
    decoded: list[Tensor]
    """(B, U, h, w) of every unit, coarsest first."""


class Stage(nn.Module):
    """An encoder of four layers and a decoder of four units.

    Args:
        in_channels: of the stage's input.
        plan: of the blocks.
        planes: of each layer.
        blocks: of each layer.
        units: settings of the decoder units but for ``in_channels`` and ``coarsest``, coarsest first.
    """

    def __init__(
        self, in_channels: int, plan: BlockPlan, planes: Sequence[int], blocks: Sequence[int], units: nn.ModuleList
    ) -> None:
        super().__init__()
        inputs = [in_channels, *(p * plan.expansion for p in planes)]
        self.layers = nn.ModuleList(
            plan.layer(inputs[i], planes[i], blocks[i], 1 if i == 0 else 2) for i in range(LEVELS)
        )
        self.units = units

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> StageFeatures:
        """Features of the stage's input (B, C, h, w); ``skips`` of the stage before, finest first, may be empty."""
        encoded: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if skips:
                x = x + skips[i]
            encoded.append(x)
        decoded: list[Tensor] = []
        for unit, level in zip(self.units, reversed(encoded), strict=True):
            decoded.append(unit(level, decoded[-1] if decoded else None))
        return StageFeatures(encoded, decoded)

    def heatmaps(self, features: StageFeatures, level: int) -> Tensor:
        """Maps (B, K, h, w) of a level, 0 the coarsest, at the size of the finest features."""
        return self.decoder()[level].heatmaps(features.decoded[level], features.encoded[0])

    def handed_on(self, features: StageFeatures) -> tuple[Tensor, list[Tensor]]:
        """Input (B, C, h, w) and skips, finest first, of the next stage."""
        units = self.decoder()
        cross = units[-1].cross
        assert cross is not None
        levels = zip(units, reversed(features.encoded), features.decoded, strict=True)
        skips = [unit.skip(x, decoded) for unit, x, decoded in levels]
        return cross(features.decoded[-1]), skips[::-1]

    def decoder(self) -> list[DecoderUnit]:
        """The decoder's units, coarsest first."""
        return cast(list[DecoderUnit], list(self.units))
