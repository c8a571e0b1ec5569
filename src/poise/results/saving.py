"""One door to all formats: `save`, `load` and `open_writer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from poise.results.coco import CocoWriter, read_coco_poses
from poise.results.folders import OpenPoseWriter, YoloWriter
from poise.results.tables import CsvWriter, ParquetWriter, read_csv
from poise.results.writer import PoseSink
from poise.settings import nearest
from poise.skeletons import COCO17, Skeleton
from poise.types import Poses

FORMATS: dict[str, Callable[[str | Path, Skeleton], PoseSink]] = {
    "coco": CocoWriter,
    "csv": CsvWriter,
    "parquet": ParquetWriter,
    "yolo": YoloWriter,
    "openpose": OpenPoseWriter,
}
"""Writers by the name of their format."""
_SUFFIXES = {".json": "coco", ".csv": "csv", ".parquet": "parquet"}


def open_writer(path: str | Path, skeleton: Skeleton = COCO17, form: str | None = None) -> PoseSink:
    """A writer for ``with`` and `PoseSink.add`.

    Args:
        path: a file, or a folder for ``yolo`` and ``openpose``.
        skeleton: of all poses.
        form: one of `FORMATS`; None: as the suffix says.

    Raises:
        ValueError: there is no such format, or the suffix says nothing.
    """
    if form is None:
        form = _SUFFIXES.get(Path(path).suffix.lower())
        if form is None:
            raise ValueError(f"{path}: no format goes with this suffix ({', '.join(_SUFFIXES)}); name the format")
    if form not in FORMATS:
        raise ValueError(f"unknown format {form!r} of poses{nearest(form, FORMATS)}")
    return FORMATS[form](path, skeleton)


def save(path: str | Path, poses: Poses | Iterable[Poses], form: str | None = None) -> None:
    """Write the poses of one picture or of many.

    Args:
        path: a file, or a folder for ``yolo`` and ``openpose``.
        poses: of one skeleton; an iterator is written as it comes.
        form: one of `FORMATS`; None: as the suffix says.

    Raises:
        ValueError: there is no such format, or the skeletons differ.
    """
    stream = iter([poses] if isinstance(poses, Poses) else poses)
    first = next(stream, None)
    with open_writer(path, COCO17 if first is None else first.skeleton, form) as writer:
        if first is not None:
            writer.add(first)
        for each in stream:
            writer.add(each)


def load(path: str | Path, skeleton: Skeleton | None = None) -> list[Poses]:
    """Read back what `save` wrote as ``coco`` (``.json``) or ``csv`` (``.csv``).

    Args:
        path: the file.
        skeleton: see `read_coco_poses` and `read_csv`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    readers = {".json": read_coco_poses, ".csv": read_csv}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: poses are read from .json and .csv files, not from {suffix or 'this'!r}")
    return readers[suffix](path, skeleton)
