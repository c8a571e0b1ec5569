"""The COCO tools' own evaluation, and results of every kind of quality to compare with it."""

import contextlib
import copy
import gzip
import io
import json
import os
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[2] / "shared/data")
FULL_TRUTH = DATA / "coco_val2017_truth_nominal.json.gz"


def full_truth():
    """Annotations of all of COCO val2017."""
    return json.loads(gzip.decompress(FULL_TRUTH.read_bytes()))


def oracle(truth, results, sigmas, pictures=None, areas=None):
    """(10,) numbers of pycocotools; of some pictures, if ids are given, and of people of other areas (low, high)."""
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if pictures is not None:
            evaluation.params.imgIds = sorted(pictures)
        if areas is not None:
            evaluation.params.areaRng = [list(areas)] * 3
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def perturbed(truth, seed=0, jitter=0.08, most=2, false_positives=1.0, crowded=0.02, decimals=2, boxes=False):
    """Results made from the truth: moved, missed, found again and again, and made up.

    Args:
        truth: annotations.
        seed: of the generator.
        jitter: largest standard deviation of keypoints, in roots of the person's area.
        most: so often somebody is found at most.
        false_positives: made-up poses a picture, on average.
        crowded: share of pictures with 25 made-up poses more.
        decimals: of the scores: few give many ties.
        boxes: give results a bbox.
    """
    rng = np.random.default_rng(seed)
    results = []

    def add(image_id, points, best):
        triples = np.column_stack([points, rng.random(len(points))])
        low, high = points.min(0), points.max(0)
        box = {"bbox": [*low.tolist(), *(1.1 * (high - low)).tolist()]} if boxes else {}
        score = round(float(rng.random()) * best, decimals)
        keypoints = triples.round(3).reshape(-1).tolist()
        results.append({"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score, **box})

    for person in truth["annotations"]:
        points = np.asarray(person["keypoints"], float).reshape(-1, 3)[:, :2]
        for _ in range(int(rng.integers(0, most + 1))):
            scale = jitter * np.sqrt(person["area"]) * rng.random() ** 2 + 1e-3
            add(person["image_id"], points + rng.normal(0, scale, points.shape), 1.0)
    for picture in truth["images"]:
        count = int(rng.poisson(false_positives)) + (25 if rng.random() < crowded else 0)
        for _ in range(count):
            add(picture["id"], rng.uniform((0, 0), (640, 480)) + rng.uniform(0, 200, (17, 2)), 0.6)
    return results
