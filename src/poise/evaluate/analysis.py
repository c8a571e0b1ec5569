"""Where average precision is lost: errors of single keypoints, of scores, and people who are not there or not found.

The kinds of errors are those of Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation"
(ICCV 2017, arXiv 1707.05388). People are first given a pose each, from the most similar pair down to a low similarity
(`LOCAL`), so that bad poses are still somebody's. A keypoint of such a pose is compared with every keypoint of its
name, or of the mirrored name, that anybody in the picture has, by the similarity of one keypoint, exp(-d^2 / (2 area
k^2)):

| kind | most similar to | similarity |
|---|---|---|
| good | its own place | from 0.85 |
| jitter | its own place | 0.5 to 0.85 |
| inversion | the mirrored place of the same person | from 0.5 |
| swap | a place of another person | from 0.5 |
| miss | anything | below 0.5 |

An error is corrected by putting the keypoint where it belongs; a score by ranking poses by their true similarity, which
is the "upper limit" of SMPR's Table II; false positives and missed people by leaving them out. Two things differ from
the authors' program. It matches by score, so that a pose that counts as right at a high similarity can be called a
false positive of the analysis; and it puts keypoints at the edge of the next better class. Here everything that is
lost is accounted for: precision, the steps of `Analysis.losses` and `Analysis.imprecision` add up to 1.

Letters: M annotated people, N poses, Q poses that are somebody, K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from poise.evaluate.evaluation import Evaluation
from poise.evaluate.matching import ALL_PEOPLE, Pairs, area_ranges, keypoint_variances, match, pair_up
from poise.evaluate.precision import curves, mean
from poise.evaluate.tables import Bools, Floats, Ints, PoseTable, TruthTable

LOCAL = 0.1
"""Similarity from which a pose is somebody's, for the analysis of its keypoints."""
FOREIGN = 3.0
"""A pose that is so many times as similar to somebody else is that one's: three quarters of its keypoints are."""
JITTER = 0.5
GOOD = 0.85

KeypointKind = Literal["jitter", "inversion", "swap", "miss"]
Kind = Literal["jitter", "inversion", "swap", "miss", "score", "false positive", "missed person"]
KEYPOINT_KINDS: tuple[KeypointKind, ...] = ("jitter", "inversion", "swap", "miss")
STEPS: tuple[Kind, ...] = ("miss", "swap", "inversion", "jitter", "score", "false positive", "missed person")
"""The order in which errors are corrected, one after the other (Ronchi and Perona, Figure 8)."""

UNLABELLED, WELL = -1, 0
"""Classes of keypoints beside 1 + position in `KEYPOINT_KINDS`."""


@dataclass(frozen=True, slots=True)
class KeypointErrors:
    """What is wrong with the keypoints of the poses that are somebody.

    Attributes:
        poses: (Q,) numbers of the poses.
        people: (Q,) who they are.
        classes: (Q, K) int8: `UNLABELLED`, `WELL`, or 1 + position in `KEYPOINT_KINDS`.
    """

    poses: Ints
    people: Ints
    classes: npt.NDArray[np.int8]

    def of(self, kind: KeypointKind) -> Bools:
        """(Q, K) which keypoints have this error."""
        chosen: Bools = self.classes == 1 + KEYPOINT_KINDS.index(kind)
        return chosen


@dataclass(frozen=True, slots=True)
class Precision:
    """Average precision: the mean over OKS 0.5 to 0.95, at 0.5 and at 0.75."""

    ap: float
    ap50: float
    ap75: float


@dataclass(frozen=True, slots=True)
class Loss:
    """What one kind of error costs.

    Attributes:
        kind: of error.
        count: how many keypoints, poses or people have it; for scores, see `outscored`.
        alone: precision if only this were corrected.
        step: precision if this and all kinds before it were corrected.
        lost: AP that the step gains.
    """

    kind: Kind
    count: int
    alone: Precision
    step: Precision
    lost: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """Where average precision is lost.

    Attributes:
        precision: as it is.
        losses: of every kind, in the order of `STEPS`.
        imprecision: AP that is still lost in the end, to keypoints that are good but not exact.
        keypoints: errors of single keypoints.
        duplicates: (N,) bool: false positives that are similar (OKS 0.5) to somebody whom another pose is.
        background: (N,) bool: all other false positives.
        missed: (M,) bool: people who count and whom no pose is similar to (OKS 0.1).
    """

    precision: Precision
    losses: tuple[Loss, ...]
    imprecision: float
    keypoints: KeypointErrors
    duplicates: Bools
    background: Bools
    missed: Bools

    def loss(self, kind: Kind) -> Loss:
        """That of one kind."""
        return self.losses[STEPS.index(kind)]

    @property
    def table(self) -> Mapping[str, tuple[int, ...]]:
        """How often each keypoint has each error, and how often it is good: (K,) counts by name."""
        names = ("good", *KEYPOINT_KINDS)
        return {name: tuple((self.keypoints.classes == i).sum(0).tolist()) for i, name in enumerate(names)}


