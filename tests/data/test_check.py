import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from poise.data.check import check_dataset
from poise.data.formats import read_dataset
from poise.data.problems import CheckReport
from poise.skeletons import COCO17

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")
NAMES = ["snout", "left_ear", "right_ear"]


def category(**more: Any) -> dict[str, Any]:
    entry = {"id": 1, "name": "dog", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]], "flip_pairs": [[1, 2]]}
    return entry | {"sigmas": [0.1, 0.1, 0.1]} | more


def person(**more: Any) -> dict[str, Any]:
    points = [10, 10, 2, 20, 15, 1, 0, 0, 0]
    box = [5, 5, 30, 20]
    return {"id": 1, "image_id": 1, "category_id": 1, "keypoints": points, "num_keypoints": 2, "bbox": box} | more


def picture(**more: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": "a.png", "width": 80, "height": 60} | more


def coco(**more: Any) -> dict[str, Any]:
    images = [picture(), picture(id=2, file_name="b.png")]
    return {"images": images, "annotations": [person()], "categories": [category()]} | more


def entry(**more: Any) -> dict[str, Any]:
    joints = np.random.default_rng(0).integers(5, 50, (16, 2)).tolist()
    whole = {"image": "a.png", "center": [30, 30], "scale": 0.2, "joints": joints, "joints_vis": [1] * 16}
    return whole | {"headbox": [20, 5, 30, 15]} | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


class Yolo:
    LINE = "0 0.5 0.5 0.4 0.5 0.25 0.5 2 0.75 0.1 1 0 0 0"

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in ("images/train", "images/val", "labels/train", "labels/val"):
            (root / part).mkdir(parents=True)
        for name in ("train/a.png", "val/b.png"):
            (root / "images" / name).write_bytes((root / "a.png").read_bytes())
        self.config: dict[str, Any] = {
            "train": "images/train",
            "val": "images/val",
            "kpt_shape": [3, 3],
            "flip_idx": [0, 2, 1],
            "names": {0: "person"},
        }
        (root / "skeleton.yaml").write_text(yaml.safe_dump({"keypoints": NAMES, "sigmas": [0.1] * 3}))

    def check(self, *lines: str, **change: Any) -> CheckReport:
        (self.root / "labels/train/a.txt").write_text("\n".join(lines))
        (self.root / "data.yaml").write_text(yaml.safe_dump(self.config | change))
        return check_dataset(self.root)


@pytest.fixture
def yolo(folder: Path) -> Yolo:
    return Yolo(folder)


def check(folder: Path, content: Any, **options: Any) -> CheckReport:
    path = folder / "truth.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return check_dataset(path, **options)


def told(report: CheckReport) -> list[tuple[str, str, str, str]]:
    return [(p.level, p.kind, p.where, p.message) for p in report.problems]


def test_nothing_is_wrong(folder: Path) -> None:
    report = check(folder, coco())
    assert told(report) == []
    assert (report.format, report.pictures, report.people, report.errors) == ("coco", 2, 1, 0)
    assert told(check(folder, coco(images=[], annotations=[]))) == []
    assert told(check(folder, coco(annotations=[person(iscrowd=1, keypoints=[0] * 9, num_keypoints=0)]))) == []
    assert told(check(folder, [entry()])) == []
    assert told(check(folder, [])) == []


@pytest.mark.parametrize(
    ("change", "level", "kind", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "error", "keypoint-count", r"keypoints has 3 numbers, expected 9 \(3 x 3\)"),
        ({"keypoints": "x"}, "error", "keypoint-count", "'x' numbers, expected 9"),
        ({"keypoints": [1, 2, 2, 3, None, 1, 0, 0, 0]}, "error", "number", "None, expected finite"),
        ({"keypoints": [1, 2, 7, 3, 4, 1, 0, 0, 0]}, "error", "visibility", r"\[7\.0\], expected 0, 1 or 2"),
        ({"keypoints": [9, 9, 2, 90, 9, 2, 0, 0, 0]}, "warning", "keypoint-outside", "left_ear at 90, 9, .* 80x60"),
        ({"keypoints": [9, 9, 2, 0, 0, 0, 0, 0, 0]}, "warning", "num-keypoints", "num_keypoints = 2, expected 1"),
        ({"bbox": [1, 2, 3]}, "error", "box", r"bbox = \[1, 2, 3\], expected four"),
        ({"bbox": [5, 5, -3, 20]}, "error", "box-negative", "to 2, 25, expected sides of 0 or more"),
        ({"bbox": [5, 5, 0, 20]}, "warning", "box-empty", "expected an extent"),
        ({"bbox": [90, 5, 30, 20]}, "error", "box-outside", "lies outside, expected inside 80x60"),
        ({"bbox": [5, 5, 90, 20]}, "warning", "box-sticks-out", "to 95, 25, expected inside 80x60"),
        ({"bbox": None}, "warning", "box-missing", "no bbox"),
        ({"bbox": None, "keypoints": None, "num_keypoints": 0}, "error", "box", "neither bbox nor labelled"),
        ({"area": -1}, "error", "area", "area = -1, expected a number of 0 or more"),
        ({"area": 700}, "warning", "area", "area 700 is larger than the box of 30 x 20"),
        ({"image_id": 7}, "error", "image-of-annotation", "image_id = 7, expected the id of a listed image"),
        ({"image_id": [1]}, "error", "image-of-annotation", r"image_id = \[1\]"),
    ],
)
def test_bad_annotations(folder: Path, change: dict[str, Any], level: str, kind: str, message: str) -> None:
    report = check(folder, coco(annotations=[person() | change]))
    assert [(p.level, p.kind, p.where) for p in report.problems] == [(level, kind, "annotation 1")]
    with pytest.raises(ValueError, match=message):
        raise ValueError(report.problems[0].message)
    assert report.errors == (level == "error")
    assert report.warnings == (level == "warning")


