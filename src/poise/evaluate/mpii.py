"""PCKh on MPII: the share of joints that lie within half a head of where they were annotated (RSN spec 11).

Two published codes differ: the official one counts a joint at exactly the limit (``<=``), mmpose's does not (``<``);
and what the official one prints as Mean@0.1 is taken at 0.11. Both are here, each under its true name.

Letters: N persons, K = 16 joints. Frame: image px.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.mpii import MpiiPerson, read_head_boxes, read_mpii_people
from poise.data.yolo import Split
from poise.skeletons import MPII16

Formula = Literal["official", "mmpose"]
FloatArray64 = npt.NDArray[np.float64]

GROUPS: dict[str, tuple[int, ...]] = {
    "Head": (9,),
    "Shoulder": (13, 12),
    "Elbow": (14, 11),
    "Wrist": (15, 10),
    "Hip": (3, 2),
    "Knee": (4, 1),
    "Ankle": (5, 0),
}
"""The columns of an MPII table and the joints whose rates they average; a side counts as much as the other."""
MEANS = {"Mean": 0.5, "Mean@0.1": 0.1, "Mean@0.11": 0.11}
"""Means over joints, and the limits (head sizes) they are taken at."""
METRICS = (*GROUPS, *MEANS)
LIMIT = 0.5
LEFT_OUT = (6, 7)
"""Pelvis and thorax are in no mean."""
SIZE_OF_HEAD = 0.6
"""A head's size is this share of the diagonal of its box."""
NEARNESS = 0.25
"""How far from the given place a pose may well be, relative to the side of the person's square."""

_LOG = logging.getLogger(__name__)


class Matched(NamedTuple):
    """N annotated people and the poses that they were given: the arguments of `pckh` and `joint_rates`."""

    predicted: FloatArray64
    """(N, 16, 2) as `match_poses` gives them."""
    truth: FloatArray64
    """(N, 16, 2)"""
    labelled: npt.NDArray[np.bool_]
    """(N, 16)"""
    head_sizes: FloatArray64
    """(N,)"""


def pckh(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    labelled: npt.ArrayLike,
    head_sizes: npt.ArrayLike,
    formula: Formula = "official",
) -> dict[str, float]:
    """The numbers named in `METRICS`, each in 0..1; 0 where no joint is labelled.

    Args:
        predicted: (N, 16, 2) x, y; not finite where nothing was found, which counts as wrong.
        truth: (N, 16, 2), in the frame of ``predicted``.
        labelled: (N, 16), 0 where a joint takes no part.
        head_sizes: (N,) in the unit of ``truth``, see `head_sizes`.
        formula: ``official`` counts joints at exactly the limit, ``mmpose`` does not.

    Raises:
        ValueError: the shapes do not fit, a size is not positive, or the formula is unknown.
    """
    if formula not in ("official", "mmpose"):
        raise ValueError(f"PCKh formula {formula!r} is unknown: official (<=) or mmpose (<)")
    distances, mask = _relative_distances(predicted, truth, labelled, head_sizes)
    counts = mask.sum(0)
    rates = _rates(distances, mask, LIMIT, formula)
    found = {name: _mean_of_sides(rates, counts, sides) for name, sides in GROUPS.items()}
    weights = counts.astype(np.float64)
    weights[list(LEFT_OUT)] = 0
    weights /= max(1.0, weights.sum())
    return found | {name: float(weights @ _rates(distances, mask, at, formula)) for name, at in MEANS.items()}


def joint_rates(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    labelled: npt.ArrayLike,
    head_sizes: npt.ArrayLike,
    limit: float = LIMIT,
    formula: Formula = "official",
) -> FloatArray64:
    """(16,) PCKh of every joint at a limit in head sizes, 0..1; arguments and errors as `pckh`."""
    return _rates(*_relative_distances(predicted, truth, labelled, head_sizes), limit, formula)


