"""``poise evaluate``: how good models or results are on annotated pictures: COCO average precision, or PCKh on MPII."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from poise.cli.evaluate_options import (
    Annotations,
    Bootstrap,
    Compared,
    CrowdLimits,
    Details,
    HeadBoxes,
    Images,
    Kind,
    Out,
    PartName,
    Pckh,
    Report,
    ResultFiles,
    Seed,
    SkeletonName,
    TruthScores,
)
from poise.cli.evaluate_output import as_document, as_text, how_measured
from poise.cli.measuring import Contestant, Setting, Target, measure, measure_mpii
from poise.cli.options import (
    Batch,
    Bf16,
    Boxes,
    Compile,
    Device,
    Flip,
    Half,
    Json,
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
    parse_scales,
    require_file,
    require_folder,
)

SAMPLES = 1000
"""Resampled sets of pictures where the user does not say how many."""


def evaluate(
    annotations: Annotations,
    compared: Compared = None,
    images: Images = None,
    model: Models = None,
    results: ResultFiles = None,
    weights: Weights = None,
    boxes: Boxes = None,
    people: People = None,
    people_min_score: PeopleMinScore = None,
    people_nms: PeopleNms = None,
    out: Out = None,
    report: Report = None,
    details: Details = False,
    bootstrap: Bootstrap = None,
    seed: Seed = 0,
    as_json: Json = False,
    device: Device = "auto",
    half: Half = False,
    bf16: Bf16 = False,
    compile: Compile = False,
    batch: Batch = None,
    scales: Scales = None,
    flip: Flip = False,
    turns: Turns = False,
    truth_scores: TruthScores = False,
    skeleton: SkeletonName = None,
    crowd_limits: CrowdLimits = "0.1,0.8",
    kind: Kind = "auto",
    split: PartName = None,
    head_boxes: HeadBoxes = None,
    pckh: Pckh = "official",
) -> None:
    """Measure a model, a pipeline or a file of results: COCO keypoint AP and AR, or PCKh on MPII.

    The pictures that the annotation file lists are looked at, and no others. Numbers are percent; with --json, 0..1
    under the keys AP, AP50, AP75, APM, APL, AR, ... On MPII they are PCKh at half a head: Head, Shoulder, ..., Mean;
    Mean@0.1 is at a tenth, and Mean@0.11 is what the official code prints as Mean@0.1.

    Several models or files are compared with the first one: intervals of the differences tell whether they are more
    than chance.

    A top-down model is given people as the default model finds them, or as --people or --boxes say; with the
    annotation file as --boxes, the numbers are for true boxes. On MPII that is the rule.
    """
    from poise.data.formats import known_kind, recognise
    from poise.data.yolo import known_split

    chosen = recognise(annotations) if kind == "auto" else known_kind(kind)
    contestants = _contestants(compared, model, results)
    setting = Setting(
        weights, device, PeopleChoice(boxes, people, people_min_score, people_nms), batch, parse_scales(scales), flip,
        truth_scores, half_precision(half, bf16), compile, turns,
    )  # fmt: skip
    part = None if split is None else known_split(split)
    target = Target(annotations, images, chosen, skeleton, _limits(crowd_limits), head_boxes, pckh, part)
    _check(contestants, setting, target, out, report, bootstrap)
    if chosen == "mpii":
        measured = measure_mpii(target, contestants, setting, details)
    else:
        samples = bootstrap if bootstrap is not None else SAMPLES if len(contestants) > 1 else 0
        measured = measure(target, contestants, setting, samples, seed, details)
    if out is not None:
        from poise.files import write_text

        write_text(out, json.dumps(measured.results[0]))
    typer.echo(json.dumps(as_document(measured)) if as_json else as_text(measured))
    if report is not None:
        from poise.evaluate.report import write_report

        write_report(
            report, measured.evaluations, images=measured.images, title=f"Poses on {annotations.name}",
            samples=SAMPLES if bootstrap is None else bootstrap, seed=seed, notes=how_measured(contestants, measured),
        )  # fmt: skip


def _contestants(compared: list[str] | None, model: list[str] | None, results: list[Path] | None) -> list[Contestant]:
    """Who is measured: compared models, else those of ``--model``, and files of results."""
    if compared and model:
        raise typer.BadParameter("name models as arguments, which are compared, or with --model, which is one ensemble")
    files = [Contestant(str(path), (), path) for path in results or ()]
    if compared:
        models = [model_names([name]) for name in compared]
    else:
        models = [model_names(model)] if model or not files else []
    return [Contestant(",".join(names), tuple(names), None) for names in models] + files


def _limits(text: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--crowd-limits {text!r}: write two numbers, for example 0.1,0.8") from None
    return first, second


def _check(
    contestants: list[Contestant],
    setting: Setting,
    target: Target,
    out: Path | None,
    report: Path | None,
    bootstrap: int | None,
) -> None:
    """A usage error if the options do not go together; ``ValueError`` if files cannot be written where they say."""
    if setting.truth_scores and target.kind not in ("coco", "crowdpose"):
        raise typer.BadParameter(f"--truth-scores is for COCO and CrowdPose files, not for {target.kind}")
    if setting.truth_scores and any(c.file is not None for c in contestants):
        raise typer.BadParameter(
            "--truth-scores is for models; --details tells what better scores of results would gain"
        )
    if target.split is not None and target.kind not in ("mpii", "yolo"):
        raise typer.BadParameter(f"--split is for MPII and YOLO data sets, not for {target.kind}")
    if target.split is not None and target.kind == "yolo" and target.images is not None:
        raise typer.BadParameter("--split names a part of the YOLO data set, --images a folder of its own: take one")
    if target.pckh not in ("official", "mmpose"):
        raise typer.BadParameter(f"--pckh {target.pckh!r}: official or mmpose")
    if target.kind == "mpii" and (report or bootstrap):
        raise typer.BadParameter("--report and --bootstrap are not for MPII, where people are not ranked")
    if out is not None and len(contestants) > 1:
        raise typer.BadParameter("--out takes the poses of one model, not of several")
    if bootstrap == 1:
        raise typer.BadParameter("--bootstrap 1 gives no interval; ask for at least 2, better 1000")
    if out is not None:
        require_file(out, "--out")
    if report is not None:
        require_folder(report, "--report")
