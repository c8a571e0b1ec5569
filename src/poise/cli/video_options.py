"""Options of ``poise predict`` for videos, for following people and for what is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from poise.draw.faces import Method
    from poise.predict.frames import Part

STYLE_NAMES = ("sides", "people", "bold", "thin", "lines", "dots", "white")
"""As `poise.draw.STYLES`; repeated here, so that help does not load the drawing code. A test compares."""
FORMAT_NAMES = ("coco", "csv", "parquet", "yolo", "openpose")
"""As `poise.results.FORMATS`; see above."""
SMOOTH_NAMES = ("online", "offline")
METHODS = ("blur", "pixels", "fill")


def starting_with(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Shell completion from a few names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Track = Annotated[bool, typer.Option("--track", help="Follow people through videos: each gets a number that stays.")]
Smooth = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(SMOOTH_NAMES),
        autocompletion=starting_with(SMOOTH_NAMES),
        help="With --track: less jitter. online looks at no later frame, offline is smoother and not late.",
    ),
]
Every = Annotated[int, typer.Option(min=1, metavar="N", help="Look at every N-th frame of videos only.")]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Start of videos: seconds, or 1:02:03.5.")]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End of videos.")]
Tiles = Annotated[
    str | None,
    typer.Option(
        metavar="CxR|SIZE",
        help="For small and far people: also look at C x R overlapping tiles, or at tiles of SIZE px.",
    ),
]
StyleName = Annotated[
    str,
    typer.Option(
        "--style",
        metavar="NAME",
        autocompletion=starting_with(STYLE_NAMES),
        help=f"How people look: {', '.join(STYLE_NAMES)}.",
    ),
]
Anonymise = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(METHODS),
        autocompletion=starting_with(METHODS),
        help="Make faces unrecognisable, also those of people too unsure to be drawn.",
    ),
]
Heatmaps = Annotated[
    bool, typer.Option("--heatmaps", help="With a top-down model: also draw what it saw, coloured light.")
]
Save = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORMAT",
        autocompletion=starting_with(FORMAT_NAMES),
        help=f"Also write the poses as {', '.join(FORMAT_NAMES[1:])}; can be repeated.",
    ),
]


def parse_part(start: str | None, stop: str | None, every: int) -> Part:
    """``--from``, ``--to`` and ``--every``; a usage error if they are no times, or nothing lies between them."""
    from poise.predict.frames import Part

    begin = None if start is None else _seconds("--from", start)
    end = None if stop is None else _seconds("--to", stop)
    if end is not None and end <= (begin or 0):
        raise typer.BadParameter(f"--to {stop} is not after --from {start or 0}")
    return Part(begin, end, every)


def _seconds(option: str, text: str) -> float:
    if not re.fullmatch(r"(?:\d{1,4}:)?(?:\d{1,4}:)?\d{1,6}(?:\.\d{1,9})?", text):
        raise typer.BadParameter(f"{option} {text!r}: write seconds, for example 12.5, or 1:02:03.5")
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def parse_anonymise(text: str | None) -> Method | None:
    """The way to hide faces; a usage error if there is no such way."""
    return None if text is None else cast("Method", _known("--anonymise", text, METHODS))


def parse_choices(style: str, smooth: str | None, track: bool, save: list[str] | None, files: bool = True) -> None:
    """Usage errors for names that do not exist, for smoothing nobody, and for saving where no ``files`` are written."""
    _known("--style", style, STYLE_NAMES)
    for form in save or ():
        _known("--save", form, FORMAT_NAMES)
        if not files:
            raise typer.BadParameter(f"--save {form} writes a file, and --json alone writes none; add --out FOLDER")
    if smooth is not None:
        _known("--smooth", smooth, SMOOTH_NAMES)
        if not track:
            raise typer.BadParameter("--smooth works on people who are followed; add --track")


def _known(option: str, text: str, names: tuple[str, ...]) -> str:
    if text not in names:
        from poise.settings import nearest

        raise typer.BadParameter(f"{option} {text!r} is not known{nearest(text, names)}")
    return text
