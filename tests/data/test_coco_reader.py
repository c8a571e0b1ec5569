import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data import json_files
from poise.data.coco import read_coco, read_folder, read_skeleton
from poise.data.images import ImageError
from poise.data.records import PoseDataset, Record
from poise.skeletons import COCO17, CROWDPOSE14, SKELETONS, Skeleton

PAIR = Skeleton("pair", ("left_hand", "right_hand"), ((0, 1),), ((0, 1),), (0.05, 0.06))


def category(base: Skeleton = PAIR, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(base.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in base.edges],
        "sigmas": list(base.sigmas),
        **more,
    }


def person(**more: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 2, 3, 4],
        "area": 6.5,
        "keypoints": [2, 3, 2, 3, 5, 1],
        **more,
    }


class Folder:
    """Pictures of 8x6 pixels and an annotation file."""

    def __init__(self, path: Path) -> None:
        self.images = path / "images"
        self.images.mkdir()
        self.file = path / "truth.json"
        for name in ("a.png", "b.png"):
            Image.new("RGB", (8, 6)).save(self.images / name)

    def read(self, *people: dict[str, Any], data: dict[str, Any] | None = None, **options: Any) -> PoseDataset:
        pictures = [{"id": i, "file_name": n, "width": 8, "height": 6} for i, n in ((1, "a.png"), (2, "b.png"))]
        content = {"images": pictures, "annotations": list(people), "categories": [category()]} | (data or {})
        self.file.write_text(json.dumps(content))
        return read_coco(self.file, self.images, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_people_pictures_and_skeleton(folder: Folder) -> None:
    dataset = folder.read(person(), person(id=6, keypoints=[0, 0, 0, 7, 5, 2]), name="two")
    assert (dataset.name, len(dataset), dataset.person_count) == ("two", 2, 2)
    first, second = dataset
    assert first.path == folder.images / "a.png"
    assert (first.image_id, first.size, first.labelled) == (1, (6, 8), 3)
    assert first.keypoints.tolist() == [[[2, 3, 2], [3, 5, 1]], [[0, 0, 0], [7, 5, 2]]]
    assert first.boxes.tolist() == [[1, 2, 4, 6]] * 2
    assert first.areas.tolist() == [6.5, 6.5]
    assert first.ignore.shape == (0, 4)
    assert {first.keypoints.dtype, first.boxes.dtype, first.areas.dtype} == {np.dtype(np.float32)}
    assert (len(second), second.keypoints.shape, second.ignore.shape) == (0, (0, 2, 3), (0, 4))
    assert dataset.skeleton == Skeleton("person", PAIR.keypoints, PAIR.edges, PAIR.flip_pairs, PAIR.sigmas)
    assert dataset[1] is second


def test_crowds_and_people_without_keypoints(folder: Folder) -> None:
    crowd = person(iscrowd=1, keypoints=[0] * 6, bbox=[0, 0, 2, 2])
    unlabelled = person(id=6, keypoints=[0] * 6, bbox=[3, 0, 2, 2])
    bare = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [5, 0, 1, 1]}
    record = folder.read(crowd, unlabelled, bare)[0]
    assert record.ignore.tolist() == [[0, 0, 2, 2], [3, 0, 5, 2], [5, 0, 6, 1]]
    assert len(record) == 0
    record = folder.read(crowd, unlabelled, bare, unlabelled="background")[0]
    assert record.ignore.tolist() == []


def test_missing_box_and_area_are_estimated(folder: Folder) -> None:
    entry = {"id": 1, "image_id": 2, "keypoints": [2, 3, 2, 4, 5, 1]}
    record = folder.read(entry)[1]
    assert record.boxes.tolist() == [[2, 3, 4, 5]]
    assert record.areas.tolist() == pytest.approx([0.53 * 4])


def test_min_keypoints_drops_pictures(folder: Folder) -> None:
    assert [len(folder.read(person(), min_keypoints=n)) for n in (0, 1, 2, 3)] == [2, 1, 1, 0]


def test_dropped_pictures_may_be_missing(folder: Folder) -> None:
    (folder.images / "b.png").unlink()
    assert len(folder.read(person(), min_keypoints=1)) == 1
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures are missing in .*first .*b\.png"):
        folder.read(person())


def test_pictures_in_subfolders(folder: Folder) -> None:
    (folder.images / "more").mkdir()
    (folder.images / "b.png").rename(folder.images / "more" / "b.png")
    images = [{"id": "x", "file_name": "more/b.png", "width": 8, "height": 6}]
    assert folder.read(data={"images": images})[0].image_id == "x"


def test_other_categories_are_passed_over(folder: Folder) -> None:
    dog = {"id": 2, "name": "dog"}
    dataset = folder.read(person(), person(category_id=2), data={"categories": [dog, category()]})
    assert dataset.person_count == 1


def test_several_categories_with_keypoints(folder: Folder) -> None:
    dog = category(id=2, name="dog")
    assert folder.read(person(), data={"categories": [dog, category()]}).person_count == 1
    with pytest.raises(ValueError, match="which category"):
        folder.read(person(), data={"categories": [dog, category(name="cat")]})


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_built_in_skeletons_are_recognised(skeleton: Skeleton) -> None:
    entry = category(skeleton)
    del entry["sigmas"]
    assert read_skeleton(entry, "x.json") is skeleton


