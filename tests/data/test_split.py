import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from poise.data.coco import read_coco
from poise.data.split import deal, part_sizes, split_dataset
from poise.skeletons import COCO17, Skeleton


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Twenty pictures: ten without people, six with one, four with three; one annotation says more than COCO does."""
    images, people = [], []
    for i in range(20):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 20, "height": 20, "licence": i})
        for _ in range(0 if i < 10 else 1 if i < 16 else 3):
            entry: dict[str, Any] = {"id": len(people) + 1, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]}
            people.append(entry | {"keypoints": [5, 5, 2] * 17, "segmentation": [[1, 2, 3, 4, 5, 6]]})
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
    path = tmp_path / "truth.json"
    content = {"info": "mine", "images": images, "annotations": people, "categories": [category]}
    path.write_text(json.dumps(content))
    return path


def ids(path: Path) -> list[int]:
    return [image["id"] for image in json.loads(path.read_text())["images"]]


def test_every_picture_is_in_one_part(truth: Path, tmp_path: Path) -> None:
    files = split_dataset(truth, tmp_path / "parts", {"train": 0.7, "val": 0.2, "test": 0.1})
    assert [f.name for f in files.values()] == ["truth_train.json", "truth_val.json", "truth_test.json"]
    parts = [ids(f) for f in files.values()]
    assert [len(p) for p in parts] == [14, 4, 2]
    assert sorted(i for part in parts for i in part) == list(range(20))
    assert sum(s["annotations"] for s in part_sizes(files).values()) == 18
    data = json.loads(files["train"].read_text())
    assert data["info"] == "mine"
    assert all(a["segmentation"] and a["image_id"] in parts[0] for a in data["annotations"])
    assert all(i["licence"] == i["id"] for i in data["images"])
    assert read_coco(files["train"], truth.parent).person_count == len(data["annotations"])


def test_the_seed_decides(truth: Path, tmp_path: Path) -> None:
    found = [ids(split_dataset(truth, tmp_path / f"{i}", seed=seed)["val"]) for i, seed in enumerate((0, 0, 1))]
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 4


def test_parts_by_people(truth: Path, tmp_path: Path) -> None:
    files = split_dataset(truth, tmp_path / "parts", {"a": 1, "b": 1}, by_people=True)
    for file in files.values():
        crowds = Counter(0 if i < 10 else 1 if i < 16 else 3 for i in ids(file))
        assert crowds == {0: 5, 1: 3, 3: 2}


def test_dealing() -> None:
    for seed in range(20):
        homes = deal([0] * 50 + [1] * 10, {"x": 3, "y": 1, "z": 1}, seed)
        assert Counter(homes) == {"x": 36, "y": 12, "z": 12}
        assert all(abs(Counter(homes[50:])[name] - share) <= 2 for name, share in (("x", 6), ("y", 2), ("z", 2)))
    first = Counter(deal([0] * 10, {"x": 1, "y": 1}, seed)[0] for seed in range(200))
    assert 60 < first["x"] < 140, "no place is always in the same part"


@pytest.mark.parametrize("shares", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": float("nan")}, {"a": float("inf")}])
def test_bad_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive shares"):
        deal([0, 0], shares, 0)


def test_too_few_pictures(truth: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="20 pictures are too few: part 'b'"):
        split_dataset(truth, tmp_path / "parts", {"a": 1, "b": 0.001})
    assert not (tmp_path / "parts").exists()
    with pytest.raises(ValueError, match="0 pictures are too few"):
        deal([], {"a": 1}, 0)


def test_nothing_is_overwritten(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "truth_val.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"truth_val\.json is there already"):
        split_dataset(truth, tmp_path)
    assert (tmp_path / "truth_val.json").read_text() == "mine"
    assert not (tmp_path / "truth_train.json").exists()


def test_other_formats_become_coco(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / name)
    config = {"kpt_shape": [1, 2], "names": ["person"], "train": "images", "flip_idx": [0], "kpt_names": {0: ["nose"]}}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(config))
    files = split_dataset(tmp_path / "set.yaml", tmp_path / "parts", {"train": 1, "val": 1})
    assert sorted(len(ids(f)) for f in files.values()) == [1, 1]
    assert read_coco(files["val"], tmp_path / "images").skeleton.sigmas == (0.026,)


NAMES = ["snout", "tail"]


def custom(truth: Path, people: int = 30, **category: Any) -> None:
    """Make the people of the file mice of two keypoints, with many people at different places."""
    data = json.loads(truth.read_text())
    data["categories"] = [{"id": 1, "name": "mouse", **category}]
    data["annotations"] = [
        {"id": i, "image_id": i % 20, "category_id": 1, "bbox": [1, 1, 9, 9], "keypoints": [1, 1, 2, 2 + i % 7, 8, 2]}
        for i in range(people)
    ]
    truth.write_text(json.dumps(data))


@pytest.mark.parametrize("beside", [None, "skeleton.yaml", "truth.skeleton.yaml"])
@pytest.mark.parametrize("folder", ["parts", "."])
def test_parts_have_the_skeleton_of_the_whole(truth: Path, tmp_path: Path, beside: str | None, folder: str) -> None:
    custom(truth, **({} if beside else {"keypoints": NAMES}))
    if beside:
        (tmp_path / beside).write_text(yaml.safe_dump({"keypoints": NAMES, "edges": [NAMES]}))
    whole = read_coco(truth, tmp_path).skeleton
    assert len(set(whole.sigmas)) == 1
    for file in split_dataset(truth, tmp_path / folder, {"most": 9, "few": 1}).values():
        assert file.with_name(f"{file.stem}.skeleton.yaml").is_file()
        assert read_coco(file, tmp_path).skeleton == whole


def test_a_given_skeleton_goes_with_the_parts(truth: Path, tmp_path: Path) -> None:
    custom(truth)
    mouse = Skeleton("mouse", ("a", "b"), (), (), (0.1, 0.2))
    for file in split_dataset(truth, tmp_path / "parts", skeleton=mouse).values():
        assert read_coco(file, tmp_path).skeleton == mouse


def test_categories_that_say_all_need_no_file(truth: Path, tmp_path: Path) -> None:
    split_dataset(truth, tmp_path / "coco")
    custom(truth, keypoints=NAMES, sigmas=[0.1, 0.2])
    split_dataset(truth, tmp_path / "own")
    assert not list(tmp_path.glob("*/*.yaml"))


def test_no_skeleton_is_overwritten(truth: Path, tmp_path: Path) -> None:
    custom(truth, keypoints=NAMES)
    (tmp_path / "truth_val.skeleton.yaml").write_text("mine")
    with pytest.raises(FileExistsError, match=r"truth_val\.skeleton\.yaml is there already"):
        split_dataset(truth, tmp_path)
    assert (tmp_path / "truth_val.skeleton.yaml").read_text() == "mine"
    assert not (tmp_path / "truth_train.json").exists()
