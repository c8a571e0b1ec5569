"""Truth and results as arrays, checked on the way in.

Letters: I pictures, M annotated people, N found poses, K keypoints. Frame: image px. Pictures are in the order of their
ids, people in the order of their file, poses by picture and score: ties are then ranked as by the COCO tools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poise.data.coco_rules import extent, people_category
from poise.data.json_files import load_json
from poise.skeletons import Skeleton

BODY_SHARE_OF_BOX = 0.53
"""Area of a person over the area of the box, for annotations without ``area`` (as the CrowdPose evaluation)."""
MAX_POSES = 20
"""So many of the best poses of a picture count (COCO)."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TruthTable:
    """Everybody who is annotated.

    Attributes:
        skeleton: of the keypoints.
        image_ids: of the I pictures.
        file_names: (I) of the pictures; empty where the file gives none.
        crowd_index: (I,) how crowded a picture is, 0..1; NaN where the file does not say (CrowdPose does).
        images: (M,) numbers of the people's pictures, 0..I-1, not sorted.
        keypoints: (M, K, 3) x, y, visibility.
        boxes: (M, 4) x, y, width, height, as in the file.
        areas: (M,) square px.
        crowd: (M,) bool: a region with many people.
        ignored: (M,) bool: a crowd, or nobody's keypoints are labelled; finding it is neither right nor wrong.
        annotation_ids: of the M people; their position, from 1, where the file gives none.
    """

    skeleton: Skeleton
    image_ids: tuple[int | str, ...]
    file_names: tuple[str, ...]
    crowd_index: Floats
    images: Ints
    keypoints: Floats
    boxes: Floats
    areas: Floats
    crowd: Bools
    ignored: Bools
    annotation_ids: tuple[Any, ...]

    def __len__(self) -> int:
        """Number of annotated people M."""
        return len(self.areas)

    @property
    def labelled(self) -> Bools:
        """(M, K) whether a keypoint is labelled."""
        return self.keypoints[..., 2] > 0


@dataclass(frozen=True, slots=True)
class PoseTable:
    """The `MAX_POSES` best poses of every picture, by picture, then from high to low score.

    Attributes:
        images: (N,) numbers of the pictures, 0..I-1, rising.
        keypoints: (N, K, 3) x, y, score.
        scores: (N,)
        boxes: (N, 4) x, y, width, height: as in the result, or the extent of the keypoints.
        areas: (N,) square px: of the box, or of the extent of the keypoints (see `pose_table`).
        rows: (N,) positions in the list of results that the table was made from.
    """

    images: Ints
    keypoints: Floats
    scores: Floats
    boxes: Floats
    areas: Floats
    rows: Ints

    def __len__(self) -> int:
        """Number of poses N."""
        return len(self.scores)

    @property
    def ranks(self) -> Ints:
        """(N,) position of a pose among those of its picture, from 0."""
        starts = np.searchsorted(self.images, self.images)
        return np.arange(len(self)) - starts

    def reordered(self, keypoints: Floats, scores: Floats, kept: Bools | None = None) -> PoseTable:
        """The same poses (or those ``kept``) with other keypoints and scores, in the order of these scores."""
        chosen = np.arange(len(self)) if kept is None else np.flatnonzero(kept)
        order = chosen[np.lexsort((-scores[chosen], self.images[chosen]))]
        boxes, areas, rows = self.boxes[order], self.areas[order], self.rows[order]
        return PoseTable(self.images[order], keypoints[order], scores[order], boxes, areas, rows)


def read_truth(truth: str | Path | Entry) -> Entry:
    """The content of a COCO annotation file (also ``.gz``); a mapping is returned as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, damaged, larger than `load_json` reads, has no list of images with ids, or has
            annotations that are no list.
    """
    if isinstance(truth, Mapping):
        data, where = truth, "annotations"
    else:
        where = f"annotation file {truth}"
        data = load_json(Path(truth))
    if not isinstance(data, Mapping) or not isinstance(data.get("images"), list):
        raise ValueError(f"{where} has no list of images; a COCO keypoint file has images, annotations and categories")
    if not isinstance(data.get("annotations"), list | tuple | None):
        raise ValueError(f"{where}: annotations are {data['annotations']!r:.40}; expected a list of objects")
    for picture in data["images"]:
        picture_id(picture, where)
    return data


def picture_id(picture: Any, where: str) -> int | str:
    """The id of an entry of ``images``.

    Raises:
        ValueError: it is no object, or its id neither a number nor a text; the message begins with ``where``.
    """
    if not isinstance(picture, Mapping):
        raise ValueError(f"{where}: picture {picture!r:.40} is no object with an id and a file_name")
    number = picture.get("id")
    if not isinstance(number, int | str):
        raise ValueError(f"{where}: picture id {number!r:.40} must be a number or a text")
    return number


def person_category(data: Entry) -> int | None:
    """Id of the category of people in a COCO file (see `people_category`); None if it lists no categories.

    Raises:
        ValueError: it cannot be told which one it is, or its id is not a number.
    """
    category = people_category(data.get("categories"), "annotations")
    number = category.get("id")
    if number is not None and not isinstance(number, int):
        raise ValueError(f"category {category.get('name')!r} of the annotations has id {number!r}; expected a number")
    return number


