"""What comes on standard input is told by its first bytes, and read as if these had not been taken."""

from __future__ import annotations

import io
from typing import Any, BinaryIO


def from_start(head: bytes, rest: BinaryIO) -> BinaryIO:
    """A stream as it was before ``head`` was read of it."""
    return io.BufferedReader(_Rest(head, rest))


def is_picture(head: bytes) -> bool:
    """Whether a file that begins like this is a picture."""
    marks = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"BM", b"II*\0", b"MM\0*")
    return head.startswith(marks) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_text(head: bytes) -> bool:
    """Whether a file that begins like this is text in UTF-8."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return not any(ord(c) < 32 and c not in "\t\n\r\f" for c in text)


class _Rest(io.RawIOBase):
    """What was read of a stream already, then the rest of it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer)) or b""
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)
