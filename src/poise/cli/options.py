"""Options that several verbs share, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

if TYPE_CHECKING:
    from poise.predict.predictor import Predictor

Model = Annotated[
    str, typer.Option("--model", "-m", help="A shipped model (see: poise models) or the path of a checkpoint.")
]
Weights = Annotated[
    Path | None, typer.Option(help="With the name of a preset as --model: the safetensors file of its weights.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Pictures that run together [default: 8 on a GPU, 1 on the CPU].")
]
Scales = Annotated[
    str | None,
    typer.Option(
        help="Look at each picture at several sizes: short sides in pixels, for example 640,800,960, "
        "or limits of long and short side, for example 1333x800,1333x600."
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Also look at each picture mirrored.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def parse_scales(text: str | None) -> list[int | tuple[int, int]] | None:
    """``640,800`` as numbers, ``1333x800`` as a pair of them; a usage error if it is something else."""
    if text is None:
        return None
    try:
        return [_scale(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--scales {text!r}: write whole numbers with commas, for example 640,800 or 1333x800,1333x600"
        ) from None


def _scale(text: str) -> int | tuple[int, int]:
    long_side, times, short_side = text.partition("x")
    return (int(long_side), int(short_side)) if times else int(long_side)


def open_predictor(model: str, weights: Path | None, device: str) -> Predictor:
    """The predictor that ``--model``, ``--weights`` and ``--device`` name."""
    from poise.predict.predictor import load

    return load(model, device=device, weights=weights)


class Advance(Protocol):
    """Told how far a job is."""

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` pictures are done."""
        ...


@contextmanager
def progress_bar(what: str, quiet: bool = False) -> Iterator[Advance]:
    """A bar on stderr while the block runs, if that is a terminal and ``quiet`` is false; else nothing is shown."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
