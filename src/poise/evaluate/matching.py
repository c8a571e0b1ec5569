"""Who found whom: object keypoint similarity of poses and people, and the matching of the COCO evaluation.

Every step gives the same numbers as the COCO tools, to the last bit of the similarities, but works on many pictures at
once. Letters: I pictures, M people, N poses, K keypoints, P pairs of a pose and a person of one picture, A ranges
(groups of people that are measured apart), T thresholds of similarity. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from poise.evaluate.tables import Bools, Floats, Ints, PoseTable, TruthTable

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""Similarities at which precision and recall are measured (COCO)."""
ALL_PEOPLE: Floats = np.array([[0.0, 1e10]])
COCO_RANGES: Floats = np.array([[0.0, 1e10], [32.0**2, 96.0**2], [96.0**2, 1e10]])
"""Smallest and largest area of everybody, of medium and of large people, square px (COCO)."""

_CERTAIN = 1 - 1e-10
"""A similarity above it passes every threshold."""
_CHUNK = 512
"""Pictures that are matched together: so many stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Poses and people who are in the same picture.

    Attributes:
        poses: (P,) numbers of poses.
        people: (P,) numbers of people.
        similarity: (P,) OKS.
    """

    poses: Ints
    people: Ints
    similarity: Floats


@dataclass(frozen=True, slots=True)
class Ranges:
    """Groups of people that are measured apart.

    Attributes:
        names: of the A groups.
        people_out: (A, M) bool: finding this person is neither right nor wrong.
        poses_out: (A, N) bool: this pose does not count unless it is matched.
    """

    names: tuple[str, ...]
    people_out: Bools
    poses_out: Bools


@dataclass(frozen=True, slots=True)
class Matches:
    """The outcome for every pose, in the order of its table.

    Attributes:
        ranges: what was measured apart.
        thresholds: (T,)
        person: (A, T, N) int32 number of the person that a pose is matched with, or -1.
        right: (A, T, N) bool: the pose is somebody who counts.
        wrong: (A, T, N) bool: the pose is nobody, and counts; a pose may be neither.
    """

    ranges: Ranges
    thresholds: Floats
    person: npt.NDArray[np.int32]
    right: Bools
    wrong: Bools


def area_ranges(truth: TruthTable, found: PoseTable, limits: Floats, names: tuple[str, ...]) -> Ranges:
    """Groups by area: (A, 2) smallest and largest area, both included (COCO)."""
    low, high = limits[:, :1], limits[:, 1:]
    people_out = truth.ignored | (truth.areas < low) | (truth.areas > high)
    return Ranges(names, people_out, (found.areas < low) | (found.areas > high))


def coco_ranges(truth: TruthTable, found: PoseTable) -> Ranges:
    """Everybody, medium and large people."""
    return area_ranges(truth, found, COCO_RANGES, ("all", "medium", "large"))


def pair_up(truth: TruthTable, found: PoseTable) -> Pairs:
    """All pairs of a pose and a person of its picture, by pose, then in the order of the people's file."""
    by_picture = np.argsort(truth.images, kind="stable")
    sorted_images = truth.images[by_picture]
    first = np.searchsorted(sorted_images, found.images, "left")
    counts = np.searchsorted(sorted_images, found.images, "right") - first
    poses = np.repeat(np.arange(len(found)), counts)
    within = np.arange(len(poses)) - np.repeat(np.cumsum(counts) - counts, counts)
    people = by_picture[np.repeat(first, counts) + within]
    return Pairs(poses, people, _similarity(truth, found, poses, people))


def keypoint_squares(truth: TruthTable, found: PoseTable, poses: Ints, people: Ints) -> Floats:
    """(P, K) squared distances between the keypoints of pairs."""
    delta = found.keypoints[poses, :, :2] - truth.keypoints[people, :, :2]
    squares: Floats = delta[..., 0] ** 2 + delta[..., 1] ** 2
    return squares


def keypoint_variances(truth: TruthTable) -> Floats:
    """(K,) squares of the constants k = 2 sigma of OKS."""
    variances: Floats = (np.array(truth.skeleton.sigmas) * 2) ** 2
    return variances


def _similarity(truth: TruthTable, found: PoseTable, poses: Ints, people: Ints) -> Floats:
    """(P,) OKS; the sums run over the labelled keypoints alone, as the COCO tools', so that no bit differs."""
    counts = truth.labelled.sum(1)[people]
    variances = keypoint_variances(truth)
    similarity = np.zeros(len(poses))
    for count in np.unique(counts).tolist():
        chosen = np.flatnonzero(counts == count)
        a, b = poses[chosen], people[chosen]
        squares = keypoint_squares(truth, found, a, b) if count else _squares_outside(truth, found, a, b)
        exponents = squares / variances / (truth.areas[b] + np.spacing(1))[:, None] / 2
        terms = np.exp(-(exponents[truth.labelled[b]].reshape(-1, count) if count else exponents))
        similarity[chosen] = terms.sum(1) / terms.shape[1]
    return similarity


def _squares_outside(truth: TruthTable, found: PoseTable, poses: Ints, people: Ints) -> Floats:
    """(P, K) squared distances of keypoints to the box of a person without labels, doubled to all sides."""
    corner, size = truth.boxes[people, None, :2], truth.boxes[people, None, 2:]
    points = found.keypoints[poses, :, :2]
    delta = np.maximum(0, corner - size - points) + np.maximum(0, points - (corner + size * 2))
    squares: Floats = delta[..., 0] ** 2 + delta[..., 1] ** 2
    return squares


