"""One evaluation: the truth, what was found, who found whom, and the numbers.

Letters: I pictures, M annotated people, N poses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.evaluate.matching import Matches, Pairs, coco_ranges, match, pair_up
from poise.evaluate.precision import NUMBERS, Curves, curves, mean
from poise.evaluate.tables import Entry, Floats, Ints, PoseTable, TruthTable, person_category, pose_table, truth_table
from poise.skeletons import Skeleton

if TYPE_CHECKING:
    from poise.data.outlines import SkeletonOutline

CROWD_LIMITS = (0.1, 0.8)
"""Crowd index from which a picture is of medium difficulty, and from which it is hard (CrowdPose, section 4.3)."""
CROWDS = ("easy", "medium", "hard")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate_results` found out.

    Attributes:
        name: of what was evaluated, for tables.
        truth: the people.
        found: the poses that count.
        pairs: poses and people of the same pictures.
        matches: who found whom: everybody, medium and large people.
        curves: precision and recall.
        subsets: pictures that are also measured apart, by name (CrowdPose's easy, medium and hard ones).
        numbers: `poise.evaluate.coco.METRICS`, 0..1, and AP_NAME of every subset.
    """

    name: str
    truth: TruthTable
    found: PoseTable
    pairs: Pairs
    matches: Matches
    curves: Curves
    subsets: Mapping[str, Ints]
    numbers: Mapping[str, float]


def evaluate_tables(
    truth: TruthTable,
    found: PoseTable,
    name: str = "results",
    crowd_limits: tuple[float, float] = CROWD_LIMITS,
) -> Evaluation:
    """Evaluate poses that are already in a table; see `poise.evaluate.coco.evaluate_results`."""
    pairs = pair_up(truth, found)
    matches = match(truth, found, pairs, coco_ranges(truth, found))
    lines = curves(matches, truth, found)
    subsets = crowd_subsets(truth, crowd_limits)
    numbers = {number.name: number.of(lines) for number in NUMBERS}
    for label, pictures in subsets.items():
        numbers[f"AP_{label}"] = mean(curves(matches, truth, found, pictures).precision[0])
    return Evaluation(name, truth, found, pairs, matches, lines, subsets, numbers)


def crowd_subsets(truth: TruthTable, limits: tuple[float, float] = CROWD_LIMITS) -> dict[str, Ints]:
    """Numbers of the easy, medium and hard pictures by their crowd index; nothing if no picture has one.

    Raises:
        ValueError: the limits do not rise within 0..1.
    """
    if not 0 <= limits[0] <= limits[1] <= 1:
        raise ValueError(f"crowd limits {limits[0]}, {limits[1]} must rise within 0..1")
    known = ~np.isnan(truth.crowd_index)
    if not known.any():
        return {}
    level = np.searchsorted(np.array(limits), truth.crowd_index, side="right")
    return {name: np.flatnonzero(known & (level == number)) for number, name in enumerate(CROWDS)}


def evaluate_entries(
    data: Entry,
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
    name: str = "results",
    crowd_limits: tuple[float, float] = CROWD_LIMITS,
) -> Evaluation:
    """Evaluate COCO results against the content of an annotation file; see `poise.evaluate.coco.evaluate_results`."""
    truth = truth_table(data, skeleton)
    return evaluate_tables(truth, pose_table(results, truth, person_category(data)), name, crowd_limits)


def truth_skeleton(data: Entry, path: Path | None = None, outline: SkeletonOutline | None = None) -> Skeleton:
    """The skeleton that an annotation file names, or a YAML file beside it (see `poise.data.outlines`).

    Args:
        data: content of the annotation file.
        path: where it was read from, if it was.
        outline: take this instead.

    Raises:
        ValueError: the keypoints are not named, or sigmas are missing and nobody is there to estimate them from.
    """
    outline = outline or _outline_of(data, path)
    if outline is None:
        raise ValueError(f"{_name_of(path)} names no keypoints; say which skeleton it is (--skeleton)")
    stand_in = Skeleton("stand-in", outline.keypoints, (), (), (1.0,) * len(outline.keypoints))

    def people() -> tuple[Floats, Floats]:
        table = truth_table(data, stand_in)
        return table.keypoints[~table.ignored], table.areas[~table.ignored]

    return outline.skeleton(people)


def given_skeleton(data: Entry, path: Path | None = None) -> Skeleton | None:
    """The skeleton that an annotation file, or a YAML file beside it, gives sigmas for; None if it gives none.

    Poses of a model, too, are measured with it, not with the model's own sigmas: they score as they do in a file.

    Raises:
        ValueError: the sigmas do not fit the keypoints.
    """
    outline = _outline_of(data, path)
    return None if outline is None or outline.sigmas is None else outline.skeleton()


def _outline_of(data: Entry, path: Path | None) -> SkeletonOutline | None:
    """What the YAML file beside an annotation file, or else its category of people, says; None if neither does."""
    from poise.data.coco_rules import people_category
    from poise.data.outlines import category_outline, outline_beside

    outline = None if path is None else outline_beside(path)
    if outline is not None:
        return outline
    where = _name_of(path)
    category = people_category(data.get("categories"), where)
    return category_outline(category, where) if category.get("keypoints") else None


def _name_of(path: Path | None) -> str:
    return "annotations" if path is None else str(path)
