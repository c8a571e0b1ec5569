"""Labels for keypoints that nobody labelled, by a model that looks at each annotated person: self-training.

A pose is believed only where it agrees with what is labelled, and of it only keypoints that the model is sure of.
Labels that are there are never changed.

Letters: K keypoints. Frames: image px.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.coco import images_by_id
from poise.data.coco_rules import extent
from poise.data.crops import crop_view
from poise.data.json_files import numbers
from poise.data.records import Record
from poise.data.samples import record_image
from poise.predict.topdown import TopDownPredictor
from poise.types import FloatArray, ImageArray, Poses

NEAR = 0.1
"""A keypoint agrees with its label if it is no farther from it than this share of the longer side of the box."""
LEAST = 3
"""Labelled keypoints that a person needs: fewer say too little about whether the model sees the same person."""
MARK = "labelled_by_model"
"""Field of an annotation: names of the keypoints that were added."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """What came of it.

    Attributes:
        document: COCO annotations with the added keypoints, visibility 2.
        people: that were looked at: not crowds, with at least `LEAST` labelled keypoints and one unlabelled.
        agreed: people whose pose agreed with their labels.
        changed: people who got keypoints.
        added: keypoints added, by name.
    """

    document: dict[str, Any]
    people: int
    agreed: int
    changed: int
    added: Mapping[str, int]


def label_missing(
    document: Mapping[str, Any],
    images: str | Path,
    predictor: TopDownPredictor,
    *,
    min_score: float = 0.55,
    agreement: float = 0.6,
    turns: bool = True,
    flip: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Labelled:
    """COCO annotations with keypoints added that the model is sure of.

    Args:
        document: COCO keypoint annotations; it is not changed.
        images: folder of the pictures.
        predictor: of a model with the keypoints of the annotations; its source of people is not asked.
        min_score: keypoints that the model is less sure of are left out.
        agreement: of a person's labelled keypoints, this share must lie near where the model sees them.
        turns: look at each person turned by quarters, too, and take the pose that agrees best.
        flip: look at each person mirrored, too.
        progress: is told how many pictures of how many are done.

    Raises:
        FileNotFoundError: a picture is missing.
        ValueError: the keypoints are others than the model's, an entry does not fit, a picture cannot be read or has
            not the size that is annotated, or a share is out of bounds.
    """
    for name, value in (("min_score", min_score), ("agreement", agreement)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} {value!r} must lie in 0..1")
    names = _names(document, predictor)
    made = copy.deepcopy(dict(document))
    listed = images_by_id(made["images"], "the annotations")
    by_picture = _people(made["annotations"], listed, len(names))
    agreed, changed, added = 0, 0, Counter[str]()
    for done, (picture, people) in enumerate(by_picture.items(), 1):
        image = _picture(listed[picture], Path(images), len(names))
        for annotation in people:
            pose, share = _best(predictor, image, annotation, 4 if turns else 1, flip)
            if share >= agreement:
                agreed += 1
                new = _add(annotation, pose, min_score)
                changed += bool(new)
                added.update(names[k] for k in new)
                if new:
                    annotation[MARK] = [names[k] for k in new]
        if progress is not None:
            progress(done, len(by_picture))
    return Labelled(made, sum(map(len, by_picture.values())), agreed, changed, {n: added[n] for n in names if added[n]})


def _names(document: Mapping[str, Any], predictor: TopDownPredictor) -> list[str]:
    """Names of the K keypoints; ``ValueError`` unless annotations and model agree on them."""
    for field in ("images", "annotations", "categories"):
        entries = document.get(field)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"these are no COCO annotations: {field!r} is not a list of objects")
    told = [category.get("keypoints") for category in document["categories"]]
    names = list(predictor.skeleton.keypoints)
    if names not in told:
        raise ValueError(f"the model finds {', '.join(names)}; no category of the annotations has these keypoints")
    return names


def _people(
    annotations: Sequence[dict[str, Any]], listed: Mapping[Any, Any], count: int
) -> dict[Any, list[dict[str, Any]]]:
    """Those that lack some of their keypoints, by picture; ``ValueError`` if one does not fit."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for annotation in annotations:
        key = annotation.get("image_id")
        if not isinstance(key, int | str) or key not in listed:
            raise ValueError(f"annotation {annotation.get('id')!r} belongs to image {key!r}, which is not listed")
        if _wants_labels(annotation, count):
            found.setdefault(key, []).append(annotation)
    return found


def _wants_labels(annotation: Mapping[str, Any], count: int) -> bool:
    labels = annotation.get("keypoints")
    if annotation.get("iscrowd") or not isinstance(labels, list) or len(labels) != 3 * count:
        return False
    values = numbers(labels, "keypoints", 3 * count, f"annotation {annotation.get('id')!r}")
    return LEAST <= sum(v > 0 for v in values[2::3]) < count


def _picture(entry: Mapping[str, Any], folder: Path, count: int) -> ImageArray:
    """(H, W, 3) as the reader of data sets has it: in the orientation that was annotated."""
    path, size = folder / entry["file_name"], (entry["height"], entry["width"])
    return record_image(Record.without_people(path, entry["id"], size, count))


def _box(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """xyxy; without ``bbox``, the extent of the labelled keypoints."""
    if annotation.get("bbox") is None:
        return extent(annotation["keypoints"]) or (0.0, 0.0, 0.0, 0.0)
    where = f"annotation {annotation.get('id')!r}"
    x, y, width, height = numbers(annotation["bbox"], "bbox", 4, where)
    if width < 0 or height < 0:
        raise ValueError(f"{where}: bbox {annotation['bbox']} has a negative side")
    return x, y, x + width, y + height


def _best(
    predictor: TopDownPredictor, image: ImageArray, annotation: Mapping[str, Any], turns: int, flip: bool
) -> tuple[Poses, float]:
    """Of the looks at a person, the pose that agrees best with the labels, and the share of labels that it meets."""
    box = _box(annotation)
    near = NEAR * max(box[2] - box[0], box[3] - box[1])
    views = [crop_view(image, box, predictor.model.view, turns=turn) for turn in range(turns)]
    labels = np.reshape(np.asarray(annotation["keypoints"], np.float32), (-1, 3))
    there = labels[:, 2] > 0
    poses = predictor.predict_views(views, flip=flip)
    shares = [_met(pose.keypoints[0, there], labels[there, :2], near) for pose in poses]
    best = int(np.argmax(shares))
    return poses[best], shares[best]


def _met(found: FloatArray, labels: FloatArray, near: float) -> float:
    return float((np.linalg.norm(found - labels, axis=1) <= near).mean())


def _add(annotation: dict[str, Any], pose: Poses, min_score: float) -> list[int]:
    """Write sure keypoints, within the box and a tenth around it, where there is no label; their numbers."""
    x1, y1, x2, y2 = _box(annotation)
    margin = 0.1 * max(x2 - x1, y2 - y1)
    low, high = np.array([x1, y1]) - margin, np.array([x2, y2]) + margin
    labels = annotation["keypoints"]
    new = []
    for k, (point, score) in enumerate(zip(pose.keypoints[0], pose.keypoint_scores[0], strict=True)):
        if labels[3 * k + 2] == 0 and score >= min_score and (low <= point).all() and (point <= high).all():
            labels[3 * k : 3 * k + 3] = [round(float(point[0]), 1), round(float(point[1]), 1), 2]
            new.append(k)
    if new:
        annotation["num_keypoints"] = sum(v > 0 for v in labels[2::3])
    return new
