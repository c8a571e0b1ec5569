"""How well people are followed: MOTA and identity switches (Bernardin 2008), IDF1 (Ristani et al. 2016).

Letters: N poses, M true persons, K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.extras import needs
from poise.geometry.oks import oks
from poise.types import IntArray, Poses

AREA_OF_BOX = 0.53
"""Share of its box that a person covers on average: the area of OKS."""


class TrackingScores(NamedTuple):
    """Of one video.

    Attributes:
        mota: 1 - (misses + false positives + switches) / true poses; may be negative.
        idf1: share of the poses that carry the right id under the best assignment of ids to people.
        switches: how often somebody's id differs from the one that was seen before.
        misses: true poses that were not found.
        false_positives: found poses that are nobody's.
        truth: number of true poses.
        mostly_tracked: share of the people who are found in at least 80 % of their frames.
    """

    mota: float
    idf1: float
    switches: int
    misses: int
    false_positives: int
    truth: int
    mostly_tracked: float


def tracking_scores(truth: Sequence[Poses], found: Sequence[Poses], min_oks: float = 0.5) -> TrackingScores:
    """Compare the poses of a video with the truth, frame by frame.

    Args:
        truth: true poses with ids, of every frame; the box gives the person's size.
        found: poses with ids, of the same frames; those with id -1 are left out.
        min_oks: a found pose can be somebody from this similarity on.

    Raises:
        ValueError: the numbers of frames differ, or ids are missing.
    """
    if len(truth) != len(found):
        raise ValueError(f"tracking_scores: the truth has {len(truth)} frames, the result {len(found)}")
    pairs, seen = Counter[tuple[int, int]](), Counter[int]()
    last: dict[int, int] = {}
    switches = misses = extra = total = poses = 0
    people = Counter[int]()
    for true, guess in zip(truth, found, strict=True):
        true_ids, ids = _ids(true), _ids(guess)
        known, ids = guess[ids >= 0], ids[ids >= 0]
        alike = _oks(true, known)
        pairs.update((int(true_ids[m]), int(ids[n])) for m, n in zip(*np.nonzero(alike >= min_oks), strict=True))
        matches = _matches(alike, true_ids, ids, last, min_oks)
        for m, n in matches:
            who, name = int(true_ids[m]), int(ids[n])
            switches += last.get(who, name) != name
            last[who] = name
            seen[who] += 1
        people.update(true_ids.tolist())
        total, poses = total + len(true), poses + len(known)
        misses, extra = misses + len(true) - len(matches), extra + len(known) - len(matches)
    mota = 1 - (misses + extra + switches) / max(total, 1)
    idf1 = 2 * _best_identities(pairs) / max(total + poses, 1)
    tracked = sum(seen[who] >= 0.8 * count for who, count in people.items()) / max(len(people), 1)
    return TrackingScores(mota, idf1, switches, misses, extra, total, tracked)


def _ids(poses: Poses) -> IntArray:
    if poses.ids is None and len(poses):
        raise ValueError("tracking_scores needs poses with ids")
    return np.zeros(0, np.int64) if poses.ids is None else poses.ids


def _oks(truth: Poses, found: Poses) -> npt.NDArray[np.float64]:
    """(M, N)."""
    marks = np.isfinite(truth.keypoints).all(2, keepdims=True)
    persons = np.concatenate([np.nan_to_num(truth.keypoints), marks], 2).astype(np.float64)
    areas = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1).astype(np.float64) * AREA_OF_BOX
    poses = np.nan_to_num(found.keypoints.astype(np.float64), nan=1e6)
    return np.asarray(oks(poses, persons, areas, truth.skeleton.sigmas).T, np.float64)


def _matches(
    alike: npt.NDArray[np.float64], true_ids: IntArray, ids: IntArray, last: dict[int, int], min_oks: float
) -> list[tuple[int, int]]:
    """Pairs (m, n) of one frame: who kept an id keeps it where it is good enough, the others are assigned."""
    kept: list[tuple[int, int]] = []
    rest = np.where(alike >= min_oks, alike, -1.0)
    for m, who in enumerate(true_ids.tolist()):
        for n in np.flatnonzero((ids == last.get(who, -1)) & (rest[m] >= min_oks)).tolist():
            kept.append((m, n))
            rest[m], rest[:, n] = -1, -1
    assign = needs("scipy.optimize", "video", "scores of tracking").linear_sum_assignment
    others = [(int(m), int(n)) for m, n in zip(*assign(-rest), strict=True) if rest[m, n] >= min_oks]
    return kept + others


def _best_identities(pairs: Counter[tuple[int, int]]) -> int:
    """Most frames that can agree when every person gets at most one id and every id at most one person."""
    if not pairs:
        return 0
    people, names = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    table = np.zeros((len(people), len(names)))
    for (who, name), count in pairs.items():
        table[people.index(who), names.index(name)] = count
    assign = needs("scipy.optimize", "video", "scores of tracking").linear_sum_assignment
    return int(table[assign(-table)].sum())
