"""Options that several verbs share, and the progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from poise.cli.errors import complain

if TYPE_CHECKING:
    from poise.predict.devices import Half as Precision
    from poise.predict.opening import AnyPredictor


def complete_models(incomplete: str) -> list[str]:
    """Shell completion: the shipped models."""
    from poise.zoo import shipped

    return [name for name in ("default", *shipped()) if name.startswith(incomplete)]


def complete_devices(incomplete: str) -> list[str]:
    """Shell completion: kinds of devices."""
    return [name for name in ("auto", "cpu", "cuda", "mps") if name.startswith(incomplete)]


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        autocompletion=complete_models,
        help="A shipped model (see: poise models), the path of a checkpoint, or an exported file [default: default]. "
        "Several top-down models, with commas or one --model each, are an ensemble.",
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="For a top-down model: boxes of people, a COCO or MPII annotation file, a YOLO data set, or a list of "
        "COCO detections."
    ),
]
People = Annotated[
    str | None,
    typer.Option(help="For a top-down model: the single-stage model that finds the people [default: default]."),
]
PeopleMinScore = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Look only at people found with at least this score [default: 0.05, measuring 0.01]."
    ),
]
PeopleNms = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Leave out people whose box has a larger IoU with that of a better one [default: 0.8]."
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="With the name of a preset as --model: the safetensors file of its weights.")
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|mps",
        autocompletion=complete_devices,
        help="Where to run; cuda:1 is the second GPU, auto the first one if there is any, else the CPU.",
    ),
]
Half = Annotated[bool, typer.Option("--half", help="Compute in float16, on a GPU.")]
Bf16 = Annotated[
    bool, typer.Option("--bf16", help="Compute in bfloat16, on a GPU or a processor with arithmetic for it.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network: a slow start, quicker afterwards; for long videos.")
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Pictures that run together [default: 8 on a GPU, 1 on the CPU]; for a top-down model, people [64, 16].",
    ),
]
Scales = Annotated[
    str | None,
    typer.Option(
        help="Look at each picture at several sizes in pixels: long sides, for example 608,320 (short sides for a "
        "model trained with limits of both sides), or limits of long and short side, for example 1333x800,1333x600."
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Also look at each picture mirrored.")]
Turns = Annotated[
    bool,
    typer.Option(
        "--turns",
        help="Also look at each person turned by 90, 180 and 270 degrees and keep the surest pose, and again upright "
        "at who leans: for acrobats, divers, cameras overhead. For top-down models; 4 to 7 times their work.",
    ),
]
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


@dataclass(frozen=True, slots=True)
class PeopleChoice:
    """The options that say where the people are whom a top-down model looks at; None: not given."""

    boxes: Path | None = None
    people: str | None = None
    min_score: float | None = None
    nms: float | None = None

    @property
    def given(self) -> bool:
        """Whether the user chose anything."""
        return self != PeopleChoice()

    def check(self) -> None:
        """A usage error if the options do not go together."""
        if self.boxes is not None and self != PeopleChoice(boxes=self.boxes):
            raise typer.BadParameter("--boxes says where people are; it does not go with --people, --people-...")


def require_folder(folder: Path, option: str) -> None:
    """``ValueError`` if no file can be written to a folder, which need not exist, that an option names."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise ValueError(f"{path} is a file, not a folder; name another place with {option}")
            if not os.access(path, os.W_OK | os.X_OK):
                raise ValueError(f"nothing can be written to the folder {path}; name another place with {option}")
            return


def require_file(path: Path, option: str) -> None:
    """``ValueError`` if a file that an option names, which need not exist, cannot be written."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a folder or a device, not a file; name a file with {option}")
    require_folder(path.parent, option)


def model_names(models: list[str] | None) -> list[str]:
    """The models that ``--model`` names, with commas or repeated; ``default`` if it is not given."""
    named = [text for text in models or ["default"] if text]
    return [n for text in named for n in ([text] if Path(text).exists() else text.split(",")) if n] or ["default"]


def half_precision(half: bool, bf16: bool) -> Precision:
    """What ``--half`` and ``--bf16`` mean, as `poise.load` takes it; ``BadParameter`` if both are given."""
    if half and bf16:
        raise typer.BadParameter("--half is float16 and --bf16 bfloat16; take one of them")
    return "bfloat16" if bf16 else half


def open_predictor(
    models: list[str],
    weights: Path | None,
    device: str,
    choice: PeopleChoice,
    category: int = 1,
    *,
    half: Precision = False,
    compile: bool = False,
    turns: bool = False,
) -> AnyPredictor:
    """The predictor that ``--model``, ``--weights``, ``--device`` ... name; says on stderr where it runs.

    ``category`` is that of people in detection results.
    """
    how = {"device": device, "half": half, "compile": compile, "turns": turns}
    predictor = _opened(models, weights, choice, category, how)
    complain(f"running on {predictor.running}")
    return predictor


def _opened(
    models: list[str], weights: Path | None, choice: PeopleChoice, category: int, how: dict[str, Any]
) -> AnyPredictor:
    choice.check()
    if len(models) == 1 and not choice.given:
        from poise.predict import opening

        return opening.load(models[0], weights=weights, **how)
    from poise.predict.boxes import read_boxes
    from poise.predict.people import PEOPLE_MIN_SCORE, PEOPLE_NMS
    from poise.predict.pipeline import pipeline

    return pipeline(
        choice.people or "default" if choice.boxes is None else read_boxes(choice.boxes, category),
        models,
        weights=weights,
        people_min_score=PEOPLE_MIN_SCORE if choice.min_score is None else choice.min_score,
        people_nms=PEOPLE_NMS if choice.nms is None else choice.nms,
        **how,
    )


def where_people_are(predictor: AnyPredictor | None) -> str | None:
    """Where a top-down predictor has its boxes from; None for another one."""
    people = getattr(predictor, "people", None)
    return None if people is None else str(people.description)


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
