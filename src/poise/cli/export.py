"""``poise export``: a model as a file for other runtimes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.errors import complain
from poise.cli.options import Boxes, Json, People, Weights, complete_models

if TYPE_CHECKING:
    from poise.export.exporting import Report
    from poise.export.quantise import Pictures
    from poise.types import ViewSpec

FORMATS = ("onnx", "openvino", "torchscript", "pt2")


def export(
    model: Annotated[
        str,
        typer.Argument(autocompletion=complete_models, help="A shipped model (see: poise models) or a checkpoint."),
    ],
    format: Annotated[
        str, typer.Option("--format", "-f", autocompletion=lambda: list(FORMATS), help=f"One of {', '.join(FORMATS)}.")
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file [default: named after the model, in the current folder]."),
    ] = None,
    dynamic: Annotated[
        bool,
        typer.Option(
            "--dynamic",
            help="Input of any size: as poise predict sees a picture, without more padding. Models with limits of both "
            "sides (directpose_r50, smpr_r50) are written so unless there is a --size.",
        ),
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(
            help="Height and width of the input, 384x512 [default: the model's own, if it has one]; not with --dynamic."
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Weights in half precision: half as large a file.")] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Convolutions with eight bits; needs --calibrate. In torchscript and pt2 weights are stored so: a "
            "smaller file, not a quicker one.",
        ),
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="With --int8: a folder of pictures like those the model will see.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="With --int8: a COCO file about these pictures, to measure what is lost.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="With --annotations: points of AP (0..100) that --int8 may cost at most [default: 5]."
        ),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Check with the pictures of this folder instead of two that come with Poise.")
    ] = None,
    boxes: Boxes = None,
    people: People = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Write a model as a file that other runtimes run: a picture goes in, its final poses come out.

    Decoding and suppression are in the file, and so are the skeleton and the numbers of the letterbox or crop. It is
    compared with torch on photographs first: keypoints and boxes within 0.5 px, scores within 0.001. If they are not,
    there is no file, and the exit code is 1. With --int8 the loss of average precision is measured and printed, and
    with --annotations there is no file if it is more than --max-loss.

    poise predict and evaluate take the file as --model, poise benchmark as one of its models. For .onnx and .xml
    poise predict needs no torch.
    """
    from poise.export.exporting import MAX_LOSS, Plan, export_model
    from poise.export.quantise import Pictures
    from poise.export.writers import SUFFIXES
    from poise.predict.loading import load_model

    if not int8:
        _refuse(calibrate=calibrate, annotations=annotations, max_loss=max_loss, boxes=boxes, people=people)
    if max_loss is not None and annotations is None:
        raise typer.BadParameter("--max-loss: only with --annotations, against which the loss is measured")
    pictures = Pictures.of(calibrate, annotations) if calibrate is not None else None
    most = MAX_LOSS if max_loss is None else max_loss
    plan = Plan(format, dynamic, _parse_size(size), half, int8, pictures, photos, most)
    plan.check()
    loaded = load_model(model, weights)
    if pictures is not None:
        plan = replace(plan, pictures=_with_people(pictures, boxes, people, loaded.model.view))
    target = out if out is not None else Path(_stem(model) + SUFFIXES[format])
    report = export_model(loaded, target, plan, _stem(model), complain)
    typer.echo(json.dumps(_document(report)) if as_json else _text(report))


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise typer.BadParameter(f"--size {text!r}: write height x width, for example 384x512") from None


def _refuse(**options: object) -> None:
    """A usage error for options that are there without ``--int8``."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{', '.join(given)}: only with --int8")


def _with_people(pictures: Pictures, boxes: Path | None, people: str | None, view: ViewSpec) -> Pictures:
    """What to calibrate with; for a top-down model also where the people are."""
    if view.kind == "whole":
        _refuse_people(boxes, people)
        return pictures
    from poise.predict.boxes import read_boxes
    from poise.predict.pipeline import find_people

    source = read_boxes(boxes) if boxes is not None else find_people(people or "default")
    return replace(pictures, people=source)


def _refuse_people(boxes: Path | None, people: str | None) -> None:
    if boxes is not None or people is not None:
        raise typer.BadParameter("--boxes and --people are for top-down models")


def _stem(model: str) -> str:
    """What a model's files are called."""
    from poise.zoo import DEFAULT

    return DEFAULT if model == "default" else Path(model).stem


def _document(report: Report) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "bytes": report.size,
        "canvas": report.description["canvas"],
        "model_scales": report.description["model_scales"],
        "notes": list(report.notes),
        "weights": report.description["weights"],
        "parity": report.parity._asdict(),
        "int8": None if report.loss is None else report.loss._asdict(),
    }


def _text(report: Report) -> str:
    parity, loss = report.parity, report.loss
    lines = [
        f"{report.path} ({report.size / 1e6:.1f} MB)",
        f"as torch on {parity.photographs} photographs, {parity.poses} poses: keypoints within "
        f"{parity.keypoints:.4f} px, boxes within {parity.boxes:.4f} px, scores within {parity.scores:.6f}",
    ]
    if loss is not None:
        before, after = 100 * loss.before, 100 * loss.after
        lines[1] += " (before quantising)"
        lines.append(f"int8: AP {before:.1f} before, {after:.1f} after: {before - after:.1f} lost ({loss.truth})")
    return "\n".join([*lines, *report.notes])
