"""PCK of everybody: the share of all labelled keypoints that lie near their place, whoever was found.

A person is given the pose whose box fits the person's box best, however good the pose is: no similarity of keypoints
decides who is found, and scores play no part. With the annotated boxes given to a top-down model, that is the pose made
in the person's own box.

Letters: I pictures, M annotated people, P pairs of a pose and a person of one picture, L limits, B samples of pictures.
Frame: image px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poise.evaluate.bootstrap import SAMPLES, Interval, draw_pictures, interval_of
from poise.evaluate.evaluation import Evaluation
from poise.evaluate.matching import Pairs, keypoint_squares
from poise.evaluate.tables import Floats, Ints, PoseTable, TruthTable

LIMITS = (0.1, 0.2)
"""Distances, in longer sides of a person's box, within which a keypoint is right."""


@dataclass(frozen=True, slots=True)
class BoxPck:
    """Right keypoints, picture by picture.

    Attributes:
        limits: (L,) in longer sides of the person's box.
        right: (L, I) labelled keypoints that are right.
        labelled: (I,) labelled keypoints of people who are no crowd; those of people without a pose are wrong.
        people: number of these people with labelled keypoints.
        found: how many of them have a pose.
    """

    limits: tuple[float, ...]
    right: Ints
    labelled: Ints
    people: int
    found: int

    @property
    def numbers(self) -> dict[str, float]:
        """``PCK@LIMIT`` of every limit, 0..1; 0 where nothing is labelled."""
        total = max(1, int(self.labelled.sum()))
        return {name: float(right.sum() / total) for name, right in zip(self.names, self.right, strict=True)}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers."""
        return tuple(f"PCK@{limit:g}" for limit in self.limits)

    def intervals(self, samples: int = SAMPLES, seed: int = 0) -> dict[str, Interval]:
        """The interval of every number, from resampled pictures (see `poise.evaluate.bootstrap`).

        Raises:
            ValueError: fewer than two samples are asked for.
        """
        weights = draw_pictures(len(self.labelled), samples, seed)
        total = (weights @ self.labelled).clip(1)
        drawn = [weights @ right / total for right in self.right]
        return {name: interval_of(self.numbers[name], values) for name, values in zip(self.names, drawn, strict=True)}


def box_pck(evaluation: Evaluation, limits: Sequence[float] = LIMITS) -> BoxPck:
    """PCK over all labelled keypoints of people who are no crowd; poses are given to them by `poses_by_boxes`.

    A keypoint is right if it is at most a limit times the longer side of the person's box away.
    """
    truth, found = evaluation.truth, evaluation.found
    labelled = truth.labelled & ~truth.ignored[:, None]
    pose_of = poses_by_boxes(truth, found, evaluation.pairs)
    people = np.flatnonzero(pose_of >= 0)
    distances = np.full(labelled.shape, np.inf)
    distances[people] = np.sqrt(keypoint_squares(truth, found, pose_of[people], people))
    sides = truth.boxes[:, 2:].max(1, initial=0)[:, None]
    right = [(labelled & (distances <= limit * sides)).sum(1) for limit in limits]
    counted = labelled.any(1)
    return BoxPck(
        tuple(limits),
        np.array([_by_picture(truth, counts) for counts in right]).reshape(len(limits), -1),
        _by_picture(truth, labelled.sum(1)),
        int(counted.sum()),
        int((counted & (pose_of >= 0)).sum()),
    )


def poses_by_boxes(truth: TruthTable, found: PoseTable, pairs: Pairs) -> Ints:
    """(M,) the pose of every person who is no crowd, or -1: pairs are taken from high to low IoU of their boxes.

    Nobody gets two poses, no pose two people, and no pair whose boxes do not overlap is taken. Of equal pairs the one
    with the pose of the higher score is taken.

    Args:
        truth: the people.
        found: the poses.
        pairs: of `poise.evaluate.matching.pair_up`.
    """
    overlaps = _overlaps(truth, found, pairs)
    useful = np.flatnonzero((overlaps > 0) & ~truth.crowd[pairs.people])
    useful = useful[np.argsort(-overlaps[useful], kind="stable")]
    pose_of = np.full(len(truth), -1)
    free = np.ones(len(found), np.bool_)
    for pose, person in zip(pairs.poses[useful].tolist(), pairs.people[useful].tolist(), strict=True):
        if free[pose] and pose_of[person] < 0:
            pose_of[person] = pose
            free[pose] = False
    return pose_of


def _overlaps(truth: TruthTable, found: PoseTable, pairs: Pairs) -> Floats:
    """(P,) IoU of boxes; 0 where both are empty."""
    a, b = found.boxes[pairs.poses], truth.boxes[pairs.people]
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared
    overlaps: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _by_picture(truth: TruthTable, counts: Ints) -> Ints:
    """(I,) sums over the people of each picture."""
    sums = np.zeros(len(truth.image_ids), np.int64)
    np.add.at(sums, truth.images, counts)
    return sums
