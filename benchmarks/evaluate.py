"""Time the evaluation against pycocotools on the same results in the same run, and compare all numbers.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py data/coco_val2017_truth.json.gz --rounds 3

Results are made from the truth: moved, missed, found twice, made up. Both sides are given the parsed JSON and do all
the rest: indexing, conversion, matching, accumulating. Processor time is what to compare where the machine has other
work; it counts all threads together.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poise.evaluate.bootstrap import SAMPLES, intervals
from poise.evaluate.coco import METRICS, evaluate_keypoints, evaluate_results, read_truth
from poise.evaluate.evaluation import truth_skeleton


def make_results(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """COCO keypoint results that are about as good as those of a middling model."""
    rng = np.random.default_rng(seed)
    results = []

    def add(image_id: int, points: np.ndarray, best: float) -> None:
        triples = np.column_stack([points, np.ones(len(points))]).round(3).reshape(-1).tolist()
        score = round(float(rng.random()) * best, 3)
        results.append({"image_id": image_id, "category_id": 1, "keypoints": triples, "score": score})

    for person in truth["annotations"]:
        points = np.array(person["keypoints"], np.float64).reshape(-1, 3)[:, :2]
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            scale = 0.08 * np.sqrt(person["area"]) * rng.random() ** 2 + 1e-3
            add(person["image_id"], points + rng.normal(0, scale, points.shape), 1.0)
    for picture in truth["images"]:
        for _ in range(int(rng.choice([0, 1, 2, 25], p=[0.6, 0.2, 0.18, 0.02]))):
            add(picture["id"], rng.uniform(0, 600, points.shape), 0.5)
    return results


def pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    """Its ten numbers; it writes into what it is given."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gives, processor and wall seconds."""
    processor, wall = time.process_time(), time.perf_counter()
    value = function()
    return value, time.process_time() - processor, time.perf_counter() - wall


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", help="COCO keypoint file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    truth = dict(read_truth(options.annotations))
    results = make_results(truth, options.seed)
    skeleton = truth_skeleton(truth)
    print(f"{len(truth['images'])} pictures, {len(truth['annotations'])} people, {len(results)} results")
    times: dict[str, list[tuple[float, float]]] = {"pycocotools": [], "poise": []}
    for _ in range(options.rounds):
        copies = copy.deepcopy(truth), copy.deepcopy(results)
        theirs, *spent = timed(lambda copies=copies: pycocotools(*copies))
        times["pycocotools"].append((spent[0], spent[1]))
        ours, *spent = timed(lambda: evaluate_keypoints(truth, results, skeleton))
        times["poise"].append((spent[0], spent[1]))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    for name, (processor, wall) in medians.items():
        print(f"{name:12} {processor:7.2f} s processor {wall:7.2f} s wall")
    ratios = [a / b for a, b in zip(medians["pycocotools"], medians["poise"], strict=True)]
    print(f"{'ratio':12} {ratios[0]:7.1f}           {ratios[1]:9.1f}")
    largest = max(abs(a - ours[name]) for name, a in zip(METRICS, theirs, strict=True))
    print(f"largest difference of the ten numbers: {largest:.1e}")
    evaluation = evaluate_results(truth, results, skeleton)
    _, processor, wall = timed(lambda: intervals(evaluation, SAMPLES))
    print(f"{SAMPLES} resamples for intervals: {processor:.2f} s processor, {wall:.2f} s wall")


if __name__ == "__main__":
    main()
