"""The sound of one video beside the pictures of another, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_COPIED = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
"""Codecs that an MP4 file holds as they are; others become AAC."""


class AudioTrack:
    """The first sound track of a file, written piece by piece as the pictures go on.

    Args:
        av: the module.
        source: the file with the sound, open.
        output: where it goes, open; must not have a frame yet.
        start: time in the source that is time 0 of the output, seconds.
    """

    def __init__(self, av: Any, source: Any, output: Any, start: float) -> None:
        self._av, self._source = av, source
        stream = source.streams.audio[0]
        origins = [s.start_time * s.time_base for s in source.streams if s.start_time is not None]
        self._start = start + float(min(origins, default=0))
        self._copied = stream.codec_context.name in _COPIED
        if self._copied:
            self._out = output.add_stream_from_template(stream)
        else:
            self._out = output.add_stream("aac", rate=stream.codec_context.sample_rate)
            self._out.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._packets: Iterator[Any] = self._after_start(stream)
        self._waiting: Any = None
        self._ended = False

    @classmethod
    def of(cls, av: Any, path: str | Path, output: Any, start: float) -> AudioTrack | None:
        """The sound of a file, or None if it has none that can be read."""
        try:
            source = av.open(str(path))
        except (OSError, ValueError, av.FFmpegError):
            return None
        if not source.streams.audio:
            source.close()
            return None
        return cls(av, source, output, start)

    def _after_start(self, stream: Any) -> Iterator[Any]:
        """Packets from the start on."""
        if self._start > 1:
            self._source.seek(int(self._start / stream.time_base), stream=stream)
        for packet in self._source.demux(stream):
            if packet.pts is not None and packet.dts is not None and packet.pts * stream.time_base >= self._start:
                yield packet

    def write_until(self, output: Any, time: float) -> None:
        """Write what is heard before ``time``, seconds of the output."""
        while not self._ended:
            packet = self._waiting if self._waiting is not None else self._next()
            if packet is None:
                return
            self._waiting = packet
            if float(packet.pts * packet.time_base) - self._start > time:
                return
            self._waiting = None
            self._write(output, packet)

    def _next(self) -> Any:
        try:
            return next(self._packets)
        except (StopIteration, self._av.FFmpegError, OSError):
            self._ended = True
            return None

    def _write(self, output: Any, packet: Any) -> None:
        shift = round(self._start / packet.time_base)
        if self._copied:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._out
            output.mux(packet)
            return
        for frame in packet.decode():
            if frame.pts is not None:
                frame.pts = max(0, frame.pts - shift)
            output.mux(self._out.encode(frame))

    def finish(self, output: Any) -> None:
        """Write what the encoder still holds."""
        if not self._copied:
            output.mux(self._out.encode(None))
        self._source.close()
