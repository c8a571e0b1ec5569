"""Bad truth and bad results are told in one line; odd ones have numbers."""

import copy
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from poise.data import json_files
from poise.evaluate.coco import evaluate_keypoints, evaluate_results, read_results, read_truth
from poise.evaluate.evaluation import given_skeleton, truth_skeleton
from poise.evaluate.model import category_of_results
from poise.evaluate.tables import pose_table, result_arrays, truth_table
from poise.skeletons import COCO17, LSP14, Skeleton

FOUR = Skeleton("four", ("a", "b", "left_c", "right_c"), ((0, 1),), ((2, 3),), (0.1, 0.1, 0.1, 0.1))
POINTS = [10, 10, 2, 30, 12, 1, 15, 40, 2, 0, 0, 0]


def truth(**changes):
    category = {"id": 7, "name": "thing", "keypoints": list(FOUR.keypoints), "sigmas": list(FOUR.sigmas)}
    person = {"id": 5, "image_id": 1, "category_id": 7, "keypoints": POINTS, "bbox": [5, 5, 40, 40], "area": 900}
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    return {"images": images, "annotations": [person | changes], "categories": [category]}


def result(**changes):
    return {"image_id": 1, "category_id": 7, "keypoints": list(map(float, POINTS)), "score": 0.5} | changes


def without(entry, field):
    return {key: value for key, value in entry.items() if key != field}


def with_value(value):
    return [*map(float, POINTS[:-1]), value]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (result(image_id=9), "picture 9, which the annotations do not list"),
        (result(image_id="1"), "picture '1', which the annotations do not list"),
        (result(image_id=[1]), "picture [1], which the annotations do not list"),
        (without(result(), "image_id"), "picture None, which the annotations do not list"),
        (without(result(), "keypoints"), "a result of picture 1 has no keypoints"),
        (result(keypoints=None), "a result of picture 1 has no keypoints"),
        (without(result(), "score"), "a result of picture 1 has no score"),
        (result(keypoints=[1.0] * 8), "has 8 keypoint numbers; skeleton 'four' needs 12"),
        (result(keypoints=[]), "has 0 keypoint numbers; skeleton 'four' needs 12"),
        (result(keypoints=[[1, 2, 3]] * 4), "has 4 keypoint numbers; skeleton 'four' needs 12"),
        (result(keypoints=[[1, 2, 3]] * 12), "keypoints with [1, 2, 3], which is not a finite number"),
        (result(keypoints=7), "has 7 keypoint numbers; skeleton 'four' needs 12"),
        (result(keypoints=with_value(float("nan"))), "keypoints with nan, which is not a finite number"),
        (result(keypoints=with_value(float("inf"))), "keypoints with inf, which is not a finite number"),
        (result(keypoints=with_value(None)), "keypoints with None, which is not a finite number"),
        (result(keypoints=with_value("x")), "keypoints with 'x', which is not a finite number"),
        (result(score=float("nan")), "score with nan, which is not a finite number"),
        (result(score=float("-inf")), "score with -inf, which is not a finite number"),
        (result(score="high"), "score with 'high', which is not a finite number"),
        (result(score=10**400), "score"),
        (result(bbox=[1, 2, 3]), "bbox [1, 2, 3], not 4 numbers"),
        (result(bbox=[1, 2, 3, float("nan")]), "bbox with nan, which is not a finite number"),
        ([1, 2], "a result is '[1, 2]', not an object with image_id, keypoints and score"),
    ],
)
def test_bad_results(bad, words):
    first = result(bbox=[1, 2, 3, 4]) if "bbox" in words else result()
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        evaluate_keypoints(truth(), [first, bad], FOUR)
    assert "\n" not in str(error.value)
    if not any(word in words for word in ("picture", "bbox")):
        with pytest.raises(ValueError, match=re.escape(words)):
            result_arrays([bad], FOUR)