def test_every_problem_is_told(folder: Path) -> None:
    people = [person(image_id=9), person(id=2, keypoints=[1]), person(id=2), person(id=3)]
    report = check(folder, coco(annotations=people))
    assert [(p.kind, p.where) for p in report.problems] == [
        ("image-of-annotation", "annotation 1"),
        ("keypoint-count", "annotation 2"),
        ("annotation-id", "annotation 2"),
        ("person-twice", "annotation 3"),
    ]
    assert str(report.problems[2]) == (
        f"error: {folder / 'truth.json'}: annotation 2: 2 is given twice, expected once [annotation-id]"
    )
    assert (report.errors, report.warnings, report.people) == (3, 1, 4)
    assert report.to_dict()["kinds"] == dict.fromkeys([p.kind for p in report.problems], 1)
    assert report.to_dict()["problems"][0]["where"] == "annotation 1"


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ({"flip_pairs": [[1, 2], [1, 0]]}, ["flip_pairs"], "keypoint 1 changes sides with 2 and with 0"),
        ({"flip_pairs": [[1, 3]]}, ["flip_pairs"], r"\[1, 3\], expected two different numbers from 0 to 2"),
        ({"flip_pairs": 3}, ["flip_pairs"], "flip_pairs = 3, expected a list of pairs"),
        ({"skeleton": [[0, 1]]}, ["skeleton"], r"\[0, 1\], expected two different numbers from 1 to 3"),
        ({"keypoints": ["a", "a", "b"]}, ["keypoint-names"], "'a' is named twice"),
        ({"sigmas": None}, ["sigmas-missing"], "no sigmas, expected 3 numbers"),
        ({"sigmas": [0.1]}, ["sigmas"], "1 sigmas, expected 3"),
        ({"sigmas": [0.1, 0, 0.1]}, ["sigmas"], "sigma 1 is 0, expected a positive number"),
    ],
)
def test_bad_categories(folder: Path, change: dict[str, Any], kinds: list[str], message: str) -> None:
    report = check(folder, coco(categories=[category(**change)]))
    assert [p.kind for p in report.problems] == kinds
    with pytest.raises(ValueError, match=message):
        raise ValueError(report.problems[0].message)


def test_categories_that_decide_nothing(folder: Path) -> None:
    assert [p.kind for p in check(folder, coco(categories=[])).problems] == ["category"]
    two = [category(id=1, name="cat"), category(id=2)]
    assert [p.kind for p in check(folder, coco(categories=two)).problems] == ["category"]
    names = category(keypoints=["a", "b", "c"])
    del names["flip_pairs"]
    assert [p.kind for p in check(folder, coco(categories=[names])).problems] == ["flip-pairs-missing"]
    built_in = {"id": 1, "keypoints": list(COCO17.keypoints), "skeleton": [[1, 99]]}
    assert told(check(folder, coco(categories=[built_in], annotations=[]))) == []


