"""Looks through MPII files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from poise.data.mpii import MpiiPerson, parse_person
from poise.data.problems import Findings, Size
from poise.skeletons import MPII16


def check(data: Any, path: Path, images: Path, findings: Findings) -> None:
    """Note all problems of the content of an MPII file.

    Args:
        data: the content.
        path: the file.
        images: folder of the pictures.
        findings: where problems go.
    """
    if not isinstance(data, list):
        findings.error("format", path, "", f"its top level is a {type(data).__name__}, expected a list")
        return
    sizes: dict[str, Size | None] = {}
    seen: dict[tuple[str, bytes], int] = {}
    headless = 0
    for number, entry in enumerate(data):
        where = f"entry {number}"
        findings.people += 1
        person = _person(entry, path, where, findings)
        if person is not None:
            if person.image not in sizes:
                sizes[person.image] = findings.picture(images / person.image, path, where)
            _check_person(person, sizes[person.image], path, where, findings)
            headless += person.head_box is None
            first = seen.setdefault((person.image, person.keypoints.tobytes()), number)
            if first != number and (person.keypoints[:, 2] > 0).any():
                message = f"its joints equal those of entry {first}, expected everybody once"
                findings.warning("person-twice", path, where, message)
        findings.looked_at(number + 1, len(data))
    findings.pictures = len(sizes)
    if headless:
        message = f"{headless} of {len(data)} people have no head box, which PCKh needs; give them to it in a file"
        findings.warning("head-box-missing", path, "", message)


def _person(entry: Any, path: Path, where: str, findings: Findings) -> MpiiPerson | None:
    if not isinstance(entry, dict):
        findings.error("format", path, where, f"it is a {type(entry).__name__}, expected an object")
        return None
    try:
        return parse_person(entry, where)
    except ValueError as error:
        findings.error("entry", path, where, str(error).removeprefix(f"{where}: "))
        return None


def _check_person(person: MpiiPerson, size: Size | None, path: Path, where: str, findings: Findings) -> None:
    findings.points(person.keypoints, MPII16.keypoints, size, path, where)
    # the square reaches beyond the picture by design; its middle does not
    middle = 0.5 * (person.box[:2] + person.box[2:])
    if size is not None and not ((middle >= -1) & (middle <= np.array(size[::-1]))).all():
        message = f"centre {middle[0]:g}, {middle[1]:g}, expected inside {size[1]}x{size[0]}"
        findings.warning("centre-outside", path, where, message)
    if person.head_box is not None:
        findings.box(person.head_box.tolist(), size, path, f"{where}, head")
