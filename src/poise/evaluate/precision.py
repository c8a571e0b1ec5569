"""Precision and recall of matched poses: the curves of the COCO evaluation and the numbers read off them.

Letters: I pictures, N poses, A ranges, T thresholds, R recalls, B samples of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poise.evaluate.matching import Matches
from poise.evaluate.tables import Floats, Ints, PoseTable, TruthTable

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is read off (COCO)."""


@dataclass(frozen=True, slots=True)
class Curves:
    """Precision and recall in every range and at every threshold.

    Attributes:
        precision: (A, T, R) highest precision at a recall of at least `RECALLS`; 0 beyond the reached recall.
        scores: (A, T, R) score at which that recall is reached; 0 beyond.
        recall: (A, T) of all poses together.
        people: (A,) number of people who count; without any, the rest of a range is NaN.
    """

    precision: Floats
    scores: Floats
    recall: Floats
    people: Ints


def curves(matches: Matches, truth: TruthTable, found: PoseTable, pictures: Ints | None = None) -> Curves:
    """The curves of all pictures, or of some of them.

    Args:
        matches: of the poses.
        truth: the people.
        found: the poses.
        pictures: numbers of the pictures that count, each once; None for all.
    """
    ranges, thresholds, _ = matches.person.shape
    order = np.argsort(-found.scores, kind="stable")
    people_in = ~matches.ranges.people_out
    if pictures is not None:
        chosen = np.zeros(len(truth.image_ids), np.bool_)
        chosen[pictures] = True
        order = order[chosen[found.images[order]]]
        people_in &= chosen[truth.images]
    people = people_in.sum(1)
    shape = (ranges, thresholds, len(RECALLS))
    result = Curves(np.zeros(shape), np.zeros(shape), np.zeros(shape[:2]), people)
    for a in range(ranges):
        for t in range(thresholds):
            _fill(result, a, t, matches, order, found.scores)
        if people[a] == 0:
            result.precision[a], result.scores[a], result.recall[a] = np.nan, np.nan, np.nan
    return result


def _fill(result: Curves, a: int, t: int, matches: Matches, order: Ints, scores: Floats) -> None:
    people = int(result.people[a])
    if people == 0 or len(order) == 0:
        return
    right = np.cumsum(matches.right[a, t, order]).astype(np.float64)
    wrong = np.cumsum(matches.wrong[a, t, order]).astype(np.float64)
    recall = right / people
    precision = right / (wrong + right + np.spacing(1))
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS, side="left")
    reached = at < len(recall)
    result.precision[a, t, reached] = highest[at[reached]]
    result.scores[a, t, reached] = scores[order[at[reached]]]
    result.recall[a, t] = recall[-1]


def mean(values: Floats) -> float:
    """The mean, 0 of nothing and where nobody counts (NaN)."""
    return float(np.nan_to_num(values.mean())) if values.size else 0.0


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the evaluation: a mean over a part of the curves.

    Attributes:
        name: for example AP50.
        kind: what is averaged.
        range: number of the range.
        threshold: number of the threshold, or None for all.
    """

    name: str
    kind: str
    range: int
    threshold: int | None = None

    def of(self, lines: Curves) -> float:
        """The number, 0..1."""
        values = (lines.precision if self.kind == "precision" else lines.recall)[self.range]
        return mean(values if self.threshold is None else values[self.threshold])


NUMBERS: Sequence[Number] = (
    Number("AP", "precision", 0),
    Number("AP50", "precision", 0, 0),
    Number("AP75", "precision", 0, 5),
    Number("APM", "precision", 1),
    Number("APL", "precision", 2),
    Number("AR", "recall", 0),
    Number("AR50", "recall", 0, 0),
    Number("AR75", "recall", 0, 5),
    Number("ARM", "recall", 1),
    Number("ARL", "recall", 2),
)
"""The ten numbers of a COCO keypoint evaluation, of `poise.evaluate.matching.coco_ranges`."""
