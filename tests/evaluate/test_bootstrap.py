"""Intervals from resampled pictures, against evaluating the resampled pictures from scratch."""

import time

import numpy as np
import pytest

from coco_oracle import FULL_TRUTH, full_truth, perturbed
from poise.evaluate.bootstrap import Interval, compare, draw_pictures, intervals, resampled_numbers
from poise.evaluate.coco import evaluate_results
from poise.skeletons import COCO17


def made_truth(pictures=30, seed=0):
    rng = np.random.default_rng(seed)
    annotations = []
    for image_id in range(pictures):
        for _ in range(int(rng.integers(0, 5))):
            size = float(rng.choice([40, 90, 250]))
            points = rng.uniform(0, 400, 2) + rng.uniform(0, size, (17, 2))
            triples = np.column_stack([points, rng.integers(1, 3, 17)]).reshape(-1).tolist()
            box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
            person = {"image_id": image_id, "category_id": 1, "keypoints": triples, "bbox": box, "area": size * size}
            annotations.append({"id": len(annotations) + 1, **person})
    images = [{"id": i, "crowdIndex": i / pictures} for i in range(pictures)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def evaluated(truth, seed, name="results", **options):
    options = {"decimals": 9, "jitter": 0.3} | options
    return evaluate_results(truth, perturbed(truth, seed, **options), COCO17, name=name)


def drawn_truth(truth, results, counts):
    """The pictures as often as they were drawn, as data of their own."""
    images, annotations, found = [], [], []
    for image, count in zip(truth["images"], counts, strict=True):
        for _ in range(count):
            number = len(images)
            images.append({**image, "id": number})
            annotations += [{**a, "image_id": number} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [{**r, "image_id": number} for r in results if r["image_id"] == image["id"]]
    annotations = [{**a, "id": i} for i, a in enumerate(annotations, 1)]
    return {**truth, "images": images, "annotations": annotations}, found


def test_a_sample_is_what_evaluating_its_pictures_gives():
    truth = made_truth()
    results = perturbed(truth, 1, decimals=9, jitter=0.3)
    evaluation = evaluate_results(truth, results, COCO17)
    weights = draw_pictures(30, samples=5, seed=4)
    assert weights.sum(1).tolist() == [30] * 5
    found = resampled_numbers(evaluation, weights)
    assert set(found) == set(evaluation.numbers)
    assert "AP_hard" in found
    for sample, counts in enumerate(weights):
        again = evaluate_results(*drawn_truth(truth, results, counts.tolist()), COCO17).numbers
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(dict(again), abs=1e-12)


def test_every_picture_once_gives_the_numbers_themselves():
    evaluation = evaluated(made_truth(), 2)
    once = resampled_numbers(evaluation, np.ones((2, 30), np.int32))
    assert {name: values[0] for name, values in once.items()} == pytest.approx(dict(evaluation.numbers), abs=1e-12)
    with pytest.raises(ValueError, match="weights of 3 pictures do not fit an evaluation of 30"):
        resampled_numbers(evaluation, np.ones((2, 3), np.int32))


def test_intervals_hold_the_numbers_and_shrink_with_more_pictures():
    widths = []
    for pictures in (20, 180):
        evaluation = evaluated(made_truth(pictures), 3)
        found = intervals(evaluation, samples=300)
        assert found == intervals(evaluation, samples=300)
        assert found != intervals(evaluation, samples=300, seed=1)
        assert all(i.low <= i.value <= i.high for name, i in found.items() if name in ("AP", "AP50", "AR"))
        widths.append(found["AR"].high - found["AR"].low)
    # nine times the pictures: a third of the width
    assert 0.22 < widths[1] / widths[0] < 0.45


def test_a_difference_is_surer_than_its_two_sides():
    truth = made_truth(80)
    sides = [evaluated(truth, 5, "a", jitter=0.3), evaluated(truth, 5, "b", jitter=0.27)]
    alone, (difference,) = compare(sides, samples=400)
    assert difference["AP"].interval.value == pytest.approx(sides[1].numbers["AP"] - sides[0].numbers["AP"])
    assert difference["AP"].certain
    assert difference["AP"].better > 0.99
    width = difference["AP"].interval.high - difference["AP"].interval.low
    assert width < 0.4 * (alone[0]["AP"].high - alone[0]["AP"].low)
    # unpaired, one could not tell
    assert alone[0]["AP"].high > alone[1]["AP"].low


def test_equal_results_do_not_differ():
    evaluation = evaluated(made_truth(), 6)
    _, (same, none) = compare([evaluation, evaluation, evaluated(made_truth(), 6, most=0, false_positives=0)], 50)
    for difference in same.values():
        assert (difference.interval.low, difference.interval.high, difference.better) == (0, 0, 0.5)
        assert not difference.certain
    assert none["AP"].interval.value == -evaluation.numbers["AP"]
    assert none["AP"].better == 0


def test_coverage_of_the_interval():
    """The interval of one draw of pictures holds the number of the whole population about as often as it says."""
    population = made_truth(1000, seed=9)
    results = perturbed(population, 9, decimals=9, jitter=0.3)
    whole = evaluate_results(population, results, COCO17).numbers["AR"]
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(20):
        chosen = set(rng.choice(1000, 60, replace=False).tolist())
        part = {
            **population,
            "images": [i for i in population["images"] if i["id"] in chosen],
            "annotations": [a for a in population["annotations"] if a["image_id"] in chosen],
        }
        evaluation = evaluate_results(part, [r for r in results if r["image_id"] in chosen], COCO17)
        interval = intervals(evaluation, samples=80, seed=seed)["AR"]
        hits += interval.low <= whole <= interval.high
    assert 16 <= hits <= 20


def test_bad_input():
    with pytest.raises(ValueError, match="1 samples give no interval"):
        draw_pictures(10, 1)
    first, second = evaluated(made_truth(10), 1, "one"), evaluated(made_truth(11), 1, "other")
    with pytest.raises(ValueError, match="one and other were not evaluated on the same pictures"):
        compare([first, second])


def test_nobody_and_nothing():
    truth = {"images": [], "annotations": [], "categories": []}
    assert intervals(evaluate_results(truth, [], COCO17), 10)["AP"] == Interval(0, 0, 0)
    empty = made_truth(5) | {"annotations": []}
    assert intervals(evaluated(empty, 0), 10)["AR"].high == 0


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not FULL_TRUTH.is_file(), reason=f"no annotations of COCO val2017 in {FULL_TRUTH}")
def test_a_thousand_samples_of_all_of_coco_take_seconds():
    truth = full_truth()
    results = perturbed(truth)
    start = time.process_time()
    evaluation = evaluate_results(truth, results)
    once = time.process_time() - start
    intervals(evaluation, 1000)
    assert time.process_time() - start - once < 100 * once
