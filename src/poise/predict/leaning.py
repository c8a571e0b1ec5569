"""Further looks at people who lean: turned until the torso points up, with more and less around them (ours).

A network that has learnt from upright people finds more of a person whom it sees upright. The first pose says how far
to turn; the mean of several looks is better than each of them: with an earlier `rsn_small`, of the joints of 493
athletes (LSPET) 78.1 percent lay within a fifth of the box's longer side for the surest of four quarter turns, 79.1 to
79.4 for one further look, and 80.1 for the mean of all.

Letters: K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from poise.data.crop_config import CropConfig
from poise.data.crop_upright import lean, torso_masks
from poise.data.samples import Mask
from poise.geometry import affine
from poise.skeletons import Skeleton
from poise.types import FloatArray, Poses

LEAST = 10.0
"""Degrees; who leans less is upright enough."""

GROWTHS = (1.05, 1.2, 1.5)
"""How much larger than the extent of the keypoints the box of each look is."""

Torso = tuple[Mask, Mask]


class Look(NamedTuple):
    """How to look at a person once more.

    Attributes:
        box: (4,) xyxy; about its centre the picture is turned.
        degrees: counter-clockwise.
    """

    box: FloatArray
    degrees: float


def torso_of(skeleton: Skeleton) -> Torso | None:
    """(K,) the lower and the upper end of the torso; None if the skeleton has no hips or shoulders of these names."""
    lower, upper = CropConfig().torso
    if not {*lower, *upper} <= set(skeleton.keypoints):
        return None
    return torso_masks(lower, upper, skeleton.keypoints)


def further_looks(pose: Poses, torso: Torso) -> Iterator[Look]:
    """How to look at the person of a pose once more; nothing if the torso points up."""
    points = pose.keypoints[0].astype(np.float64)
    degrees = lean(np.column_stack([points, np.ones(len(points))]), torso)
    if degrees is None or abs(degrees) < LEAST:
        return
    matrix = affine.rotation(degrees, (0.0, 0.0))
    turned = affine.apply(matrix, points)
    low, high = turned.min(0), turned.max(0)
    centre = affine.apply(affine.invert(matrix), (low + high) / 2)
    for growth in GROWTHS:
        half = (high - low) * growth / 2
        yield Look(np.concatenate([centre - half, centre + half]).astype(np.float32), degrees)


def mean_pose(looks: Sequence[Poses]) -> Poses:
    """The mean of several looks at one person, of keypoints by their scores; all else is of the first look."""
    weights = np.stack([look.keypoint_scores for look in looks])
    shares = weights / weights.sum(0).clip(min=1e-6)
    nowhere = weights.sum(0) <= 1e-6
    keypoints = (np.stack([look.keypoints for look in looks]) * shares[..., None]).sum(0)
    keypoints[nowhere] = looks[0].keypoints[nowhere]
    return replace(
        looks[0],
        keypoints=keypoints.astype(np.float32),
        keypoint_scores=weights.mean(0).astype(np.float32),
        scores=np.mean([look.scores for look in looks], 0).astype(np.float32),
    )
