import gzip
import json
import os
from pathlib import Path

import pytest
import yaml
from PIL import Image

from poise.data.config import SourceConfig
from poise.data.formats import find_images, known_kind, read_dataset, recognise
from poise.data.loader import read_source
from poise.data.split import split_dataset
from poise.skeletons import COCO17, CROWDPOSE14, MPII16

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")


def crowdpose(**more):
    names = [*CROWDPOSE14.keypoints[:12], "head", "neck"]
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 80, "height": 60, "crowdIndex": 0.33}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [5, 6, 2] * 14, "bbox": [1, 2, 9, 9]}],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    } | more


def mpii():
    return [{"image": "a.png", "center": [30, 30], "scale": 0.1, "joints": [[5, 6]] * 16, "joints_vis": [1] * 16}]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    (tmp_path / "crowd.json").write_text(json.dumps(crowdpose()))
    (tmp_path / "mpii.json").write_text("\n " + json.dumps(mpii()))
    (tmp_path / "labels.yaml").write_text("kpt_shape: [1, 2]\nnames: [person]\ntrain: .\n")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.5 0.5 0.5 0.5")
    (tmp_path / "skeleton.yaml").write_text("keypoints: [nose]")
    return tmp_path


def test_formats_are_recognised(folder):
    assert [recognise(folder / n) for n in ("crowd.json", "mpii.json", "labels.yaml", "")] == [
        "coco", "mpii", "yolo", "yolo",
    ]  # fmt: skip
    (folder / "marked.json").write_bytes(b"\xef\xbb\xbf{}")
    assert recognise(folder / "marked.json") == "coco"
    for name, content in (("object.json.gz", b"  {}"), ("list.json.gz", b"[]")):
        (folder / name).write_bytes(gzip.compress(content))
    assert [recognise(folder / n) for n in ("object.json.gz", "list.json.gz")] == ["coco", "mpii"]
    (folder / "cut.json.gz").write_bytes(gzip.compress(b"{}")[:12])
    with pytest.raises(ValueError, match=r"cut\.json\.gz is no gzip file, or is damaged"):
        recognise(folder / "cut.json.gz")
    with pytest.raises(FileNotFoundError, match=r"no\.json\.gz"):
        recognise(folder / "no.json.gz")
    with pytest.raises(ValueError, match=r"a\.png is neither JSON"):
        recognise(folder / "a.png")
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        recognise(folder / "no.json")
    with pytest.raises(ValueError, match="'cocos' is unknown; did you mean 'coco'"):
        known_kind("cocos")


def test_every_format_is_read(folder):
    assert read_dataset(folder / "mpii.json").skeleton is MPII16
    yolo = read_dataset(folder / "labels.yaml")
    assert (yolo.skeleton.sigmas, yolo.person_count) == ((0.026,), 1)
    assert read_dataset(folder / "labels.yaml", split="train").person_count == 1
    (folder / "skeleton.yaml").unlink()
    crowd = read_dataset(folder / "crowd.json", kind="crowdpose")
    assert (crowd.skeleton, crowd[0].crowd_index) == (CROWDPOSE14, 0.33)
    assert read_dataset(folder / "crowd.json").skeleton is CROWDPOSE14
    (folder / "crowd.json").write_text(json.dumps(crowdpose(categories=[])))
    assert read_dataset(folder / "crowd.json", kind="crowdpose", min_keypoints=15).person_count == 0


def test_crowd_index_must_be_a_number(folder):
    (folder / "skeleton.yaml").unlink()
    content = crowdpose()
    content["images"][0]["crowdIndex"] = "much"
    (folder / "crowd.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="image 1: crowdIndex holds 'much'"):
        read_dataset(folder / "crowd.json")


def test_skeletons_by_name_and_file(folder):
    assert read_dataset(folder / "crowd.json", skeleton="crowdpose14").skeleton is CROWDPOSE14
    with pytest.raises(ValueError, match="skeleton 'skeleton' has 1"):
        read_dataset(folder / "crowd.json", skeleton=folder / "skeleton.yaml")
    with pytest.raises(ValueError, match="14 keypoints, skeleton 'coco17' has 17"):
        read_dataset(folder / "crowd.json", skeleton=COCO17)


def test_pictures_are_found_where_they_usually_are(tmp_path):
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(crowdpose()))
    with pytest.raises(FileNotFoundError, match=r"a\.png.* are in none of .*name their folder"):
        find_images(file)
    for place in ("", "images", "val2017", "annotations/images", "annotations"):
        (tmp_path / place).mkdir(exist_ok=True)
        Image.new("RGB", (80, 60)).save(tmp_path / place / "a.png")
        assert find_images(file) == tmp_path / place
    file.write_text('{"images": [], "annotations": []}')
    assert find_images(file) == file.parent


