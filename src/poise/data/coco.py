"""Reader of COCO keypoint files, and of folders of pictures without people.

Coordinates are taken as they stand in the file: keypoints are pixel indices, boxes (x, y, width, height) become
(x, y, x + width, y + height).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import features

from poise.data.coco_rules import extent, people_category
from poise.data.images import image_size
from poise.data.json_files import load_json, numbers, require_pictures, stem
from poise.data.outlines import SkeletonOutline, category_outline, outline_beside
from poise.data.records import PoseDataset, Record
from poise.skeletons import Skeleton
from poise.types import FloatArray

AREA_OF_BOX = 0.53
"""Share of its box that a person's segment covers on average; stands in where a file gives no area."""
_AVIF = {".avif"} if "avif" in features.modules and features.check_module("avif") else frozenset[str]()
IMAGE_SUFFIXES = frozenset({".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp", *_AVIF})
"""What `read_folder` takes for pictures; ``.avif`` where Pillow can read it."""

Unlabelled = Literal["ignore", "background"]
Entry = Mapping[str, Any]


def read_coco(
    annotations: str | Path,
    images: str | Path,
    *,
    skeleton: Skeleton | SkeletonOutline | None = None,
    unlabelled: Unlabelled = "ignore",
    min_keypoints: int = 0,
    name: str | None = None,
) -> PoseDataset:
    """Read a COCO keypoint file.

    ``iscrowd`` regions are treated as ``unlabelled`` says. Pictures without an annotation are kept: nobody is in them.

    Args:
        annotations: the JSON file.
        images: the folder of its pictures.
        skeleton: what the keypoints are; by default as a YAML file beside the annotations says (see
            `poise.data.outlines`), else the file's category. Sigmas that are not given are estimated, with a warning.
        unlabelled: people without a labelled keypoint, and crowds, become ignore regions, or background (as in the
            papers' codes).
        min_keypoints: keep only pictures with at least so many labelled keypoints; 0 keeps all.
        name: name of the data set; by default the file's stem.

    Raises:
        FileNotFoundError: the file, the folder or pictures are missing.
        ValueError: the file does not fit; one line that names file and annotation.
    """
    annotations, images = Path(annotations), Path(images)
    data = _load(annotations)
    skeleton = skeleton or outline_beside(annotations)
    category = people_category(data.get("categories"), annotations, named=skeleton is None)
    skeleton = skeleton or category_outline(category, annotations)
    if category.get("keypoints") and len(category["keypoints"]) != len(skeleton.keypoints):
        raise ValueError(
            f"{annotations}: its category has {len(category['keypoints'])} keypoints, skeleton {skeleton.name!r} "
            f"has {len(skeleton.keypoints)}"
        )
    entries = images_by_id(data["images"], annotations)
    people = _people_by_image(data["annotations"], entries, category.get("id"), annotations)
    if isinstance(skeleton, SkeletonOutline):
        count = len(skeleton.keypoints)
        skeleton = skeleton.skeleton(lambda: _people(people, count, annotations))
    records = [
        _record(entry, people.get(key, []), images, skeleton, unlabelled, annotations) for key, entry in entries.items()
    ]
    kept = tuple(r for r in records if r.labelled >= min_keypoints)
    require_pictures([r.path for r in kept], images)
    return PoseDataset(name or stem(annotations), skeleton, kept)


