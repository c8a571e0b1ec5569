"""``poise predict``: pictures in, annotated pictures and poses out."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.errors import complain
from poise.cli.options import (
    Batch,
    Boxes,
    Device,
    Flip,
    Models,
    People,
    PeopleChoice,
    PeopleMinScore,
    PeopleNms,
    Scales,
    Weights,
    model_names,
    open_predictor,
    parse_scales,
    progress_bar,
    where_people_are,
)

if TYPE_CHECKING:
    from poise.predict.output import PoseWriter
    from poise.predict.predictor import Predictor
    from poise.predict.sources import Named
    from poise.predict.topdown import TopDownPredictor
    from poise.types import Poses

OUT = Path("poise-out")


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, folders of pictures, patterns such as 'a/**/*.jpg', .txt lists of files.",
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
        typer.Option("--out", "-o", help=f"Folder for the annotated pictures and poses.json [default: {OUT}]."),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out poses with a lower score [default: what suits the model]."),
    ] = None,
    show_boxes: Annotated[bool, typer.Option("--show-boxes", help="Draw boxes and scores, too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the poses as JSON; files are then written only with --out.")
    ] = False,
    device: Device = "auto",
    batch: Batch = None,
    scales: Scales = None,
    flip: Flip = False,
) -> None:
    """Find the people in pictures.

    Writes every picture with its poses drawn on it, under its own name, and all poses to poses.json (COCO keypoint
    annotations with scores). A source picture is never overwritten.

    A picture in which nobody is found is no error. If a picture is missing or cannot be read, the others are still
    processed, the bad ones are listed at the end, and the exit code is 1.

    A top-down model looks at each person from near. The default model finds the people, unless --people names another
    or --boxes tells where they are.
    """
    sizes = parse_scales(scales)
    paths, problems = _find(sources)
    if paths:
        from poise.predict.output import PoseWriter

        choice = PeopleChoice(boxes, people, people_min_score, people_nms)
        predictor = open_predictor(model_names(model), weights, device, choice)
        if not choice.given and (found_by := where_people_are(predictor)) is not None:
            complain(f"{found_by}; --people or --boxes say otherwise")
        pictures = _Readable(paths, problems, _box_check(predictor))
        found = predictor.predict_iter(pictures, min_score=0.0, batch=batch, scales=sizes, flip=flip)
        folder = out if out is not None else None if as_json else OUT
        threshold = predictor.min_score if min_score is None else min_score
        _write(pictures, found, PoseWriter(folder, paths, predictor.skeleton, show_boxes), threshold, as_json)
    for problem in problems:
        complain(problem)
    if problems:
        raise typer.Exit(1)


class _Readable:
    """The pictures that can be read, one after the other; what is wrong with the others is noted.

    Args:
        paths: of the pictures.
        problems: where it is noted.
        check: is asked for each name first; raises ``ValueError`` if the picture cannot be used.
    """

    def __init__(self, paths: list[Path], problems: list[str], check: Callable[[str], object]) -> None:
        self.paths, self.problems, self._check = paths, problems, check
        self.waiting: deque[Path] = deque()
        """Pictures that were handed out, and whose poses have not come back yet."""

    def __iter__(self) -> Iterator[Named]:
        from poise.data.images import read_image
        from poise.predict.sources import Named

        for path in self.paths:
            try:
                self._check(str(path))
                image = read_image(path)
            except (ValueError, OSError) as error:
                self.problems.append(str(error))
                continue
            self.waiting.append(path)
            yield Named(image, str(path))


def _box_check(predictor: Predictor | TopDownPredictor) -> Callable[[str], object]:
    """Whether a picture's boxes are known, where they are from a file."""
    from poise.predict.boxes import Boxes

    people = getattr(predictor, "people", None)
    return people.of_name if isinstance(people, Boxes) else lambda name: None


def _find(sources: list[str]) -> tuple[list[Path], list[str]]:
    """The picture files of all sources, and what is wrong with the sources that have none."""
    from poise.predict.sources import find_pictures, unique

    paths: list[Path] = []
    problems: list[str] = []
    for source in sources:
        try:
            paths += find_pictures(source)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return unique(paths), problems


def _write(pictures: _Readable, found: Iterator[Poses], writer: PoseWriter, threshold: float, as_json: bool) -> None:
    total = len(pictures.paths)
    try:
        with progress_bar("predicting", quiet=sys.stdout.isatty() and not as_json) as advance:
            for done, poses in enumerate(found, 1):
                path = pictures.waiting.popleft()
                drawn = writer.add(path, poses.filter(threshold))
                advance(done, total)
                if not as_json:
                    typer.echo(_summary(path, poses, threshold, drawn))
    finally:
        document = writer.finish()
    if as_json:
        typer.echo(json.dumps(document))


def _summary(path: Path, poses: Poses, threshold: float, drawn: Path | None) -> str:
    """What was found in one picture, in one line; ``poses`` are all candidates, best first."""
    count = len(poses.filter(threshold))
    if count:
        text = f"{path}: 1 person" if count == 1 else f"{path}: {count} people"
    elif len(poses):
        best = float(poses.scores[0])
        text = f"{path}: no people found (the best candidate has score {best:.2f}, below --min-score {threshold:g})"
    else:
        text = f"{path}: no people found"
    return text if drawn is None else f"{text} -> {drawn}"
