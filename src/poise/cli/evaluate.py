"""``poise evaluate``: COCO average precision of a model on annotated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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


def evaluate(
    annotations: Annotated[Path, typer.Option(help="COCO keypoint file.")],
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
) -> None:
    """Measure a model: COCO keypoint AP and AR.

    The pictures that the annotation file lists are looked at, and no others. Numbers are percent; with --json, 0..1
    under the keys AP, AP50, AP75, APM, APL, AR, ...

    A top-down model is given people as the default model finds them, or as --people or --boxes say; with the
    annotation file as --boxes, the numbers are for true boxes.
    """
    sizes, names = parse_scales(scales), model_names(model)
    from poise.evaluate.coco import evaluate_keypoints, person_category, read_truth
    from poise.evaluate.model import predict_annotated
    from poise.files import write_text

    truth = read_truth(annotations)
    choice = PeopleChoice(boxes, people, people_min_score, people_nms)
    predictor = open_predictor(names, weights, device, choice, person_category(truth) or 1)
    with progress_bar("evaluating") as advance:
        results = predict_annotated(
            predictor, annotations, images, batch=batch, scales=sizes, flip=flip, truth_scores=truth_scores,
            progress=advance,
        )  # fmt: skip
    metrics = evaluate_keypoints(truth, results, predictor.skeleton)
    if out is not None:
        write_text(out, json.dumps(results))
    setting = {
        "model": ",".join(names),
        "people": where_people_are(predictor),
        "annotations": str(annotations),
        "pictures": len(truth["images"]),
        "scales": sizes,
        "flip": flip,
        "truth_scores": truth_scores,
    }
    typer.echo(json.dumps({**metrics, **setting}) if as_json else _table(metrics, setting))


def _table(metrics: dict[str, float], setting: dict[str, Any]) -> str:
    lines = [f"{setting['model']} on {setting['pictures']} pictures of {setting['annotations']}"]
    if setting["people"]:
        lines.append(f"people: {setting['people']}")
    half = len(metrics) // 2
    names = list(metrics)
    for group in (names[:half], names[half:]):
        lines.append("  ".join(f"{name:>5}" for name in group))
        lines.append("  ".join(f"{100 * metrics[name]:5.1f}" for name in group))
    return "\n".join(lines)
