"""Every number equals that of pycocotools, on all of COCO val2017 and where ties decide."""

import copy
import json

import numpy as np
import pytest

from coco_oracle import DATA, FULL_TRUTH, full_truth, oracle, perturbed
from poise.evaluate.coco import METRICS, evaluate_keypoints, evaluate_results
from poise.skeletons import COCO17, CROWDPOSE14


def with_crowds(truth, seed=0):
    """The truth with crowds and with people nobody has labelled, among them some with keypoints."""
    rng = np.random.default_rng(seed)
    truth = copy.deepcopy(truth)
    for person in truth["annotations"]:
        luck = rng.random()
        if luck < 0.05:
            person["iscrowd"] = 1
        elif luck < 0.1:
            person["num_keypoints"] = 0
        elif luck < 0.15:
            person["num_keypoints"], person["keypoints"] = 0, [0] * 51
    return truth


def numbers(truth, results, skeleton=COCO17):
    return list(evaluate_keypoints(truth, results, skeleton).values())


def same(truth, results):
    found, expected = numbers(truth, results), oracle(truth, results, COCO17.sigmas)
    assert len(found) == len(METRICS) == 10
    return found == pytest.approx(expected.clip(0).tolist(), rel=0, abs=1e-9)


@pytest.mark.data
@pytest.mark.skipif(not FULL_TRUTH.is_file(), reason=f"no annotations of COCO val2017 in {FULL_TRUTH}")
def test_all_of_coco():
    truth = full_truth()
    results = perturbed(truth, seed=1)
    assert len(truth["images"]) == 2346
    assert len(truth["annotations"]) == 6352
    assert 0.2 < numbers(truth, results)[0] < 0.9
    assert same(truth, results)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not FULL_TRUTH.is_file(), reason=f"no annotations of COCO val2017 in {FULL_TRUTH}")
@pytest.mark.parametrize(
    "options",
    [
        {"jitter": 0.02, "false_positives": 0, "crowded": 0, "decimals": 9},
        {"jitter": 0.4, "most": 1, "decimals": 1},
        {"most": 5, "false_positives": 12, "crowded": 0.3, "decimals": 1},
        {"most": 1, "decimals": 0, "boxes": True},
        {"most": 2, "boxes": True, "decimals": 3},
    ],
)
def test_all_of_coco_with_crowds(options):
    truth = with_crowds(full_truth())
    assert same(truth, perturbed(truth, seed=2, **options))


