"""Whether a video came to its end, or was cut short: by a copy that was broken off, or a connection that was lost."""

from __future__ import annotations

import re
from typing import Any

_TOLD = frozenset({"avi", "matroska", "mov"})
"""Containers whose head tells how long the video is; of others FFmpeg measures it on what is there, or guesses."""
_LEAST_GAP = 0.5
_SHARE = 0.01
"""Up to so many seconds, or such a share of the video, may be missing at the end, and the longest frame on top."""


class VideoCutError(ValueError):
    """A video that breaks off; its frames before that were given. The message has one line and names the place.

    It is no `VideoError`: what was read is a video.
    """


class Ending:
    """Watches what is read of a video and tells whether it reaches as far as the head of the file says.

    Where the head tells no length of the pictures alone, the length is that of the longest stream: then sound that goes
    on to the end counts, too.

    Args:
        container: as PyAV opened it.
        stream: the stream of pictures in it.

    Attributes:
        streams: those whose packets `saw_packet` needs.
        length: seconds; None if nobody knows.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        told = not _TOLD.isdisjoint(container.format.name.split(","))
        own, whole = _own_length(container, stream), container.duration / 1e6 if container.duration else None
        self.length: float | None = (own or whole) if told else None
        self.streams = [stream, *(container.streams.audio if told and not own else ())]
        self._begin = min(0.0, (container.start_time or 0) / 1e6)
        self._reached = self._begin
        self._last: float | None = None
        self._step = 0.0

    def saw_packet(self, packet: Any) -> None:
        """A packet of one of the other streams was read."""
        if packet.pts is not None:
            self._reached = max(self._reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def saw_frame(self, frame: Any) -> None:
        """A frame was decoded."""
        if frame.time is None:
            return
        time = float(frame.time)
        shown = float((getattr(frame, "duration", 0) or 0) * frame.time_base)
        self._step = max(self._step, 0.0 if self._last is None else time - self._last)
        self._last = time
        self._reached = max(self._reached, time + shown)

    @property
    def missing(self) -> bool:
        """Whether a part at the end is known to be missing."""
        if self.length is None:
            return False
        missing = self.length - (self._reached - self._begin)
        return missing > max(_LEAST_GAP, _SHARE * self.length) + self._step


def _own_length(container: Any, stream: Any) -> float | None:
    """Seconds of the pictures alone, if the head tells: in the stream, or, in Matroska, in a tag."""
    if "matroska" not in container.format.name:
        return float(stream.duration * stream.time_base) if stream.duration else None
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag is None or not container.duration:
        return None
    hours, minutes, seconds = (float(part) for part in tag.groups())
    return min(3600 * hours + 60 * minutes + seconds, float(container.duration) / 1e6)
