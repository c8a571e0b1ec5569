"""``poise predict``: pictures and videos in, annotated ones and poses out."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.errors import complain, sigterm_as_ctrl_c
from poise.cli.options import (
    Batch,
    Bf16,
    Boxes,
    Compile,
    Device,
    Flip,
    Half,
    Models,
    People,
    PeopleChoice,
    PeopleMinScore,
    PeopleNms,
    Scales,
    Turns,
    Weights,
    half_precision,
    model_names,
    open_predictor,
    parse_scales,
    require_folder,
    where_people_are,
)
from poise.cli.video_options import (
    Anonymise,
    Every,
    From,
    Heatmaps,
    Save,
    Smooth,
    StyleName,
    Tiles,
    To,
    Track,
    parse_anonymise,
    parse_choices,
    parse_part,
)
from poise.memory import without_collection

if TYPE_CHECKING:
    from poise.predict.frames import Frame, Part, Source
    from poise.predict.opening import AnyPredictor
    from poise.predict.output import PoseWriter
    from poise.predict.stream import Seen
    from poise.predict.tiles import Tiling

OUT = Path("poise-out")
_PICTURES = (
    "--track follows people in videos, and these are pictures, in which nobody is followed; make a clip of numbered "
    "pictures first, for example: ffmpeg -framerate 25 -pattern_type glob -i 'frames/*.jpg' clip.mp4"
)


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, videos, folders, patterns such as 'a/**/*.jpg', .txt lists, 0 (a camera), rtsp://... or "
            "http://... (a stream), - (standard input); mixed as you like.",
        ),
    ],
    model: Models = None,
    weights: Weights = None,
    boxes: Boxes = None,
    people: People = None,
    people_min_score: PeopleMinScore = None,
    people_nms: PeopleNms = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"Folder for what is drawn and for poses.json [default: {OUT}]."),
    ] = None,
    save: Save = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out poses with a lower score [default: what suits the model]."),
    ] = None,
    track: Track = False,
    smooth: Smooth = None,
    every: Every = 1,
    start: From = None,
    stop: To = None,
    tiles: Tiles = None,
    style: StyleName = "sides",
    show_boxes: Annotated[bool, typer.Option("--show-boxes", help="Draw boxes and scores, too.")] = False,
    heatmaps: Heatmaps = False,
    anonymise: Anonymise = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the poses as JSON; files are then written only with --out.")
    ] = False,
    device: Device = "auto",
    half: Half = False,
    bf16: Bf16 = False,
    compile: Compile = False,
    batch: Batch = None,
    scales: Scales = None,
    flip: Flip = False,
    turns: Turns = False,
) -> None:
    """Find the people in pictures and videos.

    Writes every picture and video with the poses drawn on it, under its own name, and all poses to poses.json (COCO
    keypoint annotations with scores). A source is never overwritten.

    A picture in which nobody is found is no error. If a source is missing, cannot be read or cannot be drawn, the
    others are still processed, the bad ones are listed at the end, and the exit code is 1. Ctrl-C or SIGTERM ends a
    video where it is; the file is whole up to there.

    A top-down model looks at each person from near. The default model finds the people, unless --people names another
    or --boxes tells where they are.
    """
    parse_choices(style, smooth, track, save, files=out is not None or not as_json)
    wish = _Wish(
        out=out if out is not None else None if as_json else OUT,
        as_json=as_json,
        min_score=min_score,
        track=track,
        smooth=smooth,
        part=parse_part(start, stop, every),
        save=tuple(save or ()),
        look={
            "style": style,
            "show_boxes": show_boxes,
            "anonymise": parse_anonymise(anonymise),
            "heatmaps": heatmaps,
        },
        options={"batch": batch, "scales": parse_scales(scales), "flip": flip},
    )
    precision = half_precision(half, bf16)
    with without_collection():
        found, problems = _find(sources)
    if found:
        if wish.out is not None:
            require_folder(wish.out, "--out")
        if track and all(source.kind == "picture" for source in found):
            complain(_PICTURES)
        choice = PeopleChoice(boxes, people, people_min_score, people_nms)
        with without_collection():
            predictor = open_predictor(
                model_names(model), weights, device, choice, half=precision, compile=compile, turns=turns
            )
        if not choice.given and (found_by := where_people_are(predictor)) is not None:
            complain(f"{found_by}; --people or --boxes say otherwise")
        if heatmaps:
            _use_heatmaps(predictor, wish.options)
        tiling = None if tiles is None else _use_tiles(predictor, tiles, wish.options)
        try:
            with sigterm_as_ctrl_c():
                _run(found, problems, predictor, wish, _frame_check(predictor, tiling))
        finally:
            _list(problems)
    else:
        _list(problems)
    if problems:
        raise typer.Exit(1)


def _list(problems: list[str]) -> None:
    for problem in problems:
        complain(problem)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the command line asks for."""

    out: Path | None
    as_json: bool
    min_score: float | None
    track: bool
    smooth: str | None
    part: Part
    save: tuple[str, ...]
    look: dict[str, Any]
    options: dict[str, Any]