def test_a_given_skeleton_decides(folder: Path) -> None:
    (folder / "truth.skeleton.yaml").write_text("keypoints: [a, left_b, right_b]\nsigmas: [0.1, 0.1, 0.1]")
    assert told(check(folder, coco(categories=[]))) == []
    assert [p.kind for p in check(folder, coco(), skeleton=COCO17).problems] == ["keypoint-count"] * 2
    (folder / "truth.skeleton.yaml").write_text("keypoints: [a, b")
    assert [p.kind for p in check(folder, coco()).problems] == ["skeleton"]
    report = check(folder, coco(), kind="crowdpose")
    assert [p.message for p in report.problems] == [
        "3 keypoints, expected the 14 of 'crowdpose14'", "keypoints has 9 numbers, expected 42 (3 x 14)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        ("", ["flip-pairs-missing", "sigmas-missing"], "no pair of keypoints changes sides"),
        ("flip_pairs: [[b, c]]", ["sigmas-missing"], "no sigmas, expected 3 numbers"),
        ("flip_pairs: [[a, b], [b, c]]", ["skeleton", "sigmas-missing"], "a keypoint is in two flip pairs"),
        ("edges: [[a, a]]\nflip_pairs: [[b, c]]", ["skeleton", "sigmas-missing"], r"edge \(0, 0\) does not join"),
        ("flip_pairs: [[b, c]]\nsigmas: [0.1, 0.1]", ["skeleton"], "3 keypoints but 2 sigmas"),
        ("flip_pairs: [[b, c]]\nsigmas: []", ["skeleton"], "3 keypoints but 0 sigmas"),
        ("flip_pairs: [[b, c]]\nsigmas: [0.1, -1, 0.1]", ["skeleton"], "sigma -1.0 is not a positive number"),
        ("flip_pairs: [[b, c]]\nsigmas: [0.1, 0.1, 0.1]", [], ""),
    ],
)
def test_skeletons_of_yaml_files(folder: Path, yolo: Yolo, text: str, kinds: list[str], message: str) -> None:
    """Whatever a reader refuses is an error here, for both formats that read such files."""
    file = folder / "skeleton.yaml"
    file.write_text(f"keypoints: [a, b, c]\n{text}\n")
    for report in (check(folder, coco()), yolo.check(Yolo.LINE)):
        assert [p.kind for p in report.problems] == kinds
        assert {p.file for p in report.problems} <= {str(file)}
        if not kinds:
            continue
        assert re.search(message, report.problems[0].message)
    for path in (folder / "truth.json", folder / "data.yaml"):
        if "skeleton" in kinds:
            with pytest.raises(ValueError, match=message):
                read_dataset(path)
        else:
            assert read_dataset(path).person_count == 1


def test_a_built_in_skeleton_needs_no_more_than_its_names(folder: Path) -> None:
    names = list(COCO17.keypoints)
    nobody = coco(annotations=[], categories=[])
    (folder / "truth.skeleton.yaml").write_text(yaml.safe_dump({"keypoints": names}))
    assert told(check(folder, nobody)) == []
    assert read_dataset(folder / "truth.json").skeleton is COCO17
    (folder / "truth.skeleton.yaml").write_text(yaml.safe_dump({"keypoints": names, "sigmas": [-1] * 17}))
    assert [p.kind for p in check(folder, nobody).problems] == ["skeleton"]
    (folder / "truth.skeleton.yaml").unlink()
    bad = nobody | {"categories": [{"id": 1, "keypoints": names, "sigmas": [0.1]}]}
    assert [p.message for p in check(folder, bad).problems] == ["1 sigmas, expected 17"]
    with pytest.raises(ValueError, match="17 keypoints but 1 sigmas"):
        read_dataset(folder / "truth.json")
    (folder / "truth.skeleton.yaml").write_text("keypoints: [point]")
    assert [p.kind for p in check(folder, coco(annotations=[], categories=[])).problems] == ["sigmas-missing"]


