"""Looks through COCO and CrowdPose files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poise.data.check_outline import check_outline
from poise.data.coco_rules import people_category
from poise.data.formats import Outline
from poise.data.outlines import built_in
from poise.data.problems import Findings, Size
from poise.skeletons import mirrored_pairs

Entry = Mapping[str, Any]


def check(data: Any, path: Path, images: Path, outline: Outline | None, findings: Findings) -> None:
    """Note all problems of the content of a COCO file.

    Args:
        data: the content.
        path: the file.
        images: folder of the pictures.
        outline: the skeleton, if the file's category does not decide it.
        findings: where problems go.
    """
    lists = _lists(data, path, findings)
    if lists is None:
        return
    pictures, people = lists
    category = _category(data.get("categories") or [], path, findings, required=outline is None)
    if outline is not None:
        check_outline(outline, findings)
    elif category is not None:
        _check_category(category, path, findings)
    names = outline.keypoints if outline else tuple(str(n) for n in (category or {}).get("keypoints") or ())
    if outline is not None and category is not None and category.get("keypoints"):
        count = len(category["keypoints"])
        if count != len(names):
            message = f"{count} keypoints, expected the {len(names)} of {outline.name!r}"
            findings.error("keypoint-count", path, f"category {category.get('id')!r}", message)
    sizes = _check_images(pictures, path, images, findings)
    wanted = None if category is None else category.get("id")
    _check_people(people, names, sizes, wanted, path, findings)


def _lists(data: Any, path: Path, findings: Findings) -> tuple[list[Any], list[Any]] | None:
    if not isinstance(data, dict):
        findings.error("format", path, "", f"its top level is a {type(data).__name__}, expected an object")
        return None
    found = []
    for key in ("images", "annotations"):
        entries = data.get(key)
        if not isinstance(entries, list):
            findings.error("format", path, "", f"{key} is a {type(entries).__name__}, expected a list")
            return None
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict):
                message = f"it is a {type(entry).__name__}, expected an object"
                findings.error("format", path, f"entry {i} of {key}", message)
        found.append([entry for entry in entries if isinstance(entry, dict)])
    return found[0], found[1]


def _category(categories: Any, path: Path, findings: Findings, required: bool) -> Entry | None:
    """The category of people, as the reader chooses it."""
    try:
        return people_category(categories, path, named=required) or None
    except ValueError as error:
        findings.error("category", path, "", str(error).removeprefix(f"{path}: "))
        return None


def _check_category(category: Entry, path: Path, findings: Findings) -> None:
    """Names, edges, flip pairs and sigmas of a category."""
    where = f"category {category.get('id')!r}"
    raw = category.get("keypoints")
    if not isinstance(raw, list) or not raw:
        findings.error("keypoint-names", path, where, f"keypoints = {raw!r}, expected a list of names")
        return
    names = tuple(str(n) for n in raw)
    for name in sorted({n for n in names if names.count(n) > 1}):
        findings.error("keypoint-names", path, where, f"keypoint {name!r} is named twice, expected once")
    if built_in(names) is not None:
        # limbs and flip pairs of such a category are not read; CrowdPose's own has limbs of COCO's keypoints
        if category.get("sigmas") is not None:
            _check_sigmas(category["sigmas"], len(names), path, where, findings)
        return
    _check_pairs(category.get("skeleton") or [], 1, len(names), "skeleton", path, where, findings)
    if "flip_pairs" in category:
        _check_flips(category["flip_pairs"], len(names), path, where, findings)
    if "flip_pairs" not in category and not mirrored_pairs(names):
        message = "no flip_pairs and no left or right in the names, expected pairs that change sides in a mirror"
        findings.warning("flip-pairs-missing", path, where, message)
    _check_sigmas(category.get("sigmas"), len(names), path, where, findings)


def _check_pairs(
    pairs: Any, first: int, count: int, field: str, path: Path, where: str, findings: Findings
) -> list[tuple[int, int]]:
    """The valid ones of a list of pairs of numbers from ``first``."""
    if not isinstance(pairs, list):
        findings.error(field, path, where, f"{field} = {pairs!r}, expected a list of pairs")
        return []
    valid = []
    last = first + count - 1
    for pair in pairs:
        numbers = isinstance(pair, list) and len(pair) == 2 and all(isinstance(i, int) for i in pair)
        if not numbers or not all(first <= i <= last for i in pair) or pair[0] == pair[1]:
            message = f"{field} holds {pair!r}, expected two different numbers from {first} to {last}"
            findings.error(field, path, where, message)
        else:
            valid.append((pair[0], pair[1]))
    return valid


def _check_flips(pairs: Any, count: int, path: Path, where: str, findings: Findings) -> None:
    partners: dict[int, int] = {}
    for a, b in _check_pairs(pairs, 0, count, "flip_pairs", path, where, findings):
        for i, j in ((a, b), (b, a)):
            if partners.setdefault(i, j) != j:
                message = f"keypoint {i} changes sides with {partners[i]} and with {j}, expected one partner"
                findings.error("flip_pairs", path, where, message)


def _check_sigmas(sigmas: Any, count: int, path: Path, where: str, findings: Findings) -> None:
    if sigmas is None:
        findings.warning("sigmas-missing", path, where, f"no sigmas, expected {count} numbers; they get estimated")
        return
    if not isinstance(sigmas, list) or len(sigmas) != count:
        found = len(sigmas) if isinstance(sigmas, list) else repr(sigmas)
        findings.error("sigmas", path, where, f"{found} sigmas, expected {count}")
        return
    for i, sigma in enumerate(sigmas):
        if not _finite(sigma) or sigma <= 0:
            findings.error("sigmas", path, where, f"sigma {i} is {sigma!r}, expected a positive number")


def _check_images(entries: Sequence[Entry], path: Path, images: Path, findings: Findings) -> dict[Any, Size | None]:
    """(height, width) of the listed pictures by id; None where the entry has no size."""
    sizes: dict[Any, Size | None] = {}
    ids: set[Any] = set()
    names: set[Any] = set()
    for done, entry in enumerate(entries, 1):
        key = entry.get("id")
        where = f"image {key!r}"
        findings.pictures += 1
        size = _size(entry, path, where, findings)
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            findings.error("file-name", path, where, f"file_name = {name!r}, expected a text")
        elif not findings.repeated("picture-twice", name, names, path, where):
            findings.picture(images / name, path, where, size)
        findings.looked_at(done, len(entries))
        if not isinstance(key, int | str):
            findings.error("image-id", path, where, f"id = {key!r}, expected a number or a text")
        elif not findings.repeated("image-id", key, ids, path, where):
            sizes[key] = size
    return sizes


def _size(entry: Entry, path: Path, where: str, findings: Findings) -> Size | None:
    sides = {side: entry.get(side) for side in ("height", "width")}
    for side, value in sides.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            findings.error("image-size", path, where, f"{side} = {value!r}, expected a positive integer")
            return None
    return int(entry["height"]), int(entry["width"])


def _check_people(
    entries: Sequence[Entry],
    names: Sequence[str],
    sizes: Mapping[Any, Size | None],
    category: Any,
    path: Path,
    findings: Findings,
) -> None:
    ids: set[Any] = set()
    seen: dict[tuple[Any, bytes], Any] = {}
    for position, entry in enumerate(entries):
        if category is not None and entry.get("category_id", category) != category:
            continue
        identity = entry.get("id")
        where = f"annotation {identity!r}" if "id" in entry else f"annotation at {position}"
        crowd = bool(entry.get("iscrowd"))
        findings.people += not crowd
        if isinstance(identity, int | str):
            findings.repeated("annotation-id", identity, ids, path, where)
        key = entry.get("image_id")
        if not isinstance(key, int | str) or key not in sizes:
            findings.error("image-of-annotation", path, where, f"image_id = {key!r}, expected the id of a listed image")
            continue
        points = _check_keypoints(entry, names, sizes[key], path, where, findings)
        _check_box(entry, points, sizes[key], path, where, findings)
        if points is not None and not crowd and (points[:, 2] > 0).any():
            other = seen.setdefault((key, points.tobytes()), where)
            if other != where:
                message = f"its keypoints equal those of {other}, expected everybody once"
                findings.warning("person-twice", path, where, message)


def _check_keypoints(
    entry: Entry, names: Sequence[str], size: Size | None, path: Path, where: str, findings: Findings
) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """The keypoints (K, 3), if they are numbers of the right count."""
    values = entry.get("keypoints")
    if not values:
        return None
    if not isinstance(values, list) or (len(values) != 3 * len(names) if names else len(values) % 3):
        found = len(values) if isinstance(values, list) else repr(values)
        expected = f"{3 * len(names)} (3 x {len(names)})" if names else "a multiple of 3"
        findings.error("keypoint-count", path, where, f"keypoints has {found} numbers, expected {expected}")
        return None
    for value in values:
        if not _finite(value):
            findings.error("number", path, where, f"keypoints holds {value!r}, expected finite numbers")
            return None
    points = np.array(values, np.float64).reshape(-1, 3)
    findings.points(points, names, size, path, where)
    told, labelled = entry.get("num_keypoints"), int((points[:, 2] > 0).sum())
    if told is not None and told != labelled:
        findings.warning("num-keypoints", path, where, f"num_keypoints = {told!r}, expected {labelled}")
    return points


def _check_box(
    entry: Entry,
    points: np.ndarray[Any, np.dtype[np.float64]] | None,
    size: Size | None,
    path: Path,
    where: str,
    findings: Findings,
) -> None:
    box, area = entry.get("bbox"), entry.get("area")
    if area is not None and (not _finite(area) or area < 0):
        findings.error("area", path, where, f"area = {area!r}, expected a number of 0 or more")
        area = None
    if box is None:
        if points is None or not (points[:, 2] > 0).any():
            findings.error("box", path, where, "neither bbox nor labelled keypoints, expected one of them")
        else:
            findings.warning("box-missing", path, where, "no bbox, expected one; the keypoints' extent stands in")
        return
    if not isinstance(box, list) or len(box) != 4 or not all(_finite(v) for v in box):
        findings.error("box", path, where, f"bbox = {box!r}, expected four finite numbers x, y, width, height")
        return
    x, y, width, height = box
    findings.box((x, y, x + width, y + height), size, path, where)
    if area is not None and width > 0 and height > 0 and area > 1.01 * width * height + 1:
        message = f"area {area:g} is larger than the box of {width:g} x {height:g}, expected at most as large"
        findings.warning("area", path, where, message)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
