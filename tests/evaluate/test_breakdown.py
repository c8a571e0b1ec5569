"""The numbers taken apart, against evaluations of the parts and against counting."""

import json

import numpy as np
import pytest

from coco_oracle import oracle, perturbed
from poise.evaluate.breakdown import (
    PCK,
    calibration,
    group_scores,
    keypoint_scores,
    largest_overlaps,
    operating_point,
)
from poise.evaluate.coco import evaluate_results
from poise.evaluate.summary import details
from poise.skeletons import COCO17


def made_truth(pictures=40, seed=0):
    rng = np.random.default_rng(seed)
    annotations = []
    for image_id in range(1, pictures + 1):
        for _ in range(int(rng.choice([0, 1, 2, 3, 6, 11], p=[0.1, 0.3, 0.2, 0.2, 0.1, 0.1]))):
            size = float(rng.choice([20, 50, 80, 150, 300]))
            points = rng.uniform(0, 400, 2) + rng.uniform(0, size, (17, 2))
            seen = rng.choice([0, 1, 2], 17, p=[0.2, 0.2, 0.6]) if rng.random() < 0.6 else np.full(17, 2)
            person = {
                "keypoints": np.column_stack([points, seen]).reshape(-1).tolist(),
                "bbox": [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()],
                "area": size * size,
                "iscrowd": int(rng.random() < 0.05),
                "num_keypoints": int((seen > 0).sum()),
            }
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": 1} | person)
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, pictures + 1)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
    return {"images": images, "annotations": annotations, "categories": [category]}


@pytest.fixture(scope="module")
def material():
    truth = made_truth()
    results = perturbed(truth, 3, jitter=0.2, decimals=6)
    return truth, results, evaluate_results(truth, results)


def groups_of(evaluation, name):
    return {group.name: group for group in group_scores(evaluation) if group.property == name}


def test_sizes_are_area_ranges_of_the_coco_tools(material):
    truth, results, evaluation = material
    groups = groups_of(evaluation, "size")
    assert list(groups) == ["below 32", "32 to 64", "64 to 96", "96 to 192", "from 192"]
    for group, low, high in zip(groups.values(), (0, 32, 64, 96, 192), (32, 64, 96, 192, 1e5), strict=True):
        expected = oracle(truth, results, COCO17.sigmas, areas=(low**2, high**2 - 1e-6))
        assert (group.ap, group.ap50, group.ar) == pytest.approx((expected[0], expected[1], expected[5]), abs=1e-9)
        assert 0 < group.people < len(truth["annotations"])


def test_numbers_of_people_are_evaluations_of_their_pictures(material):
    truth, results, evaluation = material
    counts = dict.fromkeys((i["id"] for i in truth["images"]), 0)
    for person in truth["annotations"]:
        counts[person["image_id"]] += not person["iscrowd"] and person["num_keypoints"] > 0
    groups = groups_of(evaluation, "people")
    assert list(groups) == ["1", "2 to 4", "5 to 9", "10 up"]
    assert sum(g.people for g in groups.values()) == sum(counts.values())
    for name, low, high in (("1", 1, 1), ("2 to 4", 2, 4), ("5 to 9", 5, 9), ("10 up", 10, 99)):
        pictures = [i for i, count in counts.items() if low <= count <= high]
        expected = oracle(truth, results, COCO17.sigmas, pictures)
        group = groups[name]
        assert (group.ap, group.ap50, group.ar) == pytest.approx((expected[0], expected[1], expected[5]), abs=1e-9)


