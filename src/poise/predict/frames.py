"""Everything that pictures come from, as one stream of frames: files, videos, cameras, networks, memory, stdin.

| text | means |
|---|---|
| a picture, a folder, a pattern | see `poise.predict.sources.find_pictures`; videos count, too |
| a ``.txt`` list | one of the others a line, but ``-``, seen from the list's folder |
| a video file | its frames |
| ``0``, ``1`` ... or ``camera:0`` | a camera |
| ``rtsp://``, ``http://``, ``https://``, ``rtmp://``, ``udp://`` ... | a stream; with a picture's suffix, a picture |
| ``-`` | standard input: a picture, a video, or a list of names, one a line |

In Python also arrays, tensors, Pillow images and encoded bytes, and any mixture, singly or in an iterable. Everything
is read as needed: a stream has no end, and a long video takes no more memory than a short one.
"""

from __future__ import annotations

import glob
import io
import re
import reprlib
import sys
import time as clock
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

from PIL import Image

from poise.data.coco import IMAGE_SUFFIXES, visible
from poise.predict.network import MAX_DOWNLOAD, fetch, stream_options
from poise.predict.newest import newest
from poise.predict.sources import each_picture, listed_names, natural_key, source_name, to_image
from poise.predict.stdin import from_start, is_picture, is_text
from poise.predict.video import VIDEO_SUFFIXES, VideoError, VideoFrame, VideoInfo, VideoReader
from poise.types import ImageArray

_HEAD = 1 << 16
_CAMERA_RATE = 25


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A video, a stream or a camera; its frames share one object.

    Attributes:
        name: as the user gave it.
        info: what it says about itself.
        expected: about how many frames come; None if there is no end.
        live: frames come at their own pace; who is too slow misses some.
        path: the file or address, to read its sound from; None for what cannot be read a second time.
    """

    name: str
    info: VideoInfo
    expected: int | None
    live: bool = False
    path: str | Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, or a frame of a clip.

    Attributes:
        image: (H, W, 3) RGB.
        name: file name, address or other label; None for a picture from memory.
        clip: the video that it belongs to; None for a picture.
        number: of the frame in its clip, from 0.
        time: seconds from the start of the clip.
    """

    image: ImageArray
    name: str | None = None
    clip: Clip | None = None
    number: int | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Which frames of a video are wanted: from, to (seconds), and every so many-th of them."""

    start: float | None = None
    stop: float | None = None
    every: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Something that frames come from, not opened yet.

    Attributes:
        kind: ``picture``, ``video``, ``camera``, ``stream``, ``stdin``, or ``missing``: a folder or pattern in a list
            that held nothing when the list was read, and is looked at again when it is its turn.
        name: file name, address, number of the camera.
    """

    kind: str
    name: str


def find_sources(text: str | Path) -> list[Source]:
    """The sources that a text means (see the head of this module).

    Raises:
        FileNotFoundError: there is nothing of this name, or nothing matches.
        ValueError: a folder or a list holds neither pictures nor videos.
    """
    name = str(text)
    if isinstance(text, str):
        if name == "-":
            return [Source("stdin", name)]
        if "://" in name:
            suffix = Path(urlparse(name).path).suffix.lower()
            return [Source("picture" if suffix in IMAGE_SUFFIXES else "stream", name)]
        if (number := _camera_number(name)) and not Path(name).exists():
            return [Source("camera", number)]
    path = Path(name)
    if path.is_file() and path.suffix.lower() == ".txt":
        return [source for line in listed_names(path) for source in _listed(line, path.parent)]
    return [_file(found) for found in _find_files(path)]


def _camera_number(name: str) -> str | None:
    number = name.removeprefix("camera:")
    return number if re.fullmatch("[0-9]{1,4}", number) else None


