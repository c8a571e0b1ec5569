"""The numbers taken apart: by size, by number of people, by occlusion, by keypoint and by score.

Letters: M annotated people, N poses, K keypoints, G groups of people. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from poise.evaluate.evaluation import Evaluation
from poise.evaluate.matching import (
    Matches,
    Ranges,
    area_ranges,
    keypoint_squares,
    keypoint_variances,
    match,
)
from poise.evaluate.precision import curves, mean
from poise.evaluate.tables import Bools, Floats, Ints, TruthTable
from poise.geometry.consensus import box_iou

SIZES = (32.0, 64.0, 96.0, 192.0)
"""Roots of the areas between which people are grouped, px."""
COUNTS = (2, 5, 10)
"""Numbers of people from which the next group of pictures begins."""
OCCLUDED = (1e-9, 1 / 3)
"""Shares of a person's labelled keypoints that are occluded, from which the next group begins."""
OVERLAPS = (0.1, 0.5)
"""Largest IoU of a person's box with another person's from which the next group begins (OCHuman is about 0.5 up)."""
PCK = (0.05, 0.1, 0.2)
"""Distances, in longer sides of a person's box, within which a keypoint is correct."""
NEAR = 0.1
"""A pose that is nobody belongs to the most similar person from this similarity on."""
BINS = 10
_OKS50 = 0

Property = Literal["size", "people", "occlusion", "overlap"]
PROPERTIES: dict[Property, str] = {
    "size": "root of the person's area, px",
    "people": "people in the picture",
    "occlusion": "share of occluded keypoints",
    "overlap": "box IoU with the nearest person",
}


@dataclass(frozen=True, slots=True)
class Group:
    """The numbers of some people.

    Attributes:
        property: what the people are grouped by.
        name: of the group: the values of the property.
        people: how many there are.
        ap: average precision.
        ap50: the same at OKS 0.5.
        ar: average recall.
    """

    property: Property
    name: str
    people: int
    ap: float
    ap50: float
    ar: float


@dataclass(frozen=True, slots=True)
class KeypointScore:
    """How well one keypoint is found.

    Attributes:
        name: of the keypoint.
        labelled: how often it is labelled, on people who count.
        found: how many of these are on people who were found (matched at OKS 0.5).
        oks: mean similarity on these people: exp(-d^2 / (2 area k^2)).
        pck: share of all labelled ones (people who were not found included) within each distance of `PCK`.
    """

    name: str
    labelled: int
    found: int
    oks: float
    pck: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores are worth; a pose is right if it is somebody at OKS 0.5.

    Attributes:
        edges: (BINS + 1,) of the bins of scores.
        counts: (BINS,) poses that are right or wrong.
        scores: (BINS,) their mean score; NaN in an empty bin.
        right: (BINS,) share of right ones; NaN in an empty bin.
        error: expected calibration error: mean of |score - share| over all poses; NaN if there is none, or if scores
            do not lie in 0..1.
    """

    edges: Floats
    counts: Ints
    scores: Floats
    right: Floats
    error: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The score above which poses are worth most: where the harmonic mean of precision and recall is largest.

    Attributes:
        score: the threshold.
        precision: of the poses above it, at OKS 0.5.
        recall: of these.
        f1: the harmonic mean.
    """

    score: float
    precision: float
    recall: float
    f1: float


def group_scores(evaluation: Evaluation) -> list[Group]:
    """AP and AR of people by size, number of people in the picture, occlusion and overlap; no empty groups.

    For size, poses that are nobody count in the group of their own area, as in COCO's medium and large; for the number
    of people, in their picture's; for the others in the group of the person they are most similar to, and where they
    are similar to nobody (OKS below `NEAR`) in every group.
    """
    truth = evaluation.truth
    groups = _groups_by_size(evaluation) + _groups_by_count(evaluation)
    labelled = truth.labelled.sum(1).clip(1)
    hidden = (truth.keypoints[..., 2] == 1).sum(1) / labelled
    groups += _groups_by_label(evaluation, "occlusion", hidden, OCCLUDED, ("none", "up to 1/3", "more"))
    overlaps = largest_overlaps(truth)
    return groups + _groups_by_label(evaluation, "overlap", overlaps, OVERLAPS, ("below 0.1", "0.1 to 0.5", "from 0.5"))


def largest_overlaps(truth: TruthTable) -> Floats:
    """(M,) largest IoU of a person's box with the box of another one, crowds left aside; 0 for who is alone."""
    corners = truth.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    result = np.zeros(len(truth))
    for people in _by_picture(truth):
        if len(people) > 1:
            boxes = corners[people].astype(np.float32)
            overlap = box_iou(boxes, boxes)
            np.fill_diagonal(overlap, 0)
            result[people] = overlap.max(1)
    return result


def keypoint_scores(evaluation: Evaluation) -> list[KeypointScore]:
    """How well each keypoint is found."""
    truth, found = evaluation.truth, evaluation.found
    poses = np.flatnonzero(evaluation.matches.right[0, _OKS50])
    people = evaluation.matches.person[0, _OKS50, poses].astype(np.int64)
    squares = keypoint_squares(truth, found, poses, people)
    labelled = truth.labelled & ~truth.ignored[:, None]
    seen = labelled[people]
    similarity = np.exp(-squares / keypoint_variances(truth) / (truth.areas[people] + np.spacing(1))[:, None] / 2)
    distances = np.sqrt(squares) / truth.boxes[people, 2:].max(1, initial=np.spacing(1))[:, None]
    total, matched = labelled.sum(0), seen.sum(0)
    oks = (similarity * seen).sum(0) / matched.clip(1)
    pck = [((distances <= limit) & seen).sum(0) / total.clip(1) for limit in PCK]
    return [
        KeypointScore(name, int(total[k]), int(matched[k]), float(oks[k]), tuple(float(p[k]) for p in pck))
        for k, name in enumerate(truth.skeleton.keypoints)
    ]


