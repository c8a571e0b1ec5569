"""A model that finds coloured dots exactly, pictures of such dots, and their truth.

A person is two dots of one colour (red, green or blue), at most one person a colour. As with people, what is left
depends on the view: it is the end at the right side of the picture. The brightness of the dots is the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from poise.settings import Settings
from poise.skeletons import Skeleton
from poise.types import ImageArray, Poses, ViewSpec

DOTS = Skeleton("dots", ("left_end", "middle", "right_end"), ((0, 1), (1, 2)), ((0, 2),), (0.05, 0.05, 0.05))
Point = tuple[float, float]
Person = tuple[Point, Point, float]
"""Left end, right end (image px), brightness 0..1."""
_THRESHOLD = 0.1


class DotConfig(Settings):
    system: Literal["dots"] = "dots"
    view: ViewSpec = ViewSpec(long_side=256, short_side=None, mean=(0, 0, 0), std=(1, 1, 1))


class DotModel(nn.Module):
    def __init__(self, **view: object) -> None:
        super().__init__()
        self.config = DotConfig(view=ViewSpec.parse({**DotConfig().view.model_dump(), **view}))
        self.skeleton = DOTS
        self.view = self.config.view
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2] % self.view.stride == 0
        assert images.shape[3] % self.view.stride == 0
        self.batches.append(tuple(images.shape))
        return images

    def decode(self, outputs: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        return [self._find(image[:, : size[0], : size[1]].cpu()) for image, size in zip(outputs, sizes, strict=True)]

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        assert torch.is_inference_mode_enabled()
        return self.decode(self.forward(images), sizes)

    def suppress(self, poses: Poses) -> Poses:
        """One pose for all within a few pixels of each other; worst first, to see that order is not left to models."""
        kept: list[int] = []
        for i in np.argsort(-poses.scores):
            distance = np.abs(poses.keypoints[i] - poses.keypoints[kept]).mean((1, 2))
            if not (distance < 3).any():
                kept.append(int(i))
        return poses[kept[::-1]]

    def _find(self, image: Tensor) -> Poses:
        people = [self._person(channel.numpy()) for channel in image]
        found = [person for person in people if person is not None]
        if not found:
            return Poses.empty(self.skeleton)
        points = np.array([p for p, _ in found])
        scores = np.array([s for _, s in found])
        boxes = np.concatenate([points.min(1) - 8, points.max(1) + 8], 1)
        return Poses(points, np.repeat(scores[:, None], 3, 1), boxes, scores, self.skeleton)

    def _person(self, values: np.ndarray) -> tuple[np.ndarray, float] | None:
        weight = np.maximum(values - _THRESHOLD, 0)
        count, labels = cv2.connectedComponents((weight > 0).astype(np.uint8))
        if count != 3:
            return None
        rows, columns = np.indices(values.shape)
        ends = []
        for label in (1, 2):
            here = weight * (labels == label)
            ends.append(((columns * here).sum() / here.sum(), (rows * here).sum() / here.sum()))
        right, left = sorted(ends)
        middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
        return np.array([left, middle, right]), float(min(1.0, values.max()))


def dot_picture(size: tuple[int, int], people: Sequence[Person], sigma: float = 4.0) -> ImageArray:
    """A picture (H, W) with one person a colour."""
    picture = np.zeros((*size, 3))
    rows, columns = np.indices(size)
    for channel, (left, right, brightness) in enumerate(people):
        for x, y in (left, right):
            dot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
            picture[..., channel] += brightness * dot
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def random_people(rng: np.random.Generator, size: tuple[int, int], count: int, margin: float = 16) -> list[Person]:
    """People whose ends are well inside the picture and well apart, with different brightness."""
    height, width = size
    people = []
    for i in range(count):
        left_x = rng.uniform(0.6 * width, width - margin)
        right_x = rng.uniform(margin, 0.4 * width)
        left_y, right_y = rng.uniform(margin, height - margin, 2)
        people.append(((left_x, left_y), (right_x, right_y), 1.0 - 0.2 * i))
    return people


def keypoints_of(people: Sequence[Person]) -> np.ndarray:
    """(N, 3, 2) truth: left end, middle, right end."""
    ends = np.array([(left, right) for left, right, _ in people]).reshape(-1, 2, 2)
    return np.stack([ends[:, 0], ends.mean(1), ends[:, 1]], 1)