def evaluate_mpii(
    annotations: str | Path | Sequence[MpiiPerson],
    results: Sequence[Mapping[str, Any]],
    *,
    head_boxes: str | Path | None = None,
    formula: Formula = "official",
    sizes: Mapping[str, tuple[int, int]] | None = None,
    split: Split | None = None,
) -> dict[str, float]:
    """PCKh of poses on an MPII file.

    Every person gets one pose of its picture, no pose serves two people: see `match_poses`. A person without a pose
    has all joints wrong.

    Args:
        annotations: the file, or what `read_mpii_people` made of it.
        results: COCO keypoint results (see `Poses.to_coco`) whose ``image_id`` is the picture's file name; pixels are
            counted from 0.
        head_boxes: file of head boxes (see `read_head_boxes`), if the annotations have none.
        formula: as `pckh`.
        sizes: as `match_poses`.
        split: part of the file, as `read_mpii_people`; people who are given already are of the part that is wanted.

    Returns:
        As `pckh`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: annotations, results and head boxes do not fit each other, or the file has no such part.
    """
    return pckh(*matched_people(annotations, results, head_boxes=head_boxes, sizes=sizes, split=split), formula)


def matched_people(
    annotations: str | Path | Sequence[MpiiPerson],
    results: Sequence[Mapping[str, Any]],
    *,
    head_boxes: str | Path | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    split: Split | None = None,
) -> Matched:
    """The people of an MPII file and their poses; arguments and errors as `evaluate_mpii`."""
    people = read_mpii_people(annotations, split) if isinstance(annotations, str | Path) else tuple(annotations)
    predicted = match_poses(people, results, sizes)
    truth = np.array([p.keypoints for p in people]).reshape(-1, len(MPII16), 3)
    heads = head_sizes(people, None if head_boxes is None else read_head_boxes(head_boxes))
    return Matched(predicted, truth[..., :2], truth[..., 2] > 0, heads)


def joint_table(matched: Matched, formula: Formula = "official") -> list[dict[str, Any]]:
    """Every joint: ``name``, how often it is ``labelled``, its ``PCKh`` at `LIMIT` and ``PCKh@0.1``, 0..1."""
    counts = matched.labelled.sum(0).tolist()
    rates = {"PCKh": joint_rates(*matched, LIMIT, formula), "PCKh@0.1": joint_rates(*matched, 0.1, formula)}
    return [
        {"name": name, "labelled": counts[k]} | {key: float(values[k]) for key, values in rates.items()}
        for k, name in enumerate(MPII16.keypoints)
    ]


def head_sizes(people: Sequence[MpiiPerson], boxes: npt.ArrayLike | None = None) -> FloatArray64:
    """(N,) head sizes: 0.6 of the diagonals of the head boxes.

    Where there is no box, the distance from neck to head top stands in and a warning is logged: such numbers compare
    with each other alone. A person who lacks these joints too takes a tenth of the side of the person's square.

    Args:
        people: N persons.
        boxes: (N, 4) xyxy head boxes; by default those of the annotations.

    Raises:
        ValueError: there is another number of boxes, or a box has no extent.
    """
    if boxes is not None:
        values = np.asarray(boxes, np.float64).reshape(-1, 4)
        if len(values) != len(people):
            raise ValueError(f"{len(values)} head boxes for {len(people)} people; they must be in the same order")
        sizes: FloatArray64 = SIZE_OF_HEAD * np.linalg.norm(values[:, 2:] - values[:, :2], axis=1)
        if (sizes <= 0).any():
            raise ValueError(f"head box {int(np.argmax(sizes <= 0))} (from 0) has no extent")
        return sizes
    guessed = sum(p.head_box is None for p in people)
    if guessed:
        _LOG.warning(
            "%d of %d people have no head box: the distance from neck to head top stands in for the head size; "
            "published PCKh wants head boxes",
            guessed,
            len(people),
        )
    return np.array([_head_size(p) for p in people], np.float64)