def calibration(evaluation: Evaluation) -> Calibration:
    """How often poses of a score are right, in `BINS` bins of equal width over 0..1, or over all scores if wider."""
    right, wrong = evaluation.matches.right[0, _OKS50], evaluation.matches.wrong[0, _OKS50]
    counted = right | wrong
    scores, good = evaluation.found.scores[counted], right[counted]
    low, high = min(0.0, float(scores.min(initial=0))), max(1.0, float(scores.max(initial=1)))
    edges = np.linspace(low, high, BINS + 1)
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    divisor = np.where(counts > 0, counts, np.nan)
    means = np.bincount(bins, scores, BINS) / divisor
    shares = np.bincount(bins, good, BINS) / divisor
    fits = len(scores) > 0 and (low, high) == (0.0, 1.0)
    error = float(np.nansum(np.abs(means - shares) * counts) / len(scores)) if fits else float("nan")
    return Calibration(edges, counts, means, shares, error)


def operating_point(evaluation: Evaluation) -> OperatingPoint | None:
    """The best score threshold at OKS 0.5; None if nobody was found."""
    right, wrong = evaluation.matches.right[0, _OKS50], evaluation.matches.wrong[0, _OKS50]
    people = int(evaluation.curves.people[0])
    order = np.argsort(-evaluation.found.scores, kind="stable")
    good, bad = np.cumsum(right[order]), np.cumsum(wrong[order])
    if people == 0 or not right.any():
        return None
    scores = evaluation.found.scores[order]
    # equal scores pass together
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    f1 = 2 * good[ends] / (good[ends] + bad[ends] + people)
    best = int(ends[f1.argmax()])
    precision = float(good[best] / (good[best] + bad[best]))
    return OperatingPoint(float(scores[best]), precision, float(good[best] / people), float(f1.max()))


def _by_picture(truth: TruthTable) -> list[Ints]:
    """For every picture the numbers of its people who are no crowd."""
    people = np.flatnonzero(~truth.crowd)
    people = people[np.argsort(truth.images[people], kind="stable")]
    return np.split(people, np.flatnonzero(np.diff(truth.images[people])) + 1)


def _groups_by_size(evaluation: Evaluation) -> list[Group]:
    roots = (0.0, *SIZES, 1e5)
    limits = np.array([(a * a, np.nextafter(b * b, 0)) for a, b in pairwise(roots)])
    ranges = area_ranges(evaluation.truth, evaluation.found, limits, _spans([f"{root:g}" for root in SIZES]))
    return _scores(evaluation, "size", ranges)


def _spans(limits: Sequence[str]) -> tuple[str, ...]:
    between = [f"{a} to {b}" for a, b in pairwise(limits)]
    return (f"below {limits[0]}", *between, f"from {limits[-1]}")


def _groups_by_count(evaluation: Evaluation) -> list[Group]:
    truth = evaluation.truth
    people = np.bincount(truth.images[~truth.ignored], minlength=len(truth.image_ids))
    group = np.searchsorted(np.array(COUNTS), people, side="right")
    ends = [limit - 1 for limit in COUNTS]
    starts = (1, *COUNTS)
    names = [f"{a} to {b}" if a < b else str(a) for a, b in zip(starts[:-1], ends, strict=True)] + [f"{COUNTS[-1]} up"]
    result = []
    for number, name in enumerate(names):
        pictures = np.flatnonzero((group == number) & (people > 0))
        lines = curves(evaluation.matches, truth, evaluation.found, pictures)
        if lines.people[0]:
            numbers = (mean(lines.precision[0]), mean(lines.precision[0, _OKS50]), mean(lines.recall[0]))
            result.append(Group("people", name, int(lines.people[0]), *numbers))
    return result


def _groups_by_label(
    evaluation: Evaluation, kind: Property, values: Floats, limits: tuple[float, ...], names: tuple[str, ...]
) -> list[Group]:
    group = np.searchsorted(np.array(limits), values, side="right")
    numbers = np.arange(len(names))[:, None]
    people_out: Bools = evaluation.truth.ignored | (group != numbers)
    nearest = nearest_people(evaluation)
    # somebody is read for -1, and not used
    theirs = group[nearest] if len(group) else np.zeros(len(nearest), np.int64)
    return _scores(evaluation, kind, Ranges(names, people_out, (nearest >= 0) & (theirs != numbers)))


def nearest_people(evaluation: Evaluation) -> Ints:
    """(N,) the most similar person who counts, of every pose; -1 where nobody is as similar as `NEAR`."""
    pairs = evaluation.pairs
    chosen = np.flatnonzero((pairs.similarity >= NEAR) & ~evaluation.truth.ignored[pairs.people])
    chosen = chosen[np.argsort(pairs.similarity[chosen], kind="stable")]
    nearest = np.full(len(evaluation.found), -1)
    # the last one written stays: the most similar
    nearest[pairs.poses[chosen]] = pairs.people[chosen]
    return nearest


def _scores(evaluation: Evaluation, kind: Property, ranges: Ranges) -> list[Group]:
    matches: Matches = match(evaluation.truth, evaluation.found, evaluation.pairs, ranges)
    lines = curves(matches, evaluation.truth, evaluation.found)
    return [
        Group(
            kind, name, int(lines.people[a]), mean(lines.precision[a]), mean(lines.precision[a, _OKS50]),
            mean(lines.recall[a]),
        )
        for a, name in enumerate(ranges.names)
        if lines.people[a]
    ]  # fmt: skip