def test_groups_by_property_of_the_person(material):
    truth, _, evaluation = material
    people = [a for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    shares = [np.mean(np.array([v for v in a["keypoints"][2::3] if v]) == 1) for a in people]
    groups = groups_of(evaluation, "occlusion")
    counted = {
        "none": sum(s == 0 for s in shares),
        "up to 1/3": sum(0 < s < 1 / 3 for s in shares),
        "more": sum(s >= 1 / 3 for s in shares),
    }
    assert {name: group.people for name, group in groups.items()} == counted
    # recall of all is that of the parts
    for name in ("occlusion", "overlap"):
        parts = groups_of(evaluation, name).values()
        mean = sum(g.ar * g.people for g in parts) / sum(g.people for g in parts)
        assert mean == pytest.approx(evaluation.numbers["AR"], abs=0.02)


def test_hidden_people_are_found_worse_only_if_they_are():
    """Somebody's errors, also false positives near them, count in their group and in no other."""
    truth = made_truth(30, seed=4)
    for person in truth["annotations"]:
        hidden = person["image_id"] % 2
        person["keypoints"] = [1 + (not hidden) if i % 3 == 2 else v for i, v in enumerate(person["keypoints"])]
        person["num_keypoints"], person["iscrowd"] = 17, 0
    results = []
    for person in truth["annotations"]:
        results.append({"image_id": person["image_id"], "keypoints": person["keypoints"], "score": 0.5})
        if person["image_id"] % 2:
            off = np.reshape(person["keypoints"], (17, 3)) + np.array([0.15 * np.sqrt(person["area"]), 0, 0])
            results.append({"image_id": person["image_id"], "keypoints": off.reshape(-1).tolist(), "score": 0.9})
    groups = groups_of(evaluate_results(truth, results), "occlusion")
    assert set(groups) == {"none", "more"}
    assert groups["none"].ap == pytest.approx(1)
    assert groups["more"].ap < 0.7
    # a pose that is like nobody counts everywhere
    results.append({"image_id": 1, "keypoints": [9e3] * 51, "score": 5.0})
    worse = groups_of(evaluate_results(truth, results), "occlusion")
    assert worse["none"].ap < 1
    assert worse["more"].ap < groups["more"].ap


def test_overlaps():
    truth = made_truth(3, seed=1)
    boxes = [[0, 0, 10, 10], [5, 0, 10, 10], [50, 50, 5, 5], [0, 0, 10, 10]]
    people = [
        {**truth["annotations"][0], "id": i, "image_id": 1 + (i == 3), "bbox": box, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    evaluation = evaluate_results({**truth, "annotations": people}, [])
    assert largest_overlaps(evaluation.truth).tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0])
    people[1]["iscrowd"] = 1
    evaluation = evaluate_results({**truth, "annotations": people}, [])
    assert largest_overlaps(evaluation.truth).tolist() == [0, 0, 0, 0]


def test_keypoints_by_hand():
    points = np.column_stack([np.arange(17) * 10.0, np.arange(17) * 5.0, np.full(17, 2)])
    points[16, 2] = 0
    person = {"image_id": 1, "category_id": 1, "keypoints": points.reshape(-1).tolist(), "bbox": [0, 0, 160, 80]}
    truth = made_truth(2) | {
        "annotations": [{**person, "id": 1, "area": 6400.0}, {**person, "id": 2, "area": 6400.0, "image_id": 2}]
    }
    moved = points.copy()
    moved[:, 2] = 1
    # the longer side is 160 px: 8, 16 and 32 px are the limits
    for k, shift in ((3, 7.9), (4, 8.1), (5, 15.9), (6, 16.1), (7, 31.9), (8, 32.1)):
        moved[k, 1] += shift
    evaluation = evaluate_results(truth, [{"image_id": 1, "keypoints": moved.reshape(-1).tolist(), "score": 1}])
    scores = keypoint_scores(evaluation)
    assert [s.name for s in scores] == list(COCO17.keypoints)
    assert [s.labelled for s in scores] == [2] * 16 + [0]
    assert [s.found for s in scores] == [1] * 16 + [0]
    assert PCK == (0.05, 0.1, 0.2)
    assert [s.pck for s in scores[2:10]] == [
        (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0, 0.5, 0.5), (0, 0, 0.5), (0, 0, 0.5), (0, 0, 0), (0.5,) * 3,
    ]  # fmt: skip
    expected = np.exp(-(15.9**2) / (2 * 6400 * (2 * COCO17.sigmas[5]) ** 2))
    assert scores[5].oks == pytest.approx(expected)
    assert scores[0].oks == pytest.approx(1)
    assert scores[16].oks == 0


def test_calibration_of_honest_and_of_boastful_scores():
    truth = made_truth(200, seed=2)
    rng = np.random.default_rng(0)
    honest, boastful = [], []
    for person in truth["annotations"]:
        if person["iscrowd"] or not person["num_keypoints"]:
            continue
        chance = float(rng.random())
        right = rng.random() < chance
        keypoints = person["keypoints"] if right else [1e4] * 51
        honest.append({"image_id": person["image_id"], "keypoints": keypoints, "score": chance})
        boastful.append({**honest[-1], "score": 0.5 + chance / 2})
    good, bad = (calibration(evaluate_results(truth, results)) for results in (honest, boastful))
    assert good.counts.sum() == len(honest)
    assert good.error < 0.08
    assert bad.error == pytest.approx(0.25, abs=0.05)
    assert good.right[0] < 0.2
    assert good.right[-1] > 0.8
    assert np.isnan(bad.scores[:5]).all()
    assert bad.edges.tolist() == pytest.approx(np.linspace(0, 1, 11).tolist())
    wide = calibration(evaluate_results(truth, [{**r, "score": 20 * r["score"] - 5} for r in honest]))
    assert (wide.edges[0] < 0, wide.edges[-1] > 1, np.isnan(wide.error)) == (True, True, True)
    assert wide.counts.sum() == len(honest)


def test_the_best_threshold_by_trying_all(material):
    truth, results, evaluation = material
    best = operating_point(evaluation)
    people = int(evaluation.curves.people[0])
    tried = {}
    for score in sorted({r["score"] for r in results}):
        matches = evaluate_results(truth, [r for r in results if r["score"] >= score]).matches
        right, wrong = matches.right[0, 0].sum(), matches.wrong[0, 0].sum()
        tried[score] = (2 * right / (right + wrong + people), right / (right + wrong), right / people)
    expected = max(tried, key=lambda score: tried[score][0])
    assert best.score == expected
    assert (best.f1, best.precision, best.recall) == pytest.approx(tried[expected])
    assert operating_point(evaluate_results(truth, [])) is None


def test_details_are_json(material):
    truth, _, evaluation = material
    for found in (evaluation, evaluate_results(truth, [])):
        table = details(found)
        assert json.loads(json.dumps(table, allow_nan=False)) == table
        assert set(table) == {"losses", "groups", "keypoints", "pck", "calibration", "threshold"}
        total = sum(loss["in_turn"] for loss in table["losses"]) + found.numbers["AP"]
        assert total == pytest.approx(1)
    assert table["calibration"]["error"] is None
    assert table["threshold"] is None
    assert table["keypoints"][0]["PCK0.1"] == 0
    assert table["pck"]["PCK@0.1"] == 0
