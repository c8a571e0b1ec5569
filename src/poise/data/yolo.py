"""Reader of YOLO pose data sets: a YAML file, folders of pictures, and a text file of people beside each picture.

The YAML file has ``kpt_shape`` [K, 2 or 3], ``flip_idx`` (K numbers), ``names`` of the classes, ``train``/``val``/
``test`` (folders, lists of pictures, or several of them, below ``path``), and optionally ``kpt_names``. A line of
``labels/NAME.txt`` is ``class cx cy w h`` and K times ``x y`` or ``x y visibility``, all relative to the picture.
Coordinates become pixels by width and height alone, as the tools that write the format have it. Letters: K keypoints.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import yaml

from poise.data.coco import AREA_OF_BOX, IMAGE_SUFFIXES, Unlabelled, visible
from poise.data.images import image_size
from poise.data.outlines import SkeletonOutline, outline_beside
from poise.data.records import PoseDataset, Record
from poise.skeletons import COCO17, Skeleton, mirrored_pairs
from poise.types import FloatArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class YoloConfig:
    """What a data set's YAML file says.

    Attributes:
        path: the file.
        keypoints: K.
        numbers: per keypoint, 2 (x, y) or 3 (and visibility).
        category: number of the class that is read.
        classes: how many classes there are.
        outline: the skeleton, sigmas perhaps missing.
        parts: names of the splits and their entries (folders, files) as written.
        root: folder that the entries start from.
    """

    path: Path
    keypoints: int
    numbers: int
    category: int
    classes: int
    outline: SkeletonOutline
    parts: Mapping[Split, tuple[str, ...]]
    root: Path


def read_yolo(
    config: str | Path,
    images: str | Path | None = None,
    *,
    split: Split | None = None,
    skeleton: Skeleton | SkeletonOutline | None = None,
    unlabelled: Unlabelled = "ignore",
    min_keypoints: int = 0,
    name: str | None = None,
) -> PoseDataset:
    """Read a YOLO pose data set; a picture without a text file is one without people.

    A picture's ``image_id`` is its path below the data set's root. Areas are `AREA_OF_BOX` of the boxes. With
    ``kpt_shape`` [K, 2] a keypoint at 0, 0 is not labelled, any other is visible.

    Args:
        config: the YAML file, or the folder that holds it.
        images: read this folder of pictures instead of what the YAML file lists.
        split: read only this part; by default all there are.
        skeleton: what the keypoints are; by default as a skeleton file beside the YAML file says, else as the YAML
            file itself does. Sigmas that are not given are estimated, with a warning.
        unlabelled: people without a labelled keypoint become ignore regions, or background.
        min_keypoints: keep only pictures with at least so many labelled keypoints.
        name: name of the data set; by default the folder's.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: a file does not fit; one line that names it and the line.
    """
    told = read_yolo_config(config)
    pictures = yolo_pictures(told, images, split)
    outline = skeleton or outline_beside(told.path) or told.outline
    if len(outline.keypoints) != told.keypoints:
        raise ValueError(
            f"{told.path}: kpt_shape says {told.keypoints} keypoints, skeleton {outline.name!r} has "
            f"{len(outline.keypoints)}"
        )
    records = [_record(picture, told, unlabelled) for picture in pictures]
    if isinstance(outline, SkeletonOutline):
        outline = outline.skeleton(lambda: _people(records, told.keypoints))
    kept = tuple(r for r in records if r.labelled >= min_keypoints)
    return PoseDataset(name or told.path.parent.name, outline, kept)


def find_yolo_config(path: str | Path) -> Path:
    """The YAML file itself, or the one with ``kpt_shape`` in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"data set {path} does not exist")
    files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
    found = [p for p in files if "kpt_shape" in p.read_text(encoding="utf-8", errors="replace")]
    if not found:
        raise FileNotFoundError(f"folder {path} holds no YAML file with kpt_shape; name the file with the annotations")
    if len(found) > 1:
        raise ValueError(f"folder {path} holds {', '.join(p.name for p in found)}; name one of them")
    return found[0]


