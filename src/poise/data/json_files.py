"""What the readers of annotation files share: JSON within limits, lists of numbers, and pictures that must exist."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 2_000_000_000
"""Largest annotation file that is read."""


def load_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger than `MAX_FILE_BYTES`, or not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {' '.join(str(error).split())}") from None


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
