"""``poise evaluate``: how good a model is on annotated pictures: COCO average precision, or PCKh on MPII."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from poise.cli.options import (
    Batch,
    Boxes,
    Device,
    Flip,
    Json,
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
    from poise.predict.predictor import Predictor
    from poise.predict.topdown import TopDownPredictor

    Opened = Callable[[int], Predictor | TopDownPredictor]
    """Makes the predictor, given the category of people in lists of detections."""


def evaluate(
    annotations: Annotated[
        Path, typer.Option(help="COCO, CrowdPose or MPII file, or the YAML file of a YOLO data set.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of its pictures.")],
    model: Models = None,
    weights: Weights = None,
    boxes: Boxes = None,
    people: People = None,
    people_min_score: PeopleMinScore = None,
    people_nms: PeopleNms = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the poses as COCO results to this file.")
    ] = None,
    as_json: Json = False,
    device: Device = "auto",
    batch: Batch = None,
    scales: Scales = None,
    flip: Flip = False,
    truth_scores: Annotated[
        bool,
        typer.Option(
            "--truth-scores", help="Rank poses by their likeness to the truth: what better scores would give."
        ),
    ] = False,
    kind: Annotated[
        str, typer.Option(help="Format of the annotations: coco, crowdpose, mpii, yolo, or auto to recognise it.")
    ] = "auto",
    head_boxes: Annotated[
        Path | None,
        typer.Option(help="MPII: head boxes, a .mat or JSON file [default: gt_valid.mat beside the annotations]."),
    ] = None,
    pckh: Annotated[
        str, typer.Option(help="MPII: official takes a joint at exactly the limit for right, mmpose does not.")
    ] = "official",
) -> None:
    """Measure a model: COCO keypoint AP and AR, or PCKh on MPII.

    The pictures that the annotation file lists are looked at, and no others. Numbers are percent; with --json, 0..1
    under the keys AP, AP50, AP75, APM, APL, AR, ... On MPII they are PCKh at half a head: Head, Shoulder, ..., Mean;
    Mean@0.1 is at a tenth, and Mean@0.11 is what the official code prints as Mean@0.1.

    A top-down model is given people as the default model finds them, or as --people or --boxes say; with the
    annotation file as --boxes, the numbers are for true boxes. On MPII that is the rule.
    """
    sizes, names = parse_scales(scales), model_names(model)
    from poise.data.formats import known_kind, recognise
    from poise.files import write_text

    chosen = recognise(annotations) if kind == "auto" else known_kind(kind)
    if truth_scores and chosen not in ("coco", "crowdpose"):
        raise typer.BadParameter(f"--truth-scores is for COCO and CrowdPose files, not for {chosen}")
    if pckh not in ("official", "mmpose"):
        raise typer.BadParameter(f"--pckh {pckh!r}: official or mmpose")
    choice = PeopleChoice(boxes, people, people_min_score, people_nms)

    def opened(category: int) -> Predictor | TopDownPredictor:
        return open_predictor(names, weights, device, choice, category)

    options = {"batch": batch, "scales": sizes, "flip": flip}
    if chosen in ("coco", "crowdpose"):
        done = _measure_coco(annotations, images, opened, options | {"truth_scores": truth_scores})
    else:
        done = _measure_dataset(annotations, images, chosen, opened, options, (head_boxes, pckh))
    if out is not None:
        write_text(out, json.dumps(done.results))
    setting = {
        "model": ",".join(names),
        "people": done.people,
        "annotations": str(annotations),
        "pictures": done.pictures,
        "scales": sizes,
        "flip": flip,
        "truth_scores": truth_scores,
    }
    if chosen == "mpii":
        setting["pckh"] = pckh
    typer.echo(json.dumps({**done.metrics, **setting}) if as_json else _table(done.metrics, setting))


class _Measured(NamedTuple):
    """What came of an evaluation."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]
    pictures: int
    people: str | None


def _measure_coco(annotations: Path, images: Path, opened: Opened, options: dict[str, Any]) -> _Measured:
    """AP and AR on a COCO file; ``options`` as `predict_annotated`."""
    from poise.evaluate.coco import evaluate_keypoints, person_category, read_truth
    from poise.evaluate.model import predict_annotated

    truth = read_truth(annotations)
    predictor = opened(person_category(truth) or 1)
    with progress_bar("evaluating") as advance:
        results = predict_annotated(predictor, annotations, images, progress=advance, **options)
    metrics = evaluate_keypoints(truth, results, predictor.skeleton)
    return _Measured(metrics, results, len(truth["images"]), where_people_are(predictor))


def _measure_dataset(
    annotations: Path,
    images: Path,
    kind: str,
    opened: Opened,
    options: dict[str, Any],
    heads: tuple[Path | None, str],
) -> _Measured:
    """AP and AR on a data set of another format, or PCKh; ``heads``: file of head boxes, formula."""
    from poise.data.formats import read_dataset
    from poise.evaluate.dataset import predict_dataset, score_dataset, score_mpii

    dataset = read_dataset(annotations, images, kind)
    predictor = opened(1)
    with progress_bar("evaluating") as advance:
        results = predict_dataset(predictor, dataset, progress=advance, **options)
    if kind == "mpii":
        formula: Literal["official", "mmpose"] = "mmpose" if heads[1] == "mmpose" else "official"
        metrics = score_mpii(annotations, dataset, results, head_boxes=heads[0], formula=formula)
    else:
        metrics = score_dataset(dataset, results)
    return _Measured(metrics, results, len(dataset), where_people_are(predictor))


def _table(metrics: dict[str, float], setting: dict[str, Any]) -> str:
    lines = [f"{setting['model']} on {setting['pictures']} pictures of {setting['annotations']}"]
    if setting["people"]:
        lines.append(f"people: {setting['people']}")
    if "pckh" in setting:
        limit = {"official": "at most", "mmpose": "less than"}[setting["pckh"]]
        lines.append(f"PCKh: joints {limit} half a head away")
    half = len(metrics) // 2
    names = list(metrics)
    for group in (names[:half], names[half:]):
        lines.append("  ".join(f"{name:>5}" for name in group))
        lines.append("  ".join(f"{100 * metrics[name]:{max(5, len(name))}.1f}" for name in group))
    return "\n".join(lines)
