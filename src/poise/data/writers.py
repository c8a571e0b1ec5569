"""Writing data sets: as a COCO keypoint file, and as a YOLO pose data set.

Letters: K keypoints. Frame: image px.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from poise.data.images import image_size
from poise.data.records import PoseDataset, Record
from poise.data.samples import clip_boxes, points_inside, solid
from poise.data.yolo import Split, label_path
from poise.files import replacing, write_text
from poise.skeletons import Skeleton

CATEGORY = 1
_LOG = logging.getLogger(__name__)


def common_folder(dataset: PoseDataset) -> Path:
    """The folder that all pictures are below; the current one if there is none."""
    parents = {str(record.path.absolute().parent) for record in dataset}
    return Path(os.path.commonpath(parents)) if parents else Path()


def category_of(skeleton: Skeleton) -> dict[str, Any]:
    """A COCO category that says all of a skeleton; `poise.data.coco.read_skeleton` reads it back."""
    return {
        "id": CATEGORY,
        "name": skeleton.name if skeleton.name != "coco17" else "person",
        "supercategory": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
        "flip_pairs": [list(pair) for pair in skeleton.flip_pairs],
        "sigmas": list(skeleton.sigmas),
    }


def coco_document(dataset: PoseDataset, images: str | Path | None = None) -> dict[str, Any]:
    """A data set as the content of a COCO keypoint file; what `read_coco` makes of it equals the data set.

    Ignore regions become crowds. Pictures keep their ids if all of these are numbers, else they are counted from 1.

    Args:
        dataset: what to describe.
        images: folder that file names are relative to; by default `common_folder`.

    Raises:
        ValueError: a picture is not below ``images``.
    """
    root = common_folder(dataset) if images is None else Path(images).absolute()
    kept = all(isinstance(record.image_id, int) for record in dataset)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [category_of(dataset.skeleton)]}
    for position, record in enumerate(dataset, 1):
        key = record.image_id if kept else position
        document["images"].append(_image(record, key, root))
        for entry in _annotations(record, len(dataset.skeleton)):
            number = len(document["annotations"]) + 1
            document["annotations"].append({"id": number, "image_id": key, "category_id": CATEGORY} | entry)
    return document


def write_coco(dataset: PoseDataset, path: str | Path, images: str | Path | None = None) -> Path:
    """Write a COCO keypoint file, whole or not at all; arguments and errors as `coco_document`.

    Returns:
        The folder that the file names are relative to.
    """
    write_text(path, json.dumps(coco_document(dataset, images)))
    return common_folder(dataset) if images is None else Path(images)


def write_yolo(dataset: PoseDataset, folder: str | Path, split: Split = "train", link: bool = False) -> Path:
    """Write a YOLO pose data set: ``images/SPLIT``, ``labels/SPLIT``, ``data.yaml`` and ``skeleton.yaml``.

    A folder that already holds other parts of the same data set gets one more. The format has no word for ignore
    regions, areas and keypoints outside the picture: the first two are lost, the last become unlabelled, and boxes are
    cut at the picture's edge. What is lost is logged.

    Args:
        dataset: what to write.
        folder: where to.
        split: which part it is.
        link: make symbolic links to the pictures instead of copies.

    Returns:
        The ``data.yaml``.

    Raises:
        FileExistsError: the folder already holds such a part, or a data set of another skeleton.
        ValueError: a picture's annotation is not upright, or two pictures would get one name.
    """
    folder = Path(folder)
    config = folder / "data.yaml"
    description = _yolo_config(dataset.skeleton, config, split)
    root = common_folder(dataset)
    targets: dict[Path, Record] = {}
    labels: dict[Path, Path] = {}
    for record in dataset:
        target = folder / "images" / split / record.path.absolute().relative_to(root)
        other = labels.setdefault(label_path(target), record.path)
        if other != record.path:
            raise ValueError(f"{record.path} and {other} would share one file of labels; rename one of them")
        targets[target] = record
    for target, record in targets.items():
        if image_size(record.path) != record.size:
            raise ValueError(
                f"{record.path} is annotated as its pixels are stored, not upright; turn the picture first"
            )
        write_text(label_path(target), "".join(line + "\n" for line in _yolo_lines(record)))
        _place(record.path, target, link)
    skeleton = yaml.safe_dump(dataset.skeleton.to_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "skeleton.yaml", skeleton)
    write_text(config, yaml.safe_dump(description, sort_keys=False, allow_unicode=True))
    lost = sum(len(record.ignore) for record in dataset)
    if lost:
        _LOG.warning("%d ignore regions of %r have no place in YOLO's format and were left out", lost, dataset.name)
    return config


def file_name(record: Record, root: Path) -> str:
    """The picture's name relative to a folder; ``ValueError`` if it is not below it."""
    path = record.path.absolute()
    if not path.is_relative_to(root):
        raise ValueError(f"picture {record.path} is not below the folder {root}")
    return path.relative_to(root).as_posix()