def test_custom_skeletons(folder: Folder) -> None:
    names = ["snout", "tail"]
    entry = category(keypoints=names, flip_pairs=[[0, 1]])
    assert read_skeleton(entry, "x.json").flip_pairs == ((0, 1),)
    del entry["flip_pairs"]
    assert read_skeleton(entry, "x.json").flip_pairs == ()
    del entry["sigmas"]
    with pytest.raises(ValueError, match=r'x\.json.*"sigmas": \[2 numbers\]'):
        read_skeleton(entry, "x.json")
    with pytest.raises(ValueError, match=r"x\.json.*edge \(0, 8\)"):
        read_skeleton(category(skeleton=[[1, 9]]), "x.json")
    with pytest.raises(ValueError, match=r"x\.json.*2 keypoints but 1 sigmas"):
        read_skeleton(category(sigmas=[0.1]), "x.json")


def test_a_given_skeleton_wins_but_must_fit(folder: Folder) -> None:
    assert folder.read(person(), skeleton=PAIR, data={"categories": []}).skeleton is PAIR
    assert folder.read(person(), skeleton=PAIR).skeleton is PAIR
    with pytest.raises(ValueError, match=r"2 keypoints, skeleton 'coco17' has 17"):
        folder.read(person(), skeleton=COCO17)
    with pytest.raises(ValueError, match="which category"):
        folder.read(person(), data={"categories": []})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (person(keypoints=[1, 2, 2]), r"annotation 5: keypoints .*6 numbers, not 3"),
        (person(keypoints="abc"), "annotation 5: keypoints"),
        (person(keypoints=[1, 2, 2, float("nan"), 5, 1]), "annotation 5: keypoints .* nan"),
        (person(keypoints=[1, 2, 2, "4", 5, 1]), "annotation 5: keypoints .*'4'"),
        (person(keypoints=[1, 2, 3, 4, 5, 1]), r"annotation 5: keypoint visibility .* \[3\.0, 1\.0\]"),
        (person(bbox=[1, 2, 3]), "annotation 5: bbox must have 4 numbers, not 3"),
        (person(bbox=[1, 2, float("inf"), 4]), "annotation 5: bbox .*inf"),
        (person(bbox=[1, 2, -3, 4]), "annotation 5: bbox .* negative"),
        (person(area=float("nan")), "annotation 5: area .*nan"),
        (person(image_id=9), "annotation 5 belongs to image 9"),
        (person(image_id=[1]), "annotation 5 belongs to image"),
        ({"id": 5, "image_id": 1, "iscrowd": 1}, "annotation 5: .*neither bbox"),
    ],
)
def test_bad_annotations_are_named(folder: Folder, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"truth\.json: {message}") as caught:
        folder.read(entry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"id": 1, "file_name": "a.png", "width": 8, "height": 6}] * 2, "image id 1 is given twice"),
        ([{"id": 1.5, "file_name": "a.png", "width": 8, "height": 6}], "image id 1.5"),
        ([{"id": 1, "width": 8, "height": 6}], "image 1 has no file_name"),
        ([{"id": 1, "file_name": "a.png", "width": 8}], "image 1 has height None"),
        ([{"id": 1, "file_name": "a.png", "width": 0, "height": 6}], "image 1 has width 0"),
        ("none", "no list 'images'"),
        ([3], "every entry of 'images'"),
    ],
)
def test_bad_picture_entries_are_named(folder: Folder, images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        folder.read(data={"images": images})


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\x00", "[1]", '{"images": []}'])
def test_files_that_are_not_coco(folder: Folder, content: str) -> None:
    folder.file.write_text(content)
    with pytest.raises(ValueError, match=r"truth\.json is not") as caught:
        read_coco(folder.file, folder.images)
    assert "\n" not in str(caught.value)


def test_missing_and_too_large_files(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        read_coco(folder.images / "no.json", folder.images)
    folder.read(person())
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        read_coco(folder.file, folder.images / "elsewhere")
    monkeypatch.setattr(json_files, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match="more than the limit of 10"):
        read_coco(folder.file, folder.images)


def test_an_empty_file_is_an_empty_data_set(folder: Folder) -> None:
    dataset = folder.read(data={"images": []})
    assert (len(dataset), dataset.person_count, list(dataset)) == (0, 0, [])


def test_folders_of_pictures_without_people(folder: Folder) -> None:
    (folder.images / "notes.txt").write_text("not a picture")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(folder.images / "c.JPG", exif=exif)
    dataset = read_folder(folder.images, CROWDPOSE14)
    assert [(r.path.name, r.size, len(r)) for r in dataset] == [
        ("a.png", (6, 8), 0),
        ("b.png", (6, 8), 0),
        ("c.JPG", (8, 6), 0),
    ]
    assert dataset.name == "images"
    assert dataset[0].keypoints.shape == (0, 14, 3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_folder(folder.images / "nowhere", COCO17)
    (folder.images / "d.png").write_text("broken")
    with pytest.raises(ImageError, match=r"d\.png"):
        read_folder(folder.images, COCO17)


def test_records_and_data_sets_check_their_shapes(tmp_path: Path) -> None:
    boxes, areas = np.zeros((1, 4)), np.zeros(1)
    with pytest.raises(ValueError, match=r"x\.png: keypoints must have shape"):
        Record(Path("x.png"), 0, (4, 4), np.zeros((2, 3, 3)), boxes, areas, np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"x\.png: 1 areas"):
        Record(Path("x.png"), 0, (4, 4), np.zeros((1, 3, 3)), boxes[:0], areas, np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"x\.png: ignore"):
        Record(Path("x.png"), 0, (4, 4), np.zeros((1, 3, 3)), boxes, areas, np.zeros(4))
    record = Record.without_people(Path("x.png"), 0, (4, 4), 3)
    with pytest.raises(ValueError, match=r"'s': x\.png has 3 keypoints a person, skeleton 'pair' has 2"):
        PoseDataset("s", PAIR, (record,))
