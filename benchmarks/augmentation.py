"""Rows of an ablation of augmentation person by person: mean OKS, and what each row changes.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py runs/augmentation --annotations held.json --images pictures
        --seen train.json

AP counts the people who are found well; with few people, or models far from good, it sees too little. The mean OKS is a
number for every person, so that rows are compared on the same people: of the pose in the annotated box where the model
looks at one person at a time, else of the best pose in the picture, of all scores, and 0 where there is none. The best
of many poses is a kind measure; with --surest a picture has only the pose with the highest score. Intervals
(95 %) are of the difference from the first row, over resampled people: they hold for these weights, and another seed of
the training moves the numbers, too; several folders of runs with other seeds are averaged person by person.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.checkpoints import load_checkpoint
from poise.data.formats import read_dataset
from poise.data.records import PoseDataset
from poise.evaluate.dataset import AnyPredictor, annotated_boxes, predict_dataset
from poise.geometry.oks import oks
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor

Scores = npt.NDArray[np.float64]
Rows = dict[Path, Scores]
SAMPLES = 4000
ROWS = (
    "none,scale,crop,rotation,translation,flip,half_body,upright,colour,blur,noise,dropout,mosaic,mixup,paste,"
    "multi_scale,all"
)


def opened(weights: Path, dataset: PoseDataset) -> AnyPredictor:
    """The model, with the annotated boxes if it needs to be told where people are."""
    model = load_checkpoint(weights).model
    return TopDownPredictor(model, annotated_boxes(dataset)) if model.view.kind == "crop" else Predictor(model)


def person_oks(weights: Path, dataset: PoseDataset, surest: bool) -> Scores:
    """(N,) OKS of the pose in each labelled person's box, or of the best, or surest, pose in the picture."""
    poses: dict[int | str, list[Scores]] = defaultdict(list)
    results = predict_dataset(opened(weights, dataset), dataset)
    for result in sorted(results, key=lambda result: -float(result["score"])):
        if not (surest and poses[result["image_id"]]):
            poses[result["image_id"]].append(np.array(result["keypoints"], np.float64).reshape(-1, 3))
    found = []
    for record in dataset:
        if len(record):
            there = np.array(poses[record.image_id]).reshape(-1, len(dataset.skeleton), 3)
            best = oks(there, record.keypoints.astype(np.float64), record.areas, dataset.skeleton.sigmas)
            found.append(best.max(0, initial=0.0))
    return np.concatenate(found)


def interval(change: Scores) -> tuple[float, float]:
    """Of the mean, 95 %, over resampled people."""
    chosen = np.random.default_rng(0).integers(0, len(change), (SAMPLES, len(change)))
    low, high = np.quantile(change[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def row(name: str, runs: list[Path], held: PoseDataset, seen: PoseDataset | None, base: Rows, surest: bool) -> Rows:
    """Print a row; the scores of its people by run."""
    weights = {run: path for run in runs if (path := run / name / "checkpoints" / "last.safetensors").exists()}
    scores = {run: person_oks(path, held, surest) for run, path in weights.items()}
    known = f"{np.mean([person_oks(w, seen, surest).mean() for w in weights.values()]):.3f}" if seen is not None else ""
    values = ", ".join(f"{s.mean():.3f}" for s in scores.values())
    both, change = scores.keys() & base.keys(), ""
    if both:
        gain = np.mean([scores[run] - base[run] for run in both], 0)
        low, high = interval(gain)
        change = f"{gain.mean():+.3f} ({low:+.3f} to {high:+.3f})"
    print(f"| {name} | {known} | {values} | {change} |", flush=True)
    return scores


def main() -> None:
    """The table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of ablations, one for each seed")
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--seen", help="annotations that were trained on")
    parser.add_argument("--surest", action="store_true", help="of the surest pose of each picture alone")
    options = parser.parse_args()
    held = read_dataset(options.annotations, options.images)
    seen = read_dataset(options.seen, options.images) if options.seen else None
    rows = [r for r in options.rows.split(",") if any((run / r / "scores.json").exists() for run in options.runs)]
    print("| row | mean OKS on people trained on | on others, by seed | change |\n|---|---|---|---|")
    base: Rows = {}
    for name in rows:
        scores = row(name, options.runs, held, seen, base, options.surest)
        base = base or scores


if __name__ == "__main__":
    main()