def test_results_of_other_categories_are_left_out():
    own = evaluate_keypoints(truth(), [result()], FOUR)
    assert own["AP"] == pytest.approx(1)
    assert evaluate_keypoints(truth(), [result(), result(category_id=3, score=0.9)], FOUR) == own
    assert evaluate_keypoints(truth(), [without(result(), "category_id")], FOUR) == own
    with pytest.raises(ValueError, match="all results are of category 3; people are category 7"):
        evaluate_keypoints(truth(), [result(category_id=3)], FOUR)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keypoints": POINTS[:6]}, "annotation 5 has 6 keypoint numbers; skeleton 'four' needs 12"),
        ({"keypoints": with_value(float("nan"))}, "annotation 5 has keypoints with nan"),
        ({"area": "big"}, "annotation 5 has area with 'big'"),
        ({"area": float("nan")}, "annotation 5 has area with nan"),
        ({"area": -900}, "annotation 5 has area -900; expected at least 0"),
        ({"bbox": [1, 2]}, "annotation 5 has bbox [1, 2], not 4 numbers"),
        ({"bbox": [1, 2, None, 4]}, "annotation 5 has bbox with None"),
    ],
)
def test_bad_truth(changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        evaluate_keypoints(truth(**changes), [result()], FOUR)


def test_picture_ids():
    bad = truth()
    bad["images"].append({"id": 1.5})
    with pytest.raises(ValueError, match=r"picture id 1\.5 must be a number or a text"):
        evaluate_keypoints(bad, [], FOUR)
    mixed = truth()
    mixed["images"].append({"id": "x"})
    assert truth_table(mixed, FOUR).image_ids == (1, 2, "x")
    texts = {**truth(), "images": [{"id": "b"}, {"id": "a"}]}
    assert truth_table(texts, FOUR).image_ids == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [1]}, "annotations: picture 1 is no object with an id and a file_name"),
        ({"images": [{"file_name": "a.jpg"}]}, "annotations: picture id None must be a number or a text"),
        ({"images": [{"id": [1]}]}, "annotations: picture id [1] must be a number or a text"),
        ({"images": [{"id": 1, "crowdIndex": {}}]}, "picture 1 has crowdIndex with {}, which is not a finite number"),
        ({"annotations": 5}, "annotations: annotations are 5; expected a list of objects"),
        ({"annotations": {}}, "annotations: annotations are {}; expected a list of objects"),
        ({"annotations": [1]}, "annotation 1 is no object with image_id and keypoints"),
    ],
)
def test_truth_of_another_form(changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        evaluate_results(truth() | changes, [], FOUR)


def test_no_crowd_index_is_none():
    images = [{"id": 1, "crowdIndex": None}, {"id": 2}, {"id": 3, "crowdIndex": 0.5}]
    assert np.isnan(truth_table(truth() | {"images": images}, FOUR).crowd_index).tolist() == [True, True, False]


def test_scores_of_any_size_rank():
    """Only their order counts: it is kept by any rising function."""
    people = [truth()["annotations"][0] | {"id": i, "image_id": i} for i in (1, 2)]
    two = truth() | {"annotations": people}
    far = [0.0] * 12
    for good, bad in ((0.9, 0.1), (900.0, 1.0), (-1.0, -5.0)):
        found = [result(score=good), result(keypoints=far, score=bad), result(image_id=2, score=good)]
        assert evaluate_keypoints(two, found, FOUR)["AP"] == pytest.approx(1)
        found = [result(score=bad), result(keypoints=far, score=good), result(image_id=2, score=bad)]
        assert evaluate_keypoints(two, found, FOUR)["AP"] == pytest.approx(2 / 3)


def test_the_table_of_poses():
    found = [result(image_id=2, score=0.1), result(score=0.2), result(score=0.7), result(image_id=2, score=0.1)]
    table = pose_table(found, truth_table(truth(), FOUR), 7)
    assert table.rows.tolist() == [2, 1, 0, 3]
    assert table.images.tolist() == [0, 0, 1, 1]
    assert table.ranks.tolist() == [0, 1, 0, 1]
    assert table.areas.tolist() == [30 * 40] * 4
    again = table.reordered(table.keypoints, -table.scores, np.array([True, True, False, True]))
    assert again.rows.tolist() == [1, 2, 3]
    many = [result(score=i / 50) for i in range(50)]
    assert pose_table(many, truth_table(truth(), FOUR)).rows.tolist() == list(range(49, 29, -1))


def test_results_from_files(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([result()]))
    assert read_results(path, truth()) == [result()]
    evaluation = evaluate_results(truth(), path)
    assert (evaluation.name, evaluation.numbers["AP"]) == (str(path), pytest.approx(1))
    packed = tmp_path / "truth.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(truth()).encode()))
    assert read_truth(packed) == truth()
    for content, words in (
        ('{"a": 1}', "neither a list of COCO results nor an object"),
        ("3", "neither a list of COCO results nor an object"),
        ("[1", "is not valid JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=words):
            read_results(path, truth())
    with pytest.raises(FileNotFoundError, match=r"results file .*none\.json does not exist"):
        read_results(tmp_path / "none.json", truth())


@pytest.mark.parametrize("damage", ["no gzip", "cut", "flipped"])
def test_damaged_packed_files(tmp_path, damage):
    packed = tmp_path / "truth.json.gz"
    content = bytearray(gzip.compress(json.dumps(truth()).encode()))
    if damage == "cut":
        content = content[:-20]
    if damage == "flipped":
        content[12:40] = bytes(255 - b for b in content[12:40])
    packed.write_bytes(b"no gzip" if damage == "no gzip" else bytes(content))
    for read in (read_truth, lambda path: read_results(path, truth())):
        with pytest.raises(ValueError, match=r"file .*truth\.json\.gz is no gzip file, or is damaged: ") as error:
            read(packed)
        assert "\n" not in str(error.value)


def test_packed_files_that_grow_too_large(tmp_path, monkeypatch):
    packed = tmp_path / "truth.json.gz"
    packed.write_bytes(gzip.compress(b" " * 100_000 + json.dumps(truth()).encode()))
    assert packed.stat().st_size < 1000
    monkeypatch.setattr(json_files, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"truth\.json\.gz has more than the limit of 1,000 bytes when unpacked"):
        read_truth(packed)


def test_pictures_of_written_poses_are_found_by_their_names(tmp_path):
    path = tmp_path / "poses.json"
    document = {"images": [{"id": 1, "file_name": "some/where/b.jpg"}], "annotations": [result(), result(score=0.1)]}
    path.write_text(json.dumps(document))
    assert [entry["image_id"] for entry in read_results(path, truth())] == [2, 2]
    document["images"][0]["file_name"] = "c.jpg"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"a picture 'c\.jpg', which the annotations do not list"):
        read_results(path, truth())
    path.write_text(json.dumps({"annotations": [result()]}))
    assert read_results(path, truth()) == [result()]


def test_the_people_of_written_poses_are_those_of_the_truth(tmp_path):
    """The annotations call people category 7; the file has them as 1, and dogs as 7."""
    path = tmp_path / "poses.json"
    names = list(FOUR.keypoints)
    people, dogs = {"id": 1, "name": "person", "keypoints": names}, {"id": 7, "name": "dog", "keypoints": names}
    found = [result(category_id=1), result(category_id=7, score=0.9), without(result(score=0.1), "category_id")]
    document = {"categories": [people, dogs], "annotations": found}
    for images in ({}, {"images": [{"id": 1, "file_name": "a.jpg"}]}):
        path.write_text(json.dumps(document | images))
        assert [entry.get("category_id") for entry in read_results(path, truth())] == [7, 1, None]
        assert evaluate_results(truth(), path).numbers["AP"] == pytest.approx(1)
    assert read_results(path, {"images": truth()["images"]}) == found, "the truth lists no categories"
    path.write_text(json.dumps(document | {"categories": [people, dogs | {"name": "person"}]}))
    with pytest.raises(ValueError, match=r"poses\.json: cannot tell which category \(person, person\)"):
        read_results(path, truth())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"annotations": [1]}, "a result is '1', not an object with image_id"),
        ({"images": [1]}, "poses.json: picture 1 is no object with an id and a file_name"),
        ({"images": [{"id": [1], "file_name": "a.jpg"}]}, "poses.json: picture id [1] must be a number or a text"),
        ({"images": [{"id": 1, "file_name": n} for n in ("a.jpg", "b.jpg")]}, "poses.json gives picture id 1 twice"),
        ({"annotations": [{"image_id": [1]}]}, "a result belongs to picture [1], which the annotations do not list"),
    ],
)
def test_written_poses_of_another_form(tmp_path, content, words):
    path = tmp_path / "poses.json"
    document = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [result()]}
    path.write_text(json.dumps(document | content))
    with pytest.raises(ValueError, match=re.escape(words)):
        evaluate_results(truth(), path)


