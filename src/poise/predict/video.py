"""Video files and streams: frames in, H.264 out, with PyAV.

Frames are (H, W, 3) RGB, upright. Times are in seconds from the start of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from poise.extras import needs
from poise.files import reason, replacing
from poise.predict.audio import AudioTrack
from poise.predict.completeness import Ending, VideoCutError
from poise.types import ImageArray

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)
"""Files with these suffixes are taken for videos; a ``.gif`` may hold a single picture, too."""
OUTPUT_SUFFIXES = frozenset({".mkv", ".mov", ".mp4"})
_CLOCK = 90_000
"""Ticks a second of written videos."""
_UNKNOWN_RATE = 25
_NEW_CLOCK = 1.0
"""A time stamp that is so many seconds earlier than the last one is of a clock that began anew."""
_LEAST_STEP = 1e-4
"""Seconds between frames with equal time stamps."""
_PUSHING = frozenset({"rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
"""Addresses whose streams go on whether they are read or not."""
_MAX_DAMAGED = 200
"""So many damaged packets in a row end a video."""


class VideoError(ValueError):
    """A video that cannot be read or written; the message has one line and names it."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says about itself.

    Attributes:
        rate: frames a second; None if unknown.
        frames: number of frames, estimated if the file does not tell; None for a stream.
        duration: seconds; None for a stream.
        has_audio: whether there is sound.
    """

    rate: Fraction | None
    frames: int | None
    duration: float | None
    has_audio: bool


class VideoFrame(NamedTuple):
    """A frame, its number, counted from 0, and its time."""

    image: ImageArray
    number: int
    time: float


class VideoReader:
    """The frames of a video file, a network stream or an open binary file; use it in a ``with`` block.

    Args:
        source: path, address (``rtsp://``, ``http://`` ...) or open binary file.
        start: frames before this time are left out.
        stop: frames from this time on are left out.
        every: of the others only every so many-th is given, the first one included.
        options: for FFmpeg, for example ``rtsp_transport``.

    Raises:
        FileNotFoundError: there is no such file.
        VideoError: it is not a video.
        MissingLibraryError: PyAV is not installed.
        ValueError: a number is out of bounds.
    """

    def __init__(
        self,
        source: str | Path | BinaryIO,
        *,
        start: float | None = None,
        stop: float | None = None,
        every: int = 1,
        options: dict[str, str] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every {every!r} must be at least 1")
        if (start or 0) < 0 or (stop is not None and stop <= (start or 0)):
            raise ValueError(f"the part from {start} to {stop} seconds is empty")
        self._av = needs("av", "video", "reading video")
        self.name = str(source) if isinstance(source, str | Path) else "video"
        self.start, self.stop, self.every = start or 0.0, stop, every
        self._container = self._open(source, options or {})
        if not self._container.streams.video:
            self._container.close()
            raise VideoError(f"{self.name} has no pictures in it")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.info = self._info()
        self._ending = Ending(self._container, self._stream)
        self._trouble: Exception | None = None

    def _open(self, source: str | Path | BinaryIO, options: dict[str, str]) -> Any:
        if isinstance(source, Path) or (isinstance(source, str) and "://" not in source):
            if not Path(source).exists():
                raise FileNotFoundError(f"video {source} does not exist")
            source = str(source)
        try:
            return self._av.open(source, options=options)
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise VideoError(f"{self.name} is not a readable video: {reason(error)}") from None

    def _info(self) -> VideoInfo:
        stream, container = self._stream, self._container
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        duration = None
        if container.duration is not None and container.duration > 0:
            duration = container.duration / self._av.time_base
        frames = stream.frames or (round(duration * rate) if duration and rate else None)
        return VideoInfo(Fraction(rate) if rate else None, frames, duration, bool(container.streams.audio))

    @property
    def expected(self) -> int | None:
        """About how many frames iterating gives; None for a stream."""
        if self.info.frames is None or self.info.rate is None:
            return self.info.frames
        first = self.start * self.info.rate
        last = self.info.frames if self.stop is None else min(self.info.frames, self.stop * self.info.rate)
        return max(0, -(-round(last - first) // self.every))

    @property
    def pushed(self) -> bool:
        """Whether the sender sets the pace, as a camera: no file, and no stream that is fetched piece by piece."""
        scheme, address, _ = self.name.partition("://")
        if not address or self.info.duration is not None:
            return False
        return scheme.lower() in _PUSHING or self._container.format.name == "mpjpeg"

    def __iter__(self) -> Iterator[VideoFrame]:
        """The frames, once.

        Raises:
            VideoError: nothing in the file can be decoded.
            VideoCutError: behind the last frame: a part of what is wanted is missing, the file or the connection was
                cut.
        """
        origin, rate = self._origin(), float(self.info.rate or _UNKNOWN_RATE)
        seeked = self.start > 1 and self._seek(origin)
        clock = _FrameTimes(origin, 1 / rate)
        taken = 0
        place, time = -1, 0.0
        for number, frame in enumerate(self._decoded()):
            time = clock.time(None if frame.time is None else float(frame.time))
            if self.stop is not None and time >= self.stop - 1e-6:
                return
            place = round(time * rate) if seeked else number
            if time < self.start - 1e-6:
                continue
            if taken % self.every == 0:
                yield VideoFrame(_upright(frame), place, time)
            taken += 1
        if place < 0:
            raise VideoError(f"{self.name} holds no frame that can be decoded")
        self._check_end(place, time)

    def _check_end(self, number: int, time: float) -> None:
        """``VideoCutError`` if the frame of this number and time should not have been the last one."""
        length, kept = self._ending.length, "what came before is kept"
        if self._ending.missing:
            raise VideoCutError(
                f"{self.name} is cut short: it ends at {time:.1f} of {length:.1f} s (frame {number}); {kept}, copy it "
                "again for the rest"
            )
        if length is None and self._trouble is not None:
            raise VideoCutError(
                f"{self.name} breaks off at {time:.1f} s (frame {number}): {reason(self._trouble)}; {kept}"
            )

    def _origin(self) -> float:
        """Time stamp of the first frame, seconds."""
        start = self._stream.start_time
        return float(start * self._stream.time_base) if start is not None else 0.0

    def _seek(self, origin: float) -> bool:
        """Go to the key frame before the first frame that is wanted; whether that was possible."""
        try:
            self._container.seek(int((self.start + origin) / self._stream.time_base), stream=self._stream)
        except (OSError, self._av.FFmpegError):
            return False
        return True

    def _decoded(self) -> Iterator[Any]:
        damaged = 0
        packets = self._container.demux(*self._ending.streams)
        while True:
            try:
                packet = next(packets)
                if packet.stream.index != self._stream.index:
                    self._ending.saw_packet(packet)
                    continue
                frames = packet.decode()
            except (StopIteration, EOFError):
                break
            except (self._av.FFmpegError, OSError) as error:
                damaged += 1
                if damaged > _MAX_DAMAGED or not isinstance(error, self._av.error.InvalidDataError):
                    self._trouble = error
                    break
                continue
            damaged = 0
            yield from self._watched(frames)
        yield from self._watched(self._held())

    def _watched(self, frames: list[Any]) -> Iterator[Any]:
        for frame in frames:
            self._ending.saw_frame(frame)
            yield frame

    def _held(self) -> list[Any]:
        """What the decoder still holds back when no more packets come."""
        end = self._av.Packet()
        end.stream, end.time_base = self._stream, self._stream.time_base
        try:
            return list(end.decode())
        except (self._av.FFmpegError, OSError):
            return []

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()


class _FrameTimes:
    """Times of frames that always grow: also where time stamps are missing, equal, or begin anew (network cameras).

    Args:
        origin: time stamp of the first frame, seconds.
        step: seconds between frames without time stamps.
    """

    def __init__(self, origin: float, step: float) -> None:
        self._origin, self._step = origin, step
        self._last: float | None = None
        self._guessed = False

    def time(self, stamp: float | None) -> float:
        """Seconds from the start of the video, of the next frame."""
        last = self._last
        following = 0.0 if last is None else last + self._step
        time = following if stamp is None else stamp - self._origin
        if stamp is not None and last is not None and time <= last - (0 if self._guessed else _NEW_CLOCK):
            self._origin += time - following
            time = following
        self._guessed = stamp is None
        self._last = time if last is None else max(time, last + _LEAST_STEP)
        return self._last


def _upright(frame: Any) -> ImageArray:
    image: ImageArray = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class VideoWriter:
    """Writes frames as H.264 to an ``.mp4``, ``.mov`` or ``.mkv`` file; use it in a ``with`` block.

    When the block ends, also with Ctrl-C, the file is finished and takes its name. With another error, or without a
    frame, there is no file. The size is that of the first frame; an odd width or height, which H.264 does not have,
    grows by one pixel.

    Args:
        path: of the file.
        rate: frames a second, nominal; the times of the frames count.
        audio: a video file, or the address of one, whose sound is copied (or, if its kind does not fit, encoded anew),
            between the times of the first and last frame. Sound that cannot be read or written ends with a warning in
            the log; the pictures go on.
        quality: constant rate factor of x264: 0 is lossless, 51 worst.

    Raises:
        ValueError: the suffix is another one, or the rate is not positive.
        MissingLibraryError: PyAV is not installed.
    """

    def __init__(
        self, path: str | Path, rate: Fraction | float, *, audio: str | Path | None = None, quality: int = 21
    ) -> None:
        self.path, self.rate = Path(path), Fraction(rate).limit_denominator(_CLOCK)
        if self.path.suffix.lower() not in OUTPUT_SUFFIXES:
            raise ValueError(f"{path}: videos are written as {', '.join(sorted(OUTPUT_SUFFIXES))}")
        if self.rate <= 0:
            raise ValueError(f"{path}: rate {rate} must be positive")
        self._av = needs("av", "video", "writing video")
        self._audio_source, self._quality = audio, quality
        self._stack = ExitStack()
        self._container: Any = None
        self._audio: AudioTrack | None = None
        self._size, self._first, self._last = (0, 0), 0.0, -1
        self.frames = 0

    def add(self, image: ImageArray, time: float | None = None) -> None:
        """Write a frame.

        Args:
            image: (H, W, 3) RGB of uint8.
            time: seconds; must grow from frame to frame. None: as the rate says.

        Raises:
            ValueError: the frame has another size than the first one.
            VideoError: it cannot be encoded.
        """
        if self._container is None:
            self._begin(image, time or 0.0)
        if image.shape[:2] != self._size:
            raise ValueError(f"{self.path}: frame {self.frames} has size {image.shape[:2]}, the first one {self._size}")
        frame = self._av.VideoFrame.from_ndarray(_even(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        elapsed = self.frames / self.rate if time is None else time - self._first
        self._last = max(round(elapsed * _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._mux(frame)
        if self._audio is not None:
            self._audio.write_until(self._container, float(elapsed))
        self.frames += 1

    def _begin(self, image: ImageArray, time: float) -> None:
        self._size, self._first = (image.shape[0], image.shape[1]), time
        temporary = self._stack.enter_context(replacing(self.path))
        options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
        self._container = self._stack.enter_context(self._av.open(str(temporary), "w", options=options))
        height, width = _even(image).shape[:2]
        stream = self._container.add_stream(_encoder(self._av), rate=self.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        stream.codec_context.options = {"crf": str(self._quality), "preset": "veryfast"}
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 1
        self._stream = stream
        if self._audio_source is not None:
            self._audio = AudioTrack.of(self._av, self._audio_source, self._container, time)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path} cannot be written: {reason(error)}") from None

    def close(self) -> None:
        """Finish the file and give it its name; does nothing a second time, or without a frame."""
        container, self._container = self._container, None
        if container is None:
            return
        with self._stack:
            self._container = container
            self._mux(None)
            if self._audio is not None:
                self._audio.finish(container, self._last / _CLOCK + float(1 / self.rate))
            self._container = None

    def discard(self) -> None:
        """Leave no file."""
        self._container = None
        self._stack.__exit__(VideoError, VideoError("discarded"), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        else:
            self.discard()


def _even(image: ImageArray) -> ImageArray:
    """The picture with even sides: the last row or column twice, if need be."""
    odd = [(0, side % 2) for side in image.shape[:2]]
    return np.pad(image, [*odd, (0, 0)], mode="edge") if any(b for _, b in odd) else np.ascontiguousarray(image)


def _encoder(av: Any) -> str:
    """The best H.264 encoder of this copy of FFmpeg."""
    return next((name for name in ("libx264", "libopenh264", "h264") if name in av.codecs_available), "h264")
