"""Exact laziness in SMPR inference: refinement and quality only where a pose can still come from.

Letters: B images, C channels, h w feature size of a level, G offset groups, n cells, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.sampling import conv3x3_at, deform, deform_conv3x3_at

if TYPE_CHECKING:
    from poise.models.smpr import SMPRHead

DENSE_SHARE = 0.5
"""From this share of a map's cells on, the whole map is computed: there is no gain in picking cells."""


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
        self._offsets: list[Tensor] = []
        self._aligned: dict[tuple[int, int], AlignedMap] = {}
        if head.align is not None:
            self._offsets = [head.align.offsets(i) for i in self._initial]
            weight = head.align.person.weight
            persons = [F.relu(deform(p, o, weight)) for p, o in zip(persons, self._offsets, strict=True)]
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
            self._aligned[level, b] = AlignedMap(self._towers[level][b], self._offsets[level][b], weight)
        width = self._towers[level].shape[-1]
        rows, columns = torch.div(index, width, rounding_mode="floor"), index % width
        return conv3x3_at(convolution, self._aligned[level, b].around(rows, columns), rows, columns)


class AlignedMap:
    """The aligned features of one image and level, filled in where they are asked for.

    Args:
        tower: (C, h, w).
        offsets: (18 G, h, w) of the deformable convolution.
        weight: (C', C, 3, 3) of the deformable convolution.
    """

    def __init__(self, tower: Tensor, offsets: Tensor, weight: Tensor) -> None:
        self._tower, self._offsets, self._weight = tower, offsets, weight
        self._values = tower.new_zeros(len(weight), *tower.shape[-2:])
        self._known = torch.zeros(tower.shape[-2:], dtype=torch.bool, device=tower.device)

    def around(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The map (C', h, w), right in the 3x3 neighbourhoods of the cells and anything elsewhere."""
        wanted = torch.zeros_like(self._known, dtype=torch.float32)
        wanted[rows, columns] = 1
        wanted = F.max_pool2d(wanted[None, None], 3, stride=1, padding=1)[0, 0]
        missing = (wanted > 0) & ~self._known
        count = int(missing.sum())
        if count > DENSE_SHARE * missing.numel():
            self._values = F.relu(deform(self._tower[None], self._offsets[None], self._weight)[0])
            self._known.fill_(True)
        elif count:
            where = torch.nonzero(missing, as_tuple=True)
            features = deform_conv3x3_at(self._tower, self._offsets, self._weight, *where)
            self._values[:, where[0], where[1]] = F.relu(features).T
            self._known |= missing
        return self._values
