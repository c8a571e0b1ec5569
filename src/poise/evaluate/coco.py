"""COCO keypoint evaluation: average precision and recall over object keypoint similarity.

Letters: K keypoints.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from poise.data.coco_rules import people_category
from poise.data.json_files import load_json
from poise.evaluate.evaluation import CROWD_LIMITS, Evaluation, evaluate_entries, truth_skeleton
from poise.evaluate.tables import BODY_SHARE_OF_BOX, person_category, picture_id, read_truth, require_entries
from poise.skeletons import Skeleton

__all__ = [
    "BODY_SHARE_OF_BOX",
    "METRICS",
    "evaluate_keypoints",
    "evaluate_results",
    "person_category",
    "read_results",
    "read_truth",
]

METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The numbers of a keypoint evaluation, in the order of the COCO tools. M and L are people of medium and large area."""

Truth = str | Path | Mapping[str, Any]
Results = Sequence[Mapping[str, Any]]


def evaluate_keypoints(truth: Truth, results: Results, skeleton: Skeleton) -> dict[str, float]:
    """Compare predicted poses with a COCO annotation file.

    The numbers are those of the COCO tools. The 20 best poses of a picture count. The area of a pose, which only
    decides whether an unmatched pose counts among the medium or the large ones, is that of the ``bbox`` if the first
    result has one, else the extent of the keypoints.

    Annotations may lack ``id``, ``iscrowd`` (0), ``num_keypoints`` (counted), ``bbox`` (extent of the labelled
    keypoints) and ``area`` (0.53 of the box). People without a labelled keypoint and crowds are ignored, as in
    COCO; annotations of pictures that the file does not list are left out, and results of other categories.

    Args:
        truth: path or content of the annotation file.
        results: COCO keypoint results (see `Poses.to_coco`): image_id, keypoints (3 K numbers), score.
        skeleton: says K and the sigmas.

    Returns:
        The numbers named in `METRICS`, each in 0..1; 0 where nothing was found, or where the truth has nobody.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file or result does not fit (the message names the annotation or the picture).
    """
    numbers = evaluate_results(truth, results, skeleton).numbers
    return {name: numbers[name] for name in METRICS}


def evaluate_results(
    truth: Truth,
    results: Results | str | Path,
    skeleton: Skeleton | None = None,
    *,
    name: str | None = None,
    crowd_limits: tuple[float, float] = CROWD_LIMITS,
) -> Evaluation:
    """All that is known about results; `evaluate_keypoints` says what counts.

    Pictures with a ``crowdIndex`` make it an evaluation as CrowdPose's: areas are 0.53 of the boxes, and AP_easy,
    AP_medium and AP_hard are measured on the pictures below, between and from the limits on.

    Args:
        truth: path or content of the annotation file.
        results: COCO keypoint results, or the path of a file of them (see `read_results`).
        skeleton: says K and the sigmas; by default as the annotation file says (see `truth_skeleton`).
        name: of the results, for tables; by default that of their file.
        crowd_limits: crowd indices from which pictures are medium and hard.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file or result does not fit (the message names the annotation or the picture).
    """
    data = read_truth(truth)
    path = None if isinstance(truth, Mapping) else Path(truth)
    if isinstance(results, str | Path):
        name, results = name or str(results), read_results(results, data)
    skeleton = skeleton or truth_skeleton(data, path)
    return evaluate_entries(data, results, skeleton, name or "results", crowd_limits)


def read_results(path: str | Path, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """COCO keypoint results from a JSON file (also ``.gz``).

    Args:
        path: a list of results; or an object with ``images`` and ``annotations``, as ``poise predict`` writes, whose
            pictures are found in the truth by their file names, folders of which count where several are called alike.
            If it lists ``categories``, that of its people becomes that of the truth's.
        truth: content of the annotation file that the results are of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, its pictures are not those of the truth, one by one, or it cannot be told
            which of its categories are people.
    """
    where = f"results file {path}"
    data = load_json(Path(path), "results file")
    entries: Any = data.get("annotations") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError(f"{where} holds neither a list of COCO results nor an object with images and annotations")
    require_entries(entries)
    results: list[dict[str, Any]] = entries
    if isinstance(data, list):
        return results
    categories = _categories(data.get("categories"), truth, where)
    if categories:
        results = [_translated(entry, "category_id", categories) for entry in results]
    if not isinstance(data.get("images"), list):
        return results
    ids = _ids_by_file(data["images"], truth, where)
    return [_translated(entry, "image_id", ids) for entry in results]


def _translated(entry: dict[str, Any], field: str, known: Mapping[Any, Any]) -> dict[str, Any]:
    """The entry with another value in a field, where one is known for what it has there."""
    value = entry.get(field)
    return {**entry, field: known[value]} if isinstance(value, Hashable) and value in known else entry


def _categories(listed: Any, truth: Mapping[str, Any], where: str) -> dict[Any, Any]:
    """From the category of people in a file to that of the truth; what has the latter's id there gets the former."""
    own, people = people_category(listed, where).get("id"), person_category(truth)
    if people is None or not isinstance(own, int | str) or own == people:
        return {}
    return {own: people, people: own}


def _ids_by_file(images: Sequence[Any], truth: Mapping[str, Any], where: str) -> dict[Any, Any]:
    """From the ids of pictures in a file to the ids of the pictures of the same name in the truth."""
    known: dict[str, list[tuple[_Parts, Any]]] = {}
    for image in truth["images"]:
        parts = _parts(image)
        known.setdefault(parts[-1], []).append((parts, image["id"]))
    ids: dict[Any, Any] = {}
    taken: dict[Any, Any] = {}
    for image in images:
        number, name = picture_id(image, where), image.get("file_name")
        found = _alike(_parts(image), known.get(_parts(image)[-1], []))
        if len(found) != 1:
            problem = "could be several of the annotations" if found else "the annotations do not list"
            raise ValueError(f"{where} has a picture {name!r}, which {problem}")
        if found[0] in taken:
            raise ValueError(
                f"{where} has pictures {taken[found[0]]!r} and {name!r}, but the annotations list one such picture"
            )
        taken[found[0]] = name
        if number in ids:
            raise ValueError(f"{where} gives picture id {number!r} twice")
        ids[number] = found[0]
    return ids


_Parts = tuple[str, ...]


def _parts(image: Mapping[str, Any]) -> _Parts:
    """Folders and name of a picture."""
    return PurePath(str(image.get("file_name", ""))).parts or ("",)


def _alike(parts: _Parts, known: Sequence[tuple[_Parts, Any]]) -> list[Any]:
    """Ids of the known pictures that share most folders from the end; of these, those that share all they have."""
    shares = [_shared(parts, other) for other, _ in known]
    best = [entry for entry, share in zip(known, shares, strict=True) if share == max(shares)]
    whole = [(other, key) for other, key in best if len(other) == max(shares)]
    return [key for _, key in whole or best]


def _shared(first: _Parts, second: _Parts) -> int:
    """How many parts two paths share from the end."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first[::-1], second[::-1], strict=False)))
