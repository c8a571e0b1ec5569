"""The sound of one video beside the pictures of another, with PyAV.

Sound never ends the pictures: what cannot be read of it is left out, and what cannot be written ends it.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from poise.files import reason
from poise.predict.network import stream_options

_COPIED = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
"""Codecs that an MP4 file holds as they are; others become AAC."""
_RATE = 48_000
"""Samples a second where the encoder does not take those of the source."""
_log = logging.getLogger(__name__)


class _Piece(NamedTuple):
    """A packet of sound and the frames that it holds."""

    packet: Any
    frames: list[Any]


class AudioTrack:
    """The first sound track of a file, written piece by piece as the pictures go on.

    A packet that cannot be decoded is left out. Where nothing more can be read or written, the sound ends, with a
    warning in the log.

    Args:
        av: the module.
        source: the file with the sound, open.
        output: where it goes, open; must not have a frame yet.
        start: time in the source that is time 0 of the output, seconds from its first picture.

    Raises:
        ValueError: the output cannot hold this sound.
        OSError: likewise.
    """

    def __init__(self, av: Any, source: Any, output: Any, start: float) -> None:
        self._errors = _errors(av)
        self._source = source
        stream = source.streams.audio[0]
        self._start = start + _origin(source)
        self._copied, add = _way(av, stream, output.format.name)
        self._out = add(output)
        self._pieces: Iterator[_Piece] = self._after_start(stream)
        self._waiting: _Piece | None = None
        self._ended = False

    @classmethod
    def of(cls, av: Any, path: str | Path, output: Any, start: float) -> AudioTrack | None:
        """The sound of a file or of what is at an address; None if there is none that can be kept."""
        source = None
        try:
            source = av.open(str(path), options=stream_options(str(path)))
            if source.streams.audio:
                return cls(av, source, output, start)
        except _errors(av) as error:
            _log.warning("the sound of %s is not kept: %s", path, reason(error))
        if source is not None:
            source.close()
        return None

    def _after_start(self, stream: Any) -> Iterator[_Piece]:
        """What can be decoded from the start on."""
        if self._start > 1:
            with suppress(*self._errors):
                self._source.seek(int(self._start / stream.time_base), stream=stream)
        for packet in self._source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.pts * stream.time_base < self._start:
                continue
            try:
                frames = packet.decode()
            except self._errors:
                continue
            yield _Piece(packet, frames)

    def write_until(self, output: Any, time: float) -> None:
        """Write what is heard before ``time``, seconds of the output."""
        try:
            while not self._ended and (piece := self._next()) is not None and self._time(piece) <= time:
                self._waiting = None
                self._write(output, piece)
        except self._errors as error:
            self._give_up(time, error)

    def _next(self) -> _Piece | None:
        if self._waiting is None:
            self._waiting = next(self._pieces, None)
        return self._waiting

    def _time(self, piece: _Piece) -> float:
        """When it is heard, seconds of the output."""
        return float(piece.packet.pts * piece.packet.time_base) - self._start

    def _write(self, output: Any, piece: _Piece) -> None:
        packet = piece.packet
        shift = round(self._start / packet.time_base)
        if self._copied:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._out
            output.mux(packet)
            return
        for frame in piece.frames:
            if frame.pts is not None:
                frame.pts = max(0, frame.pts - shift)
            output.mux(self._out.encode(frame))

    def _give_up(self, time: float, error: Exception) -> None:
        self._ended = True
        _log.warning("the sound of %s ends at %.1f s of the video: %s", self._source.name, time, reason(error))

    def finish(self, output: Any, time: float) -> None:
        """Write the rest up to ``time``, seconds of the output, and what the encoder still holds; close the source."""
        self.write_until(output, time)
        try:
            if not self._copied and not self._ended:
                output.mux(self._out.encode(None))
        except self._errors as error:
            self._give_up(time, error)
        self._source.close()


def _errors(av: Any) -> tuple[type[Exception], ...]:
    """What PyAV raises; also ``ValueError`` of its own."""
    return (av.FFmpegError, OSError, ValueError)


def _origin(source: Any) -> float:
    """Time stamp of the first picture, from which `VideoReader` counts, or else of the sound; seconds."""
    stream = (source.streams.video or source.streams.audio)[0]
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0


def _way(av: Any, stream: Any, container: str) -> tuple[bool, Callable[[Any], Any]]:
    """Whether a kind of container gets the sound as it is, and what adds a stream for it to an output.

    Every way is tried on a file in memory: a stream that does not fit would keep the header, and with it the pictures,
    from being written.
    """
    context = stream.codec_context
    layout = "mono" if context.channels == 1 else "stereo"
    ways: list[tuple[bool, Callable[[Any], Any]]] = [
        (False, partial(_add_encoder, rate=rate, layout=layout)) for rate in (context.sample_rate, _RATE)
    ]
    if context.name in _COPIED:
        ways.insert(0, (True, partial(_add_copy, stream=stream)))
    for copied, add in ways[:-1]:
        with suppress(*_errors(av)):
            _try_header(av, container, add)
            return copied, add
    _try_header(av, container, ways[-1][1])
    return ways[-1]


def _add_copy(output: Any, stream: Any) -> Any:
    return output.add_stream_from_template(stream)


def _add_encoder(output: Any, rate: int, layout: str) -> Any:
    out = output.add_stream("aac", rate=rate)
    out.layout = layout
    return out


def _try_header(av: Any, container: str, add: Callable[[Any], Any]) -> None:
    """Begin a file with nothing but this sound; what PyAV raises if that is not possible."""
    trial = av.open(io.BytesIO(), "w", format=container)
    try:
        add(trial)
        trial.start_encoding()
    finally:
        with suppress(*_errors(av)):  # some kinds of sound want a packet before the end
            trial.close()