def truth_table(data: Entry, skeleton: Skeleton) -> TruthTable:
    """The people of a COCO keypoint file, as `poise.evaluate.coco.evaluate_keypoints` takes them.

    If pictures have a ``crowdIndex`` it is a CrowdPose file: areas are then `BODY_SHARE_OF_BOX` of the box throughout,
    as in its own evaluation.

    Raises:
        ValueError: an annotation does not fit; the message names it.
    """
    pictures = _pictures(data["images"])
    number_of = {picture["id"]: number for number, picture in enumerate(pictures)}
    people, names = _people(data, number_of)
    keypoints = _triples([p.get("keypoints") or [0] * (3 * len(skeleton)) for p in people], skeleton, names.__getitem__)
    boxes = _boxes(people, keypoints, names)
    crowd = np.array([bool(p.get("iscrowd")) for p in people], np.bool_)
    counted = (keypoints[..., 2] > 0).sum(1).tolist()
    labelled = _numbers(_given(people, "num_keypoints", counted), "num_keypoints", names.__getitem__)
    crowd_index = _crowd_index(pictures)
    shares = (boxes[:, 3] * boxes[:, 2] * BODY_SHARE_OF_BOX).tolist()
    if np.isnan(crowd_index).all():
        shares = _given(people, "area", shares)
    return TruthTable(
        skeleton=skeleton,
        image_ids=tuple(number_of),
        file_names=tuple(str(picture.get("file_name", "")) for picture in pictures),
        crowd_index=crowd_index,
        images=np.array([number_of[p["image_id"]] for p in people], np.int64),
        keypoints=keypoints,
        boxes=boxes,
        areas=_not_negative(_numbers(shares, "area", names.__getitem__), names),
        crowd=crowd,
        ignored=crowd | (labelled == 0),
        annotation_ids=tuple(p.get("id", number) for number, p in enumerate(people, 1)),
    )


def pose_table(results: Sequence[Entry], truth: TruthTable, category: int | None = None) -> PoseTable:
    """The poses of a list of COCO keypoint results.

    Areas, which only decide whether an unmatched pose counts among the medium or the large ones, are those of the
    COCO tools: if the first result has a ``bbox``, of the boxes, else of the extent of all keypoints.

    Args:
        results: image_id, keypoints (3 K numbers), score; optionally bbox and category_id.
        truth: whose pictures they are of.
        category: results of another one are left out, those that name none are taken; None takes all.

    Raises:
        ValueError: a result does not fit (the message names its picture), or all are of other categories.
    """
    rows = _rows(results, category)
    number_of = {image_id: number for number, image_id in enumerate(truth.image_ids)}
    found = [results[row] for row in rows.tolist()]
    images = np.array([_number_of(result, number_of) for result in found], np.int64)

    keypoints, scores = result_arrays(found, truth.skeleton)
    boxes, areas = _boxes_and_areas(found, keypoints)
    order = np.lexsort((-scores, images))
    ranks = np.arange(len(order)) - np.searchsorted(images[order], images[order])
    best = order[ranks < MAX_POSES]
    return PoseTable(images[best], keypoints[best], scores[best], boxes[best], areas[best], rows[best])


def result_arrays(results: Sequence[Entry], skeleton: Skeleton) -> tuple[Floats, Floats]:
    """Keypoints (N, K, 3) and scores (N,) of results.

    Raises:
        ValueError: a result does not fit; the message names its picture.
    """
    require_entries(results)
    where = _picture_of(results)
    keypoints = _triples([_field(r, "keypoints", where, i) for i, r in enumerate(results)], skeleton, where)
    return keypoints, _numbers([_field(r, "score", where, i) for i, r in enumerate(results)], "score", where)


def _pictures(entries: Sequence[Entry]) -> list[Entry]:
    """In the order of the ids where these can be ordered, else of the file."""
    ids = [picture_id(entry, "annotations") for entry in entries]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"picture id {twice!r} is given twice in the annotations")
    if len({isinstance(i, str) for i in ids}) > 1:
        return list(entries)
    return sorted(entries, key=lambda entry: entry["id"])


def _people(data: Entry, number_of: Mapping[Any, int]) -> tuple[list[Entry], list[str]]:
    """Annotations of people in listed pictures, and what messages call them."""
    category = person_category(data)
    entries = data.get("annotations") or []
    for annotation in entries:
        if not isinstance(annotation, Mapping):
            raise ValueError(f"annotation {annotation!r:.40} is no object with image_id and keypoints")
    people = [
        annotation
        for annotation in entries
        if isinstance(annotation.get("image_id"), Hashable)
        and annotation.get("image_id") in number_of
        and (category is None or annotation.get("category_id", category) == category)
    ]
    return people, [f"annotation {p.get('id', number)!r}" for number, p in enumerate(people, 1)]


