"""Exact laziness in DirectPose inference: keypoints only where a detection can still come from.

Letters: B images, h w feature size of a level, G keypoint groups, c channels of a group, K keypoints, d values a
keypoint, n candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from poise.nn.sampling import conv3x3_at

if TYPE_CHECKING:
    from poise.models.directpose import DirectPoseHead, KeypointBranch


class LazyHead:
    """Evaluates the keypoint, box and centre-ness outputs at given cells, from features computed once.

    Args:
        head: the head; nothing of it is changed.
        features: pyramid maps after the shared tower.
        cls_towers: classification tower of every level.
        busy: levels with at least one location above the score threshold; only these may be asked about.
    """

    def __init__(
        self, head: DirectPoseHead, features: Sequence[Tensor], cls_towers: Sequence[Tensor], busy: Sequence[int]
    ) -> None:
        self._head = head
        self._cls_towers = cls_towers
        self._towers = {level: head.keypoint_tower(features[level]) for level in busy}
        self._box_towers = {} if head.box_tower is None else {level: head.box_tower(features[level]) for level in busy}
        self._samplers: dict[int, Tensor] = {}
        if head.align is not None:
            self._samplers = _sampler_features(head.align, features, self._towers, busy)

    def centerness(self, level: int, b: int, index: Tensor) -> Tensor:
        """Centre-ness logits (n,) at flat cells ``index`` of image ``b``."""
        towers: dict[str, Tensor] = {"cls": self._cls_towers[level]}
        if self._head.centerness_on == "keypoint":
            towers["keypoint"] = self._towers[level]
        elif self._head.centerness_on == "box":
            towers["box"] = self._box_towers[level]
        tower = towers[self._head.centerness_on]
        rows, columns = _cells(index, tower)
        return conv3x3_at(self._head.centerness, tower[b], rows, columns)[:, 0]

    def evaluate(self, level: int, b: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Keypoints (n, K, d) in strides and, with a box branch, side distances (n, 4), at flat cells ``index``."""
        head, tower = self._head, self._towers[level]
        rows, columns = _cells(index, tower)
        if head.align is None:
            keypoints = conv3x3_at(head.naive_output, tower[b], rows, columns).unflatten(1, (-1, 2))
        else:
            needed = {source: self._samplers[source][b] for source in head.align.sources(level)}
            keypoints = head.align.at(level, tower[b], needed, rows, columns)
        boxes = None
        if head.box_output is not None:
            boxes = head.boxes_of(level, conv3x3_at(head.box_output, self._box_towers[level][b], rows, columns))
        return head.scaled(level, keypoints, 2), boxes


def _cells(index: Tensor, tower: Tensor) -> tuple[Tensor, Tensor]:
    width = tower.shape[-1]
    return torch.div(index, width, rounding_mode="floor"), index % width


def _sampler_features(
    align: KeypointBranch, features: Sequence[Tensor], towers: dict[int, Tensor], busy: Sequence[int]
) -> dict[int, Tensor]:
    """Sampler features (B, C, h, w) of every level that some busy level reads; unread groups stay 0."""
    from poise.models.directpose import run_groups

    wanted: dict[int, set[int]] = {}
    for level in busy:
        for source, groups in align.sources(level).items():
            wanted.setdefault(source, set()).update(groups)
    total = len(align.groups)
    maps: dict[int, Tensor] = {}
    for source, needed in wanted.items():
        groups = sorted(needed)
        if not align.separate or len(groups) == total:
            tower = towers[source] if source in towers else align.tower(features[source])
            maps[source] = align.sampler(tower)
            continue
        if source in towers:
            channels = towers[source].unflatten(1, (total, -1))[:, groups].flatten(1, 2)
        else:
            channels = run_groups(align.tower, features[source], groups, total)
        part = run_groups(align.sampler, channels, groups, total)
        size = part.shape[-2:]
        whole = part.new_zeros(len(part), *size, total, align.group_channels).permute(0, 3, 4, 1, 2)  # channels last
        whole[:, groups] = part.unflatten(1, (len(groups), -1))
        maps[source] = whole.flatten(1, 2)
    return maps
