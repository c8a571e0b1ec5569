"""COCO keypoint evaluation: average precision and recall over object keypoint similarity.

Letters: N annotations or results, K keypoints.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poise.skeletons import Skeleton

METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
"""The numbers of a keypoint evaluation, in the order of the COCO tools. M and L are people of medium and large area."""

BODY_SHARE_OF_BOX = 0.53
"""Area of a person over the area of the box, for annotations without ``area`` (as the CrowdPose evaluation)."""

_LOG = logging.getLogger(__name__)
_CATEGORY = 1


def read_truth(truth: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """The content of a COCO annotation file; a mapping is returned as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or has no list of images.
    """
    if isinstance(truth, Mapping):
        data, where = truth, "annotations"
    else:
        path = Path(truth)
        where = f"annotation file {path}"
        if not path.is_file():
            raise FileNotFoundError(f"{where} does not exist")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(data, Mapping) or not isinstance(data.get("images"), list):
        raise ValueError(f"{where} has no list of images; a COCO keypoint file has images, annotations and categories")
    return data


def evaluate_keypoints(
    truth: str | Path | Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton
) -> dict[str, float]:
    """Compare predicted poses with a COCO annotation file.

    The 20 best poses of a picture count. The area of a pose, which only decides whether an unmatched pose counts
    among the medium or the large ones, is the extent of its keypoints: a ``bbox`` in the results is not looked at.

    Annotations may lack ``id``, ``iscrowd`` (0), ``num_keypoints`` (counted), ``bbox`` (extent of the labelled
    keypoints) and ``area`` (0.53 of the box). People without a labelled keypoint and crowds are ignored, as in
    COCO; annotations of pictures that the file does not list are left out.

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
    data = read_truth(truth)
    number_of = _image_numbers([image["id"] for image in data["images"]])
    people = _truth_annotations(data, number_of, skeleton)
    found = [_result(result, number_of, skeleton) for result in results]
    if not found or not any(not person["ignored"] for person in people):
        return dict.fromkeys(METRICS, 0.0)
    return _run(sorted(number_of.values()), people, found, skeleton)


def _run(
    images: list[int], people: list[dict[str, Any]], found: list[dict[str, Any]], skeleton: Skeleton
) -> dict[str, float]:
    from faster_coco_eval import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    truth = COCO(
        {
            "images": [{"id": number} for number in images],
            "categories": [{"id": _CATEGORY, "name": "person"}],
            "annotations": people,
        },
        print_function=_LOG.debug,
    )
    evaluation = COCOeval_faster(
        truth, truth.loadRes(found), "keypoints", kpt_oks_sigmas=list(skeleton.sigmas), print_function=_LOG.debug
    )
    evaluation.run()
    return {name: max(0.0, float(value)) for name, value in zip(METRICS, evaluation.all_stats, strict=True)}


def _image_numbers(ids: Sequence[Any]) -> dict[Any, int]:
    """Numbers from 1, in the order of the ids where they can be ordered: the evaluator takes integers only."""
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if list(ids).count(i) > 1)
        raise ValueError(f"picture id {twice!r} is given twice in the annotations")
    ordered = sorted(ids) if all(isinstance(i, int) for i in ids) else ids
    return {image_id: number for number, image_id in enumerate(ordered, 1)}


def _truth_annotations(
    data: Mapping[str, Any], number_of: Mapping[Any, int], skeleton: Skeleton
) -> list[dict[str, Any]]:
    category = person_category(data)
    people = [
        annotation
        for annotation in data.get("annotations", [])
        if annotation.get("image_id") in number_of
        and (category is None or annotation.get("category_id", category) == category)
    ]
    return [_truth_annotation(person, number, number_of, skeleton) for number, person in enumerate(people, 1)]


def person_category(data: Mapping[str, Any]) -> int | None:
    """Id of the category that has keypoints (else is called person) in a COCO file; None if it lists no categories.

    Raises:
        ValueError: categories are listed, but none is of people.
    """
    categories = data.get("categories") or []
    if not categories:
        return None
    for fits in (lambda c: bool(c.get("keypoints")), lambda c: c.get("name") == "person"):
        for category in categories:
            if fits(category):
                return int(category["id"])
    names = ", ".join(str(c.get("name")) for c in categories[:5])
    raise ValueError(f"none of the annotations' categories has keypoints or is called person: {names}")


def _truth_annotation(
    annotation: Mapping[str, Any], number: int, number_of: Mapping[Any, int], skeleton: Skeleton
) -> dict[str, Any]:
    where = f"annotation {annotation.get('id', number)!r}"
    keypoints = annotation.get("keypoints") or [0] * (3 * len(skeleton))
    points = _triples(keypoints, skeleton, where)
    box = annotation.get("bbox") or _extent(points)
    labelled = int(annotation.get("num_keypoints", np.count_nonzero(points[:, 2] > 0)))
    crowd = int(annotation.get("iscrowd", 0))
    return {
        "id": number,
        "image_id": number_of[annotation["image_id"]],
        "category_id": _CATEGORY,
        "keypoints": points.reshape(-1).tolist(),
        "num_keypoints": labelled,
        "bbox": [float(v) for v in box],
        "area": float(annotation.get("area", BODY_SHARE_OF_BOX * box[2] * box[3])),
        "iscrowd": crowd,
        "ignored": bool(crowd) or labelled == 0,
    }


def _result(result: Mapping[str, Any], number_of: Mapping[Any, int], skeleton: Skeleton) -> dict[str, Any]:
    image_id = result.get("image_id")
    if image_id not in number_of:
        raise ValueError(f"a result belongs to picture {image_id!r}, which the annotations do not list")
    points = _triples(result["keypoints"], skeleton, f"a result of picture {image_id!r}")
    return {
        "image_id": number_of[image_id],
        "category_id": _CATEGORY,
        "keypoints": points.reshape(-1).tolist(),
        "score": float(result["score"]),
    }


def _triples(keypoints: Sequence[float], skeleton: Skeleton, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(keypoints, np.float64)
    if values.shape != (3 * len(skeleton),):
        raise ValueError(
            f"{where} has {values.size} keypoint numbers; skeleton {skeleton.name!r} needs {3 * len(skeleton)}"
        )
    return values.reshape(-1, 3)


def _extent(points: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    seen = points[points[:, 2] > 0, :2]
    if len(seen) == 0:
        return [0.0, 0.0, 0.0, 0.0]
    low, high = seen.min(0), seen.max(0)
    return [*low.tolist(), *(high - low).tolist()]
