"""MobileNetV2 (Sandler et al. 2018) with feature maps: timm's ``mobilenetv2_100``, without timm.

The models that come with Poise stand on it. Loading timm takes about as long as finding the people of a photograph; so
whoever only wants that does without. Names of parts, values, and how weights begin are timm's: checkpoints fit both.

Letters: B images, C channels, H W input size, h w feature size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

NAME = "mobilenetv2_100"
"""What timm calls it."""
STEM = 32
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Of each stage: expansion, channels, blocks, stride of the first block (table 2 of the paper)."""


def feature_maps() -> dict[int, tuple[int, int]]:
    """Stride of a feature map -> (stage that computes it last, its channels)."""
    maps: dict[int, tuple[int, int]] = {}
    stride = 2
    for stage, (_, channels, _, step) in enumerate(_STAGES):
        stride *= step
        maps[stride] = stage, channels
    return maps


class NormAct(nn.BatchNorm2d):
    """Batch norm and the activation after it, ``act``, as timm's ``BatchNormAct2d``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) of (B, C, h, w)."""
        activated: Tensor = self.act(super().forward(input))
        return activated


class Block(nn.Module):
    """An inverted residual block: 1x1 to more channels, 3x3 on each, 1x1 to fewer; the input is added if it fits."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.conv_pw = nn.Conv2d(in_channels, wide, 1, bias=False)
        self.bn1 = NormAct(wide)
        self.conv_dw = nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False)
        self.bn2 = NormAct(wide)
        self.conv_pwl = nn.Conv2d(wide, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h', w') of (B, C, h, w)."""
        y: Tensor = self.bn1(self.conv_pw(x))
        y = self.bn2(self.conv_dw(y))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.shortcut else y


class FirstBlock(nn.Module):
    """The block without expansion: 3x3 on each channel, 1x1 to fewer."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.bn1 = NormAct(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h, w) of (B, C, h, w)."""
        y: Tensor = self.bn1(self.conv_dw(x))
        y = self.bn2(self.conv_pw(y))
        return y


class MobileNetV2(nn.Module):
    """The network up to its last block.

    Args:
        strides: of the wanted feature maps, finest first; keys of `feature_maps`.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        maps = feature_maps()
        self.wanted = frozenset(maps[stride][0] for stride in strides)
        self.conv_stem = nn.Conv2d(3, STEM, 3, 2, padding=1, bias=False)
        self.bn1 = NormAct(STEM)
        widths = [STEM, *(channels for _, channels, _, _ in _STAGES)]
        stages = []
        for (before, channels), (expansion, _, count, stride) in zip(pairwise(widths), _STAGES, strict=True):
            sizes = [(before, stride)] + [(channels, 1)] * (count - 1)
            stages.append(
                nn.Sequential(
                    *(
                        FirstBlock(width, channels) if expansion == 1 else Block(width, channels, expansion, step)
                        for width, step in sizes
                    )
                )
            )
        self.blocks = nn.Sequential(*stages)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels // part.groups
                nn.init.normal_(part.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), finest first, of images (B, 3, H, W)."""
        x = self.bn1(self.conv_stem(images))
        features = []
        for stage, block in enumerate(self.blocks):
            x = block(x)
            if stage in self.wanted:
                features.append(x)
        return features
