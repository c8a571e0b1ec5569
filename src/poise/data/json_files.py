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
    content = _unpacked(path, what) if path.suffix == ".gz" else path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} {path} is not valid JSON: {' '.join(str(error).split())}") from None


def _unpacked(path: Path, what: str) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{what} {path} is no gzip file, or is damaged: {' '.join(str(error).split())}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{what} {path} has more than the limit of {MAX_FILE_BYTES:,} bytes when unpacked")
    return content


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