def small_truth(rng, pictures, most):
    """People who are each other's copies, moved by whole pixels: similarities are often equal, to the last bit."""
    shape = rng.integers(0, 60, (17, 2)).astype(float)
    annotations = []
    for image_id in rng.permutation(100)[:pictures].tolist():
        for _ in range(int(rng.integers(0, most + 1))):
            points = shape + rng.integers(-2, 3, 2) * rng.choice([1, 1, 40])
            seen = rng.choice([0, 1, 2], 17, p=[0.2, 0.3, 0.5]) * (rng.random() > 0.1)
            area = float(rng.choice([32**2, 96**2, 1000.0, 2000.0, 20000.0]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.column_stack([points, seen]).astype(int).reshape(-1).tolist(),
                    "num_keypoints": int((seen > 0).sum()),
                    "bbox": [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()],
                    "area": area,
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
    images = [{"id": i, "width": 640, "height": 480} for i in range(100)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


@pytest.mark.parametrize("seed", range(12))
def test_where_ties_decide(seed):
    rng = np.random.default_rng(seed)
    truth = small_truth(rng, pictures=1 + seed, most=8)
    options = {"jitter": rng.choice([0, 0.05]), "most": 3, "decimals": int(rng.integers(0, 2)), "crowded": 0}
    results = perturbed(truth, seed, boxes=bool(seed % 2), false_positives=0.1, **options)
    # the exact truth, found twice, with equal scores
    for person in truth["annotations"][::3]:
        exact = {**results[0], "image_id": person["image_id"], "keypoints": person["keypoints"], "score": 1}
        results += [exact, dict(exact)]
    order = rng.permutation(len(results))
    assert same(truth, [results[i] for i in order])


@pytest.mark.parametrize("count", [1, 19, 20, 21, 45])
def test_many_poses_of_one_picture(count):
    truth = small_truth(np.random.default_rng(3), 1, 8)
    results = perturbed(truth, 5, most=12, jitter=0.1, decimals=1, crowded=0)[:count]
    assert same(truth, results)


def test_a_subset_of_pictures_is_measured_as_if_it_were_all():
    """CrowdPose's easy, medium and hard pictures, with its areas."""
    rng = np.random.default_rng(8)
    truth = small_truth(rng, 40, 5)
    for image in truth["images"]:
        image["crowdIndex"] = float(rng.choice([0, 0.05, 0.1, 0.4, 0.79, 0.8, 1]))
    for person in truth["annotations"]:
        person["area"] = 0.53 * person["bbox"][2] * person["bbox"][3]
        person["keypoints"] = person["keypoints"][: 3 * 14]
        person["num_keypoints"] = int(np.count_nonzero(person["keypoints"][2::3]))
    truth["categories"][0]["keypoints"] = [*CROWDPOSE14.keypoints[:-2], "head", "neck"]
    results = [{**r, "keypoints": r["keypoints"][:42]} for r in perturbed(truth, 4, jitter=0.03, crowded=0)]
    bare = {**truth, "annotations": [{k: v for k, v in a.items() if k != "area"} for a in truth["annotations"]]}
    found = evaluate_results(bare, results).numbers
    expected = oracle(truth, results, CROWDPOSE14.sigmas)
    assert [found[name] for name in METRICS] == pytest.approx(expected.clip(0).tolist(), rel=0, abs=1e-9)
    for name, low, high in (("easy", 0, 0.1), ("medium", 0.1, 0.8), ("hard", 0.8, 1.1)):
        pictures = [i["id"] for i in truth["images"] if low <= i["crowdIndex"] < high]
        assert found[f"AP_{name}"] == pytest.approx(oracle(truth, results, CROWDPOSE14.sigmas, pictures)[0], abs=1e-9)
    assert len({found[f"AP_{name}"] for name in ("easy", "medium", "hard")}) == 3
    moved = evaluate_results(bare, results, crowd_limits=(0.05, 0.1)).numbers
    pictures = [i["id"] for i in truth["images"] if i["crowdIndex"] < 0.05]
    assert moved["AP_easy"] == pytest.approx(oracle(truth, results, CROWDPOSE14.sigmas, pictures)[0], abs=1e-9)
    with pytest.raises(ValueError, match=r"0\.9, 0\.1 must rise"):
        evaluate_results(bare, results, crowd_limits=(0.9, 0.1))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "formats").is_dir(), reason=f"no real annotations in {DATA}")
@pytest.mark.parametrize(
    ("name", "count", "extra"), [("ochuman", 17, set()), ("crowdpose", 14, {"AP_easy", "AP_medium", "AP_hard"})]
)
def test_real_files_of_other_data_sets(name, count, extra):
    path = DATA / f"formats/{name}/test_{name}.json"
    people = [a for a in json.loads(path.read_text())["annotations"] if a["num_keypoints"]]
    results = [{**{k: a[k] for k in ("image_id", "keypoints")}, "score": 0.5} for a in people]
    evaluation = evaluate_results(path, results)
    assert len(evaluation.truth.skeleton) == count
    assert set(evaluation.numbers) == {*METRICS, *extra}
    assert evaluation.numbers["AP"] == pytest.approx(1)
    if extra:
        assert evaluation.numbers["AP_medium"] == pytest.approx(1)
        assert evaluation.numbers["AP_hard"] == 0, "no picture is that crowded"
