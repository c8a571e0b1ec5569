"""Poses as one JSON file in COCO's form, and back.

The file is an object with ``info``, ``images``, ``categories`` and ``annotations``. An annotation is a COCO keypoint
result: the third number of a keypoint is its score. Poise adds ``track_id`` (who it is) and ``visibility`` to
annotations, ``frame`` and ``time`` to images, and to the category what a skeleton needs that is not built in.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import poise
from poise.data.coco import read_skeleton
from poise.data.coco_rules import people_category
from poise.results.pictures import completed
from poise.results.writer import PoseSink
from poise.skeletons import COCO17, SKELETONS, Skeleton
from poise.types import Poses

CATEGORY = 1
"""Id of the one category: person."""
Entry = Mapping[str, Any]


class CocoWriter(PoseSink):
    """Writes images to the file and annotations to a temporary one, which is appended at the end.

    Args:
        path: of the file.
        skeleton: of all poses.
        info: what else its ``info`` says.
    """

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17, info: Entry | None = None) -> None:
        super().__init__(path, skeleton)
        self._main = self._stack.enter_context(self._temporary(self.path).open("w", encoding="utf-8"))
        self._annotations = self._stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))  # noqa: SIM115
        document = empty_document(skeleton)
        about = _json({**document["info"], **(info or {})})
        self._main.write(f'{{"info": {about}, "categories": {_json(document["categories"])}, "images": [')
        self._count = 0

    def _write(self, poses: Poses, **more: Any) -> None:
        number = self.pictures + 1
        self._main.write(("\n" if number == 1 else ",\n") + _json(image_entry(poses, number, **more)))
        for result in poses.to_coco(number, CATEGORY):
            self._count += 1
            separator = "\n" if self._count == 1 else ",\n"
            self._annotations.write(separator + _json({"id": self._count, **result}))

    def _finish(self) -> None:
        self._main.write('], "annotations": [')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._main)
        self._main.write("]}\n")


def empty_document(skeleton: Skeleton) -> dict[str, Any]:
    """What is written for no picture."""
    info = {"description": f"poses found by Poise {poise.__version__}"}
    return {"info": info, "images": [], "categories": [category(skeleton)], "annotations": []}


def category(skeleton: Skeleton) -> dict[str, Any]:
    """A COCO category; of a skeleton that is not built in, also with ``sigmas``, ``flip_pairs`` and its name."""
    entry: dict[str, Any] = {
        "id": CATEGORY,
        "name": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
    }
    if skeleton not in SKELETONS.values():
        entry["sigmas"] = list(skeleton.sigmas)
        entry["flip_pairs"] = [list(pair) for pair in skeleton.flip_pairs]
        entry["skeleton_name"] = skeleton.name
    return entry


def image_entry(poses: Poses, number: int, **more: Any) -> dict[str, Any]:
    """A COCO image: id, file_name, width, height (0 where unknown); frame and time of a video's."""
    height, width = poses.image_size or (0, 0)
    entry: dict[str, Any] = {"id": number, "file_name": poses.source or "", "width": width, "height": height}
    if poses.frame is not None:
        entry["frame"] = poses.frame
    if poses.time is not None:
        entry["time"] = round(poses.time, 6)
    return {**entry, **more}


def read_coco_poses(path: str | Path, skeleton: Skeleton | None = None) -> list[Poses]:
    """The poses of every picture, in the file's order, those without people included.

    A keypoint that is all zeros is one that is not known (NaN). Where all poses have ids, or visibility, a picture
    without people has an empty array of them.

    Args:
        path: what `CocoWriter` wrote, or a list of COCO keypoint results; of such a list only pictures with people
            are known, and ``source`` is the text of their ``image_id``.
        skeleton: of a list of results; by default COCO's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else; one line that names file and annotation.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"file of poses {path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {' '.join(str(error).split())}") from None
    try:
        found = _read_document(data, path, skeleton) if isinstance(data, dict) else _read_results(data, path, skeleton)
        return completed(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold poses in COCO's form: {type(error).__name__} {error}") from None


def _read_document(data: Entry, path: Path, skeleton: Skeleton | None) -> list[Poses]:
    people: dict[Any, list[Entry]] = {image["id"]: [] for image in data["images"]}
    category: Any = None
    if skeleton is None:
        described = people_category(data["categories"], path, named=True)
        skeleton, category = _skeleton(described, path), described.get("id")
    for entry in data["annotations"]:
        if category is not None and entry.get("category_id", category) != category:
            continue
        if entry["image_id"] not in people:
            image = entry["image_id"]
            raise ValueError(f"{path}: annotation {entry.get('id')!r} is of image {image!r}, which is not there")
        people[entry["image_id"]].append(entry)
    return [_of_image(image, people[image["id"]], skeleton, path) for image in data["images"]]


def _skeleton(described: Entry, path: Path) -> Skeleton:
    """The skeleton of the category of people."""
    found = read_skeleton(described, path)
    return replace(found, name=str(described.get("skeleton_name", found.name)))


def _read_results(data: list[Entry], path: Path, skeleton: Skeleton | None) -> list[Poses]:
    people: dict[Any, list[Entry]] = {}
    for entry in data:
        people.setdefault(entry["image_id"], []).append(entry)
    return [_of_image({"file_name": str(key)}, group, skeleton or COCO17, path) for key, group in people.items()]


def _of_image(image: Entry, people: list[Entry], skeleton: Skeleton, path: Path) -> Poses:
    triples = [_triples(entry, skeleton, path) for entry in people]
    boxes = np.array([entry.get("bbox") or [0] * 4 for entry in people], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    whole = np.array(triples, np.float32).reshape(-1, len(skeleton), 3)
    points = np.where((whole == 0).all(2, keepdims=True), np.float32(np.nan), whole[..., :2])
    size = (int(image.get("height") or 0), int(image.get("width") or 0))
    complete = bool(people)
    return Poses(
        points,
        whole[..., 2],
        boxes.astype(np.float32),
        np.array([entry.get("score", 1.0) for entry in people], np.float32),
        skeleton,
        size if all(size) else None,
        image.get("file_name") or None,
        visibility=_column(people, "visibility") if complete else None,
        ids=_column(people, "track_id") if complete else None,
        frame=image.get("frame"),
        time=image.get("time"),
    )


def _triples(entry: Entry, skeleton: Skeleton, path: Path) -> list[float]:
    values: list[float] = entry["keypoints"]
    if len(values) != 3 * len(skeleton):
        raise ValueError(
            f"{path}: annotation {entry.get('id')!r} has {len(values)} numbers for keypoints; skeleton "
            f"{skeleton.name!r} takes {3 * len(skeleton)}"
        )
    return values


def _column(people: list[Entry], key: str) -> Any:
    values = [entry.get(key) for entry in people]
    return None if None in values else np.array(values, np.int64)


def _json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if any("\ud800" <= c <= "\udfff" for c in text):  # a file name that is no UTF-8; only escapes can hold it
        return json.dumps(value, allow_nan=False)
    return text