def test_packed_files(folder: Path) -> None:
    path = folder / "truth.json.gz"
    path.write_bytes(gzip.compress(json.dumps(coco()).encode()))
    assert told(check_dataset(path)) == []
    (folder / "truth.skeleton.yaml").write_text("keypoints: [a, b, c]")
    assert [p.kind for p in check_dataset(path).problems] == ["flip-pairs-missing", "sigmas-missing"]
    path.write_bytes(b"no gzip")
    (problem,) = check_dataset(path).problems
    assert (problem.kind, "is no gzip file" in problem.message) == ("format", True)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([picture(), picture(file_name="b.png")], [("image-id", "image 1", "1 is given twice, expected once")]),
        ([picture(), picture(id=2)], [("picture-twice", "image 2", "'a.png' is given twice, expected once")]),
        ([picture(id=None)], [("image-id", "image None", "id = None, expected a number or a text")]),
        ([picture(file_name=3)], [("file-name", "image 1", "file_name = 3, expected a text")]),
        ([picture(width=0)], [("image-size", "image 1", "width = 0, expected a positive integer")]),
        ([picture(), 3], [("format", "entry 1 of images", "it is a int, expected an object")]),
    ],
)
def test_bad_picture_entries(folder: Path, images: list[Any], expected: list[tuple[str, str, str]]) -> None:
    report = check(folder, coco(images=images, annotations=[]))
    assert [(p.kind, p.where, p.message) for p in report.problems] == expected
    assert report.errors == 1


def test_bad_pictures(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:-400])
    (folder / "c.png").write_text("broken")
    names = ("a.png", "b.png", "c.png", "d.png")
    images = [picture(id=i, file_name=name) for i, name in enumerate(names)] + [
        picture(id=9, file_name="./a.png", width=81)
    ]
    (folder / "d.png").mkdir()
    seen: list[tuple[int, int]] = []
    report = check(folder, coco(images=images, annotations=[]), progress=lambda *done: seen.append(done))
    assert [(p.kind, p.where) for p in report.problems] == [
        ("unreadable-picture", "image 1"),
        ("unreadable-picture", "image 2"),
        ("missing-picture", "image 3"),
        ("picture-size", "image 9"),
    ]
    assert "has 80x60 pixels, expected 81x60" in report.problems[-1].message
    assert seen == [(i, 5) for i in range(1, 6)]
    quick = check(folder, coco(images=images, annotations=[]), decode=False)
    assert [p.where for p in quick.problems] == ["image 2", "image 3", "image 9"]


def test_pictures_that_are_nowhere(folder: Path) -> None:
    images = [picture(file_name="x.png")]
    report = check(folder, coco(images=images))
    assert [p.kind for p in report.problems] == ["missing-picture", "missing-picture"]
    assert "name their folder" in report.problems[0].message
    assert told(check(folder, coco(), images=folder)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "images is a NoneType, expected a list"),
        ('{"images": [], "annotations": 3}', "annotations is a int, expected a list"),
        ("text", "is neither JSON"),
    ],
)
def test_files_that_are_nothing(folder: Path, content: str, message: str) -> None:
    report = check(folder, content)
    assert (len(report.problems), report.errors) == (1, 1)
    assert message in str(report.problems[0])


