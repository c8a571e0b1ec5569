"""A folder of annotated pictures and videos, and one JSON file with all poses."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import cv2
from PIL import Image

from poise.draw import draw_poses, overlay_people
from poise.draw.faces import Anonymiser, Method, anonymise
from poise.extras import MissingLibraryError
from poise.files import fitting, reason, replacing, source_stem
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
_JPEG_SIDE = 65_500
"""Pixels that a side of a JPEG may have."""
_TEXT = r'"(?:[^"\\]|\\.)*"'
"""A text in JSON."""
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
    """What became of a frame: its poses that count, and the file in which it is drawn; None if it is in none."""

    poses: Poses
    drawn: Path | None


class PoseWriter:
    """Takes the poses of pictures and frames, writes them, and draws them in a thread; use it in a ``with`` block.

    A drawn picture has the name of its source: ``.png`` for a PNG, ``.mp4`` for a video, ``.jpg`` for everything else.
    It gets a number where that name is taken: by a source, by another picture of this run, or by a file that is not as
    an earlier run left it. What was done before Ctrl-C or an error is kept: the poses always, a video after Ctrl-C.

    A picture that cannot be drawn or written is noted, its poses are kept, and the next one's turn comes; a video ends
    there. The JSON file says of what is drawn only in which file (``drawn``), and in its ``info`` which files of
    earlier runs are still in the folder (``drawn_before``).

    Args:
        folder: where to; None: nothing is drawn.
        sources: all files of the run; none of them is overwritten.
        skeleton: of the poses.
        threshold: lowest score of poses that count; lower ones only help to find faces.
        look: how to draw.
        formats: further files with all poses, by the names of `poise.results.FORMATS`.
        every: of the frames of videos every so many-th comes.
        document: where the JSON file goes if there is no folder; None: nowhere.
        told: called with each frame, its candidates and what became of it, when that is known; from any thread.
        noted: called with what is wrong with a picture that cannot be drawn, one line; None: that is an error.
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
        told: Callable[[Frame, Poses, Written], object] | None = None,
        noted: Callable[[str], object] | None = None,
    ) -> None:
        self._folder, self._threshold, self._look, self._every = folder, threshold, look or Look(), every
        self._taken = {source.resolve() for source in sources}
        self._told, self._noted = told, noted
        self._ours = set() if folder is None else _written_before(folder)
        self.path = document if folder is None else folder / POSES_FILE
        info = {"drawn_before": sorted(self._ours)} if self._ours else {}
        self._sinks: list[PoseSink] = [] if self.path is None else [CocoWriter(self.path, skeleton, info)]
        self._sinks += [_extra(folder, form, skeleton) for form in formats if folder is not None]
        self._stack = ExitStack()
        self._drawing = self._stack.enter_context(Behind(self._finish))
        self._keeping = threading.Lock()
        self._clip: Clip | None = None
        self._clip_path: Path | None = None
        self._video: VideoWriter | None = None
        self._hide: Anonymiser | None = None
        self._given_up: Clip | None = None

    def add(self, frame: Frame, poses: Poses) -> None:
        """Take a frame and all candidates in it (image px, see `poise.predict.stream.followed`).

        Raises:
            OSError: the folder cannot be written to; it may come up later, at the latest at the end of the block.
        """
        if self._folder is None:
            self._keep(frame, poses, None)
        else:
            self._drawing.put((frame, poses, self._target(self._folder, frame)))

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
            target = folder / fitting(stem, suffix if number == 1 else f"-{number}{suffix}")
            resolved = target.resolve()
            if resolved not in self._taken and (target.name in self._ours or not target.exists()):
                self._taken.add(resolved)
                return target
            number += 1

    def _finish(self, job: tuple[Frame, Poses, Path]) -> None:
        """In the drawing thread: one frame to its file, then its poses to theirs."""
        frame, poses, target = job
        if self._video is not None and self._video.path != target:
            self._end_video()
        self._keep(frame, poses, target if self._is_drawn(frame, poses, target) else None)

    def _keep(self, frame: Frame, poses: Poses, drawn: Path | None) -> None:
        written = Written(shown(poses, self._threshold), drawn)
        with self._keeping:
            for sink in self._sinks:
                sink.add(written.poses, **({} if drawn is None else {"drawn": drawn.name}))
        if self._told is not None:
            self._told(frame, poses, written)

    def _is_drawn(self, frame: Frame, poses: Poses, target: Path) -> bool:
        if frame.clip is not None and frame.clip is self._given_up:
            return False
        try:
            self._draw(frame, poses, target)
        except MissingLibraryError:
            raise
        except (ValueError, OSError, cv2.error) as error:
            end = " to its end" if self._video is not None and self._video.frames else ""
            self._note(f"{frame.name or 'picture'} cannot be drawn{end}: {reason(error)}", error)
            self._given_up = frame.clip
            self._end_video()
            return False
        return True

    def _note(self, problem: str, error: Exception) -> None:
        if self._noted is None:
            raise error
        self._noted(problem)

    def _draw(self, frame: Frame, poses: Poses, target: Path) -> None:
        if frame.clip is None:
            picture = Image.fromarray(self._drawn(frame.image, poses))
            if target.suffix == ".jpg" and max(picture.size) > _JPEG_SIDE:
                raise ValueError(
                    f"{picture.width}x{picture.height} is too large for a JPEG, whose sides have at most {_JPEG_SIDE} "
                    "pixels; what comes as .png is written as .png"
                )
            with replacing(target) as temporary:
                picture.save(temporary, quality=JPEG_QUALITY)
            return
        if self._video is None:
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

    def _end_video(self) -> None:
        """Finish the video where it is; there is none if it cannot be written."""
        video, self._video, self._hide = self._video, None, None
        if video is None:
            return
        try:
            video.close()
        except (ValueError, OSError) as error:
            self._note(str(error), error)
        finally:
            video.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
            if kind is None or issubclass(kind, KeyboardInterrupt):
                self._end_video()
        finally:
            if self._video is not None:
                self._video.discard()
            with self._keeping:
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


def _sound(clip: Clip) -> str | Path | None:
    return clip.path if clip.info.has_audio else None


def _written_before(folder: Path) -> set[str]:
    """Names of the drawn pictures that earlier runs have left in a folder.

    What has changed since the last run wrote its poses, at its end, is somebody else's.
    """
    names: set[str] = set()
    try:
        with (folder / POSES_FILE).open(encoding="utf-8") as file:
            last = os.fstat(file.fileno()).st_mtime_ns
            for line in file:
                names.update(json.loads(name) for name in re.findall(rf'"drawn": ({_TEXT})', line))
                for earlier in re.findall(rf'"drawn_before": (\[(?:{_TEXT}(?:, )?)*\])', line):
                    names.update(json.loads(earlier))
                if '"annotations": [' in line:
                    break
        return {name for name in names if _unchanged(folder / name, last)}
    except (OSError, ValueError):
        return set()


def _unchanged(path: Path, since: int) -> bool:
    """Whether a file is there and is not younger than a time, ns."""
    try:
        return path.stat().st_mtime_ns <= since
    except OSError:
        return False
