"""The evaluation of results files, against pycocotools."""

import copy
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poise.evaluate.coco import METRICS, evaluate_keypoints, person_category, read_truth
from poise.skeletons import COCO17, CROWDPOSE14


def _person(rng, number, image_id, skeleton):
    k = len(skeleton)
    size = rng.choice([25.0, 60.0, 150.0, 300.0])
    corner = rng.uniform(0, 300, 2)
    points = corner + rng.uniform(0, size, (k, 2))
    seen = rng.integers(0, 3, k) if rng.random() > 0.1 else np.zeros(k)
    box = [*corner.tolist(), size, size]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "keypoints": np.column_stack([points, seen]).reshape(-1).tolist(),
        "num_keypoints": int((seen > 0).sum()),
        "bbox": box,
        "area": 0.6 * size * size,
        "iscrowd": int(rng.random() < 0.05),
    }


def _truth(seed=0, images=12, skeleton=COCO17):
    rng = np.random.default_rng(seed)
    ids = [int(i) for i in rng.permutation(1000)[:images]]
    annotations = []
    for image_id in ids:
        for _ in range(int(rng.integers(0, 9))):
            annotations.append(_person(rng, len(annotations) + 1, image_id, skeleton))
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in ids],
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints), "skeleton": []}],
        "annotations": annotations,
    }


def _perturbed(truth, skeleton=COCO17, seed=1):
    """Found people: the truth moved a little or a lot, some missed, some twice, many with equal scores."""
    rng = np.random.default_rng(seed)
    results = []
    for person in truth["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            points = np.asarray(person["keypoints"]).reshape(-1, 3)[:, :2]
            moved = points + rng.normal(0, 0.06 * person["bbox"][2] * rng.random(), points.shape)
            triples = np.column_stack([moved, np.ones(len(skeleton))])
            results.append(
                {
                    "image_id": person["image_id"],
                    "category_id": 1,
                    "keypoints": triples.reshape(-1).tolist(),
                    "score": round(float(rng.random()), 1),
                }
            )
    return results


def _oracle(truth, results, skeleton, capsys):
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    return dict(zip(METRICS, evaluation.stats, strict=True))


@pytest.mark.parametrize("skeleton", [COCO17, CROWDPOSE14], ids=lambda s: s.name)
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed, skeleton, capsys):
    truth = _truth(seed, skeleton=skeleton)
    results = _perturbed(truth, skeleton, seed + 10)
    expected = _oracle(truth, results, skeleton, capsys)
    assert 0.05 < expected["AP"] < 0.95
    assert evaluate_keypoints(truth, results, skeleton) == pytest.approx(expected, rel=0, abs=1e-9)


def test_only_the_20_best_of_a_picture_count(capsys):
    truth = _truth(5, images=2)
    results = _perturbed(truth) * 12
    assert evaluate_keypoints(truth, results, COCO17) == pytest.approx(
        _oracle(truth, results, COCO17, capsys), rel=0, abs=1e-9
    )


