"""Feature pyramids.

Letters: B images, C channels, h w feature size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.fused import added

PyramidInit = Literal["caffe2_xavier", "xavier"]
"""How weights begin: uniform with variance 1 / fan-in (detectron2), or 2 / (fan-in + fan-out). Biases are 0."""


class FPN(nn.Module):
    """Feature pyramid with extra coarse levels (Lin et al. 2017; DirectPose spec 2, SMPR spec 2).

    Lateral 1x1 convolutions, nearest upsampling to the lateral's size, 3x3 output convolutions, no norm, no
    activation. Extra levels: 3x3 stride 2 on the last output, a ReLU before every extra level but the first.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: channels of every output.
        extra_levels: number of extra levels.
        init: of the weights.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        extra_levels: int = 2,
        *,
        init: PyramidInit = "caffe2_xavier",
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(_halving(channels) for _ in range(extra_levels))
        self.channels = channels
        _init_weights(self, init)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, channels, h, w), finest first, extra levels last."""
        merged = self._merged(features, 0)
        return self._with_extra([output(m) for output, m in zip(self.output, merged, strict=True)])

    def _merged(self, features: Sequence[Tensor], finest: int) -> list[Tensor]:
        """Laterals with everything coarser, finest first, from a level on."""
        merged = [self.lateral[-1](features[-1])]
        laterals = list(self.lateral)[finest:-1]
        for lateral, feature in zip(laterals[::-1], features[finest:-1][::-1], strict=True):
            merged.append(added(lateral, _upsampled(merged[-1], feature), feature))
        return merged[::-1]

    def _with_extra(self, outputs: list[Tensor]) -> list[Tensor]:
        """Outputs and the extra levels."""
        for i, extra in enumerate(self.extra):
            outputs.append(extra(outputs[-1] if i == 0 else F.relu(outputs[-1])))
        return outputs


class DirectFPN(FPN):
    """A pyramid for inference whose finest output is computed from its two sources, without the sum between.

    Made by `make_direct`. A 1x1 and a 3x3 convolution in a row are a 3x3 one, and a map that is upsampled by two and
    convolved with 3x3 is convolved with a transposed 4x4 one of stride 2: four products for each output instead of
    nine. What is outside a map is zero either way, so the numbers are the same but for rounding.
    """

    direct: nn.Conv2d
    rising: nn.ConvTranspose2d
    shift: Tensor

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """As `FPN`; a finest map that is not twice as large as the next one goes the usual way."""
        height, width = features[1].shape[-2:]
        if features[0].shape[-2:] != (2 * height, 2 * width):
            return super().forward(features)
        merged = self._merged(features, 1)
        finest = added(self.direct, self.rising(merged[0] + self.shift), features[0])
        return self._with_extra([finest, *(o(m) for o, m in zip(list(self.output)[1:], merged, strict=True))])


def make_direct(network: nn.Module) -> int:
    """Change the pyramids of a network into `DirectFPN`, in place, where that is less work; for inference only.

    Returns:
        How many were changed: their finest maps must have few channels.
    """
    return sum(_make_direct(part) for part in list(network.modules()) if type(part) is FPN)


def _make_direct(pyramid: FPN) -> bool:
    if len(pyramid.lateral) < 2:
        return False
    lateral, output = pyramid.lateral[0], pyramid.output[0]
    assert isinstance(lateral, nn.Conv2d)
    assert isinstance(output, nn.Conv2d)
    assert lateral.bias is not None
    assert output.bias is not None
    given, channels = lateral.in_channels, pyramid.channels
    if 9 * given + 4 * channels >= given + 9 * channels:  # products for each output channel
        return False
    weight = output.weight.detach().double()
    direct = nn.Conv2d(given, channels, 3, padding=1)
    direct.weight.data = torch.einsum("omhw,mi->oihw", weight, lateral.weight.detach().double()[:, :, 0, 0]).float()
    direct.bias = output.bias
    rising = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    rising.weight.data = _rising(_rising(weight, 2), 3).transpose(0, 1).float().contiguous()
    pyramid.__class__ = DirectFPN
    assert isinstance(pyramid, DirectFPN)
    pyramid.direct, pyramid.rising = direct.to(weight.device), rising.to(weight.device)
    pyramid.register_buffer("shift", lateral.bias.detach()[:, None, None].clone(), persistent=False)
    return True


def _rising(weight: Tensor, axis: int) -> Tensor:
    """Three taps along an axis that read a map upsampled by two, as the four of a transposed convolution of the map.

    Output p reads the upsampled places p - 1 to p + 1, each of which is the map's cell of half that number, rounded
    down; cell i is therefore part of outputs 2 i - 1 to 2 i + 2, by these sums of taps.
    """
    first, second, third = weight.unbind(axis)
    return torch.stack([third, second + third, first + second, first], axis)


class PAFPN(nn.Module):
    """Path aggregation: an `FPN`, then the way back from fine to coarse (Liu et al. 2018; SMPR spec 2).

    Every coarser output gains the 3x3 stride 2 convolution of the finer one, already summed; all but the finest then
    pass one more 3x3 convolution.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: channels of every output.
        extra_levels: number of extra levels, as in `FPN`.
        activation: ReLU after every convolution, also before the sums, as SMPR's code has it; False for none.
        init: of the weights.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        extra_levels: int = 2,
        *,
        activation: bool = True,
        init: PyramidInit = "caffe2_xavier",
    ) -> None:
        super().__init__()
        coarser = len(in_channels) - 1
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.down = nn.ModuleList(_halving(channels) for _ in range(coarser))
        self.post = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(coarser))
        self.extra = nn.ModuleList(_halving(channels) for _ in range(extra_levels))
        self.channels = channels
        self.activation = activation
        _init_weights(self, init)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, channels, h, w), finest first, extra levels last."""
        merged = _top_down([self._active(layer(f)) for layer, f in zip(self.lateral, features, strict=True)])
        outputs = [self._active(layer(m)) for layer, m in zip(self.output, merged, strict=True)]
        for i, down in enumerate(self.down):
            outputs[i + 1] = outputs[i + 1] + self._active(down(outputs[i]))
        outputs[1:] = [self._active(layer(m)) for layer, m in zip(self.post, outputs[1:], strict=True)]
        for i, extra in enumerate(self.extra):
            outputs.append(self._active(extra(outputs[-1] if i == 0 else F.relu(outputs[-1]))))
        return outputs

    def _active(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.activation else x


class HRFPN(nn.Module):
    """The pyramid of HRNets (Sun et al. 2019; SMPR spec 2).

    All maps are upsampled to the finest and mixed by one 1x1 convolution; level i is its average over squares of 2^i
    cells (remainders are left out), through a 3x3 stride 2 convolution of its own.

    Args:
        in_channels: channels of the backbone's maps, finest first, each half the size of the one before.
        channels: channels of every output.
        levels: number of outputs.
        init: of the weights.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        levels: int = 5,
        *,
        init: PyramidInit = "caffe2_xavier",
    ) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(sum(in_channels), channels, 1)
        self.output = nn.ModuleList(_halving(channels) for _ in range(levels))
        self.channels = channels
        _init_weights(self, init)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, channels, h, w), finest first; the finest has twice the stride of the backbone's finest."""
        scaled = [
            F.interpolate(f, scale_factor=2**i, mode="bilinear", align_corners=False) if i else f
            for i, f in enumerate(features)
        ]
        mixed = self.reduction(torch.cat(scaled, 1))
        height, width = mixed.shape[-2:]
        # a picture with a side below 64 px has fewer cells than the coarsest square
        squares = [(min(2**i, height), min(2**i, width)) for i in range(len(self.output))]
        return [layer(F.avg_pool2d(mixed, square)) for layer, square in zip(self.output, squares, strict=True)]


def _halving(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride=2, padding=1)


def _top_down(laterals: list[Tensor]) -> list[Tensor]:
    """Every lateral plus the coarser sum, upsampled to its size by the nearest neighbour."""
    merged = list(laterals)
    for i in range(len(merged) - 1, 0, -1):
        merged[i - 1] = merged[i - 1] + _upsampled(merged[i], merged[i - 1])
    return merged


def _upsampled(coarse: Tensor, finer: Tensor) -> Tensor:
    """A map at the size of another one."""
    return F.interpolate(coarse, size=finer.shape[-2:], mode="nearest")


def _init_weights(pyramid: nn.Module, init: PyramidInit) -> None:
    for module in pyramid.modules():
        if isinstance(module, nn.Conv2d):
            if init == "xavier":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias) if module.bias is not None else None
