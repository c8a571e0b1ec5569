import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from poise.data.check import check_dataset
from poise.data.coco import read_coco
from poise.data.convert import convert_dataset
from poise.data.formats import read_dataset
from poise.data.records import PoseDataset, Record
from poise.data.writers import coco_document, common_folder, write_coco, write_yolo
from poise.data.yolo import read_yolo
from poise.skeletons import COCO17, Skeleton

BOW = Skeleton("archer", ("bow", "left_hand", "right_hand"), ((0, 1), (1, 2)), ((1, 2),), (0.03, 0.06, 0.06))
SIZE = (60, 80)


def record(path: Path, image_id: int | str, people: int, regions: int = 0, size: tuple[int, int] = SIZE) -> Record:
    """Random people inside the picture; one of them has all three kinds of keypoints."""
    rng = np.random.default_rng(len(str(path)) + people)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(path)
    points = np.concatenate([rng.uniform(1, 50, (people, 3, 2)), rng.integers(0, 3, (people, 3, 1))], 2)
    points[:, :, :2] *= points[:, :, 2:] > 0
    points[:, 0] = [20.25, 30.5, 2]
    boxes = np.tile([5.125, 6.25, 55.5, 55.75], (people, 1))
    areas = 0.53 * (55.5 - 5.125) * (55.75 - 6.25) * np.ones(people)
    return Record(path, image_id, size, points, boxes, areas, np.tile([60.0, 1, 70, 9], (regions, 1)))


def dataset(folder: Path, regions: int = 1) -> PoseDataset:
    first, second = record(folder / "a.png", 7, 2), record(folder / "more/b.png", 9, 0)
    third = record(folder / "c.png", 3, 1, regions)
    return PoseDataset("bows", BOW, (first, second, third))


def same(found: Record, expected: Record, tolerance: float = 1e-3) -> None:
    assert found.size == expected.size
    for name in ("keypoints", "boxes", "areas", "ignore"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance, err_msg=name)


def test_coco_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "pictures")
    crowded = replace(data, records=(replace(data[0], crowd_index=0.25), *data.records[1:]))
    root = write_coco(crowded, tmp_path / "new/truth.json")
    assert root == tmp_path / "pictures"
    back = read_coco(tmp_path / "new/truth.json", root)
    assert back.skeleton == BOW
    assert [r.image_id for r in back] == [7, 9, 3]
    assert [r.crowd_index for r in back] == [0.25, None, None]
    assert [r.path for r in back] == [r.path for r in data]
    for found, expected in zip(back, data, strict=True):
        same(found, expected)
    assert not caplog.records, "nothing had to be estimated"
    assert check_dataset(tmp_path / "new/truth.json", root).problems == ()


def test_coco_documents(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    named = replace(data, records=tuple(replace(r, image_id=r.path.name) for r in data))
    document = coco_document(named)
    assert [(i["id"], i["file_name"]) for i in document["images"]] == [(1, "a.png"), (2, "more/b.png"), (3, "c.png")]
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4]
    assert [a["iscrowd"] for a in document["annotations"]] == [0, 0, 0, 1]
    assert document["categories"][0]["sigmas"] == [0.03, 0.06, 0.06]
    with pytest.raises(ValueError, match="is not below the folder"):
        coco_document(data, tmp_path / "more")
    empty = PoseDataset("nothing", COCO17, ())
    assert coco_document(empty)["images"] == []
    assert coco_document(empty)["categories"][0]["name"] == "person"
    assert common_folder(empty) == Path()


def test_yolo_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "pictures", regions=0)
    config = write_yolo(data, tmp_path / "yolo", "val")
    assert config == tmp_path / "yolo/data.yaml"
    back = read_yolo(config)
    assert back.skeleton == BOW
    expected = {r.path.name: r for r in data}
    assert len(back) == 3
    for found in back:
        same(found, expected[found.path.name])
        assert found.path.read_bytes() == expected[found.path.name].path.read_bytes()
    assert (tmp_path / "yolo/labels/val/more/b.txt").read_text() == ""
    assert not caplog.records
    assert check_dataset(config).problems == ()


