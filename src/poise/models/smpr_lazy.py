"""Exact laziness in SMPR inference: refinement and quality only where a pose can still come from.

Letters: B images, C channels, h w feature size of a level, P cells of all levels together, L levels, n cells,
K keypoints, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.deformable import deform_conv2d
from poise.nn.joint import (
    JointPlan,
    cells_of,
    conv3x3_around,
    joined,
    joint_deform_conv2d,
    joint_deform_conv2d_at,
    joint_plan,
    joint_table,
    parted,
)

if TYPE_CHECKING:
    from poise.models.smpr import FeatureAlignment, SMPRHead


class LazyHead:
    """Evaluates final poses and their quality at given cells, from features computed once.

    Attributes:
        logits: (B, 1, h, w) person logits of every level.
    """

    def __init__(self, head: SMPRHead, features: Sequence[Tensor]) -> None:
        self._head = head
        self._cells = cells_of([(f.shape[2], f.shape[3]) for f in features], features[0].device)
        self._towers = [head.pose_tower(f) for f in features]
        initial = [head.initial_poses(i, t) for i, t in enumerate(self._towers)]
        self._initial = joined(initial)
        persons = [head.person_tower(f) for f in features]
        self._plan: JointPlan | None = None
        self._aligned: dict[int, AlignedCells] = {}
        if head.align is not None:
            self._plan = joint_plan([head.align.offset(i) for i in initial], self._cells)
            persons = _aligned_persons(head.align, persons, initial, self._plan)
        self.logits = [head.logits(p) for p in persons]

    def pose(self, b: int, index: Tensor) -> Tensor:
        """Poses (n, 2 K) in strides at cells ``index`` of all levels of image ``b``."""
        initial = self._initial[b].index_select(0, index)
        if self._head.refined is None or self._head.refined_scales is None:
            return initial
        factors = torch.cat([part.scale for part in self._head.refined_scales])  # type: ignore[misc]
        level = self._cells.maps.index_select(0, index)
        return initial + self._convolve(self._head.refined, b, index) * factors[level][:, None]

    def quality(self, b: int, index: Tensor) -> Tensor:
        """Quality logits (n,) at cells ``index`` of all levels of image ``b``."""
        assert self._head.quality is not None
        return self._convolve(self._head.quality, b, index)[:, 0]

    def forget(self) -> None:
        """Compute again what was computed at cells."""
        self._aligned.clear()

    def _convolve(self, convolution: nn.Conv2d, b: int, index: Tensor) -> Tensor:
        """Output (n, O) of a 3x3 convolution of the aligned pose features."""
        if b not in self._aligned:
            assert self._head.align is not None
            assert self._plan is not None
            towers = [tower[b : b + 1] for tower in self._towers]
            self._aligned[b] = AlignedCells(towers, self._head.align.pose.weight, self._plan, b)
        around = self._cells.around(index)
        return conv3x3_around(convolution, self._aligned[b].at(around), around)


class AlignedCells:
    """The aligned features of one image, filled in where they are asked for.

    Args:
        towers: (1, C, h, w) features of the image's levels.
        weight: (O, C, 3, 3) of the deformable convolution.
        plan: of the levels' offsets.
        b: number of the image in the plan.
    """

    def __init__(self, towers: Sequence[Tensor], weight: Tensor, plan: JointPlan, b: int) -> None:
        self._weight, self._plan, self._image = weight, plan, b
        self._table = joint_table(towers, plan.rows.shape[3], plan.weights.dtype)[0]
        count = plan.rows.shape[1]
        self._rows = towers[0].new_zeros(count + 1, len(weight))
        self._known = torch.zeros(count + 1, dtype=torch.bool, device=weight.device)
        self._known[count] = True  # what is outside of a level stays zero

    def at(self, wanted: Tensor) -> Tensor:
        """Features (P + 1, O): right at the cells that are wanted, of whatever shape, and anything elsewhere."""
        missing = torch.zeros_like(self._known)
        missing[wanted.flatten()] = True
        missing &= ~self._known
        cells = torch.nonzero(missing).squeeze(1)
        if len(cells):
            features = joint_deform_conv2d_at(self._table, self._weight, self._plan, self._image, cells)
            self._rows.index_copy_(0, cells, F.relu(features).to(self._rows.dtype))  # autocast mixes them
            self._known |= missing
        return self._rows


def _aligned_persons(
    align: FeatureAlignment, persons: Sequence[Tensor], initial: Sequence[Tensor], plan: JointPlan
) -> list[Tensor]:
    """The class tower's aligned features (B, C, h, w) of every level."""
    weight = align.person.weight
    if weight.is_cuda:  # torchvision's operator, which knows no plan of several maps
        return [F.relu(deform_conv2d(p, weight, align.plan(i))) for p, i in zip(persons, initial, strict=True)]
    aligned = F.relu(joint_deform_conv2d(persons, weight, plan), inplace=True)
    return parted(aligned, [(p.shape[2], p.shape[3]) for p in persons])