def _listed(line: str, folder: Path) -> list[Source]:
    """What a line of a list means; a file is looked for when it is its turn."""
    path = folder / line
    if "://" in line or (_camera_number(line) and not path.exists()):
        return find_sources(line)
    try:
        if glob.has_magic(line) and not path.exists():
            path = Path(glob.escape(str(folder))) / line
        elif not path.is_dir():
            return [_file(path)]
        return [_file(found) for found in _find_files(path)]
    except (ValueError, OSError):
        return [Source("missing", str(path))]


def _find_files(path: Path) -> list[Path]:
    if path.is_dir():
        found = _media(visible(path.iterdir()))
        if not found:
            raise ValueError(f"folder {path} has no pictures and no videos ({', '.join(sorted(_SUFFIXES))})")
        return found
    if path.is_file():
        return [path]
    if not glob.has_magic(str(path)):
        raise FileNotFoundError(f"{path} does not exist")
    found = _media(Path(name) for name in glob.glob(str(path), recursive=True))
    if not found:
        raise FileNotFoundError(f"no picture and no video matches {path}")
    return found


_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _media(paths: Iterable[Path]) -> list[Path]:
    return sorted((p for p in paths if p.suffix.lower() in _SUFFIXES and p.is_file()), key=natural_key)


def _file(path: Path) -> Source:
    suffix = path.suffix.lower()
    video = suffix in VIDEO_SUFFIXES and not (suffix == ".gif" and _still(path))
    return Source("video" if video else "picture", str(path))


def _still(path: Path) -> bool:
    """Whether a GIF is one picture."""
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) == 1
    except (OSError, ValueError):
        return True


def frames(sources: Any, part: Part | None = None) -> Iterator[Frame]:
    """The frames of sources of any kind, in order.

    Args:
        sources: texts as `find_sources` takes them, paths, `Source`, numbers of cameras, arrays, tensors, Pillow
            images, encoded bytes; one or an iterable of them, mixed as you like.
        part: of each video.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: something is neither a picture nor a video; it says which.
    """
    for item in _each(sources):
        if isinstance(item, Source):
            yield from open_source(item, part)
        elif isinstance(item, str | Path):
            for source in find_sources(item):
                yield from open_source(source, part)
        elif isinstance(item, int) and _camera_number(str(item)):
            yield from open_source(Source("camera", str(item)), part)
        else:
            yield _in_memory(item)


def _each(sources: Any) -> Iterator[Any]:
    """One source or many, as an iterator."""
    if isinstance(sources, Source | int):
        return iter((sources,))
    try:
        return each_picture(sources)
    except TypeError:
        raise _no_source(sources) from None


def _in_memory(item: Any) -> Frame:
    try:
        return Frame(to_image(item), source_name(item))
    except TypeError:
        raise _no_source(item) from None


def _no_source(value: Any) -> ValueError:
    return ValueError(
        f"{' '.join(reprlib.repr(value).split())} is no source; give a path, an address, the number of a camera, "
        "encoded bytes, an array, a tensor or a Pillow image, or an iterable of these"
    )


def open_source(source: Source, part: Part | None = None) -> Iterator[Frame]:
    """The frames of one source; errors as `frames`."""
    part = part or Part()
    if source.kind == "picture":
        return _picture(source.name)
    if source.kind == "camera":
        return newest(_camera(int(source.name), part))
    if source.kind == "stdin":
        return _stdin(part, lambda name: frames(name, part))
    if source.kind == "missing":
        return frames(Path(source.name), part)
    return _video(source.name, source.name, part, live=source.kind == "stream")


def readable(
    sources: Iterable[Source],
    part: Part,
    noted: Callable[[str], object],
    check: Callable[[Frame], object] | None = None,
) -> Iterator[Frame]:
    """The frames of the sources that can be read, one after the other; also of names on standard input.

    Args:
        sources: where they come from.
        part: of videos.
        noted: called with what is wrong with a source, one line that names it; then it is the next one's turn.
        check: called with each frame; raises ``ValueError`` if it cannot be used, which ends its source.
    """

    def of_name(name: str) -> Iterator[Frame]:
        try:
            found = find_sources(name)
        except (ValueError, OSError) as error:
            noted(_problem(name, error))
            return
        yield from readable(found, part, noted, check)

    for source in sources:
        try:
            for frame in _stdin(part, of_name) if source.kind == "stdin" else open_source(source, part):
                if check is not None:
                    check(frame)
                yield frame
        except (ValueError, OSError) as error:
            noted(_problem(source.name, error))


