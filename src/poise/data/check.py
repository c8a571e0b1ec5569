"""``poise data check``: looks through a data set and lists everything that is wrong with it.

A reader stops at the first mistake; this goes on. Nothing is changed.
"""

from __future__ import annotations

from pathlib import Path

from poise.data import check_coco, check_mpii, check_yolo
from poise.data.formats import AUTO, Kind, Outline, find_images, known_kind, recognise
from poise.data.json_files import load_json
from poise.data.outlines import find_skeleton, outline_beside
from poise.data.problems import CheckReport, Findings, Progress
from poise.skeletons import CROWDPOSE14, Skeleton


def check_dataset(
    path: str | Path,
    images: str | Path | None = None,
    kind: str = AUTO,
    skeleton: Skeleton | str | Path | None = None,
    *,
    decode: bool = True,
    progress: Progress | None = None,
) -> CheckReport:
    """Look for wrong counts and numbers, what lies outside the pictures, pictures that cannot be used, and the like.

    Args:
        path: as `read_dataset`.
        images: as `read_dataset`.
        kind: as `read_dataset`.
        skeleton: as `read_dataset`.
        decode: decode every picture, which finds damaged ones; otherwise only their headers are read.
        progress: is told how far the pictures are.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: ``kind`` or the name of the skeleton is unknown, or the skeleton's file does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data set {path} does not exist")
    outline = find_skeleton(skeleton) if isinstance(skeleton, str | Path) else skeleton
    findings = Findings(decode, progress)
    try:
        chosen = recognise(path) if kind == AUTO else known_kind(kind)
    except ValueError as error:
        if kind != AUTO:
            raise
        findings.refusal("format", path, error)
        return _report(path, "", findings)
    if chosen == "yolo":
        check_yolo.check(path, None if images is None else Path(images), outline, findings)
    else:
        _check_json(path, images, chosen, outline, findings)
    return _report(path, chosen, findings)


def _check_json(path: Path, images: str | Path | None, kind: Kind, outline: Outline | None, findings: Findings) -> None:
    try:
        data = load_json(path)
        folder = Path(images) if images is not None else find_images(path)
    except FileNotFoundError as error:
        findings.refusal("missing-picture", path, error)
        folder = path.parent
    except ValueError as error:
        findings.refusal("format", path, error)
        return
    if kind == "mpii":
        check_mpii.check(data, path, folder, findings)
        return
    try:
        outline = outline or (CROWDPOSE14 if kind == "crowdpose" else outline_beside(path))
    except ValueError as error:
        findings.refusal("skeleton", path, error)
    check_coco.check(data, path, folder, outline, findings)


def _report(path: Path, kind: str, findings: Findings) -> CheckReport:
    return CheckReport(str(path), kind, findings.pictures, findings.people, tuple(findings.problems))
