"""SMPR's refinement and quality at some cells only, as a graph: `poise.models.smpr_lazy` without Python's control flow.

Letters: C channels, h w feature size of a level, p = h w cells, n chosen cells, m those and their neighbours,
G offset groups, K keypoints. Every list of cells ends with cell 0, which stands for nobody: no tensor is then ever
empty.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d as operator_for_them

from poise.models.smpr import SMPRHead
from poise.nn.deformable import deform_conv2d, deform_conv2d_at, sampling_plan, sampling_plan_at

KERNEL, STEP = 3, 1
"""Of the deformable convolutions: also their padding and dilation are one."""


class SMPRLevel:
    """What is computed for all cells of a level of one picture.

    The operator is quicker where a format and its runtime have it: on one core, a convolution of 96 channels in maps of
    48 x 64 with four offset groups takes onnxruntime 16 ms with the operator and 52 ms with gathers and a product;
    OpenVINO reads no such operator from ONNX.

    Args:
        head: of the model.
        number: of the level.
        feature: (1, C, h, w) of the level.
        operator: compute the class tower's deformable convolution by the operator for it.

    Attributes:
        logits: (1, 1, h, w) person logits.
    """

    def __init__(self, head: SMPRHead, number: int, feature: Tensor, operator: bool) -> None:
        self.head, self.number = head, number
        self.tower = head.pose_tower(feature)
        self.initial = head.initial_poses(number, self.tower)
        person = head.person_tower(feature)
        self.size = (feature.shape[2], feature.shape[3])
        self.offsets: Tensor | None = None
        if head.align is not None:
            self.offsets = head.align.offset(self.initial)
            weight = head.align.person.weight
            if operator:
                person = F.relu(operator_for_them(person, self.offsets, weight, padding=STEP))
            else:
                plan = sampling_plan(self.offsets, KERNEL, STEP, STEP, STEP, self.size)
                person = F.relu(deform_conv2d(person, weight, plan))
        self.logits: Tensor = head.logits(person)

    def at(self, chosen: Tensor) -> SMPRCells:
        """The cells where (p,) is true."""
        return SMPRCells(self, chosen)

    def aligned(self, wanted: Tensor) -> Tensor:
        """Aligned features (m, C) of the pose tower at the cells (m,)."""
        assert self.head.align is not None
        assert self.offsets is not None
        rows, columns = _places(wanted, self.size[1])
        offsets = self.offsets[0].flatten(1).T[wanted]
        taps = sampling_plan_at(offsets, rows, columns, KERNEL, STEP, STEP, STEP, self.size)
        return F.relu(deform_conv2d_at(self.tower[0], self.head.align.pose.weight, taps))


class SMPRCells:
    """Poses and quality at some cells of a level.

    Args:
        level: of the cells.
        chosen: (p,) bool.

    Attributes:
        index: (n,) of the cells.
    """

    def __init__(self, level: SMPRLevel, chosen: Tensor) -> None:
        self._level = level
        self.index = _with_last(chosen)
        self._patches = None if level.head.align is None else self._neighbourhoods(chosen)

    def pose(self) -> Tensor:
        """(n, 2 K) in strides."""
        head = self._level.head
        initial = self._level.initial[0].flatten(1).T[self.index]
        if head.refined is None:
            return initial
        return head.refined_poses(self._level.number, initial, self._convolve(head.refined))

    def quality(self) -> Tensor:
        """(n,), 0..1."""
        assert self._level.head.quality is not None
        return self._convolve(self._level.head.quality)[:, 0].to(torch.float32).sigmoid()

    def _neighbourhoods(self, chosen: Tensor) -> Tensor:
        """(n, 9 C) aligned features around the cells, zeros outside the map; each is computed once."""
        height, width = self._level.size
        around = chosen.to(torch.float32).reshape(1, 1, height, width)
        near = F.max_pool2d(around, KERNEL, stride=1, padding=1).flatten() > 0
        features = self._level.aligned(_with_last(near))
        features = torch.cat([features, torch.zeros_like(features[:1])])
        place = torch.cumsum(near.to(torch.int64), 0) - 1
        shift = torch.arange(-1, 2, device=chosen.device)
        row, column = _places(self.index, width)
        rows = row[:, None] + shift.repeat_interleave(3)
        columns = column[:, None] + shift.repeat(3)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        cells = place[torch.where(inside, rows * width + columns, 0)]
        outside = near.sum() + 1  # the row of zeros
        rows_of_features = torch.where(inside, cells.clamp(min=0), outside)
        return features.index_select(0, rows_of_features.flatten()).reshape(-1, 9 * features.shape[1])

    def _convolve(self, convolution: nn.Conv2d) -> Tensor:
        """Output (n, channels) of a 3x3 convolution."""
        assert self._patches is not None
        weight = convolution.weight.permute(2, 3, 1, 0).reshape(-1, convolution.out_channels)
        product = self._patches @ weight
        return product if convolution.bias is None else product + convolution.bias


def _places(index: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Rows and columns (n,) of cells; no remainder, which the exporter to ONNX cannot write for a free width."""
    rows = torch.div(index, width, rounding_mode="floor")
    return rows, index - rows * width


def _with_last(chosen: Tensor) -> Tensor:
    """Where (p,) is true, and cell 0."""
    index = torch.nonzero(chosen).squeeze(1)
    return torch.cat([index, index.new_zeros(1)])
