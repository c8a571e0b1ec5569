"""``poise data``: the verbs as a user calls them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from poise.cli.main import app
from poise.data.formats import read_dataset
from poise.data.images import image_size
from poise.skeletons import COCO17
from tiny_set import write_tiny_set


def poise(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_set(tmp_path / "set", pictures=5)


def test_check(tiny):
    good = poise("check", tiny / "tiny.json", "--images", tiny / "pictures")
    assert (good.exit_code, good.stderr) == (0, "")
    assert "(coco): 5 pictures, 4 people: nothing is wrong" in good.stdout
    data = json.loads((tiny / "tiny.json").read_text())
    data["annotations"][0]["keypoints"] = [1, 2, 2]
    data["annotations"][1]["bbox"][2] = 900
    (tiny / "tiny.json").write_text(json.dumps(data))
    (tiny / "pictures/3.png").unlink()
    bad = poise("check", tiny / "tiny.json", "--images", tiny / "pictures")
    assert bad.exit_code == 1
    lines = bad.stdout.splitlines()
    assert "image 3: picture" in lines[0]
    assert lines[0].endswith("does not exist [missing-picture]")
    assert "annotation 1: keypoints has 3 numbers, expected 51 (3 x 17) [keypoint-count]" in lines[1]
    assert lines[2].startswith("warning: ")
    assert lines[3:6] == ["     1 missing-picture", "     1 keypoint-count", "     1 box-sticks-out"]
    assert lines[6].endswith("(coco): 5 pictures, 4 people: 2 errors, 1 warnings")
    told = poise("check", tiny / "tiny.json", "--images", tiny / "pictures", "--json", "--no-decode")
    assert told.exit_code == 1
    assert (json.loads(told.stdout)["errors"], json.loads(told.stdout)["warnings"]) == (2, 1)


def test_check_of_nothing(tmp_path):
    result = poise("check", tmp_path / "no.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no.json does not exist" in result.stderr
    assert result.stderr.count("\n") == 1


def test_stats(tiny, tmp_path):
    arguments = ("stats", tiny / "tiny.json", "--images", tiny / "pictures")
    result = poise(*arguments, "--plot", tmp_path / "p.png")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny: 5 pictures, 4 people, skeleton coco17"
    assert lines[1] == "1 pictures without people, 0 regions to ignore"
    nose = next(line for line in lines if line.startswith("nose"))
    assert nose.split() == ["nose", "4", "0", "0", "100.0", "%", "0.026"]
    assert image_size(tmp_path / "p.png")[1] == 1200
    numbers = json.loads(poise(*arguments, "--json").stdout)
    assert (numbers["people"], numbers["widths"]["middle"]) == (4, 96)
    assert [k["sigma"] for k in numbers["keypoints"]] == list(COCO17.sigmas)
    refused = poise(*arguments, "--plot", tmp_path / "p.gif")
    assert refused.exit_code == 1
    assert "must end in .png" in refused.stderr


def test_show(tiny, tmp_path):
    result = poise("show", tiny / "tiny.json", "--images", tiny / "pictures", "-o", tmp_path / "out", "--count", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [str(tmp_path / "out" / name) for name in ("00000_0.jpg", "00001_1.jpg")]
    more = ("-o", tmp_path / "all", "--json", "--count", 0)
    every = poise("show", tiny / "tiny.json", "--images", tiny / "pictures", *more)
    drawn = json.loads(every.stdout)["drawn"]
    assert len(drawn) == 5
    assert all(Path(file).is_file() for file in drawn)


def test_show_what_a_recipe_makes_of_it(tiny, tmp_path):
    arguments = ("show", tiny / "tiny.json", "--images", tiny / "pictures", "-o", tmp_path / "out")
    more = ("--augment", "directpose_mobilenetv2", "--set", "data.sizes=[96]", "--count", 2)
    result = poise(*arguments, *more)
    assert (result.exit_code, result.stderr) == (0, "")
    files = sorted((tmp_path / "out").iterdir())
    assert [f.name for f in files] == ["00000.jpg", "00001.jpg"]
    assert {image_size(f) for f in files} == {(96, 96)}
    assert poise(*arguments, "--set", "data.sizes=[96]").exit_code == 2
    unknown = poise(*arguments, "--augment", "directpose")
    assert unknown.exit_code == 1
    assert "directpose" in unknown.stderr


def test_convert_there_and_back(tiny, tmp_path):
    there = poise("convert", tiny / "tiny.json", tmp_path / "yolo", "--to", "yolo", "--images", tiny / "pictures")
    assert (there.exit_code, there.stderr) == (0, "")
    assert there.stdout.startswith(f"{tmp_path / 'yolo' / 'data.yaml'}: 5 pictures, 4 people, skeleton coco17")
    back = poise("convert", tmp_path / "yolo", tmp_path / "back.json", "--to", "coco", "--json")
    assert back.exit_code == 0
    assert json.loads(back.stdout) == {
        "path": str(tmp_path / "back.json"), "images": str(tmp_path / "yolo/images/train"), "pictures": 5, "people": 4,
        "skeleton": "coco17",
    }  # fmt: skip
    first = read_dataset(tiny / "tiny.json", tiny / "pictures")
    last = read_dataset(tmp_path / "back.json", tmp_path / "yolo/images/train")
    for before, after in zip(first, last, strict=True):
        np.testing.assert_allclose(after.keypoints, before.keypoints, atol=1e-3)
    again = poise("convert", tmp_path / "yolo", tmp_path / "back.json", "--to", "coco")
    assert again.exit_code == 1
    assert "is there already" in again.stderr
    unknown = poise("convert", tmp_path / "yolo", tmp_path / "x", "--to", "voc")
    assert unknown.exit_code == 1
    assert "'voc'; known: coco, crowdpose, mpii, yolo" in unknown.stderr


def test_split(tiny, tmp_path):
    arguments = ("split", tiny / "tiny.json", "--images", tiny / "pictures", "--out")
    result = poise(*arguments, tmp_path / "a", "--parts", "train=3,val=2")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith(f"{tmp_path / 'a' / 'tiny_train.json'}: 3 pictures")
    told = json.loads(poise(*arguments, tmp_path / "b", "--parts", "one=0.5, two=0.5", "--by-people", "--json").stdout)
    assert sum(part["pictures"] for part in told.values()) == 5
    assert sum(part["annotations"] for part in told.values()) == 4
    for bad in ("train", "train=x", "train=0,val=1", "a=1,a=2", "../x=1", "=1"):
        assert poise(*arguments, tmp_path / "c", "--parts", bad).exit_code == 2, bad


def test_estimated_sigmas_are_told(tiny):
    data = json.loads((tiny / "tiny.json").read_text())
    data["categories"][0]["keypoints"][0] = "snout"
    (tiny / "tiny.json").write_text(json.dumps(data))
    command = [sys.executable, "-c", "from poise.cli.main import run; run()", "data", "stats"]
    paths = [str(tiny / "tiny.json"), "--images", str(tiny / "pictures")]
    result = subprocess.run([*command, *paths], capture_output=True, text=True, check=True)
    assert "'person' has no OKS sigmas; estimated: snout 0.060 (typical)" in result.stderr
    assert result.stdout.startswith("tiny: 5 pictures")


def test_help():
    assert "split" in poise("--help").stdout
    assert poise().exit_code == 2
