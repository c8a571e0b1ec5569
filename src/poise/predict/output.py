"""A folder of annotated pictures and videos, and one JSON file with all poses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from PIL import Image

from poise.draw import draw_poses, overlay_people
from poise.draw.faces import Anonymiser, Method, anonymise
from poise.files import replacing, source_stem
from poise.predict.frames import Clip, Frame
from poise.predict.overlap import Behind
from poise.predict.stream import LOW_SCORE, shown
from poise.predict.video import VideoWriter
from poise.results.coco import CocoWriter
from poise.results.saving import FORMATS, open_writer
from poise.results.writer import PoseSink
from poise.skeletons import Skeleton
from poise.types import ImageArray, Poses

POSES_FILE = "poses.json"
JPEG_QUALITY = 92
_UNKNOWN_RATE = 25
_FOLDERS = ("yolo", "openpose")
"""Formats that are folders of files."""


@dataclass(frozen=True, slots=True)
class Look:
    """What drawn pictures look like.

    Attributes:
        style: see `poise.draw.STYLES`.
        show_boxes: draw boxes and scores.
        anonymise: make faces unrecognisable, how; None: do not.
        skeletons: draw the poses.
        heatmaps: draw what the network saw, under the poses; these must have ``heatmaps``.
    """

    style: str = "sides"
    show_boxes: bool = False
    anonymise: Method | None = None
    skeletons: bool = True
    heatmaps: bool = False


class Written(NamedTuple):
    """What became of a frame: its poses that count, and the file in which it is drawn."""

    poses: Poses
    drawn: Path | None


class PoseWriter:
    """Takes the poses of pictures and frames, writes them, and draws them in a thread; use it in a ``with`` block.

    A drawn picture has the name of its source: ``.png`` for a PNG, ``.mp4`` for a video, ``.jpg`` for everything else.
    It gets a number where that name is taken: by a source, by another picture of this run, or by a file that no earlier
    run wrote. What was done before Ctrl-C or an error is kept: the poses always, a video after Ctrl-C.

    Args:
        folder: where to; None: nothing is drawn.
        sources: all files of the run; none of them is overwritten.
        skeleton: of the poses.
        threshold: lowest score of poses that count; lower ones only help to find faces.
        look: how to draw.
        formats: further files with all poses, by the names of `poise.results.FORMATS`.
        every: of the frames of videos every so many-th comes.
        document: where the JSON file goes if there is no folder; None: nowhere.
    """

    def __init__(
        self,
        folder: Path | None,
        sources: Sequence[Path],
        skeleton: Skeleton,
        threshold: float,
        look: Look | None = None,
        *,
        formats: Iterable[str] = (),
        every: int = 1,
        document: Path | None = None,
    ) -> None:
        self._folder, self._threshold, self._look, self._every = folder, threshold, look or Look(), every
        self._taken = {source.resolve() for source in sources}
        self._ours = set() if folder is None else _written_before(folder)
        self.path = document if folder is None else folder / POSES_FILE
        self._sinks: list[PoseSink] = [] if self.path is None else [CocoWriter(self.path, skeleton)]
        self._sinks += [_extra(folder, form, skeleton) for form in formats if folder is not None]
        self._stack = ExitStack()
        self._drawing = self._stack.enter_context(Behind(self._draw))
        self._clip: Clip | None = None
        self._clip_path: Path | None = None
        self._video: VideoWriter | None = None
        self._hide: Anonymiser | None = None

    def add(self, frame: Frame, poses: Poses) -> Written:
        """Take a frame and all candidates in it (image px, see `poise.predict.stream.followed`).

        Raises:
            OSError: the folder cannot be written to; it may come up later, at the latest at the end of the block.
        """
        kept = shown(poses, self._threshold)
        drawn = None if self._folder is None else self._target(self._folder, frame)
        for sink in self._sinks:
            sink.add(kept, **({} if drawn is None else {"drawn": drawn.name}))
        if drawn is not None:
            self._drawing.put((frame, poses, drawn))
        return Written(kept, drawn)

    def _target(self, folder: Path, frame: Frame) -> Path:
        if frame.clip is None:
            return self._free_name(folder, frame)
        if frame.clip is not self._clip or self._clip_path is None:
            self._clip, self._clip_path = frame.clip, self._free_name(folder, frame)
        return self._clip_path

    def _free_name(self, folder: Path, frame: Frame) -> Path:
        stem, suffix = _file_name(frame)
        number = 1
        while True:
            target = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
            resolved = target.resolve()
            if resolved not in self._taken and (target.name in self._ours or not target.exists()):
                self._taken.add(resolved)
                return target
            number += 1

    def _draw(self, job: tuple[Frame, Poses, Path]) -> None:
        """In the drawing thread: one frame to its file."""
        frame, poses, target = job
        if frame.clip is None:
            self._close_video()
            picture = Image.fromarray(self._drawn(frame.image, poses))
            with replacing(target) as temporary:
                picture.save(temporary, quality=JPEG_QUALITY)
            return
        if self._video is None or self._video.path != target:
            self._close_video()
            self._video = VideoWriter(target, _rate(frame.clip, self._every), audio=_sound(frame.clip))
            self._hide = Anonymiser(method=self._look.anonymise) if self._look.anonymise else None
        self._video.add(self._drawn(frame.image, poses), frame.time)

    def _drawn(self, image: ImageArray, poses: Poses) -> ImageArray:
        look = self._look
        if look.anonymise is not None:
            everybody = poses.filter(LOW_SCORE * self._threshold)
            hide = self._hide
            image = hide(image, everybody) if hide else anonymise(image, everybody, method=look.anonymise)
        kept = shown(poses, self._threshold)
        if look.heatmaps:
            image = overlay_people(image, kept)
        if not look.skeletons:
            return image
        return draw_poses(image, kept, style=look.style, show_boxes=look.show_boxes)

    def _close_video(self) -> None:
        video, self._video, self._hide = self._video, None, None
        if video is not None:
            video.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._close_video()
        finally:
            if self._video is not None:
                self._video.discard()
            for sink in self._sinks:
                sink.close()


def copy_document(path: Path, out: IO[str]) -> None:
    """Print a file of poses, piece by piece."""
    with path.open(encoding="utf-8") as file:
        while piece := file.read(1 << 16):
            out.write(piece)


def _extra(folder: Path, form: str, skeleton: Skeleton) -> PoseSink:
    if form in _FOLDERS or form not in FORMATS:
        return open_writer(folder / form, skeleton, form)
    return open_writer(folder / f"poses.{form}", skeleton, form)


def _file_name(frame: Frame) -> tuple[str, str]:
    """Stem and suffix of a drawn frame."""
    name = frame.name or "picture"
    if frame.clip is not None:
        return source_stem(name), ".mp4"
    return source_stem(name), ".png" if Path(name.partition("?")[0]).suffix.lower() == ".png" else ".jpg"


def _rate(clip: Clip, every: int) -> Fraction:
    return (clip.info.rate or Fraction(_UNKNOWN_RATE)) / every


def _sound(clip: Clip) -> Path | None:
    return clip.path if clip.info.has_audio else None


def _written_before(folder: Path) -> set[str]:
    """Names of the drawn pictures that an earlier run has left in a folder."""
    names: set[str] = set()
    try:
        with (folder / POSES_FILE).open(encoding="utf-8") as file:
            for line in file:
                names.update(json.loads(name) for name in re.findall(r'"drawn": ("(?:[^"\\]|\\.)*")', line))
                if '"annotations": [' in line:
                    break
    except (OSError, ValueError):
        return set()
    return names
