"""People who walk through a picture, with known truth, and what a detector would make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from poise.skeletons import COCO17
from poise.types import Poses

SIZE = (480, 854)
_STANDING = np.array(
    [(0, -0.93), (0.02, -0.95), (-0.02, -0.95), (0.045, -0.94), (-0.045, -0.94), (0.1, -0.82), (-0.1, -0.82),
     (0.13, -0.64), (-0.13, -0.64), (0.14, -0.48), (-0.14, -0.48), (0.07, -0.52), (-0.07, -0.52), (0.07, -0.28),
     (-0.07, -0.28), (0.07, -0.04), (-0.07, -0.04)]
)  # fmt: skip
"""COCO keypoints of a person of height 1 with the feet at the origin."""
_SWING = {7: -0.3, 9: -0.8, 8: 0.3, 10: 0.8, 13: 0.4, 15: 1.0, 14: -0.4, 16: -1.0}
"""How far elbows, wrists, knees and ankles swing with the step."""


@dataclass(frozen=True)
class Walker:
    """Somebody on a straight way; nearer people (larger) hide farther ones."""

    start: tuple[float, float]
    speed: tuple[float, float]
    height: float
    first: int = 0
    last: int = 10**9
    phase: float = 0.0

    def keypoints(self, frame: int) -> np.ndarray:
        """(17, 2) at a frame."""
        points = _STANDING * self.height
        step = 0.12 * self.height * np.sin(0.35 * frame + self.phase)
        for index, share in _SWING.items():
            points[index, 0] += share * step
        time = frame - self.first
        return points + np.add(self.start, np.multiply(self.speed, time))


def true_frames(walkers: list[Walker], count: int) -> list[Poses]:
    """The truth of every frame; id 1 is the first walker. Who is outside the picture is not there."""
    return [_true_frame(walkers, frame) for frame in range(count)]


def _true_frame(walkers: list[Walker], frame: int) -> Poses:
    present = [(i + 1, w.keypoints(frame)) for i, w in enumerate(walkers) if w.first <= frame <= w.last]
    inside = [(i, p) for i, p in present if 0 <= p[:, 0].mean() < SIZE[1]]
    if not inside:
        return replace(Poses.empty(COCO17, SIZE), ids=np.zeros(0, int), frame=frame)
    points = np.array([p for _, p in inside])
    boxes = boxes_of(points)
    n = len(points)
    return Poses(
        points, np.ones((n, 17)), boxes, np.ones(n), COCO17, SIZE, ids=np.array([i for i, _ in inside]), frame=frame
    )


def boxes_of(points: np.ndarray) -> np.ndarray:
    """(N, 4) around keypoints (N, K, 2), a little wider."""
    low, high = points.min(1), points.max(1)
    pad = 0.05 * (high - low)
    return np.concatenate([low - pad, high + pad], 1)


def detected(
    truth: list[Poses],
    seed: int,
    *,
    noise: float = 0.012,
    missed: float = 0.05,
    false: float = 0.1,
    hidden: float = 0.7,
) -> list[Poses]:
    """What a detector would find: no ids, noise (in heights), misses, unsure poses, false ones, hidden people lost."""
    rng = np.random.default_rng(seed)
    return [_detect(poses, rng, noise, missed, false, hidden) for poses in truth]


def _detect(truth: Poses, rng: np.random.Generator, noise: float, missed: float, false: float, hidden: float) -> Poses:
    heights = truth.boxes[:, 3] - truth.boxes[:, 1]
    shown = (rng.random(len(truth)) >= missed) & (_covered(truth.boxes) < hidden)
    points = truth.keypoints + rng.normal(0, noise, truth.keypoints.shape) * heights[:, None, None]
    scores = np.clip(rng.normal(0.7, 0.15, len(truth)), 0.1, 1)
    marks = np.clip(rng.normal(0.7, 0.2, points.shape[:2]), 0.05, 1)
    parts = [Poses(points, marks, boxes_of(points) if len(points) else np.zeros((0, 4)), scores, COCO17, SIZE)[shown]]
    if rng.random() < false:
        centre = rng.uniform((0, 100), (SIZE[1], SIZE[0]))
        ghost = (_STANDING * rng.uniform(80, 200) + centre + rng.normal(0, 10, (17, 2)))[None]
        parts.append(Poses(ghost, np.full((1, 17), 0.3), boxes_of(ghost), [0.4], COCO17, SIZE))
    found = Poses.concatenate(parts)
    return replace(found[rng.permutation(len(found))], frame=truth.frame)


def _covered(boxes: np.ndarray) -> np.ndarray:
    """(N,) largest share of each box that a nearer (lower standing) person covers."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2) / (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    nearer = boxes[None, :, 3] > boxes[:, None, 3]
    return (shared * nearer).max(1, initial=0)


def crowd(seed: int, count: int = 7, frames: int = 300) -> list[Walker]:
    """People who walk to and fro at all depths, enter and leave, and cross each other's ways often."""
    rng = np.random.default_rng(seed)
    walkers = []
    for i in range(count):
        height = rng.uniform(110, 260)
        right = bool(rng.integers(2))
        x = rng.uniform(0, 300) if right else SIZE[1] - rng.uniform(0, 300)
        speed = height * rng.uniform(0.008, 0.03) * (1 if right else -1)
        first = 0 if i < 4 else int(rng.integers(20, frames // 2))
        walkers.append(Walker((x, 230 + height * 0.8), (speed, rng.normal(0, 0.1)), height, first, phase=7.0 * i))
    return walkers