def _problem(name: str, error: Exception) -> str:
    """What is wrong with a source, with its name."""
    text = str(error)
    return text if name in text or name == "-" else f"{name}: {text}"


def _picture(name: str) -> Iterator[Frame]:
    yield Frame(to_image(fetch(name) if "://" in name else name), name)


def _video(source: str | BinaryIO, name: str, part: Part, live: bool) -> Iterator[Frame]:
    options = stream_options(name) if live else {}
    reader = VideoReader(source, start=part.start, stop=part.stop, every=part.every, options=options)
    endless = live and reader.info.duration is None
    again = None if endless or not isinstance(source, str) else source if live else Path(source)
    clip = Clip(name, reader.info, None if endless else reader.expected, endless, again)
    empty = True
    moments = _moments(reader)
    with closing(newest(moments) if endless and reader.pushed else moments) as moments:
        for image, number, time in moments:
            yield Frame(image, name, clip, number, time)
            empty = False
    if empty:
        end = "" if reader.info.duration is None else f"; it ends after {reader.info.duration:.1f} s"
        raise ValueError(f"{name} has no frame in the part that is wanted{end}")


def _moments(reader: VideoReader) -> Generator[VideoFrame, None, None]:
    with reader:
        yield from reader


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Within the block OpenCV prints nothing of its own."""
    from cv2.utils import logging

    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


@contextmanager
def _opened_camera(number: int) -> Iterator[Any]:
    import cv2

    with _quiet_opencv():
        camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise ValueError(f"camera {number} cannot be opened; is it connected, and not in use?")
        yield camera
    finally:
        camera.release()


def _camera(number: int, part: Part) -> Iterator[Frame]:
    """Frames of a camera with the time at which they were taken; ``part`` counts from the first one."""
    import cv2

    with _opened_camera(number) as camera:
        rate = camera.get(cv2.CAP_PROP_FPS)
        rate = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(_CAMERA_RATE)
        name = f"camera:{number}"
        clip = Clip(name, VideoInfo(rate, None, None, False), None, live=True)
        begin, count = clock.monotonic(), -1
        while (answer := camera.read())[0]:
            count += 1
            time = clock.monotonic() - begin if count else 0.0
            if part.stop is not None and time >= part.stop:
                return
            if time >= (part.start or 0) and count % part.every == 0:
                yield Frame(cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB), name, clip, count, time)


def _stdin(part: Part, of_name: Callable[[str], Iterator[Frame]]) -> Iterator[Frame]:
    """A picture, a video, or names of sources, one a line, as the first bytes say."""
    raw: Any = getattr(sys.stdin, "buffer", None)  # a closed standard input is None
    head = raw.read1(_HEAD) if raw is not None and not sys.stdin.isatty() else b""
    if not head:
        raise ValueError("nothing comes from standard input; pipe a picture, a video or a list of names into poise")
    rest = from_start(head, raw)
    if is_picture(head):
        yield Frame(to_image(rest.read(MAX_DOWNLOAD)), "-")
    elif is_text(head):
        for line in io.TextIOWrapper(rest, encoding="utf-8-sig", errors="surrogateescape"):
            if (name := line.strip()) not in ("", "-") and not name.startswith("#"):
                yield from of_name(name)
    else:
        try:
            yield from _video(rest, "-", part, live=False)
        except VideoError:
            raise VideoError("standard input holds neither a picture, nor a video, nor a list of names") from None


def names_of(sources: Sequence[Source]) -> list[Path]:
    """The files among the sources, which no output may overwrite."""
    return [Path(s.name) for s in sources if s.kind in ("picture", "video") and "://" not in s.name]