@pytest.mark.parametrize(("kind", "file"), [("auto", "mpii.json"), ("mpii", "mpii.json"), ("yolo", "labels.yaml")])
def test_sources_of_training(folder, kind, file):
    source = SourceConfig(annotations=str(folder / file), images=str(folder), kind=kind, name="mine")
    assert (read_source(source).name, read_source(source).person_count) == ("mine", 1)


def test_packed_files_are_read_as_others(folder, tmp_path):
    (folder / "skeleton.yaml").unlink()
    for name in ("crowd", "mpii"):
        (folder / f"{name}.json.gz").write_bytes(gzip.compress((folder / f"{name}.json").read_bytes()))
        packed, plain = (read_dataset(folder / f"{name}.json{end}") for end in (".gz", ""))
        assert (packed.name, packed.person_count, packed.skeleton) == (name, 1, plain.skeleton)
    (folder / "crowd.skeleton.yaml").write_text(yaml.safe_dump({"keypoints": [f"k{i}" for i in range(14)]}))
    assert read_dataset(folder / "crowd.json.gz").skeleton.keypoints[0] == "k0"
    place = tmp_path / "annotations" / "person_keypoints_val2017.json.gz"
    place.parent.mkdir()
    place.write_bytes((folder / "crowd.json.gz").read_bytes())
    (tmp_path / "val2017").mkdir()
    (folder / "a.png").rename(tmp_path / "val2017/a.png")
    assert find_images(place) == tmp_path / "val2017"
    parts = split_dataset(place, tmp_path / "parts", {"all": 1})
    assert parts["all"].name == "person_keypoints_val2017_all.json"


def other_mpii(validation):
    joints = [[6 + i, 7, 1] for i in range(16)]
    entry = {"img_paths": "a.png", "objpos": [30, 30], "scale_provided": 0.1, "joint_self": joints}
    return entry if validation is None else entry | {"isValidation": validation}


@pytest.mark.parametrize("kind", ["mpii", "auto"])
def test_sources_take_a_part_of_an_mpii_file(folder, kind):
    path = folder / "both.json"
    path.write_text(json.dumps([other_mpii(flag) for flag in (0.0, 1.0, 0.0)]))
    usual = {"annotations": str(path), "images": str(folder), "kind": kind}
    counts = [read_source(SourceConfig(**usual, split=part)).person_count for part in (None, "train", "val")]
    assert counts == [3, 2, 1]
    with pytest.raises(ValueError, match=r"both\.json has no part 'test'"):
        read_source(SourceConfig(**usual, split="test"))
    path.write_text(json.dumps([other_mpii(None)]))
    with pytest.raises(ValueError, match="entry 0 has no isValidation"):
        read_source(SourceConfig(**usual, split="train"))


def test_a_part_of_another_format_is_refused(folder):
    for kind in ("coco", "crowdpose", "yolo"):
        with pytest.raises(ValueError, match=f"split = 'val' is for MPII files, not for kind '{kind}'"):
            SourceConfig(annotations="a", images="b", kind=kind, split="val")
    for name in ("crowd.json", "labels.yaml"):
        source = SourceConfig(annotations=str(folder / name), images=str(folder), kind="auto", split="train")
        with pytest.raises(ValueError, match=rf"{name} is no MPII file, which split = 'train' is for; leave it out"):
            read_source(source)
    with pytest.raises(ValueError, match=r"crowd\.json has no part 'val': only MPII files and YOLO data sets"):
        read_dataset(folder / "crowd.json", split="val")


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real pictures in {DATA}")
@pytest.mark.parametrize(
    ("file", "pictures", "people", "skeleton"),
    [
        ("mpii/test_mpii.json", 5, 5, "mpii16"),
        ("mpii/test_mpii_trb.json", 5, 5, "person"),
        ("ochuman/test_ochuman.json", 3, 5, "coco17"),
        ("crowdpose/test_crowdpose.json", 2, 4, "crowdpose14"),
    ],
)
def test_real_files(file, pictures, people, skeleton):
    dataset = read_dataset(DATA / "formats" / file)
    assert (len(dataset), dataset.person_count, dataset.skeleton.name) == (pictures, people, skeleton)
    assert [r.crowd_index for r in dataset] == ([0.33, 0.39] if "crowd" in file else [None] * pictures)
