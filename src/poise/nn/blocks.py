"""Small blocks that heads are built of.

Letters: B images, C channels, h w feature size.
"""

from __future__ import annotations

from torch import Tensor, nn


def norm_groups(channels: int, wanted: int = 32) -> int:
    """The largest number of groups up to ``wanted`` that divides ``channels`` and leaves two channels in each.

    A group of one channel would have a single value on a 1x1 map, which cannot be normalised.
    """
    return max(g for g in range(1, max(1, min(wanted, channels // 2)) + 1) if channels % g == 0)


def conv_norm_relu(
    in_channels: int, out_channels: int, *, norm: int, groups: int = 1, bias: bool = True
) -> list[nn.Module]:
    """3x3 convolution, GroupNorm with ``norm`` groups, ReLU, as a list of three modules."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=bias),
        nn.GroupNorm(norm, out_channels),
        nn.ReLU(inplace=True),
    ]


def conv_tower(
    in_channels: int, out_channels: int, depth: int, *, norm: int | None = None, groups: int = 1, bias: bool = True
) -> nn.Sequential:
    """``depth`` blocks of `conv_norm_relu`; the first is not grouped, the others have ``groups`` groups."""
    norm = norm_groups(out_channels) if norm is None else norm
    layers: list[nn.Module] = []
    for i in range(depth):
        width = in_channels if i == 0 else out_channels
        layers += conv_norm_relu(width, out_channels, norm=norm, groups=1 if i == 0 else groups, bias=bias)
    return nn.Sequential(*layers)


class Scale(nn.Module):
    """One learnable factor, initially 1."""

    def __init__(self) -> None:
        super().__init__()
        import torch

        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` times the factor; any shape."""
        return x * self.scale


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Convolutions below ``module``: weights normal(0, std), biases 0. Norm layers: 1 and 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