def read_yolo_config(path: str | Path) -> YoloConfig:
    """Read the YAML file (or the one in a folder).

    Raises:
        FileNotFoundError: there is none.
        ValueError: it does not fit; one line that names the file and the field.
    """
    path = find_yolo_config(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} must hold a mapping of keys to values")
    shape = data.get("kpt_shape")
    if not _integers(shape) or len(shape) != 2 or shape[0] < 1 or shape[1] not in (2, 3):
        raise ValueError(f"{path}: kpt_shape = {shape!r} must be [number of keypoints, 2 or 3]")
    category, label = _category(data.get("names"), path)
    root = path.parent
    if data.get("path"):
        # data sets are moved about: a path that leads nowhere means the file's own folder, as for a missing one
        given = path.parent / str(data["path"])
        root = given if given.is_dir() else root
    parts = {split: _entries(data[split], split, path) for split in SPLITS if data.get(split)}
    outline = _outline(data, shape[0], category, label, path)
    return YoloConfig(path, shape[0], shape[1], category, len(data["names"]), outline, parts, root)


def yolo_pictures(config: YoloConfig, images: str | Path | None = None, split: Split | None = None) -> list[Path]:
    """The pictures of a data set, sorted within each folder; those that a list names need not exist.

    Raises:
        FileNotFoundError: a folder or list is missing.
        ValueError: the data set has no such split.
    """
    if images is not None:
        return _listed(Path(images))
    if split is not None and split not in config.parts:
        raise ValueError(f"{config.path} has no {split!r}; it has {', '.join(config.parts) or 'no split at all'}")
    chosen = config.parts if split is None else {split: config.parts[split]}
    found = [picture for entries in chosen.values() for entry in entries for picture in _listed(config.root / entry)]
    return list(dict.fromkeys(found))


def known_split(name: str) -> Split:
    """The split of that name; else a ``ValueError``."""
    for split in SPLITS:
        if name == split:
            return split
    raise ValueError(f"a data set has no part {name!r}; one of {', '.join(SPLITS)}")


def label_path(picture: Path) -> Path:
    """Where the people of a picture are: the last folder ``images`` becomes ``labels``, the suffix ``.txt``."""
    parts = list(picture.with_suffix(".txt").parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts)


def label_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers from 1 and fields of a label file; none if there is no file.

    Raises:
        ValueError: it is no text.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from None
    return [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]


def label_values(fields: Sequence[str], config: YoloConfig, where: str) -> tuple[int, list[float]]:
    """Class and numbers (4 of the box, then those of the keypoints) of a line.

    Raises:
        ValueError: another count, or something that is not a finite number.
    """
    wanted = 5 + config.keypoints * config.numbers
    if len(fields) != wanted:
        shape = f"class, box and {config.keypoints} x {config.numbers} keypoint numbers"
        raise ValueError(f"{where}: it has {len(fields)} numbers, expected {wanted} ({shape})")
    try:
        values = [float(f) for f in fields]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not all(math.isfinite(v) for v in values) or values[0] != int(values[0]):
        raise ValueError(f"{where}: class must be an integer and all numbers finite")
    return int(values[0]), values[1:]


def _record(picture: Path, config: YoloConfig, unlabelled: Unlabelled) -> Record:
    size = image_size(picture)
    keypoints, boxes, ignore = [], [], []
    for number, fields in label_lines(label_path(picture)):
        where = f"{label_path(picture)}, line {number}"
        category, values = label_values(fields, config, where)
        if category != config.category:
            continue
        points = _points(values[4:], config, size, where)
        box = _box(values[:4], size, where)
        if (points[:, 2] > 0).any():
            keypoints.append(points)
            boxes.append(box)
        elif unlabelled == "ignore":
            ignore.append(box)
    n = len(boxes)
    corners = np.array(boxes, np.float32).reshape(n, 4)
    return Record(
        path=picture,
        image_id=_image_id(picture, config.root),
        size=size,
        keypoints=np.array(keypoints, np.float32).reshape(n, config.keypoints, 3),
        boxes=corners,
        areas=AREA_OF_BOX * (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]),
        ignore=np.array(ignore, np.float32).reshape(-1, 4),
    )