def test_what_cannot_be_checked(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        check_dataset(folder / "no.json")
    with pytest.raises(ValueError, match="'voc' is unknown"):
        check(folder, coco(), kind="voc")
    with pytest.raises(ValueError, match="unknown skeleton"):
        check(folder, coco(), skeleton="dog")
    assert [p.message for p in check(folder, [], kind="coco").problems] == [
        "its top level is a list, expected an object"
    ]
    assert [p.message for p in check(folder, {}, kind="mpii").problems] == ["its top level is a dict, expected a list"]


def test_mpii(folder: Path) -> None:
    far = entry()
    far["joints"] = [[500, 5], *far["joints"][1:]]
    entries = [
        entry(),
        entry(),
        entry(scale=-1),
        far | {"image": "b.png"},
        entry(image="c.png"),
        entry(image="b.png", center=[200, 30]),
        entry(image="b.png", headbox=[100, 5, 120, 10], joints_vis=[0] * 16),
        3,
    ]
    report = check(folder, entries)
    assert [(p.level, p.kind, p.where) for p in report.problems] == [
        ("warning", "person-twice", "entry 1"),
        ("error", "entry", "entry 2"),
        ("warning", "keypoint-outside", "entry 3"),
        ("error", "missing-picture", "entry 4"),
        ("warning", "centre-outside", "entry 5"),
        ("error", "box-outside", "entry 6, head"),
        ("error", "format", "entry 7"),
    ]
    assert report.problems[1].message == "scale must be positive, not -1"
    assert (report.format, report.pictures, report.people) == ("mpii", 3, 8)
    headless = check(folder, [entry(headbox=None)])
    assert [p.kind for p in headless.problems] == ["head-box-missing"]


def test_yolo_sets(yolo: Yolo) -> None:
    report = yolo.check(Yolo.LINE)
    assert told(report) == []
    assert (report.format, report.pictures, report.people) == ("yolo", 2, 1)
    assert told(yolo.check(Yolo.LINE.replace("0.75", "1.0"))) == [], "the edge is no pixel, but tools write it"


@pytest.mark.parametrize(
    ("line", "level", "kind"),
    [
        ("0 1 2", "error", "line"),
        (Yolo.LINE.replace("0.4", "x"), "error", "line"),
        ("3" + Yolo.LINE[1:], "error", "class"),
        (Yolo.LINE.replace("0.75 0.1 1", "0.75 0.1 5"), "error", "visibility"),
        (Yolo.LINE.replace("0.75", "1.75"), "warning", "keypoint-outside"),
        (Yolo.LINE.replace("0.4", "-0.4"), "error", "box-negative"),
        (Yolo.LINE.replace("0.4", "1.4"), "warning", "box-sticks-out"),
        (Yolo.LINE, "warning", "person-twice"),
    ],
)
def test_bad_yolo_lines(yolo: Yolo, line: str, level: str, kind: str) -> None:
    report = yolo.check(Yolo.LINE, "", line)
    assert [(p.level, p.kind, p.where) for p in report.problems] == [(level, kind, "line 3")]
    assert report.problems[0].file == str(yolo.root / "labels/train/a.txt")


def test_yolo_lines_in_pixels(yolo: Yolo) -> None:
    report = yolo.check("0 40 30 20 20 20 30 2 60 6 1 0 0 0")
    assert [p.kind for p in report.problems] == ["box-outside", "not-relative"]


def test_bad_yolo_configs(yolo: Yolo) -> None:
    report = yolo.check(Yolo.LINE, flip_idx=[1, 2, 0])
    assert [p.kind for p in report.problems] == ["format"]
    assert "it must undo itself" in report.problems[0].message
    report = yolo.check(Yolo.LINE, val="images/train")
    assert [p.kind for p in report.problems] == ["picture-in-two-parts"]
    report = yolo.check(Yolo.LINE, val="images/nowhere")
    assert [(p.level, p.kind) for p in report.problems] == [("error", "missing-folder")]
    report = yolo.check(Yolo.LINE, train=None, val=None)
    assert [p.kind for p in report.problems] == ["format"]
    (yolo.root / "labels/train/z.txt").write_text("")
    (yolo.root / "skeleton.yaml").unlink()
    del yolo.config["flip_idx"]
    report = yolo.check(Yolo.LINE)
    assert [p.kind for p in report.problems] == ["flip-pairs-missing", "sigmas-missing", "label-without-picture"]
    assert report.errors == 0
    assert "keypoint-count" in [p.kind for p in check_dataset(yolo.root, skeleton=COCO17).problems]
    assert check_dataset(yolo.root, yolo.root / "images/val").pictures == 1
    (yolo.root / "labels/train/a.txt").write_bytes(b"\xff")
    assert "format" in [p.kind for p in check_dataset(yolo.root).problems]


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real pictures in {DATA}")
@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("formats/mpii/test_mpii.json", {"head-box-missing"}),
        ("formats/ochuman/test_ochuman.json", set()),
        ("formats/crowdpose/test_crowdpose.json", {"num-keypoints"}),
        ("coco/annotations/val.json", set()),
    ],
)
def test_real_data_has_no_errors(file: str, kinds: set[str]) -> None:
    report = check_dataset(DATA / file, decode=False)
    assert [str(p) for p in report.problems if p.level == "error"] == []
    assert set(report.kinds) >= kinds
