"""The worst cases of every kind of error, and pictures of them.

Letters: M annotated people, N poses, K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from poise.draw import draw_poses
from poise.evaluate.analysis import JITTER, KEYPOINT_KINDS, STEPS, Analysis, KeypointKind, Kind
from poise.evaluate.evaluation import Evaluation
from poise.evaluate.tables import Floats, Ints
from poise.types import ImageArray, Poses

TRUTH = "white"
"""Style of annotated people; poses have their usual colours."""
WRONG = (235, 40, 60)
"""Colour of the lines from wrong keypoints to where they belong."""
LONGEST = 420
"""Longer side of a drawn example, px."""
_MARGIN = 0.18
_EMPTY = 96


@dataclass(frozen=True, slots=True)
class Example:
    """One case of an error.

    Attributes:
        kind: of the error.
        picture: number of the picture.
        pose: number of the pose, or None.
        person: number of the person, or None.
        keypoints: numbers of the wrong keypoints.
        caption: what is to be seen.
    """

    kind: Kind
    picture: int
    pose: int | None
    person: int | None
    keypoints: tuple[int, ...]
    caption: str


def worst_cases(evaluation: Evaluation, analysis: Analysis, count: int = 6) -> dict[Kind, list[Example]]:
    """The worst cases of every kind, at most ``count``, each of another picture while there are enough.

    Keypoints: the poses with the most wrong ones. Scores: good poses with the lowest ranks. False positives: the
    highest scores. Missed people: the largest.
    """
    cases: dict[Kind, list[Example]] = {kind: [] for kind in STEPS}
    for kind in KEYPOINT_KINDS:
        cases[kind] = _pick(_keypoint_cases(evaluation, analysis, kind), count)
    cases["score"] = _pick(_score_cases(evaluation, analysis), count)
    cases["false positive"] = _pick(_false_positives(evaluation, analysis), count)
    cases["missed person"] = _pick(_missed_people(evaluation, analysis), count)
    return cases


def draw_example(image: ImageArray | None, evaluation: Evaluation, example: Example) -> ImageArray:
    """The part of a picture that an example is about: truth in white, the pose in colours, errors as red lines.

    Args:
        image: (H, W, 3) RGB; None draws on grey.
        evaluation: of the example.
        example: what to show.

    Returns:
        (h, w, 3) RGB, at most `LONGEST` px.
    """
    truth, found = _truth(evaluation, example.person), _pose(evaluation, example.pose)
    x, y, width, height = _region(np.concatenate([truth, found]), image)
    scale = min(4.0, LONGEST / max(width, height))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    if image is None:
        canvas = np.full((size[1], size[0], 3), _EMPTY, np.uint8)
    else:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        canvas = np.asarray(cv2.resize(image[y : y + height, x : x + width], size, interpolation=method), np.uint8)
    truth, found = ((points - (x, y)) * scale for points in (truth, found))
    if example.person is not None:
        canvas = draw_poses(canvas, _as_poses(truth, evaluation), style=TRUTH)
    if example.pose is not None:
        canvas = draw_poses(canvas, _as_poses(found, evaluation))
    for k in example.keypoints:
        _connect(canvas, found[k], truth[k])
    return canvas


def _keypoint_cases(evaluation: Evaluation, analysis: Analysis, kind: KeypointKind) -> Iterable[Example]:
    errors = analysis.keypoints
    wrong = errors.of(kind)
    counts = wrong.sum(1)
    order = np.lexsort((-evaluation.found.scores[errors.poses], -counts))
    for q in order[counts[order] > 0].tolist():
        pose, person = int(errors.poses[q]), int(errors.people[q])
        places = tuple(np.flatnonzero(wrong[q]).tolist())
        names = ", ".join(evaluation.truth.skeleton.keypoints[k] for k in places[:4])
        more = f" and {len(places) - 4} more" if len(places) > 4 else ""
        text = f"{kind} of {names}{more}; {_numbers(evaluation, pose, person)}"
        yield Example(kind, int(evaluation.found.images[pose]), pose, person, places, text)


def _score_cases(evaluation: Evaluation, analysis: Analysis) -> Iterable[Example]:
    found, errors = evaluation.found, analysis.keypoints
    similarity = _similarity(evaluation, errors.poses, errors.people)
    wrong = np.sort(found.scores[analysis.duplicates | analysis.background])
    if len(wrong) == 0:
        return
    outdone = 1 - np.searchsorted(wrong, found.scores[errors.poses], side="right") / len(wrong)
    badness = outdone * similarity
    for q in np.argsort(-badness, kind="stable").tolist():
        if similarity[q] < JITTER or outdone[q] == 0:
            continue
        pose, person = int(errors.poses[q]), int(errors.people[q])
        text = f"{100 * outdone[q]:.0f} % of the false positives score higher; {_numbers(evaluation, pose, person)}"
        yield Example("score", int(found.images[pose]), pose, person, (), text)


def _false_positives(evaluation: Evaluation, analysis: Analysis) -> Iterable[Example]:
    found = evaluation.found
    poses = np.flatnonzero(analysis.duplicates | analysis.background)
    for pose in poses[np.argsort(-found.scores[poses], kind="stable")].tolist():
        mine = np.flatnonzero(evaluation.pairs.poses == pose)
        nearest = mine[evaluation.pairs.similarity[mine].argmax()] if len(mine) else None
        person = None if nearest is None else int(evaluation.pairs.people[nearest])
        second = bool(analysis.duplicates[pose])
        what = "a second pose of somebody" if second else "nobody is like this"
        text = f"{what}; {_numbers(evaluation, pose, person)}"
        yield Example("false positive", int(found.images[pose]), pose, person if second else None, (), text)


def _missed_people(evaluation: Evaluation, analysis: Analysis) -> Iterable[Example]:
    truth = evaluation.truth
    people = np.flatnonzero(analysis.missed)
    for person in people[np.argsort(-truth.areas[people], kind="stable")].tolist():
        labelled = int(truth.labelled[person].sum())
        text = f"not found: {labelled} labelled keypoints, area {truth.areas[person]:.0f} px"
        yield Example("missed person", int(truth.images[person]), None, person, (), text)


def _pick(cases: Iterable[Example], count: int) -> list[Example]:
    """The first ones, those of new pictures before others."""
    chosen: list[Example] = []
    spare: list[Example] = []
    seen: set[int] = set()
    for case in cases:
        (spare if case.picture in seen else chosen).append(case)
        seen.add(case.picture)
        if len(chosen) >= count:
            break
    return (chosen + spare)[:count]


def _numbers(evaluation: Evaluation, pose: int, person: int | None) -> str:
    score = f"score {evaluation.found.scores[pose]:.2f}"
    if person is None:
        return score
    return f"OKS {_similarity(evaluation, np.array([pose]), np.array([person]))[0]:.2f}, {score}"


def _similarity(evaluation: Evaluation, poses: Ints, people: Ints) -> Floats:
    """(P,) OKS of pairs that are in the table of pairs."""
    pairs = evaluation.pairs
    width = len(evaluation.truth) + 1
    # pairs rise by pose; within a pose they are looked up by a sorted key
    keys = pairs.poses * width + pairs.people
    order = np.argsort(keys)
    at = order[np.searchsorted(keys[order], poses * width + people)]
    return np.asarray(pairs.similarity[at], np.float64)


def _truth(evaluation: Evaluation, person: int | None) -> Floats:
    """(K, 2), NaN where not labelled."""
    count = len(evaluation.truth.skeleton)
    if person is None:
        return np.full((count, 2), np.nan)
    points = evaluation.truth.keypoints[person]
    return np.where(points[:, 2:] > 0, points[:, :2], np.nan)


def _pose(evaluation: Evaluation, pose: int | None) -> Floats:
    """(K, 2), NaN where not known: keypoints that are all zeros."""
    if pose is None:
        return np.full((len(evaluation.truth.skeleton), 2), np.nan)
    points = evaluation.found.keypoints[pose]
    return np.where((points == 0).all(1, keepdims=True), np.nan, points[:, :2])


def _region(points: Floats, image: ImageArray | None) -> tuple[int, int, int, int]:
    """x, y, width, height of what is shown, within the picture."""
    known = points[np.isfinite(points).all(1)]
    if len(known) == 0:
        known = np.zeros((1, 2))
    low, high = known.min(0), known.max(0)
    margin = 8 + _MARGIN * float((high - low).max())
    low, high = np.floor(low - margin), np.ceil(high + margin)
    if image is not None:
        size = np.array([image.shape[1], image.shape[0]])
        low, high = np.clip(low, 0, size - 1), np.clip(high, 1, size)
        high = np.maximum(high, low + 1)
    x, y = low.astype(int).tolist()
    width, height = np.minimum(high - low, 20_000).astype(int).tolist()
    return x, y, width, height


def _as_poses(points: Floats, evaluation: Evaluation) -> Poses:
    scores, boxes, one = (np.ones(shape, np.float32) for shape in ((1, len(points)), (1, 4), 1))
    return Poses(points[None].astype(np.float32), scores, boxes, one, evaluation.truth.skeleton)


def _connect(canvas: ImageArray, wrong: Floats, right: Floats) -> None:
    """A red line from a keypoint to its place, which gets a ring."""
    if not (np.isfinite(wrong).all() and np.isfinite(right).all()):
        return
    limit = 4 * LONGEST
    a, b = (tuple(np.clip(np.rint(point), -limit, limit).astype(int).tolist()) for point in (wrong, right))
    cv2.line(canvas, a, b, WRONG, 2, cv2.LINE_AA)
    cv2.circle(canvas, b, 4, WRONG, 1, cv2.LINE_AA)