CAMERAS = ("cam1/0001.jpg", "cam2/0001.jpg", "0002.jpg", "0001.jpg", "deep/cam1/0001.jpg")


@pytest.mark.parametrize(
    ("known", "names", "ids"),
    [
        (CAMERAS[:2], ("cam2/0001.jpg", "cam1/0001.jpg"), [1, 0]),
        (CAMERAS[:2], ("/data/cam1/0001.jpg", "/data/cam2/0001.jpg"), [0, 1]),
        (CAMERAS[:4], ("elsewhere/0002.jpg", "0001.jpg", "/data/cam2/0001.jpg"), [2, 3, 1]),
        (CAMERAS, ("/data/deep/cam1/0001.jpg", "/data/cam1/0001.jpg"), [4, 0]),
        (("data/cam1/0001.jpg", "data/cam2/0001.jpg"), ("cam2/0001.jpg", "cam1/0001.jpg"), [1, 0]),
    ],
)
def test_folders_tell_pictures_of_one_name_apart(tmp_path, known, names, ids):
    path = tmp_path / "poses.json"
    images = [{"id": 10 + i, "file_name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": [result(image_id=i["id"]) for i in images]}))
    ground = {"images": [{"id": i, "file_name": name} for i, name in enumerate(known)]}
    assert [entry["image_id"] for entry in read_results(path, ground)] == ids