def _points(values: Sequence[float], config: YoloConfig, size: tuple[int, int], where: str) -> FloatArray:
    rows = np.array(values, np.float64).reshape(config.keypoints, config.numbers)
    points = np.zeros((config.keypoints, 3))
    if config.numbers == 3:
        points[:, 2] = rows[:, 2]
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            raise ValueError(f"{where}: keypoint visibility must be 0, 1 or 2, not {points[:, 2].tolist()}")
    else:
        points[:, 2] = 2 * (rows != 0).any(1)
    points[:, :2] = rows[:, :2] * (size[1], size[0]) * (points[:, 2:] > 0)
    return points.astype(np.float32)


def _box(values: Sequence[float], size: tuple[int, int], where: str) -> list[float]:
    height, width = size
    cx, cy, w, h = values
    if w < 0 or h < 0:
        raise ValueError(f"{where}: box {list(values)} has a negative side")
    return [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]


def _image_id(picture: Path, root: Path) -> str:
    if not picture.is_relative_to(root):  # one of them may be written another way
        whole, base = picture.parent.resolve() / picture.name, root.resolve()
        return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else str(picture)
    return picture.relative_to(root).as_posix()


def _people(records: Sequence[Record], count: int) -> tuple[FloatArray, FloatArray]:
    keypoints = [r.keypoints for r in records] or [np.zeros((0, count, 3), np.float32)]
    return np.concatenate(keypoints), np.concatenate([r.areas for r in records] or [np.zeros(0, np.float32)])


def _listed(path: Path) -> list[Path]:
    """All pictures of a folder and the folders in it, but no hidden files, or the pictures that a text file lists."""
    if path.is_dir():
        return sorted(p for p in visible(path.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES)
    if path.is_file() and path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [path.parent / line.strip() for line in lines if line.strip()]
    raise FileNotFoundError(f"folder of pictures {path} does not exist")


def _integers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _category(names: Any, path: Path) -> tuple[int, str]:
    """Number and name of the class that is read: the one called person, or the only one."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not names:
        raise ValueError(f"{path}: names = {names!r} must name the classes, for example {{0: person}}")
    people = [(key, str(name)) for key, name in names.items() if len(names) == 1 or name == "person"]
    if len(people) != 1 or not isinstance(people[0][0], int):
        raise ValueError(f"{path}: names = {dict(names)!r}: exactly one class must be called person")
    return people[0]


def _entries(value: Any, split: str, path: Path) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError(f"{path}: {split} = {value!r} must be a folder or a list of folders")
    return tuple(entries)


def _outline(data: Mapping[str, Any], count: int, category: int, label: str, path: Path) -> SkeletonOutline:
    names = _keypoint_names(data.get("kpt_names"), count, category, path)
    flip_pairs = None if data.get("flip_idx") is None else flip_pairs_of(data["flip_idx"], count, str(path))
    if names is None and count == len(COCO17) and flip_pairs == COCO17.flip_pairs:
        names = COCO17.keypoints
    if flip_pairs is None:
        flip_pairs = mirrored_pairs(names) if names else ()
        if not flip_pairs:
            _LOG.warning("%s has no flip_idx: no keypoint changes its side in a mirrored picture", path)
    names = names or tuple(f"keypoint_{i}" for i in range(count))
    return SkeletonOutline(str(path), label, names, (), flip_pairs, None)


def flip_pairs_of(index: Any, count: int, where: str) -> tuple[tuple[int, int], ...]:
    """The pairs that a ``flip_idx`` exchanges.

    Raises:
        ValueError: it is not a permutation of all K keypoints that undoes itself.
    """
    if not _integers(index) or sorted(index) != list(range(count)):
        raise ValueError(f"{where}: flip_idx = {index!r} must hold each number from 0 to {count - 1} once")
    for i, j in enumerate(index):
        if index[j] != i:
            raise ValueError(f"{where}: flip_idx exchanges {i} for {j} but {j} for {index[j]}; it must undo itself")
    return tuple((i, j) for i, j in enumerate(index) if i < j)


def _keypoint_names(value: Any, count: int, category: int, path: Path) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        value = value.get(category)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"{path}: kpt_names must list {count} names, not {value!r}")
    return tuple(str(v) for v in value)