def analyse(evaluation: Evaluation) -> Analysis:
    """Find the errors and what each kind costs."""
    truth, found, pairs = evaluation.truth, evaluation.found, evaluation.pairs
    owners = assign(truth, found, pairs, LOCAL)
    errors = find_keypoint_errors(truth, found, pairs, owners)
    counted = ~truth.ignored[pairs.people]
    wrong = (owners < 0) & ~_marked(len(found), pairs.poses[~counted & (pairs.similarity >= JITTER)])
    duplicates = wrong & _marked(len(found), pairs.poses[counted & (pairs.similarity >= JITTER)])
    missed = ~truth.ignored & ~_marked(len(truth), errors.people)
    before = Precision(*(evaluation.numbers[name] for name in ("AP", "AP50", "AP75")))
    losses = _losses(truth, found, _Faults(errors, wrong, missed, outscored(evaluation)), before)
    rest = 1 - losses[-1].step.ap if evaluation.curves.people[0] else 0.0
    return Analysis(before, losses, rest, errors, duplicates, wrong & ~duplicates, missed)


def assign(truth: TruthTable, found: PoseTable, pairs: Pairs, least: float) -> Ints:
    """(N,) the person of every pose, or -1: people who count are given one pose each, from the most similar pair on.

    Somebody less similar than OKS 0.5 is given a pose only if it is not `FOREIGN` times as similar to somebody else:
    otherwise second poses of a person would become bad ones of a neighbour.

    Args:
        truth: the people.
        found: the poses.
        pairs: all of them.
        least: pairs that are less similar are left out.
    """
    owners = np.full(len(found), -1)
    free = ~truth.ignored
    most = np.zeros(len(found))
    np.maximum.at(most, pairs.poses, np.where(free[pairs.people], pairs.similarity, 0))
    enough = (pairs.similarity >= JITTER) | (FOREIGN * pairs.similarity >= most[pairs.poses])
    useful = np.flatnonzero(enough & (pairs.similarity >= least) & free[pairs.people])
    useful = useful[np.argsort(-pairs.similarity[useful], kind="stable")]
    for pose, person in zip(pairs.poses[useful].tolist(), pairs.people[useful].tolist(), strict=True):
        if owners[pose] < 0 and free[person]:
            owners[pose] = person
            free[person] = False
    return owners


def find_keypoint_errors(truth: TruthTable, found: PoseTable, pairs: Pairs, owners: Ints) -> KeypointErrors:
    """The class of every keypoint of the poses that are somebody.

    Args:
        truth: the people.
        found: the poses.
        pairs: all of them.
        owners: (N,) the person of every pose, or -1.
    """
    poses = np.flatnonzero(owners >= 0)
    shape = (len(found), len(truth.skeleton))
    own, mirrored, other = (np.full(shape, -1.0) for _ in range(3))
    flip = np.array(truth.skeleton.flip_index)
    chosen = owners[pairs.poses] >= 0
    a, b = pairs.poses[chosen], pairs.people[chosen]
    straight, crossed = _likeness(truth, found, a, b), _likeness(truth, found, a, b, flip)
    mine = b == owners[a]
    own[a[mine]] = straight[mine]
    # without a mirrored counterpart there is nothing to invert
    mirrored[a[mine]] = np.where(flip != np.arange(shape[1]), crossed[mine], -1.0)
    np.maximum.at(other, a[~mine], np.maximum(straight, crossed)[~mine])
    return KeypointErrors(poses, owners[poses], _classes(own[poses], mirrored[poses], other[poses]))


def best_scores(truth: TruthTable, found: PoseTable, pairs: Pairs) -> Floats:
    """(N,) the scores that rank the poses best: their similarity to the person they are assigned to.

    Poses that are nobody, or nobody at OKS 0.5, come after these.
    """
    owners = assign(truth, found, pairs, JITTER)
    scores = np.full(len(found), -1.0)
    np.maximum.at(scores, pairs.poses, pairs.similarity - 1.0)
    mine = owners[pairs.poses] == pairs.people
    scores[pairs.poses[mine]] = pairs.similarity[mine]
    return scores


