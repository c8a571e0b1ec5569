"""Feature pyramids.

Letters: B images, C channels, h w feature size of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Feature pyramid with extra coarse levels (Lin et al. 2017; DirectPose spec 2).

    Lateral 1x1 convolutions, nearest upsampling to the lateral's size, 3x3 output convolutions, no norm, no
    activation. Extra levels: 3x3 stride 2 on the last output, a ReLU before every extra level but the first.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: channels of every output.
        extra_levels: number of extra levels.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256, extra_levels: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra_levels))
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias) if module.bias is not None else None

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, channels, h, w), finest first, extra levels last."""
        merged = [lateral(f) for lateral, f in zip(self.lateral, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode="nearest")
        outputs = [output(m) for output, m in zip(self.output, merged, strict=True)]
        for i, extra in enumerate(self.extra):
            outputs.append(extra(outputs[-1] if i == 0 else F.relu(outputs[-1])))
        return outputs
