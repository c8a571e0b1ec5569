"""How sure the numbers are: intervals from resampled pictures, for one set of results and for differences of two.

Pictures are drawn with replacement (Efron 1979), as many as there are. Who found whom is settled picture by picture and
does not change when pictures are drawn again, so only the curves are added up anew. Differences are taken sample by
sample on the same pictures (paired): what makes a picture hard for both sides cancels.

Letters: I pictures, N poses, B samples, A ranges, T thresholds, R recalls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from poise.evaluate.evaluation import Evaluation
from poise.evaluate.precision import NUMBERS, RECALLS, Number
from poise.evaluate.tables import Bools, Floats, Ints

SAMPLES = 1000
LEVEL = 0.95
"""Share of the samples that an interval holds."""

_Kind = TypeVar("_Kind", np.int32, np.float64)
Weights = npt.NDArray[np.int32]
_CHUNK = 500
"""Samples that are added up together."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and the range that holds `LEVEL` of its values in resampled pictures.

    Attributes:
        value: on the pictures as they are.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much a number is larger than that of the first results, and how sure that is.

    Attributes:
        interval: of the difference.
        better: share of the samples in which it is larger; 0.5 for equal ones.
    """

    interval: Interval
    better: float

    @property
    def certain(self) -> bool:
        """Whether 0 is outside of the interval."""
        return self.interval.low > 0 or self.interval.high < 0


def draw_pictures(count: int, samples: int = SAMPLES, seed: int = 0) -> Weights:
    """(B, I) how often each of the pictures is drawn.

    Raises:
        ValueError: fewer than two samples are asked for.
    """
    if samples < 2:
        raise ValueError(f"{samples} samples give no interval; ask for at least 2, better {SAMPLES}")
    generator = np.random.default_rng(seed)
    drawn = [np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(samples if count else 0)]
    return np.array(drawn, np.int32).reshape(samples, count)


def resampled_numbers(evaluation: Evaluation, weights: Weights) -> dict[str, Floats]:
    """The numbers of an evaluation in every sample.

    Args:
        evaluation: whose numbers.
        weights: (B, I) how often each picture counts.

    Returns:
        (B,) of every number; 0 in samples in which nobody counts.

    Raises:
        ValueError: the weights are of another number of pictures.
    """
    pictures = len(evaluation.truth.image_ids)
    if weights.shape[1] != pictures:
        raise ValueError(f"weights of {weights.shape[1]} pictures do not fit an evaluation of {pictures}")
    parts = [_resampled(evaluation, part) for part in np.array_split(weights, max(1, -(-len(weights) // _CHUNK)))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def intervals(evaluation: Evaluation, samples: int = SAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The interval of every number of an evaluation.

    Raises:
        ValueError: fewer than two samples are asked for.
    """
    drawn = resampled_numbers(evaluation, draw_pictures(len(evaluation.truth.image_ids), samples, seed))
    return {name: interval_of(evaluation.numbers[name], values) for name, values in drawn.items()}


def compare(
    evaluations: Sequence[Evaluation], samples: int = SAMPLES, seed: int = 0
) -> tuple[list[dict[str, Interval]], list[dict[str, Difference]]]:
    """The intervals of several evaluations, and of what the later ones are better than the first.

    Args:
        evaluations: at least one, of the same pictures.
        samples: how many times the pictures are drawn.
        seed: of the draws.

    Returns:
        The intervals of each, and the differences of each but the first.

    Raises:
        ValueError: the pictures differ, or fewer than two samples are asked for.
    """
    require_same_pictures(evaluations)
    first = evaluations[0]
    weights = draw_pictures(len(first.truth.image_ids), samples, seed)
    drawn = [resampled_numbers(evaluation, weights) for evaluation in evaluations]
    alone = [
        {name: interval_of(e.numbers[name], values) for name, values in table.items()}
        for e, table in zip(evaluations, drawn, strict=True)
    ]
    differences = [
        {name: _difference(e.numbers[name] - first.numbers[name], table[name] - drawn[0][name]) for name in drawn[0]}
        for e, table in zip(evaluations[1:], drawn[1:], strict=True)
    ]
    return alone, differences