def test_yolo_parts(tmp_path: Path) -> None:
    data = dataset(tmp_path / "pictures", regions=0)
    write_yolo(data, tmp_path / "yolo", "val")
    config = write_yolo(data, tmp_path / "yolo", "train", link=True)
    assert (len(read_yolo(config, split="train")), len(read_yolo(config))) == (3, 6)
    assert (tmp_path / "yolo/images/train/a.png").is_symlink()
    assert not (tmp_path / "yolo/images/val/a.png").is_symlink()
    with pytest.raises(FileExistsError, match="already has a part 'val'"):
        write_yolo(data, tmp_path / "yolo", "val")
    with pytest.raises(FileExistsError, match="another data set"):
        write_yolo(PoseDataset("none", COCO17, ()), tmp_path / "yolo", "test")
    assert set(yaml.safe_load(config.read_text())) >= {"train", "val", "kpt_shape", "flip_idx", "names"}


def test_what_yolo_cannot_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "pictures", regions=2)
    one = data[2]
    points = one.keypoints.copy()
    points[0, 0] = [-5, 3, 2]
    outside = replace(one, keypoints=points, boxes=np.array([[-10.0, 5, 90, 50]]))
    gone = replace(data[0], boxes=np.array([[90.0, 5, 99, 50], [0, 0, 10, 10]]))
    with caplog.at_level(logging.WARNING):
        back = read_yolo(write_yolo(replace(data, records=(gone, outside)), tmp_path / "yolo"))
    assert "2 ignore regions of 'bows' have no place" in caplog.text
    assert "a person whose box has no extent in the picture was left out" in caplog.text
    first, second = sorted(back, key=lambda r: r.path.name)
    assert len(first) == 1
    assert second.keypoints[0, 0].tolist() == [0, 0, 0]
    assert second.boxes.tolist() == [pytest.approx([0, 5, 80, 50])]


def test_yolo_wants_upright_pictures_and_single_names(tmp_path: Path) -> None:
    turned = record(tmp_path / "a.jpg", 1, 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(turned.path, exif=exif)
    with pytest.raises(ValueError, match=r"a\.jpg is annotated as its pixels are stored"):
        write_yolo(PoseDataset("one", BOW, (turned,)), tmp_path / "one")
    twins = (record(tmp_path / "x/a.jpg", 1, 1), record(tmp_path / "x/a.png", 2, 1))
    with pytest.raises(ValueError, match=r"a\.png and .*a\.jpg would share one file"):
        write_yolo(PoseDataset("two", BOW, twins), tmp_path / "two")


def test_round_the_formats(tmp_path: Path) -> None:
    entry = {"image": "a.png", "center": [30, 20], "scale": 0.1, "joints_vis": [1] * 15 + [0]}
    entry["joints"] = [[10.0 + i, 20.0 + 2 * i] for i in range(16)]
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "mpii.json").write_text(json.dumps([entry]))
    whole = read_dataset(tmp_path / "mpii.json")
    coco = convert_dataset(tmp_path / "mpii.json", tmp_path / "out/coco.json", "coco")
    assert (coco.path, coco.images) == (tmp_path / "out/coco.json", tmp_path)
    yolo = convert_dataset(coco.path, tmp_path / "out/yolo", "yolo", images=coco.images)
    assert yolo.images == tmp_path / "out/yolo/images/train"
    again = convert_dataset(yolo.path, tmp_path / "out/again.json", "coco")
    back = read_dataset(again.path, again.images)
    assert back.skeleton.keypoints == whole.skeleton.keypoints
    np.testing.assert_allclose(back[0].keypoints, whole[0].keypoints, atol=1e-3)
    np.testing.assert_allclose(back[0].boxes, whole[0].boxes, atol=1e-3)
    with pytest.raises(FileExistsError, match=r"again\.json is there already"):
        convert_dataset(yolo.path, tmp_path / "out/again.json", "coco")
    with pytest.raises(ValueError, match="as 'voc'"):
        convert_dataset(yolo.path, tmp_path / "out/m.json", "voc")
    with pytest.raises(ValueError, match="no part 'trains'"):
        convert_dataset(yolo.path, tmp_path / "out/y", "yolo", split="trains")
