"""Person boxes from files: annotations and detections, by picture id and by file name."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.config import SourceConfig
from poise.data.formats import read_dataset
from poise.predict.boxes import Boxes, PersonBoxes, read_boxes
from poise.predict.sources import Named
from poise.train.commands import next_commands

IMAGE = np.zeros((20, 30, 3), np.uint8)


def annotations(**changes):
    data = {
        "images": [
            {"id": 7, "file_name": "a.jpg"},
            {"id": "x", "file_name": "sub/b.jpg"},
            {"id": 9, "file_name": "empty.jpg"},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.25},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9]},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": "x", "category_id": 1, "bbox": [0, 0, 0, 5]},
            {"image_id": "x", "category_id": 1, "bbox": [2, 2, 2, 2]},
        ],
        "categories": [{"id": 2, "name": "dog"}, {"id": 1, "name": "person"}],
    }
    return {**data, **changes}


def written(tmp_path, data):
    path = tmp_path / "boxes.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_annotations(tmp_path):
    boxes = read_boxes(written(tmp_path, annotations()))
    found = boxes.of_id(7)
    assert found.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    assert found.scores.tolist() == [1.0, 0.25]
    assert boxes.of_id("x").boxes.tolist() == [[2, 2, 4, 4]]
    empty = boxes.of_id(9)
    assert empty.boxes.shape == (0, 4)
    assert empty.scores.shape == (0,)
    assert boxes.description == f"boxes of {tmp_path / 'boxes.json'}"
    with pytest.raises(ValueError, match=r"boxes.json does not list the picture with id 8"):
        boxes.of_id(8)


def test_annotations_by_file_name(tmp_path):
    boxes = read_boxes(written(tmp_path, annotations()))
    assert boxes.of_name("/somewhere/else/a.jpg") == boxes.of_id(7)
    assert boxes.of_name("b.jpg") == boxes.of_id("x")
    with pytest.raises(ValueError, match=r"does not list the picture /somewhere/c.jpg"):
        boxes.of_name("/somewhere/c.jpg")


def test_folders_tell_pictures_of_one_name_apart(tmp_path):
    images = [{"id": i, "file_name": f"{folder}/a.jpg"} for i, folder in enumerate(("one", "two"))]
    people = [{"image_id": 1, "bbox": [1, 1, 1, 1]}]
    boxes = read_boxes(written(tmp_path, {"images": images, "annotations": people}))
    assert len(boxes.of_name("/data/two/a.jpg").boxes) == 1
    assert len(boxes.of_name("/data/one/a.jpg").boxes) == 0
    with pytest.raises(ValueError, match=r"does not list the picture /data/three/a.jpg"):
        boxes.of_name("/data/three/a.jpg")
    twice = [*images, {"id": 2, "file_name": "one/a.jpg"}]
    with pytest.raises(ValueError, match=r"lists several pictures that could be one/a.jpg"):
        read_boxes(written(tmp_path, {"images": twice, "annotations": []})).of_name("one/a.jpg")


def test_detections(tmp_path):
    entries = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 139, "category_id": 3, "bbox": [9, 9, 9, 9], "score": 0.9},
        {"image_id": 139, "bbox": [2, 2, 1, 1]},
        {"image_id": "b", "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.75},
    ]
    boxes = read_boxes(written(tmp_path, entries))
    assert boxes.of_id(139).boxes.tolist() == [[1, 2, 4, 6], [2, 2, 3, 3]]
    assert boxes.of_id(139).scores.tolist() == [0.5, 1.0]
    assert boxes.of_name("val2017/000000000139.jpg") == boxes.of_id(139)
    assert boxes.of_name("b.png") == boxes.of_id("b")
    assert boxes.of_id(12).boxes.shape == (0, 4)
    with pytest.raises(ValueError, match=r"boxes.json has no boxes for c.jpg: a list of detections says nothing"):
        boxes.of_name("c.jpg")
    assert read_boxes(tmp_path / "boxes.json", category=3).of_id(139).boxes.tolist() == [[9, 9, 18, 18], [2, 2, 3, 3]]


def test_pictures_are_looked_up_by_id_then_by_name(tmp_path):
    boxes = read_boxes(written(tmp_path, annotations()))
    pictures = [Named(IMAGE, "wrong.jpg", 7), Named(IMAGE, "b.jpg"), Named(IMAGE, image_id=9)]
    found = list(boxes.find(pictures))
    assert [len(f.people.boxes) for f in found] == [2, 1, 0]
    assert [f.name for f in found] == ["wrong.jpg", "b.jpg", None]
    assert all(f.image.shape == IMAGE.shape for f in found)
    with pytest.raises(ValueError, match=r"by a picture's file name, and this picture has none"):
        next(boxes.find([IMAGE]))


def test_ids_of_another_set_are_noticed(tmp_path):
    boxes = read_boxes(written(tmp_path, [{"image_id": 1, "bbox": [1, 1, 1, 1]}]))
    boxes.require([2, 1])
    boxes.require([])
    with pytest.raises(ValueError, match="has boxes for other pictures only: its ids are like 1, not like '000001'"):
        boxes.require(["000001", "000002"])
    read_boxes(written(tmp_path, [])).require([5])


def test_boxes_in_memory():
    boxes = Boxes({0: PersonBoxes.of([[1, 2, 3, 4]], [0.5])})
    assert boxes.of_id(0).boxes.dtype == np.float32
    with pytest.raises(ValueError, match="the given boxes does not list"):
        boxes.of_name("a.jpg")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "boxes.json is not valid JSON"),
        ({"images": []}, "neither a COCO annotation file"),
        ("3", "neither a COCO annotation file"),
        (
            annotations(categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]),
            r"boxes.json: cannot tell which category \(dog, cat\) has the people's keypoints",
        ),
        (annotations(annotations=[{"image_id": 8, "bbox": [0, 0, 1, 1]}]), "box 0 is in picture 8, which the file"),
        (annotations(images=[{"file_name": "a"}]), "an image has id None"),
        ([{"bbox": [0, 0, 1, 1]}], "box 0 has image_id None"),
        ([7], "box 0 has image_id None"),
        ([{"image_id": 1}], "box 0: bbox is None; expected 4 finite numbers"),
        ([{"image_id": 1, "bbox": [0, 0, 1]}], r"box 0: bbox is \[0, 0, 1\]; expected 4"),
        ([{"image_id": 1, "bbox": [0, 0, 1, float("nan")]}], "expected 4 finite numbers"),
        ([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": "high"}], r"box 0: score is \['high'\]; expected 1 finite"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(tmp_path, data, words):
    with pytest.raises(ValueError, match=words) as error:
        read_boxes(written(tmp_path, data))
    assert "\n" not in str(error.value)


def test_people_without_a_box_have_the_extent_of_their_keypoints(tmp_path):
    people = [
        {"image_id": 7, "keypoints": [2, 3, 2, 0, 0, 0, 12, 8, 1]},
        {"image_id": 7, "bbox": None, "keypoints": [0, 0, 0, 5, 5, 2, 0, 0, 0]},
        {"image_id": 7},
    ]
    boxes = read_boxes(written(tmp_path, annotations(annotations=people)))
    assert boxes.of_id(7).boxes.tolist() == [[2, 3, 12, 8]]
    people[0]["keypoints"] = [2, 3, 2, 0]
    with pytest.raises(ValueError, match=r"box 0: keypoints is \[2, 3, 2, 0\]; expected 3 finite"):
        read_boxes(written(tmp_path, annotations(annotations=people)))


def test_the_category_of_people(tmp_path):
    keypoints = ["nose", "tail"]
    dog, person = {"id": 2, "name": "dog", "keypoints": keypoints}, {"id": 1, "name": "person", "keypoints": keypoints}
    for categories in ([dog, person], [{"id": 2, "name": "dog"}, person], [{"id": 1, "name": "mouse"}]):
        assert len(read_boxes(written(tmp_path, annotations(categories=categories))).of_id(7).boxes) == 2


@pytest.fixture
def yolo(tmp_path):
    """A data set of two parts: a person, one without keypoints and one whose box has no height; and nobody."""
    for name in ("train/a", "val/b"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        (tmp_path / "labels" / name).parent.mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(tmp_path / "images" / f"{name}.png")
    lines = ("0 0.5 0.5 0.4 0.5 0.5 0.5 2", "0 0.25 0.5 0.5 0.2 0 0 0", "0 0.5 0.5 0.2 0 0.5 0.5 2")
    (tmp_path / "labels/train/a.txt").write_text("\n".join(lines))
    parts = "train: images/train\nval: images/val\n"
    told = "kpt_shape: [1, 3]\nkpt_names: {0: [nose]}\nnames: [person]\nflip_idx: [0]\n"
    (tmp_path / "data.yaml").write_text(parts + told)
    return tmp_path / "data.yaml"


def test_yolo_data_sets(yolo):
    for path in (yolo, yolo.parent):
        boxes = read_boxes(path)
        found = boxes.of_id("images/train/a.png")
        np.testing.assert_allclose(found.boxes, [[24, 15, 56, 45], [0, 24, 40, 36]], atol=1e-4)
        assert found.scores.tolist() == [1.0, 1.0]
        assert boxes.of_name("/elsewhere/a.png") == found
        assert boxes.of_id("images/val/b.png").boxes.shape == (0, 4)
        assert boxes.description == f"boxes of {path}"
        boxes.require([record.image_id for record in read_dataset(path, yolo.parent / "images/val")])
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        read_boxes(yolo.with_name("none.yaml"))
    yolo.write_text("names: [person]")
    with pytest.raises(ValueError, match=r"data\.yaml: kpt_shape = None"):
        read_boxes(yolo)


def test_the_command_that_a_run_prints_finds_its_boxes(yolo, monkeypatch):
    """Whatever the paths of the run's settings start from."""
    monkeypatch.chdir(yolo.parent)
    val = SourceConfig(annotations="data.yaml", images="images/train", kind="yolo")
    words = shlex.split(next_commands(Path("run"), Path("best.safetensors"), val, true_boxes=True)["evaluate"])
    told = {word: words[i + 1] for i, word in enumerate(words) if word.startswith("--")}
    boxes = read_boxes(told["--boxes"])
    (record,) = read_dataset(told["--annotations"], told["--images"])
    np.testing.assert_array_equal(boxes.of_id(record.image_id).boxes[:1], record.boxes[:1])


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"box file .*none.json does not exist"):
        read_boxes(tmp_path / "none.json")