def test_perfect_results_and_silence(capfd):
    truth = _truth(3)
    visible = [a for a in truth["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    results = [{**{k: a[k] for k in ("image_id", "category_id", "keypoints")}, "score": 0.5} for a in visible]
    numbers = evaluate_keypoints(truth, results, COCO17)
    assert set(numbers) == set(METRICS)
    assert all(value == pytest.approx(1.0) for value in numbers.values())
    assert capfd.readouterr() == ("", "")


def test_boxes_in_the_results_give_the_areas(capsys):
    truth = _truth(3)
    results = _perturbed(truth)
    plain = evaluate_keypoints(truth, results, COCO17)
    boxed = [{**r, "bbox": [0.0, 0.0, 40.0 + 3 * i, 40.0]} for i, r in enumerate(results)]
    numbers = evaluate_keypoints(truth, boxed, COCO17)
    assert numbers == pytest.approx(_oracle(truth, boxed, COCO17, capsys), rel=0, abs=1e-9)
    assert numbers["APM"] != plain["APM"]
    # the first result decides, as in the COCO tools
    late = [results[0], *boxed[1:]]
    assert evaluate_keypoints(truth, late, COCO17) == plain


def test_nothing_found_and_nobody_there():
    zeros = dict.fromkeys(METRICS, 0.0)
    truth = _truth(2)
    assert evaluate_keypoints(truth, [], COCO17) == zeros
    results = _perturbed(truth)
    empty = {**truth, "annotations": []}
    assert evaluate_keypoints(empty, results, COCO17) == zeros
    assert evaluate_keypoints({"images": [], "annotations": []}, [], COCO17) == zeros


def test_missing_fields_are_filled_in(capsys):
    truth = _truth(4)
    for person in truth["annotations"]:
        person["iscrowd"] = 0
        person["area"] = 0.53 * person["bbox"][2] * person["bbox"][3]
    results = _perturbed(truth)
    expected = _oracle(truth, results, COCO17, capsys)
    lean = copy.deepcopy(truth)
    for person in lean["annotations"]:
        for field in ("id", "area", "iscrowd", "num_keypoints"):
            del person[field]
    assert evaluate_keypoints(lean, results, COCO17) == pytest.approx(expected, rel=0, abs=1e-9)


def test_missing_box_is_the_extent_of_the_keypoints():
    points = np.zeros((17, 3))
    points[0], points[1] = (10, 10, 2), (30, 50, 1)
    truth = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "keypoints": points.reshape(-1).tolist()}]}
    moved = points.copy()
    moved[:2, 0] += 0.7
    similarity = np.mean([np.exp(-(0.7**2) / (2 * 0.53 * 20 * 40 * (2 * s) ** 2)) for s in COCO17.sigmas[:2]])
    thresholds = np.arange(0.5, 0.96, 0.05)
    expected = float(np.mean(similarity >= thresholds))
    assert 0 < expected < 1
    results = [{"image_id": 1, "keypoints": moved.reshape(-1).tolist(), "score": 1.0}]
    assert evaluate_keypoints(truth, results, COCO17)["AP"] == pytest.approx(expected)


def test_annotation_id_zero_and_text_picture_ids(capsys):
    truth = _truth(6)
    results = _perturbed(truth)
    expected = _oracle(truth, results, COCO17, capsys)
    renamed = copy.deepcopy(truth)
    for item in renamed["annotations"]:
        item["id"] -= 1
        item["image_id"] = f"p{item['image_id']:04d}"
    for item in renamed["images"]:
        item["id"] = f"p{item['id']:04d}"
    renamed["images"].sort(key=lambda image: image["id"])
    named = [{**r, "image_id": f"p{r['image_id']:04d}"} for r in results]
    assert evaluate_keypoints(renamed, named, COCO17) == pytest.approx(expected, rel=0, abs=1e-9)


def test_other_categories_and_unlisted_pictures_are_left_out():
    truth = _truth(8)
    results = _perturbed(truth)
    expected = evaluate_keypoints(truth, results, COCO17)
    extra = copy.deepcopy(truth)
    extra["categories"].insert(0, {"id": 18, "name": "dog"})
    first = truth["images"][0]["id"]
    extra["annotations"].append({"id": 900, "image_id": first, "category_id": 18, "bbox": [1, 2, 3, 4], "area": 9})
    extra["annotations"].append({**truth["annotations"][0], "image_id": 10**6})
    assert evaluate_keypoints(extra, results, COCO17) == expected


def test_inputs_are_left_alone(tmp_path):
    truth = _truth(9)
    results = _perturbed(truth)
    before = json.dumps([truth, results])
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    assert evaluate_keypoints(path, results, COCO17) == evaluate_keypoints(truth, results, COCO17)
    assert json.dumps([truth, results]) == before


def test_person_category():
    assert person_category({"categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "person"}]}) == 7
    assert person_category({}) is None
    with pytest.raises(ValueError, match="cat, dog"):
        person_category({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]})


def test_errors_name_the_value(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json does not exist"):
        read_truth(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        read_truth(broken)
    with pytest.raises(ValueError, match="no list of images"):
        read_truth({"annotations": []})
    broken.write_text("[1]")
    with pytest.raises(ValueError, match="no list of images"):
        read_truth(broken)
    truth = _truth(1)
    with pytest.raises(ValueError, match="picture 99999"):
        evaluate_keypoints(truth, [{"image_id": 99999, "keypoints": [0] * 51, "score": 1}], COCO17)
    short = {"image_id": truth["images"][0]["id"], "keypoints": [0] * 42, "score": 1}
    with pytest.raises(ValueError, match="has 42 keypoint numbers; skeleton 'coco17' needs 51"):
        evaluate_keypoints(truth, [short], COCO17)
    with pytest.raises(ValueError, match="annotation 1 has 51 keypoint numbers"):
        evaluate_keypoints(truth, [], CROWDPOSE14)
    truth["images"].append(truth["images"][0])
    with pytest.raises(ValueError, match="given twice"):
        evaluate_keypoints(truth, [], COCO17)
