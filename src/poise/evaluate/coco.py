"""COCO keypoint evaluation: average precision and recall over object keypoint similarity.

Letters: K keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poise.evaluate.evaluation import CROWD_LIMITS, Evaluation, evaluate_entries, truth_skeleton
from poise.evaluate.tables import BODY_SHARE_OF_BOX, person_category, read_json, read_truth
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
            pictures are found in the truth by their file names.
        truth: content of the annotation file that the results are of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or pictures are not those of the truth.
    """
    where = f"results file {path}"
    data = read_json(Path(path), where)
    entries: Any = data.get("annotations") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError(f"{where} holds neither a list of COCO results nor an object with images and annotations")
    results: list[dict[str, Any]] = entries
    if isinstance(data, list) or not isinstance(data.get("images"), list):
        return results
    ids = _ids_by_file(data["images"], truth, where)
    return [{**entry, "image_id": ids.get(entry.get("image_id"), entry.get("image_id"))} for entry in results]


def _ids_by_file(images: Sequence[Mapping[str, Any]], truth: Mapping[str, Any], where: str) -> dict[Any, Any]:
    """From the ids of pictures in a file to the ids of the pictures of the same name in the truth."""
    by_name = {_file_name(image): image["id"] for image in truth["images"]}
    ids = {}
    for image in images:
        name = _file_name(image)
        if name not in by_name:
            raise ValueError(f"{where} has a picture {image.get('file_name')!r}, which the annotations do not list")
        ids[image.get("id")] = by_name[name]
    return ids


def _file_name(image: Mapping[str, Any]) -> str:
    return Path(str(image.get("file_name", ""))).name
