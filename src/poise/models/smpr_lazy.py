"""Exact laziness in SMPR inference: refinement and quality only where a pose can still come from.

Letters: B images, C channels, h w feature size of a level, G offset groups, n cells, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.deformable import Corners, SamplingPlan, Taps, deform_conv2d, deform_conv2d_at, sampling_plan_at
from poise.nn.sampling import conv3x3_at

if TYPE_CHECKING:
    from poise.models.smpr import SMPRHead


class LazyHead:
    """Evaluates final poses and their quality at given cells, from features computed once.

    Attributes:
        logits: (B, 1, h, w) person logits of every level.
    """

    def __init__(self, head: SMPRHead, features: Sequence[Tensor]) -> None:
        self._head = head
        persons = [head.person_tower(f) for f in features]
        self._towers = [head.pose_tower(f) for f in features]
        self._initial = [head.initial_poses(i, t) for i, t in enumerate(self._towers)]
        self._plans: list[SamplingPlan] = []
        self._aligned: dict[tuple[int, int], AlignedMap] = {}
        if head.align is not None:
            self._plans = [head.align.plan(i) for i in self._initial]
            weight = head.align.person.weight
            persons = [F.relu(deform_conv2d(p, weight, plan)) for p, plan in zip(persons, self._plans, strict=True)]
        self.logits = [head.logits(p) for p in persons]

    def pose(self, level: int, b: int, index: Tensor) -> Tensor:
        """Poses (n, 2 K) in strides at flat cells ``index`` of image ``b``."""
        initial = self._initial[level][b].flatten(1)[:, index].T
        if self._head.refined is None:
            return initial
        return self._head.refined_poses(level, initial, self._convolve(self._head.refined, level, b, index))

    def quality(self, level: int, b: int, index: Tensor) -> Tensor:
        """Quality logits (n,) at flat cells ``index`` of image ``b``."""
        assert self._head.quality is not None
        return self._convolve(self._head.quality, level, b, index)[:, 0]

    def _convolve(self, convolution: nn.Conv2d, level: int, b: int, index: Tensor) -> Tensor:
        """Output (n, channels) of a 3x3 convolution of the aligned pose features."""
        if (level, b) not in self._aligned:
            assert self._head.align is not None
            weight = self._head.align.pose.weight
            self._aligned[level, b] = AlignedMap(self._towers[level][b], weight, self._plans[level], b)
        width = self._towers[level].shape[-1]
        rows, columns = torch.div(index, width, rounding_mode="floor"), index % width
        return conv3x3_at(convolution, self._aligned[level, b].around(rows, columns), rows, columns)


class AlignedMap:
    """The aligned features of one image and level, filled in where they are asked for.

    Args:
        tower: (C, h, w) features of the image.
        weight: (C', C, 3, 3) of the deformable convolution.
        plan: of the level's offsets.
        b: number of the image in the plan.
    """

    def __init__(self, tower: Tensor, weight: Tensor, plan: SamplingPlan, b: int) -> None:
        self._tower, self._weight, self._plan, self._image = tower, weight, plan, b
        height, width = tower.shape[-2:]
        self._rows = tower.new_zeros(height * width, len(weight))
        self._values = self._rows.view(height, width, -1).permute(2, 0, 1)  # as `conv3x3_at` likes it
        self._known = torch.zeros(tower.shape[-2:], dtype=torch.bool, device=tower.device)

    def around(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The map (C', h, w), right in the 3x3 neighbourhoods of the cells and anything elsewhere."""
        wanted = torch.zeros_like(self._known, dtype=torch.float32)
        wanted[rows, columns] = 1
        wanted = F.max_pool2d(wanted[None, None], 3, stride=1, padding=1)[0, 0]
        missing = (wanted > 0) & ~self._known
        cells = torch.nonzero(missing.flatten()).squeeze(1)
        if len(cells):
            features = deform_conv2d_at(self._tower, self._weight, self._taps(cells))
            self._rows.index_copy_(0, cells, F.relu(features).to(self._rows.dtype))  # autocast mixes them
            self._known |= missing
        return self._values

    def _taps(self, cells: Tensor) -> Taps | Corners:
        """What the flat cells (n,) read; a plan for CUDA has not worked that out."""
        grid, offsets, taps = self._plan
        if not isinstance(taps, Taps):
            width = offsets.shape[-1]
            rows, columns = torch.div(cells, width, rounding_mode="floor"), cells % width
            own = offsets[self._image].flatten(1).T[cells]
            return sampling_plan_at(
                own, rows, columns, grid.kernel, grid.stride, grid.padding, grid.dilation, grid.input_size
            )
        return Taps(grid, *(part[self._image].index_select(0, cells) for part in (taps.rows, taps.weights)))
