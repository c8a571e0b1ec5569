"""A tiny model and tiny data for the tests of the training room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from poise.data.views import Batch
from poise.settings import Settings
from poise.skeletons import Skeleton
from poise.types import Persons, Poses, View, ViewSpec

PAIR = Skeleton("pair", ("left_end", "right_end"), ((0, 1),), ((0, 1),), (0.05, 0.05))


class TinyConfig(Settings):
    system: Literal["tiny"] = "tiny"
    width: int = 4
    dropout: float = 0.0
    view: ViewSpec = ViewSpec(long_side=32, short_side=None)


class TinyOutputs(NamedTuple):
    score: Tensor
    points: Tensor


class TinyModel(nn.Module):
    """Regresses the mean keypoints of a picture and whether there is anybody."""

    def __init__(self, config: TinyConfig | None = None, skeleton: Skeleton = PAIR) -> None:
        super().__init__()
        self.config = config if config is not None else TinyConfig()
        self.skeleton = skeleton
        self.view = self.config.view
        width = self.config.width
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, 1 + 2 * len(skeleton), 1)
        self.dropout = nn.Dropout(self.config.dropout)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> TinyOutputs:
        values = self.head(self.dropout(self.backbone(images))).mean((2, 3)) * self.scale
        return TinyOutputs(values[:, 0], values[:, 1:].reshape(len(values), -1, 2))

    def loss(self, outputs: TinyOutputs, persons: Sequence[Persons]) -> dict[str, Tensor]:
        there = torch.tensor([float(len(p) > 0) for p in persons], device=outputs.score.device)
        targets = torch.stack(
            [p.keypoints[0, :, :2] / 32 if len(p) else torch.zeros_like(outputs.points[0]) for p in persons]
        )
        return {
            "score": nn.functional.binary_cross_entropy_with_logits(outputs.score, there),
            "points": ((outputs.points - targets) ** 2).mean(),
        }

    def decode(self, outputs: TinyOutputs, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        return [Poses.empty(self.skeleton, size) for size in sizes]

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        return self.decode(self.forward(images), sizes)

    def suppress(self, poses: Poses) -> Poses:
        return poses


def tiny_model(**settings: Any) -> TinyModel:
    """The same weights every time, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return TinyModel(TinyConfig(**settings))


class TinyBatches:
    """Endless batches of some pictures in an order drawn from the epoch's number; the last picture shows nobody."""

    def __init__(self, pictures: int = 8, batch: int = 2) -> None:
        rng = np.random.default_rng(3)
        self.batch = batch
        self.views = []
        for i in range(pictures):
            keypoints = np.concatenate([rng.uniform(0, 16, (1, 2, 2)), np.full((1, 2, 1), 2.0)], 2)
            truth = Persons.from_numpy(keypoints, [[0, 0, 16, 16]], [256.0], np.zeros((0, 4)))
            if i == pictures - 1:
                truth = Persons.empty(2)
            image = torch.from_numpy(rng.standard_normal((3, 16, 16)).astype(np.float32))
            self.views.append(View(image, np.eye(2, 3), (16, 16), (16, 16), image_id=100 + i, persons=truth))
        self.steps_per_epoch = pictures // batch
        self.state = (0, 0)

    def set_state(self, epoch: int, batch: int = 0) -> None:
        self.state = (epoch, batch)

    def names(self, epoch: int, image_ids: Sequence[int | str]) -> list[str]:
        return [f"{epoch}:{i}" for i in image_ids]

    def __iter__(self) -> Iterator[Batch]:
        torch.rand(1)  # as DataLoader does when it starts
        while True:
            epoch, number = self.state
            order = np.random.default_rng((5, epoch)).permutation(len(self.views))
            views = [self.views[i] for i in order[number * self.batch : (number + 1) * self.batch]]
            self.state = (epoch, number + 1) if number + 1 < self.steps_per_epoch else (epoch + 1, 0)
            yield Batch(
                torch.stack([v.image for v in views]), [v.persons for v in views if v.persons is not None], views
            )


class Recorder:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.saves: list[int] = []

    def stepped(self, report: Any) -> None:
        self.reports.append(report)

    def evaluated(self, step: int, metrics: Any, model: Any) -> None:
        self.metrics.append((step, dict(metrics)))

    def saved(self, step: int, model: Any) -> None:
        self.saves.append(step)