def require_same_pictures(evaluations: Sequence[Evaluation]) -> None:
    """``ValueError`` if evaluations are of different pictures."""
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.truth.image_ids != first.truth.image_ids:
            raise ValueError(f"{first.name} and {other.name} were not evaluated on the same pictures")


def interval_of(value: float, values: Floats) -> Interval:
    """The interval of a number: its value, and the ends of the range of its values (B,) in the samples."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail]).tolist()
    return Interval(value, low, high)


def _difference(value: float, values: Floats) -> Difference:
    return Difference(interval_of(value, values), float((values > 0).mean() + 0.5 * (values == 0).mean()))


def _resampled(evaluation: Evaluation, weights: Weights) -> dict[str, Floats]:
    needed = {(number.range, number.threshold) for number in NUMBERS}
    result = _numbers(evaluation, weights, NUMBERS, needed)
    for label, pictures in evaluation.subsets.items():
        chosen = np.zeros(weights.shape[1], np.int32)
        chosen[pictures] = 1
        name = f"AP_{label}"
        result |= _numbers(evaluation, weights * chosen, (Number(name, "precision", 0),), {(0, None)})
    return result


def _numbers(
    evaluation: Evaluation, weights: Weights, numbers: Sequence[Number], needed: set[tuple[int, int | None]]
) -> dict[str, Floats]:
    """(B,) of each number: a mean of what `_curve` gives at all thresholds of its range, or at one."""
    order = np.argsort(-evaluation.found.scores, kind="stable")
    # a row a picture: then everything runs along memory
    drawn = np.ascontiguousarray(weights.T)
    values: dict[tuple[str, int, int], Floats] = {}
    for area in sorted({area for area, _ in needed}):
        counted = ~evaluation.matches.ranges.people_out[area]
        people = weights @ np.bincount(evaluation.truth.images[counted], minlength=weights.shape[1])
        for t in range(len(evaluation.matches.thresholds)):
            right, wrong = evaluation.matches.right[area, t, order], evaluation.matches.wrong[area, t, order]
            kept = right | wrong
            ap, ar = _curve(drawn, evaluation.found.images[order[kept]], right[kept], people)
            values["precision", area, t], values["recall", area, t] = ap, ar
    return {number.name: _mean(values, number, len(evaluation.matches.thresholds)) for number in numbers}


def _mean(values: Mapping[tuple[str, int, int], Floats], number: Number, thresholds: int) -> Floats:
    chosen = range(thresholds) if number.threshold is None else [number.threshold]
    result: Floats = np.mean([values[number.kind, number.range, t] for t in chosen], axis=0)
    return result


def _curve(drawn: Weights, images: Ints, right: Bools, people: Ints) -> tuple[Floats, Floats]:
    """Average precision and recall (B,) of poses in the order of their scores.

    Precision is highest where a right pose has just been added, so it is looked at there alone.

    Args:
        drawn: (I, B) how often a picture counts.
        images: (N,) of the poses.
        right: (N,) whether a pose is somebody.
        people: (B,) number of people who count.
    """
    samples = drawn.shape[1]
    steps = np.flatnonzero(right)
    if len(steps) == 0:
        return np.zeros(samples), np.zeros(samples)
    everything = _accumulated(np.add, drawn[images[: steps[-1] + 1]])[steps]
    found = _accumulated(np.add, drawn[images[steps]])
    precision = np.zeros((len(steps) + 1, samples))
    np.divide(found, np.maximum(everything, 1), out=precision[:-1])
    _accumulated(np.maximum, precision[::-1])
    recall = np.ascontiguousarray((found / np.maximum(people, 1)).T)
    at = np.stack([np.searchsorted(row, RECALLS) for row in recall], axis=1)
    return np.take_along_axis(precision, at, axis=0).mean(0), recall[:, -1].copy()


def _accumulated(operation: np.ufunc, rows: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
    """``operation.accumulate`` along the first axis, in place: row by row it is ten times as fast as numpy's own."""
    for before, row in pairwise(rows):
        operation(before, row, out=row)
    return rows
