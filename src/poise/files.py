"""Files that are never half written: everything goes to a temporary file beside the target, then is renamed."""

from __future__ import annotations

import glob
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_NAME = 255
"""Bytes that a file name may have."""
_LONG_STEM = 60
"""Bytes of a stem that the names of temporary files repeat; of a longer one they repeat the beginning."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The parent folder is made. On an error the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove the temporary files that processes left beside ``path`` when they died while they wrote it.

    Nobody may be writing it now.
    """
    path = Path(path)
    for temporary in path.parent.glob(f"{glob.escape(_prefix(path))}????????{glob.escape(path.suffix)}"):
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, text.encode("utf-8"))


def source_stem(name: str) -> str:
    """What files made of a picture or video are called: its file name or the end of its address, without the suffix.

    ``-`` is ``stdin``; characters that no file name may have on some system become hyphens.
    """
    path = Path(name.partition("?")[0] if "://" in name else name)
    return {"-": "stdin"}.get(path.name, re.sub(r'[:*?"<>|]+', "-", path.stem) or "stream")


def reason(error: Exception) -> str:
    """What is wrong, in one line, without a path that the system's message repeats."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def fitting(stem: str, ending: str) -> str:
    """A file name of a stem and what follows it; a stem with too many bytes for a file name loses its end."""
    return _cut(stem, MAX_NAME - len(os.fsencode(ending))) + ending


def _cut(text: str, size: int) -> str:
    """The beginning of a name, at most ``size`` bytes."""
    while len(os.fsencode(text)) > size:
        text = text[:-1]
    return text


def _prefix(path: Path) -> str:
    """How the names of temporary files begin."""
    stem = path.stem
    name = os.fsencode(stem)
    if len(name) > _LONG_STEM:
        stem = f"{_cut(stem, _LONG_STEM)}~{zlib.crc32(name):08x}"
    return f".{stem}-"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
