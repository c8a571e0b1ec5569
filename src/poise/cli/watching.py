"""What ``poise predict`` tells while it runs: a bar with the time that is left, and a line for each source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from poise.predict.frames import Clip, Frame, Source
    from poise.predict.output import Written
    from poise.types import Poses

Step = Callable[["Frame"], None]


@contextmanager
def frame_bar(sources: list[Source], every_line_is_shown: bool) -> Iterator[Step]:
    """A bar on stderr with frames a second and the time left; call what it gives with every frame that is done.

    Nothing is shown if stderr is no terminal, or if the lines on the same terminal tell enough.
    """
    clips = any(source.kind != "picture" for source in sources)
    if not sys.stderr.isatty() or (every_line_is_shown and sys.stdout.isatty() and not clips):
        yield lambda frame: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"), TimeRemainingColumn(),
    )  # fmt: skip
    count = Counter(sources)
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("predicting", total=count.total, pace="")

        def step(frame: Frame) -> None:
            count.add(frame)
            speed = bar.tasks[0].speed
            pace = f"{speed:.1f}/s" if speed else ""
            bar.update(task, completed=count.done, total=count.total, description=count.name(frame), pace=pace)

        yield step


class Counter:
    """How many frames are done, and how many there will be; a video counts one until it is opened."""

    def __init__(self, sources: list[Source]) -> None:
        self.done = 0
        self._rest = len(sources)
        self._clip: Clip | None = None
        self._in_clip = 0
        self._endless = False

    def add(self, frame: Frame) -> None:
        """Count a frame that is done."""
        if frame.clip is None or frame.clip is not self._clip:
            self._rest = max(0, self._rest - 1)
            self._clip, self._in_clip = frame.clip, 0
        self.done += 1
        self._in_clip += 1
        self._endless = frame.clip is not None and frame.clip.expected is None

    @property
    def total(self) -> int | None:
        """Frames in all as far as is known; None while a source without end runs."""
        if self._endless:
            return None
        expected = self._clip.expected or 0 if self._clip is not None else 0
        return self.done + max(0, expected - self._in_clip) + self._rest

    def name(self, frame: Frame) -> str:
        """What is being done, short."""
        return Path(frame.name or "picture").name[-40:]


class Teller:
    """Prints a line for every picture, and one for every clip when it is over."""

    def __init__(self, threshold: float, silent: bool) -> None:
        self._threshold, self._silent = threshold, silent
        self._clip: Clip | None = None
        self._frames = self._most = 0
        self._people: set[int] = set()
        self._drawn: Path | None = None

    def add(self, frame: Frame, candidates: Poses, written: Written) -> None:
        """Tell of a frame that is done."""
        if frame.clip is not self._clip:
            self.finish()
        if frame.clip is None:
            self._echo(summary(frame.name or "picture", candidates, self._threshold), written.drawn)
            return
        self._clip, self._drawn = frame.clip, written.drawn or self._drawn
        self._frames += 1
        self._most = max(self._most, len(written.poses))
        if written.poses.ids is not None:
            self._people.update(written.poses.ids.tolist())

    def finish(self) -> None:
        """Tell of the clip that is over, if there was one."""
        if self._clip is None:
            return
        frames = "1 frame" if self._frames == 1 else f"{self._frames} frames"
        text = f"{self._clip.name}: {frames}, {f'{_people(self._most)} at once' if self._most else 'nobody'}"
        if self._people:
            text += f", {_people(len(self._people))} followed"
        self._echo(text, self._drawn)
        self._clip, self._drawn, self._frames, self._most, self._people = None, None, 0, 0, set()

    def _echo(self, text: str, drawn: Path | None) -> None:
        if not self._silent:
            line = text if drawn is None else f"{text} -> {drawn}"
            typer.echo(line.encode("utf-8", "replace").decode("utf-8"))  # names of files may be no UTF-8


def _people(count: int) -> str:
    return "nobody" if count == 0 else "1 person" if count == 1 else f"{count} people"


def summary(name: str, candidates: Poses, threshold: float) -> str:
    """What was found in one picture, in one line; the candidates are best first."""
    count = len(candidates.filter(threshold))
    if count:
        return f"{name}: {_people(count)}"
    if len(candidates):
        best = float(candidates.scores[0])
        return f"{name}: no people found (the best candidate has score {best:.2f}, below --min-score {threshold:g})"
    return f"{name}: no people found"