def _find(texts: list[str]) -> tuple[list[Source], list[str]]:
    """The sources that the texts mean, each file once, and what is wrong with the texts that mean nothing."""
    from poise.predict import frames

    sources: dict[str, Source] = {}
    problems: list[str] = []
    for text in texts:
        try:
            for source in frames.find_sources(text):
                key = str(Path(source.name).resolve()) if frames.names_of([source]) else source.name
                sources.setdefault(key, source)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return list(sources.values()), problems


def _run(
    sources: list[Source],
    problems: list[str],
    predictor: AnyPredictor,
    wish: _Wish,
    check: Callable[[Frame], object],
) -> None:
    """Everything from reading to writing, and then the poses on stdout if they are asked for."""
    from poise.cli.watching import Teller
    from poise.predict.frames import names_of, readable
    from poise.predict.output import Look, PoseWriter
    from poise.predict.stream import find, followed, following_of

    threshold = predictor.min_score if wish.min_score is None else wish.min_score
    with ExitStack() as stack:
        document = None
        if wish.as_json and wish.out is None:
            document = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "poses.json"
        following = following_of(wish.track, wish.smooth, threshold)
        frames = readable(sources, wish.part, problems.append, check)
        seen = followed(find(predictor, frames, min_score=0.0, **wish.options), following)
        teller = Teller(threshold, silent=wish.as_json)
        writer = PoseWriter(
            wish.out, names_of(sources), predictor.skeleton, threshold, Look(**wish.look), formats=wish.save,
            every=wish.part.every, document=document, told=teller.add, noted=problems.append,
        )  # fmt: skip
        try:
            _write(seen, writer, sources, wish.as_json)
        except KeyboardInterrupt:
            _print(writer.path if wish.as_json else None)
            raise
        finally:
            teller.finish()
        _print(writer.path if wish.as_json else None)


def _print(document: Path | None) -> None:
    from poise.predict.output import copy_document

    if document is not None and document.exists():
        copy_document(document, sys.stdout)


def _frame_check(predictor: AnyPredictor, tiling: Tiling | None) -> Callable[[Frame], object]:
    """Asked about each frame before the model is: ``ValueError`` if its boxes are not known, or its tiles too many."""
    from poise.predict.boxes import Boxes

    people = getattr(predictor, "people", None)

    def check(frame: Frame) -> None:
        if isinstance(people, Boxes) and frame.name is not None:
            people.of_name(frame.name)
        if tiling is not None:
            from poise.predict.tiles import tile_boxes  # needs torch, which exported models do without

            tile_boxes((frame.image.shape[0], frame.image.shape[1]), tiling)

    return check


def _use_tiles(predictor: AnyPredictor, tiles: str, options: dict[str, Any]) -> Tiling:
    """Have the model that finds the people look at tiles; which ones."""
    from poise.predict.people import FoundPeople
    from poise.predict.tiles import parse_tiling

    tiling = parse_tiling(tiles)
    people = getattr(predictor, "people", None)
    if people is None:
        options["tiles"] = tiling
    elif isinstance(people, FoundPeople):
        people.tiles = tiling
    else:
        raise ValueError("--tiles helps to find people; with --boxes they are known already")
    return tiling


def _use_heatmaps(predictor: AnyPredictor, options: dict[str, Any]) -> None:
    """Have the model keep what it sees."""
    from poise.predict.exported import ExportedPredictor

    if isinstance(predictor, ExportedPredictor):
        raise ValueError(
            f"--heatmaps: {predictor.exported.path} is exported, and exported files show no heatmaps; name the "
            "checkpoint of a top-down model with --model"
        )
    if not hasattr(predictor, "heatmaps"):
        raise ValueError("--heatmaps draws what a top-down model saw; name one with --model")
    options["heatmaps"] = True


def _write(seen: Iterable[Seen], writer: PoseWriter, sources: list[Source], as_json: bool) -> None:
    from poise.cli.watching import frame_bar

    with frame_bar(sources, every_line_is_shown=not as_json) as step, writer:
        for frame, poses in seen:
            writer.add(frame, poses)
            step(frame)
