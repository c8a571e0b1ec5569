"""``poise evaluate``: COCO average precision of a model on annotated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from poise.cli.options import (
    Batch,
    Device,
    Flip,
    Json,
    Model,
    Scales,
    Weights,
    open_predictor,
    parse_scales,
    progress_bar,
)


def evaluate(
    annotations: Annotated[Path, typer.Option(help="COCO keypoint file.")],
    images: Annotated[Path, typer.Option(help="Folder of its pictures.")],
    model: Model = "default",
    weights: Weights = None,
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
    """
    sizes = parse_scales(scales)
    from poise.evaluate.coco import evaluate_keypoints, read_truth
    from poise.evaluate.model import predict_annotated
    from poise.files import write_text

    truth = read_truth(annotations)
    predictor = open_predictor(model, weights, device)
    with progress_bar("evaluating") as advance:
        results = predict_annotated(
            predictor, annotations, images, batch=batch, scales=sizes, flip=flip, truth_scores=truth_scores,
            progress=advance,
        )  # fmt: skip
    metrics = evaluate_keypoints(truth, results, predictor.skeleton)
    if out is not None:
        write_text(out, json.dumps(results))
    setting = {
        "model": model,
        "annotations": str(annotations),
        "pictures": len(truth["images"]),
        "scales": sizes,
        "flip": flip,
        "truth_scores": truth_scores,
    }
    typer.echo(json.dumps({**metrics, **setting}) if as_json else _table(metrics, setting))


def _table(metrics: dict[str, float], setting: dict[str, Any]) -> str:
    lines = [f"{setting['model']} on {setting['pictures']} pictures of {setting['annotations']}"]
    half = len(metrics) // 2
    names = list(metrics)
    for group in (names[:half], names[half:]):
        lines.append("  ".join(f"{name:>5}" for name in group))
        lines.append("  ".join(f"{100 * metrics[name]:5.1f}" for name in group))
    return "\n".join(lines)
