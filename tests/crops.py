"""A top-down model that reads the two ends of a person off a crop exactly, and pictures for it.

A person is two dots of any colour, side by side; as in `dots`, left is the end at the right side of what is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dots import Person, dot_picture
from poise.settings import Settings
from poise.skeletons import Skeleton
from poise.types import FloatArray, ImageArray, Persons, Poses, ViewSpec

ENDS = Skeleton("ends", ("left_end", "right_end"), ((0, 1),), ((0, 1),), (0.05, 0.05))
VIEW = ViewSpec(
    kind="crop", size=(64, 64), extension=(1.2, 1.2), mean=(0, 0, 0), std=(1, 1, 1), half_pixel=False, stride=32
)
STRIDE = 4


class CropConfig(Settings):
    system: Literal["crops"] = "crops"
    score_offset: float = 0.5
    score_power: float = 1.0
    peak: float = 1.0
    view: ViewSpec = VIEW


class CropMaps(NamedTuple):
    heatmaps: tuple[Tensor, ...]


class CropModel(nn.Module):
    """Heatmaps are the brightness of the right and of the left half of a crop, times 255."""

    def __init__(self, skeleton: Skeleton = ENDS, **settings: Any) -> None:
        super().__init__()
        self.config = CropConfig(**settings)
        self.skeleton = skeleton
        self.view = self.config.view
        self.batches: list[int] = []

    def heatmaps(self, images: Tensor) -> Tensor:
        assert images.shape[-2:] == self.view.size
        assert torch.is_inference_mode_enabled()
        self.batches.append(len(images))
        maps = 255 * self.config.peak * F.avg_pool2d(images.sum(1, keepdim=True), STRIDE)
        right = (torch.arange(maps.shape[-1]) >= maps.shape[-1] / 2).float()
        return torch.cat([maps * right, maps * (1 - right)], 1)

    def forward(self, images: Tensor) -> CropMaps:
        return CropMaps((self.heatmaps(images),))

    def loss(self, outputs: CropMaps, persons: Sequence[Persons]) -> dict[str, Tensor]:
        raise NotImplementedError

    def decode(self, outputs: CropMaps, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        points, marks = self.decode_heatmaps(outputs.heatmaps[-1])
        found = []
        for each, scores, (height, width) in zip(points, marks, sizes, strict=True):
            box = [[0, 0, width - 1, height - 1]]
            found.append(Poses(each[None], scores[None], box, [scores.mean()], self.skeleton, (height, width)))
        return found

    def decode_heatmaps(self, heatmaps: Tensor) -> tuple[FloatArray, FloatArray]:
        """The centre of mass of each map; its highest cell and the offset are the score."""
        maps = heatmaps.double().numpy()
        weights = np.maximum(maps - 10, 1e-9)
        rows, columns = np.indices(maps.shape[2:])
        total = weights.sum((2, 3))
        centres = [(columns * weights).sum((2, 3)) / total, (rows * weights).sum((2, 3)) / total]
        points = STRIDE * np.stack(centres, -1) + (STRIDE - 1) / 2
        return points.astype(np.float32), np.float32(maps.max((2, 3)) / 255 + self.config.score_offset)

    def pose_scores(self, keypoint_scores: FloatArray) -> FloatArray:
        return keypoint_scores.mean(1)

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        return self.decode(self.forward(images), sizes)

    def suppress(self, poses: Poses) -> Poses:
        """Worst first, and without those within a pixel of a better one."""
        kept: list[int] = []
        for i in np.argsort(-poses.scores):
            if not (np.abs(poses.keypoints[i] - poses.keypoints[kept]).max((1, 2), initial=0) < 1).any() or not kept:
                kept.append(int(i))
        return replace(poses[kept[::-1]])


def row_of_people(count: int, seed: int = 0) -> list[Person]:
    """Up to three people beside each other in a picture of 120 x 80 ``count``, one a colour."""
    rng = np.random.default_rng(seed)
    people = []
    for i in range(count):
        y, tilt = rng.uniform(50, 70), rng.uniform(-8, 8)
        people.append(((80 * i + 55.0, y + tilt), (80 * i + 25.0, y - tilt), 1.0 - 0.2 * i))
    return people


def row_picture(count: int, seed: int = 0) -> ImageArray:
    return dot_picture((120, 80 * max(count, 1)), row_of_people(count, seed), sigma=3)


def ends_of(people: Sequence[Person]) -> np.ndarray:
    """(N, 2, 2) truth: left end, right end."""
    return np.array([(left, right) for left, right, _ in people]).reshape(-1, 2, 2)


def box_of(person: Person, margin: float = 8) -> list[float]:
    """xyxy."""
    points = np.array(person[:2])
    return [*(points.min(0) - margin), *(points.max(0) + margin)]