def read_folder(images: str | Path, skeleton: Skeleton, name: str | None = None) -> PoseDataset:
    """All pictures of a folder as pictures without people, in order of their names; hidden files are none.

    Raises:
        FileNotFoundError: there is no such folder.
        ImageError: a file with a picture's suffix is not a picture.
    """
    images = Path(images)
    if not images.is_dir():
        raise FileNotFoundError(f"folder of pictures {images} does not exist")
    paths = sorted(p for p in visible(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES)
    records = [Record.without_people(p, i, image_size(p), len(skeleton)) for i, p in enumerate(paths)]
    return PoseDataset(name or images.name, skeleton, tuple(records))


def visible(paths: Iterable[Path]) -> Iterator[Path]:
    """Those whose names do not begin with a dot: macOS puts a hidden ``._a.jpg``, no picture, beside ``a.jpg``."""
    return (path for path in paths if not path.name.startswith("."))


def read_skeleton(category: Entry, where: str | Path) -> Skeleton:
    """The skeleton of a COCO category.

    A built-in skeleton is taken if the keypoint names are equal; if the category holds other ``sigmas`` (K numbers),
    with these. Else it must hold ``sigmas``; ``skeleton`` (1-based edges) and ``flip_pairs`` (0-based) are optional;
    without ``flip_pairs`` they are read off the names.

    Raises:
        ValueError: fields are missing or do not fit.
    """
    return category_outline(category, where).skeleton()


def _people(people: Mapping[Any, Sequence[Entry]], count: int, path: Path) -> tuple[FloatArray, FloatArray]:
    """Keypoints (N, K, 3) and areas (N,) of all labelled persons."""
    keypoints, areas = [], []
    for entry in (entry for group in people.values() for entry in group):
        where = f"{path}: annotation {entry.get('id')!r}"
        points = _keypoints(entry, count, where)
        if (points[:, 2] > 0).any() and not entry.get("iscrowd"):
            keypoints.append(points)
            areas.append(_area(entry, _box(entry, points, where), where))
    return np.array(keypoints, np.float32).reshape(-1, count, 3), np.array(areas, np.float32)


def _load(path: Path) -> dict[str, Any]:
    data = load_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a COCO file: its top level is a {type(data).__name__}, not an object")
    for key in ("images", "annotations"):
        if not isinstance(data.get(key), list):
            raise ValueError(f"{path} is not a COCO file: it has no list {key!r}")
        if not all(isinstance(entry, dict) for entry in data[key]):
            raise ValueError(f"{path}: every entry of {key!r} must be an object")
    return data


def images_by_id(entries: Iterable[Entry], path: str | Path) -> dict[Any, Entry]:
    """The images that a COCO file lists, by their ids.

    Raises:
        ValueError: an entry lacks id, name or size, or an id is given twice; it begins with ``path``.
    """
    found: dict[Any, Entry] = {}
    for entry in entries:
        key = entry.get("id")
        if not isinstance(key, int | str):
            raise ValueError(f"{path}: image id {key!r} must be a number or a text")
        if key in found:
            raise ValueError(f"{path}: image id {key!r} is given twice")
        if not isinstance(entry.get("file_name"), str):
            raise ValueError(f"{path}: image {key!r} has no file_name")
        for side in ("height", "width"):
            if not isinstance(entry.get(side), int) or entry[side] < 1:
                raise ValueError(f"{path}: image {key!r} has {side} {entry.get(side)!r}; expected a positive integer")
        found[key] = entry
    return found


def _people_by_image(
    entries: Iterable[Entry], images: Mapping[Any, Entry], category: Any, path: Path
) -> dict[Any, list[Entry]]:
    people: dict[Any, list[Entry]] = {}
    for entry in entries:
        if category is not None and entry.get("category_id", category) != category:
            continue
        key = entry.get("image_id")
        if not isinstance(key, int | str) or key not in images:
            raise ValueError(f"{path}: annotation {entry.get('id')!r} belongs to image {key!r}, which is not listed")
        people.setdefault(key, []).append(entry)
    return people


def _record(
    image: Entry, people: Sequence[Entry], folder: Path, skeleton: Skeleton, unlabelled: Unlabelled, path: Path
) -> Record:
    keypoints, boxes, areas, ignore = [], [], [], []
    for entry in people:
        where = f"{path}: annotation {entry.get('id')!r}"
        points = _keypoints(entry, len(skeleton), where)
        labelled = bool((points[:, 2] > 0).any())
        if entry.get("iscrowd") or not labelled:
            if unlabelled == "ignore":
                ignore.append(_box(entry, None, where))
            continue
        box = _box(entry, points, where)
        keypoints.append(points)
        boxes.append(box)
        areas.append(_area(entry, box, where))
    n, k = len(areas), len(skeleton)
    return Record(
        path=folder / image["file_name"],
        image_id=image["id"],
        size=(image["height"], image["width"]),
        keypoints=np.array(keypoints, np.float32).reshape(n, k, 3),
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        areas=np.array(areas, np.float32),
        ignore=np.array(ignore, np.float32).reshape(-1, 4),
        crowd_index=_crowd_index(image, path),
    )


def _crowd_index(image: Entry, path: Path) -> float | None:
    """CrowdPose's measure of how crowded a picture is."""
    if image.get("crowdIndex") is None:
        return None
    return numbers([image["crowdIndex"]], "crowdIndex", 1, f"{path}: image {image['id']!r}")[0]


def _keypoints(entry: Entry, count: int, where: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    if not entry.get("keypoints"):
        return np.zeros((count, 3), np.float32)
    values = numbers(entry["keypoints"], f"keypoints (3 x {count})", 3 * count, where)
    points = np.array(values, np.float32).reshape(count, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise ValueError(f"{where}: keypoint visibility must be 0, 1 or 2, not {points[:, 2].tolist()}")
    return points


def _box(
    entry: Entry, points: np.ndarray[Any, np.dtype[np.float32]] | None, where: str
) -> tuple[float, float, float, float]:
    """xyxy; without ``bbox``, the extent of the labelled keypoints."""
    if entry.get("bbox") is None:
        box = None if points is None else extent(points)
        if box is None:
            raise ValueError(f"{where}: it has neither bbox nor labelled keypoints")
        return box
    x, y, width, height = numbers(entry["bbox"], "bbox", 4, where)
    if width < 0 or height < 0:
        raise ValueError(f"{where}: bbox {entry['bbox']} has a negative side")
    return x, y, x + width, y + height


def _area(entry: Entry, box: Sequence[float], where: str) -> float:
    if entry.get("area") is None:
        return AREA_OF_BOX * (box[2] - box[0]) * (box[3] - box[1])
    return numbers([entry["area"]], "area", 1, where)[0]
