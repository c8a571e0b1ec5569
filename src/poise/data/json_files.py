"""What the readers of annotation files share: JSON within limits, lists of numbers, and pictures that must exist."""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 2_000_000_000
"""Largest annotation file that is read."""
PACKED = ".gz"
"""Suffix of files that are packed with gzip."""


def load_json(path: Path, what: str = "annotation file") -> Any:
    """The content of a JSON file, packed with gzip if its name ends in ``.gz``; ``what`` it is, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger than `MAX_FILE_BYTES`, packed or unpacked, damaged, or not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{what} {path} has {path.stat().st_size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}")
    content = _unpacked(path, what, MAX_FILE_BYTES + 1) if path.suffix == PACKED else path.read_bytes()
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{what} {path} has more than the limit of {MAX_FILE_BYTES:,} bytes when unpacked")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} {path} is not valid JSON: {' '.join(str(error).split())}") from None


def file_start(path: Path, count: int, what: str = "annotation file") -> bytes:
    """The first ``count`` bytes of a file, or fewer if it is shorter; unpacked and with errors as `load_json`."""
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist")
    if path.suffix == PACKED:
        return _unpacked(path, what, count)
    with path.open("rb") as file:
        return file.read(count)


def stem(path: Path) -> str:
    """The name of an annotation file without its suffix, and without ``.gz``."""
    return Path(path.stem).stem if path.suffix == PACKED else path.stem


def _unpacked(path: Path, what: str, count: int) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(count)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{what} {path} is no gzip file, or is damaged: {' '.join(str(error).split())}") from None


def numbers(values: Any, what: str, count: int, where: str) -> list[float]:
    """``values``, if it is a list of ``count`` finite numbers; else a ``ValueError`` that begins with ``where``."""
    if not isinstance(values, list) or len(values) != count:
        size = len(values) if isinstance(values, list) else repr(values)
        raise ValueError(f"{where}: {what} must have {count} numbers, not {size}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{where}: {what} holds {value!r}, which is not a finite number")
    return values


def require_pictures(paths: Sequence[Path], folder: Path) -> None:
    """``FileNotFoundError`` unless all pictures exist; each folder is listed once."""
    if not folder.is_dir():
        raise FileNotFoundError(f"folder of pictures {folder} does not exist")
    missing = missing_files(paths)
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} pictures are missing in {folder}, first {missing[0]}")


def missing_files(paths: Sequence[Path]) -> list[Path]:
    """The paths that do not exist; each folder is listed once."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        parent = path.parent
        if parent not in listed:
            listed[parent] = set(os.listdir(parent)) if parent.is_dir() else set()
        if path.name not in listed[parent]:
            missing.append(path)
    return missing