def short(value: Any) -> float:
    """Enough digits for a thousandth of a pixel; whole numbers stay whole."""
    number = round(float(value), 4)
    return int(number) if number.is_integer() else number


def _image(record: Record, key: int | str, root: Path) -> dict[str, Any]:
    height, width = record.size
    entry = {"id": key, "file_name": file_name(record, root), "width": width, "height": height}
    return entry if record.crowd_index is None else entry | {"crowdIndex": record.crowd_index}


def _annotations(record: Record, count: int) -> list[dict[str, Any]]:
    entries = [
        {
            "keypoints": [short(v) for v in points.reshape(-1)],
            "num_keypoints": int((points[:, 2] > 0).sum()),
            "bbox": _sides(box.tolist()),
            "area": short(area),
            "iscrowd": 0,
        }
        for points, box, area in zip(record.keypoints, record.boxes, record.areas, strict=True)
    ]
    for region in record.ignore.tolist():
        x, y, width, height = _sides(region)
        crowd = {"bbox": [x, y, width, height], "area": short(width * height), "iscrowd": 1}
        entries.append({"keypoints": [0] * (3 * count), "num_keypoints": 0} | crowd)
    return entries


def _sides(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [short(v) for v in (x1, y1, x2 - x1, y2 - y1)]


def _yolo_config(skeleton: Skeleton, path: Path, split: Split) -> dict[str, Any]:
    """The content of ``data.yaml``, with the parts that are already there."""
    part: dict[str, Any] = {split: f"images/{split}"}
    described = {
        "kpt_shape": [len(skeleton), 3],
        "flip_idx": list(skeleton.flip_index),
        "names": {0: "person"},
        "kpt_names": {0: list(skeleton.keypoints)},
    }
    if not path.exists():
        return part | described
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(before, dict) or any(before.get(key) != value for key, value in described.items()):
        raise FileExistsError(f"{path} describes another data set; choose another folder")
    if split in before:
        raise FileExistsError(f"{path} already has a part {split!r}; choose another part or folder")
    return part | before


def _yolo_lines(record: Record) -> list[str]:
    height, width = record.size
    frame = np.array([width, height], np.float64)
    boxes = clip_boxes(record.boxes, record.size)
    lines = []
    for points, (x1, y1, x2, y2), whole in zip(record.keypoints, boxes.tolist(), solid(boxes).tolist(), strict=True):
        if not whole:
            _LOG.warning("%s: a person whose box has no extent in the picture was left out", record.path)
            continue
        seen = points[:, 2] * points_inside(points, record.size)
        places = np.clip(points[:, :2] / frame, 0, 1) * (seen[:, None] > 0)
        box = [(x1 + x2) / (2 * width), (y1 + y2) / (2 * height), (x2 - x1) / width, (y2 - y1) / height]
        numbers = [f"{v:.8g}" for v in box]
        for place, visible in zip(places, seen, strict=True):
            numbers += [f"{place[0]:.8g}", f"{place[1]:.8g}", f"{int(visible)}"]
        lines.append(" ".join(["0", *numbers]))
    return lines


def _place(source: Path, target: Path, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(source.absolute())
        return
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