@pytest.mark.parametrize(
    ("known", "names", "words"),
    [
        (CAMERAS[:2], ("0001.jpg",), "a picture '0001.jpg', which could be several of the annotations"),
        (CAMERAS[:2], ("cam3/0001.jpg",), "a picture 'cam3/0001.jpg', which could be several of the annotations"),
        (("a.jpg", "a.jpg"), ("a.jpg",), "a picture 'a.jpg', which could be several of the annotations"),
        (("a.jpg",), ("one/a.jpg", "two/a.jpg"), "pictures 'one/a.jpg' and 'two/a.jpg', but the annotations list one"),
    ],
)
def test_pictures_that_cannot_be_told_apart(tmp_path, known, names, words):
    path = tmp_path / "poses.json"
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        read_results(path, {"images": [{"id": i, "file_name": name} for i, name in enumerate(known)]})
    assert "\n" not in str(error.value)


def test_null_stands_for_a_missing_field():
    fields = ("area", "num_keypoints", "bbox", "iscrowd", "id")
    table, bare = truth_table(truth(**dict.fromkeys(fields)), FOUR), truth()
    for field in fields:
        bare["annotations"][0].pop(field, None)
    wanted = truth_table(bare, FOUR)
    assert table.areas.tolist() == wanted.areas.tolist()
    assert table.boxes.tolist() == wanted.boxes.tolist() == [[10, 10, 20, 30]]
    assert not table.ignored.any()
    with pytest.raises(ValueError, match=r"annotation 5 has num_keypoints with \[3\], which is not a finite number"):
        truth_table(truth(num_keypoints=[3]), FOUR)


def test_the_category_called_person_counts_among_several_with_keypoints():
    data = truth()
    data["categories"][0]["name"] = "person"
    data["categories"].insert(0, data["categories"][0] | {"id": 2, "name": "dog"})
    assert evaluate_results(data, [result()]).numbers["AP"] == pytest.approx(1)
    data["categories"][1]["name"] = "cat"
    with pytest.raises(ValueError, match=r"cannot tell which category \(dog, cat\) has the people's keypoints"):
        truth_skeleton(data)


def test_category_ids():
    data = truth(category_id=0)
    data["categories"][0]["id"] = 0
    assert category_of_results(data) == 0
    assert evaluate_results(data, [result(category_id=0)]).numbers["AP"] == pytest.approx(1)
    del data["categories"][0]["id"]
    assert category_of_results(data) == 1
    data["categories"][0]["id"] = "a"
    with pytest.raises(ValueError, match="category 'thing' of the annotations has id 'a'; expected a number"):
        category_of_results(data)


def test_the_skeleton_of_the_truth(tmp_path):
    assert truth_skeleton(truth()).sigmas == FOUR.sigmas
    data = copy.deepcopy(truth())
    data["categories"][0] |= {"keypoints": list(LSP14.keypoints), "sigmas": None}
    assert truth_skeleton(data) is LSP14
    assert given_skeleton(data) is None
    data["categories"][0]["sigmas"] = [0.1] * 14
    assert truth_skeleton(data) == given_skeleton(data) == replace(LSP14, name="thing", sigmas=(0.1,) * 14)
    assert given_skeleton({"images": []}) is None
    data["categories"][0]["keypoints"] = []
    data["categories"][0]["name"] = "person"
    with pytest.raises(ValueError, match="names no keypoints; say which skeleton"):
        truth_skeleton(data)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data))
    (tmp_path / "skeleton.yaml").write_text("keypoints: [p, q, r, s]\nsigmas: [0.2, 0.2, 0.1, 0.1]\n")
    assert truth_skeleton(data, path).keypoints == ("p", "q", "r", "s")
    assert given_skeleton(data, path) == truth_skeleton(data, path)
    assert evaluate_results(path, [result()]).truth.skeleton.sigmas == (0.2, 0.2, 0.1, 0.1)


def test_missing_sigmas_are_estimated_and_told(caplog):
    data = truth()
    del data["categories"][0]["sigmas"]
    skeleton = truth_skeleton(data)
    assert len(skeleton.sigmas) == 4
    assert "no OKS sigmas; estimated" in caplog.text


def test_coco_sigmas_are_used_by_default():
    points = [v for i in range(17) for v in (10 * i, 5 * i, 2)]
    data = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "keypoints": points, "area": 900.0}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}],
    }
    assert evaluate_results(data, []).truth.skeleton is COCO17
