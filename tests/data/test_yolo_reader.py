import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from poise.data.yolo import label_path, read_yolo
from poise.skeletons import COCO17, Skeleton

LINE = "0 0.5 0.5 0.4 0.5 0.25 0.5 2 0.75 0.1 1 0 0 0"
SKELETON = Skeleton("two", ("a", "left_b", "right_b"), ((0, 1),), ((1, 2),), (0.1, 0.2, 0.2))


class Set:
    """Two pictures of 80x60 to train on, one to validate on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("train/a.png", "train/b.png", "val/c.png"):
            path = root / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 60)).save(path)
        self.config: dict[str, Any] = {
            "path": ".",
            "train": "images/train",
            "val": "images/val",
            "kpt_shape": [3, 3],
            "flip_idx": [0, 2, 1],
            "names": {0: "person"},
        }
        self.file = root / "data.yaml"
        self.label("train/a", LINE)

    def label(self, name: str, *lines: str) -> None:
        path = self.root / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))

    def read(self, *arguments: Any, **options: Any) -> Any:
        self.file.write_text(yaml.safe_dump(self.config))
        return read_yolo(self.file, *arguments, **({"skeleton": SKELETON} | options))


@pytest.fixture
def data(tmp_path: Path) -> Set:
    return Set(tmp_path)


def test_people_and_pictures(data: Set) -> None:
    dataset = data.read()
    assert [r.image_id for r in dataset] == ["images/train/a.png", "images/train/b.png", "images/val/c.png"]
    first = dataset[0]
    assert (first.size, len(dataset[1]), dataset.name) == ((60, 80), 0, data.root.name)
    assert first.keypoints[0].tolist() == [pytest.approx(p) for p in ([20, 30, 2], [60, 6, 1], [0, 0, 0])]
    assert first.boxes.tolist() == [pytest.approx([24, 15, 56, 45])]
    assert first.areas.tolist() == pytest.approx([0.53 * 32 * 30])


def test_ids_do_not_depend_on_how_paths_are_written(data: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.root)
    ids = {"images/val/c.png"}
    data.read()
    for config, images in (
        ("data.yaml", data.root / "images/val"),
        (data.file, "images/val"),
        (data.file, "images/../images/val"),
    ):
        assert {r.image_id for r in read_yolo(config, images, skeleton=SKELETON)} == ids
    data.config["path"] = "labels/.."
    assert (
        {r.image_id for r in data.read(data.root / "images/val")} == ids == {r.image_id for r in data.read(split="val")}
    )
    elsewhere = data.root.parent / f"{data.root.name}-more"
    elsewhere.mkdir()
    (data.root / "images/val/c.png").rename(elsewhere / "c.png")
    assert [r.image_id for r in data.read(elsewhere)] == [str(elsewhere / "c.png")]


def test_parts_and_folders(data: Set) -> None:
    assert [len(data.read(split=s)) for s in ("train", "val")] == [2, 1]
    assert len(data.read(data.root / "images" / "val")) == 1
    assert len(read_yolo(data.root, skeleton=SKELETON)) == 3
    with pytest.raises(ValueError, match=r"data\.yaml has no 'test'; it has train, val"):
        data.read(split="test")
    (data.root / "list.txt").write_text("images/train/b.png\n\nimages/val/c.png\n")
    data.config |= {"train": ["list.txt", "images/val"], "path": "moved/away"}
    del data.config["val"]
    assert [r.path.name for r in data.read()] == ["b.png", "c.png"]
    data.config = {k: v for k, v in data.config.items() if k != "train"}
    assert len(data.read()) == 0


def test_labels_beside_pictures_without_a_folder_images(tmp_path: Path) -> None:
    assert label_path(tmp_path / "images/x/images/y/a.jpg") == tmp_path / "images/x/labels/y/a.txt"
    assert label_path(Path("pictures/a.jpg")) == Path("pictures/a.txt")


def test_two_numbers_a_keypoint(data: Set) -> None:
    data.config["kpt_shape"] = [3, 2]
    data.label("train/a", "0 0.5 0.5 0.4 0.5 0.25 0.5 0 0 0.75 0")
    assert data.read()[0].keypoints[0].tolist() == [pytest.approx(p) for p in ([20, 30, 2], [0, 0, 0], [60, 0, 2])]


def test_people_without_keypoints(data: Set) -> None:
    bare = "0 0.5 0.5 0.4 0.5" + " 0" * 9
    data.label("train/a", bare, "", LINE)
    record = data.read()[0]
    assert (len(record), record.ignore.tolist()) == (1, [pytest.approx([24, 15, 56, 45])])
    assert data.read(unlabelled="background")[0].ignore.shape == (0, 4)
    assert len(data.read(min_keypoints=1)) == 1


def test_classes(data: Set) -> None:
    data.config["names"] = ["dog", "person"]
    data.label("train/a", LINE, LINE.replace("0 ", "1 ", 1))
    assert data.read().person_count == 1
    data.config["names"] = {0: "tiger"}
    data.label("train/a", LINE)
    assert data.read(skeleton=None).skeleton.name == "tiger"


def test_skeletons(data: Set, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = data.read(skeleton=None).skeleton
    assert (found.keypoints, found.flip_pairs) == (("keypoint_0", "keypoint_1", "keypoint_2"), ((1, 2),))
    assert "'person' has no OKS sigmas; estimated: keypoint_0 0.060" in caplog.text
    data.config["kpt_names"] = {0: ["nose", "left_eye", "right_eye"]}
    assert data.read(skeleton=None).skeleton.sigmas == (0.026, 0.025, 0.025)
    del data.config["flip_idx"]
    assert data.read(skeleton=None).skeleton.flip_pairs == ((1, 2),)
    caplog.clear()
    del data.config["kpt_names"]
    assert data.read(skeleton=None).skeleton.flip_pairs == ()
    assert "no flip_idx" in caplog.text
    (data.root / "skeleton.yaml").write_text("keypoints: [x, y, z]\nsigmas: [1, 2, 3]")
    assert data.read(skeleton=None).skeleton.sigmas == (1, 2, 3)
    with pytest.raises(ValueError, match="3 keypoints, skeleton 'coco17' has 17"):
        data.read(skeleton=COCO17)


def test_seventeen_keypoints_that_flip_like_cocos(data: Set) -> None:
    data.config |= {"kpt_shape": [17, 3], "flip_idx": list(COCO17.flip_index)}
    data.label("train/a", "0 0.5 0.5 0.4 0.5" + " 0.5 0.5 2" * 17)
    assert data.read(skeleton=None).skeleton is COCO17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kpt_shape": None}, "kpt_shape = None"),
        ({"kpt_shape": [3, 4]}, r"kpt_shape = \[3, 4\]"),
        ({"kpt_shape": [0, 3]}, r"kpt_shape = \[0, 3\]"),
        ({"flip_idx": [0, 1]}, "flip_idx = .* from 0 to 2 once"),
        ({"flip_idx": [0, 0, 1]}, "flip_idx = .* from 0 to 2 once"),
        ({"flip_idx": [1, 2, 0]}, "exchanges 0 for 1 but 1 for 2; it must undo itself"),
        ({"names": None}, "names = None"),
        ({"names": ["cat", "dog"]}, "exactly one class must be called person"),
        ({"train": 3}, "train = 3 must be a folder"),
        ({"kpt_names": {0: ["a"]}}, "kpt_names must list 3 names"),
    ],
)
def test_bad_configs(data: Set, change: dict[str, Any], message: str) -> None:
    data.config |= change
    with pytest.raises(ValueError, match=rf"data\.yaml.*{message}") as caught:
        data.read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.4 0.5", r"line 2: it has 5 numbers, expected 14"),
        (LINE.replace("0.4", "x"), "line 2: .*'x'"),
        (LINE.replace("0.4", "nan"), "line 2: .*finite"),
        (LINE.replace("0.4", "-0.4"), "line 2: box .* negative side"),
        (LINE.replace("0.25 0.5 2", "0.25 0.5 3"), "line 2: keypoint visibility"),
        ("1.5" + LINE[1:], "line 2: class must be an integer"),
    ],
)
def test_bad_lines(data: Set, line: str, message: str) -> None:
    data.label("train/a", LINE, line)
    with pytest.raises(ValueError, match=rf"a\.txt, {message}"):
        data.read()


def test_missing_files(data: Set) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.read(data.root / "nowhere")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_yolo(data.root / "no.yaml")
    with pytest.raises(FileNotFoundError, match="no YAML file with kpt_shape"):
        read_yolo(data.root / "images")
    data.read()
    (data.root / "other.yaml").write_text("kpt_shape: [1, 2]")
    with pytest.raises(ValueError, match=r"data\.yaml, other\.yaml; name one"):
        read_yolo(data.root)
    for text, message in (("a: [", "not valid YAML"), ("[]", "mapping")):
        data.file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_yolo(data.file)
    (data.root / "labels/train/a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.txt is not a text file"):
        data.read()