def match_poses(
    people: Sequence[MpiiPerson],
    results: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> FloatArray64:
    """(N, 16, 2) the pose of each person, NaN where there is none; image px.

    MPII tells where a person is, not which pose is meant. Within a picture, pairs are taken greedily by
    score x exp(-d^2 / 2), d the distance between the middles of the pose's box and of the person's square over a
    quarter of its side. The annotated joints play no part.

    Args:
        people: N persons.
        results: as `evaluate_mpii`.
        sizes: (height, width) by picture, if known: squares are cut at the picture's edge, as the boxes of poses are.

    Raises:
        ValueError: a result belongs to no annotated picture, or has another number of keypoints.
    """
    found = np.full((len(people), len(MPII16), 2), np.nan)
    members: dict[str, list[int]] = {}
    for index, person in enumerate(people):
        members.setdefault(person.image, []).append(index)
    poses: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        image = result.get("image_id")
        if image not in members:
            raise ValueError(f"a result belongs to picture {image!r}, which the annotations do not list")
        poses.setdefault(str(image), []).append(result)
    for image, candidates in poses.items():
        points = np.array([_points(c, image) for c in candidates])
        squares = np.array([people[i].box for i in members[image]])
        size = None if sizes is None else sizes.get(image)
        fits = _fits(candidates, points, squares, size)
        for _ in range(min(fits.shape)):
            pose, place = np.unravel_index(np.argmax(fits), fits.shape)
            found[members[image][int(place)]] = points[pose]
            fits[pose], fits[:, place] = -np.inf, -np.inf
    return found


def _fits(
    candidates: Sequence[Mapping[str, Any]], points: FloatArray64, squares: FloatArray64, size: tuple[int, int] | None
) -> FloatArray64:
    """(poses, persons) logarithms of how well a pose fits a person's place."""
    scores = np.array([max(float(c.get("score", 1.0)), 1e-6) for c in candidates])
    middles = np.array([_middle(c, p) for c, p in zip(candidates, points, strict=True)])
    sides = squares[:, 2] - squares[:, 0]
    seen = squares if size is None else np.clip(squares, 0, [size[1], size[0], size[1], size[0]])
    places = 0.5 * (seen[:, :2] + seen[:, 2:])
    distances = np.linalg.norm(middles[:, None] - places[None], axis=2) / (NEARNESS * sides)
    fits: FloatArray64 = np.log(scores)[:, None] - 0.5 * distances**2
    return fits


def _middle(result: Mapping[str, Any], points: FloatArray64) -> FloatArray64:
    box = result.get("bbox")
    if box is None:
        return np.asarray(0.5 * (points.min(0) + points.max(0)))
    return np.array([box[0] + 0.5 * box[2], box[1] + 0.5 * box[3]], np.float64)


def _points(result: Mapping[str, Any], image: str) -> FloatArray64:
    values = np.asarray(result["keypoints"], np.float64)
    if values.shape != (3 * len(MPII16),):
        raise ValueError(f"a result of picture {image!r} has {values.size} keypoint numbers, not {3 * len(MPII16)}")
    return values.reshape(-1, 3)[:, :2]


def _head_size(person: MpiiPerson) -> float:
    if person.head_box is not None:
        return SIZE_OF_HEAD * float(np.linalg.norm(person.head_box[2:] - person.head_box[:2]))
    neck, top = (person.keypoints[MPII16.keypoints.index(name)] for name in ("upper_neck", "head_top"))
    length = float(np.linalg.norm(top[:2] - neck[:2]))
    if neck[2] > 0 and top[2] > 0 and length > 0:
        return length
    return 0.1 * float(person.box[2] - person.box[0])


def _relative_distances(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, labelled: npt.ArrayLike, sizes: npt.ArrayLike
) -> tuple[FloatArray64, npt.NDArray[np.bool_]]:
    """(N, 16) distances in head sizes, infinite where nothing was found, and which joints count."""
    found, real, heads = (np.asarray(v, np.float64) for v in (predicted, truth, sizes))
    mask = np.asarray(labelled) > 0
    n, k = len(heads), len(MPII16)
    if found.shape != (n, k, 2) or real.shape != (n, k, 2) or mask.shape != (n, k):
        raise ValueError(
            f"PCKh of {n} people needs predictions and truth of shape ({n}, {k}, 2) and labels of ({n}, {k}), "
            f"not {found.shape}, {real.shape} and {mask.shape}"
        )
    if not (heads > 0).all():
        raise ValueError(f"head size {heads[~(heads > 0)][0]} is not positive")
    distances = np.linalg.norm(found - real, axis=2) / heads[:, None]
    return np.where(np.isfinite(distances), distances, np.inf), mask


def _rates(distances: FloatArray64, mask: npt.NDArray[np.bool_], limit: float, formula: Formula) -> FloatArray64:
    near = distances <= limit if formula == "official" else distances < limit
    rates: FloatArray64 = (near & mask).sum(0) / mask.sum(0).clip(1)
    return rates


def _mean_of_sides(rates: FloatArray64, counts: npt.NDArray[np.int64], sides: Sequence[int]) -> float:
    """A side that is never labelled does not pull the other down."""
    known = [float(rates[s]) for s in sides if counts[s]]
    return sum(known) / len(known) if known else 0.0