def _crowd_index(pictures: Sequence[Entry]) -> Floats:
    """(I,) NaN where a picture has none."""
    result = np.full(len(pictures), np.nan)
    known = [number for number, picture in enumerate(pictures) if picture.get("crowdIndex") is not None]
    values = [pictures[number]["crowdIndex"] for number in known]
    result[known] = _numbers(values, "crowdIndex", lambda i: f"picture {pictures[known[i]]['id']!r}")
    return result


def _not_negative(areas: Floats, names: Sequence[str]) -> Floats:
    if (areas < 0).any():
        first = int(np.argmax(areas < 0))
        raise ValueError(f"{names[first]} has area {areas[first]:g}; expected at least 0")
    return areas


def _given(people: Sequence[Entry], field: str, otherwise: Sequence[Any]) -> list[Any]:
    """What people have under a field, and something else where that is missing or null."""
    return [other if p.get(field) is None else p[field] for p, other in zip(people, otherwise, strict=True)]


def _boxes(people: Sequence[Entry], keypoints: Floats, names: Sequence[str]) -> Floats:
    """(M, 4) x, y, width, height; the extent of the labelled keypoints where a person has no box."""
    boxes = [p.get("bbox") or _extent(points) for p, points in zip(people, keypoints, strict=True)]
    return _rectangles(boxes, names.__getitem__)


def _rectangles(boxes: list[Any], where: Callable[[int], str]) -> Floats:
    for position, box in enumerate(boxes):
        if not isinstance(box, Sequence) or len(box) != 4:
            raise ValueError(f"{where(position)} has bbox {box!r}, not 4 numbers")
    return _numbers(boxes, "bbox", where, 4).reshape(-1, 4)


def _extent(points: Floats) -> list[float]:
    x1, y1, x2, y2 = extent(points) or (0.0, 0.0, 0.0, 0.0)
    return [x1, y1, x2 - x1, y2 - y1]


def _rows(results: Sequence[Entry], category: int | None) -> Ints:
    """Positions of the results that are of people."""
    require_entries(results)
    named = [result.get("category_id") for result in results]
    rows = [row for row, name in enumerate(named) if category is None or name is None or name == category]
    if named and not rows:
        raise ValueError(f"all results are of category {named[0]!r}; people are category {category} of the annotations")
    return np.array(rows, np.int64)


def require_entries(results: Sequence[Any]) -> None:
    """``ValueError`` if a result is no object."""
    for result in results:
        if not isinstance(result, Mapping):
            raise ValueError(f"a result is {str(result)[:40]!r}, not an object with image_id, keypoints and score")


def _picture_of(results: Sequence[Entry]) -> Callable[[int], str]:
    return lambda position: f"a result of picture {results[position].get('image_id')!r}"


def _number_of(result: Entry, number_of: Mapping[Any, int]) -> int:
    image_id = result.get("image_id")
    number = number_of.get(image_id) if isinstance(image_id, Hashable) else None
    if number is None:
        raise ValueError(f"a result belongs to picture {image_id!r}, which the annotations do not list")
    return number


def _field(result: Entry, name: str, where: Callable[[int], str], position: int) -> Any:
    if result.get(name) is None:
        raise ValueError(f"{where(position)} has no {name}")
    return result[name]


def _boxes_and_areas(found: Sequence[Entry], keypoints: Floats) -> tuple[Floats, Floats]:
    """Boxes (N, 4) and areas (N,) of results."""
    low, sides = keypoints[..., :2].min(1), np.ptp(keypoints[..., :2], axis=1)
    boxes, extents = np.concatenate([low, sides], 1), sides.prod(1)
    where = _picture_of(found)
    boxed = [i for i, result in enumerate(found) if result.get("bbox")]
    boxes[boxed] = _rectangles([found[i]["bbox"] for i in boxed], lambda i: where(boxed[i]))
    return boxes, boxes[:, 2:].prod(1) if found and found[0].get("bbox") else extents


def _triples(rows: list[Any], skeleton: Skeleton, where: Callable[[int], str]) -> Floats:
    """(N, K, 3) of lists of 3 K numbers."""
    wanted = 3 * len(skeleton)
    for position, row in enumerate(rows):
        if not isinstance(row, Sequence | np.ndarray) or len(row) != wanted:
            size = len(row) if isinstance(row, Sequence | np.ndarray) else repr(row)
            raise ValueError(
                f"{where(position)} has {size} keypoint numbers; skeleton {skeleton.name!r} needs {wanted}"
            )
    return _numbers(rows, "keypoints", where, wanted).reshape(-1, len(skeleton), 3)


def _numbers(values: list[Any], what: str, where: Callable[[int], str], width: int = 0) -> Floats:
    """The values as an array (N,), or (N, width) if each is a list of so many, if all are finite numbers."""
    shape = (len(values), width) if width and values else (len(values),)
    try:
        array = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape == shape and np.isfinite(array).all():
        return array
    for position, value in enumerate(values):
        for number in value if width else [value]:
            if not _is_finite(number):
                raise ValueError(f"{where(position)} has {what} with {number!r:.40}, which is not a finite number")
    raise ValueError(f"{what} of {len(values)} entries are no numbers")


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float | np.number) and math.isfinite(value)
    except OverflowError:
        return False