def outscored(evaluation: Evaluation) -> Ints:
    """Numbers of the poses that are somebody (OKS 0.5) and that a less similar pose, which is nobody, has outscored."""
    truth, found, pairs = evaluation.truth, evaluation.found, evaluation.pairs
    owners = assign(truth, found, pairs, JITTER)
    pose_of = np.full(len(truth), -1)
    pose_of[owners[owners >= 0]] = np.flatnonzero(owners >= 0)
    rivals = (owners[pairs.poses] < 0) & (pairs.similarity >= JITTER) & (pose_of[pairs.people] >= 0)
    better = pose_of[pairs.people[rivals]]
    return np.unique(better[found.scores[better] < found.scores[pairs.poses[rivals]]])


@dataclass(frozen=True, slots=True)
class _Faults:
    """All errors, by position in the tables as they were given."""

    keypoints: KeypointErrors
    wrong: Bools
    missed: Bools
    outscored: Ints

    def corrected(self, truth: TruthTable, found: PoseTable, kinds: tuple[Kind, ...]) -> Precision:
        """Precision if errors of these kinds were corrected."""
        keypoints, scores = found.keypoints.copy(), found.scores
        for kind in KEYPOINT_KINDS:
            if kind in kinds:
                at = self.keypoints.of(kind)
                rows = keypoints[self.keypoints.poses]
                rows[at, :2] = truth.keypoints[self.keypoints.people][at, :2]
                keypoints[self.keypoints.poses] = rows
        if "score" in kinds:
            moved = replace(found, keypoints=keypoints)
            scores = best_scores(truth, moved, pair_up(truth, moved))
        if "missed person" in kinds:
            truth = replace(truth, ignored=truth.ignored | self.missed)
            if self.missed.any() and truth.ignored.all():
                return Precision(1.0, 1.0, 1.0)
        kept = ~self.wrong if "false positive" in kinds else None
        return _precision(truth, found.reordered(keypoints, scores, kept))

    def count(self, kind: Kind) -> int:
        """How many there are."""
        if kind == "score":
            return len(self.outscored)
        if kind == "false positive":
            return int(self.wrong.sum())
        return int(self.missed.sum()) if kind == "missed person" else int(self.keypoints.of(kind).sum())


def _losses(truth: TruthTable, found: PoseTable, faults: _Faults, before: Precision) -> tuple[Loss, ...]:
    losses = []
    last = before
    for number, kind in enumerate(STEPS, 1):
        alone = faults.corrected(truth, found, (kind,))
        step = alone if number == 1 else faults.corrected(truth, found, STEPS[:number])
        losses.append(Loss(kind, faults.count(kind), alone, step, step.ap - last.ap))
        last = step
    return tuple(losses)


def _marked(size: int, places: Ints) -> Bools:
    """(size,) True at the places."""
    marks = np.zeros(size, np.bool_)
    marks[places] = True
    return marks


def _precision(truth: TruthTable, found: PoseTable) -> Precision:
    matches = match(truth, found, pair_up(truth, found), area_ranges(truth, found, ALL_PEOPLE, ("all",)))
    values = curves(matches, truth, found).precision[0]
    return Precision(mean(values), mean(values[0]), mean(values[5]))


def _likeness(truth: TruthTable, found: PoseTable, poses: Ints, people: Ints, flip: Ints | None = None) -> Floats:
    """(P, K) similarity of each keypoint of a pose to that of a person, mirrored if asked; -1 if it is not labelled."""
    there = truth.keypoints[people] if flip is None else truth.keypoints[people][:, flip]
    squares = ((found.keypoints[poses, :, :2] - there[..., :2]) ** 2).sum(-1)
    scale = 2 * keypoint_variances(truth) * (truth.areas[people] + np.spacing(1))[:, None]
    return np.where(there[..., 2] > 0, np.exp(-squares / scale), -1.0)


def _classes(own: Floats, mirrored: Floats, other: Floats) -> npt.NDArray[np.int8]:
    """(Q, K) by similarity to the own place, to the mirrored one, and to the most similar of other people."""
    best = np.maximum(np.maximum(own, mirrored), other)
    conditions = [own < 0, best < JITTER, (own >= best) & (own >= GOOD), own >= best, mirrored >= best]
    numbers = {kind: 1 + i for i, kind in enumerate(KEYPOINT_KINDS)}
    values = [UNLABELLED, numbers["miss"], WELL, numbers["jitter"], numbers["inversion"]]
    return np.select(conditions, values, numbers["swap"]).astype(np.int8)