def match(
    truth: TruthTable, found: PoseTable, pairs: Pairs, ranges: Ranges, thresholds: Floats = THRESHOLDS
) -> Matches:
    """Match poses with people as the COCO evaluation does.

    In each picture the poses choose, from high to low score, the most similar person who is at least as similar as
    the threshold and not taken; those who do not count only if there is nobody else. Crowds are never taken.

    Args:
        truth: the people.
        found: the poses.
        pairs: of `pair_up`.
        ranges: groups that are measured apart.
        thresholds: (T,) of similarity.
    """
    person = np.full((len(ranges.names), len(thresholds), len(found)), -1, np.int32)
    least = np.minimum(thresholds, _CERTAIN)
    for chunk in _chunks(truth, found, pairs, float(least.min(initial=1))):
        _match_chunk(chunk, truth, ranges, least, person)
    nobody = person < 0
    # index -1 reads the last person, whose answer is not used
    out = ranges.people_out if len(truth) else np.zeros((len(ranges.names), 1), np.bool_)
    unimportant = np.stack([row[choice] for row, choice in zip(out, person, strict=True)])
    return Matches(ranges, thresholds, person, ~nobody & ~unimportant, nobody & ~ranges.poses_out[:, None])


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pictures whose poses choose at the same time; D poses and G people at most in one picture.

    Attributes:
        poses: (I, D) numbers of the poses that can be somebody, by falling score; -1 after the last.
        people: (I, G) numbers of the people, in the order of the file; -1 after the last.
        similarity: (I, D, G) OKS; -1 where there is no such pair.
        counts: (I,) number of poses, falling.
    """

    poses: Ints
    people: Ints
    similarity: Floats
    counts: Ints


def _chunks(truth: TruthTable, found: PoseTable, pairs: Pairs, least: float) -> Iterator[_Chunk]:
    """Pictures with similar numbers of people, poses in front that are similar enough to somebody."""
    near = np.zeros(len(found), np.bool_)
    near[pairs.poses[pairs.similarity >= least]] = True
    kept = near[pairs.poses]
    poses, people, similarity = pairs.poses[kept], pairs.people[kept], pairs.similarity[kept]
    candidates = np.flatnonzero(near)
    rank = np.zeros(len(found), np.int64)
    rank[candidates] = _positions(found.images[candidates])
    order = np.argsort(truth.images, kind="stable")
    place = np.zeros(len(truth), np.int64)
    place[order] = _positions(truth.images[order])
    pictures, pose_counts = np.unique(found.images[candidates], return_counts=True)
    people_counts = np.bincount(truth.images, minlength=len(truth.image_ids))[pictures]
    by_size = np.lexsort((-pose_counts, np.ceil(np.log2(people_counts.clip(1)))))
    for start in range(0, len(by_size), _CHUNK):
        group = by_size[start : start + _CHUNK]
        group = group[np.argsort(-pose_counts[group], kind="stable")]
        local = np.full(len(truth.image_ids), -1)
        local[pictures[group]] = np.arange(len(group))
        row = local[found.images[poses]]
        mine = row >= 0
        row, a, b = row[mine], poses[mine], people[mine]
        shape = (len(group), int(pose_counts[group].max()), int(people_counts[group].max()))
        chunk = _Chunk(np.full(shape[:2], -1), np.full(shape[::2], -1), np.full(shape, -1.0), pose_counts[group])
        chunk.poses[row, rank[a]], chunk.people[row, place[b]] = a, b
        chunk.similarity[row, rank[a], place[b]] = similarity[mine]
        yield chunk


def _positions(groups: Ints) -> Ints:
    """Position of each entry among those of its group; groups are sorted."""
    positions: Ints = np.arange(len(groups)) - np.searchsorted(groups, groups)
    return positions


def _match_chunk(
    chunk: _Chunk, truth: TruthTable, ranges: Ranges, least: Floats, person: npt.NDArray[np.int32]
) -> None:
    """Fill in ``person`` (A, T, N) for the poses of a chunk: all pictures' best poses choose, then all second ones."""
    pictures, people = chunk.people.shape
    out = np.moveaxis(ranges.people_out[:, chunk.people], 0, 1)[:, :, None]
    endless = truth.crowd[chunk.people][:, None, None]
    free = np.ones((pictures, len(ranges.names), len(least), people), np.bool_)
    for rank in range(chunk.similarity.shape[1]):
        n = int(np.searchsorted(-chunk.counts, -rank, "left"))
        similarity = chunk.similarity[:n, None, None, rank]
        possible = (similarity >= least[:, None]) & free[:n]
        important = possible & ~out[:n]
        choices = np.where(important.any(-1, keepdims=True), important, possible)
        # of equals the last one is taken
        best = people - 1 - np.where(choices, similarity, -1.0)[..., ::-1].argmax(-1)
        i, a, t = np.nonzero(choices.any(-1))
        g = best[i, a, t]
        person[a, t, chunk.poses[i, rank]] = chunk.people[i, g]
        free[i, a, t, g] = endless[i, 0, 0, g]
