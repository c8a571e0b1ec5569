"""Looks through YOLO pose data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from poise.data.check_outline import check_outline
from poise.data.formats import Outline
from poise.data.outlines import outline_beside
from poise.data.problems import Findings, Size
from poise.data.yolo import Split, YoloConfig, label_lines, label_path, label_values, read_yolo_config, yolo_pictures


def check(path: Path, images: Path | None, outline: Outline | None, findings: Findings) -> None:
    """Note all problems of a YOLO pose data set.

    Args:
        path: the YAML file, or the folder that holds it.
        images: look only at this folder of pictures.
        outline: the skeleton, if the YAML file does not decide it.
        findings: where problems go.
    """
    try:
        config = read_yolo_config(path)
        outline = outline or outline_beside(config.path) or config.outline
    except (ValueError, OSError) as error:
        findings.refusal("format", path, error)
        return
    _check_skeleton(outline, config, findings)
    parts = _parts(config, images, findings)
    pictures = list(dict.fromkeys(p for part in parts.values() for p in part))
    for done, picture in enumerate(pictures, 1):
        findings.pictures += 1
        size = findings.picture(picture, config.path, "")
        _check_labels(label_path(picture), size, config, outline, findings)
        findings.looked_at(done, len(pictures))
    _check_overlap(parts, config, findings)
    _check_orphans(pictures, findings)


def _check_skeleton(outline: Outline, config: YoloConfig, findings: Findings) -> None:
    if len(outline.keypoints) != config.keypoints:
        message = f"kpt_shape says {config.keypoints} keypoints, expected the {len(outline.keypoints)} of its skeleton"
        findings.error("keypoint-count", config.path, "kpt_shape", message)
    check_outline(outline, findings)


def _parts(config: YoloConfig, images: Path | None, findings: Findings) -> dict[str, list[Path]]:
    """The pictures of each part that can be listed."""
    if images is None and not config.parts:
        findings.error("format", config.path, "", "it has no train, val or test, expected one of them")
    parts: dict[str, list[Path]] = {}
    splits: list[Split | None] = [None] if images is not None else [*config.parts]
    for split in splits:
        try:
            parts[split or "pictures"] = yolo_pictures(config, images, split)
        except (ValueError, OSError) as error:
            findings.refusal("missing-folder", config.path, error)
    return parts


def _check_labels(path: Path, size: Size | None, config: YoloConfig, outline: Outline, findings: Findings) -> None:
    try:
        lines = label_lines(path)
    except ValueError as error:
        findings.refusal("format", path, error)
        return
    seen: dict[tuple[str, ...], int] = {}
    for number, fields in lines:
        where = f"line {number}"
        try:
            category, values = label_values(fields, config, where)
        except ValueError as error:
            findings.error("line", path, where, str(error).removeprefix(f"{where}: "))
            continue
        if not 0 <= category < config.classes:
            message = f"class {category}, expected one of the {config.classes} in names"
            findings.error("class", path, where, message)
        if category != config.category:
            continue
        findings.people += 1
        _check_person(values, size, config, outline, path, where, findings)
        first = seen.setdefault(tuple(fields), number)
        if first != number:
            findings.warning("person-twice", path, where, f"it equals line {first}, expected everybody once")


def _check_person(
    values: list[float],
    size: Size | None,
    config: YoloConfig,
    outline: Outline,
    path: Path,
    where: str,
    findings: Findings,
) -> None:
    height, width = size or (1, 1)
    cx, cy, w, h = values[:4]
    box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
    findings.box(box, size, path, where)
    if max(abs(v) for v in values[:4]) > 2:
        message = f"box {values[:4]}, expected numbers from 0 to 1, relative to the picture"
        findings.error("not-relative", path, where, message)
        return
    rows = np.array(values[4:], np.float64).reshape(config.keypoints, config.numbers)
    seen = rows[:, 2] if config.numbers == 3 else 2.0 * (rows != 0).any(1)
    points = np.column_stack([rows[:, :2] * (width, height), seen])
    findings.points(points, outline.keypoints, size, path, where)


def _check_overlap(parts: dict[str, list[Path]], config: YoloConfig, findings: Findings) -> None:
    home: dict[Path, str] = {}
    for split, pictures in parts.items():
        for picture in pictures:
            if home.setdefault(picture, split) != split:
                message = f"{picture} is in {home[picture]} and in {split}, expected in one of them"
                findings.error("picture-in-two-parts", config.path, "", message)


def _check_orphans(pictures: list[Path], findings: Findings) -> None:
    """Label files without a picture, in the folders of the other label files."""
    known = {label_path(p) for p in pictures}
    for folder in sorted({p.parent for p in known}):
        for path in sorted(folder.glob("*.txt")) if folder.name != "." and "labels" in folder.parts else ():
            if path not in known:
                findings.warning("label-without-picture", path, "", "no picture of that name, expected one")
