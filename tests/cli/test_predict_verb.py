"""``poise predict``: what is written, printed and returned."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from console import RUNNING, told
from dots import DOTS, DotModel, dot_picture, keypoints_of, random_people
from poise.cli.main import app
from poise.cli.options import parse_scales
from poise.data.images import read_image
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor

PEOPLE = random_people(np.random.default_rng(1), (90, 120), 2)


@pytest.fixture(autouse=True)
def dots_instead_of_people(monkeypatch, tmp_path):
    """Every model is the one that finds dots; the working folder is empty."""
    asked = []

    def load(name="default", *, device="auto", weights=None, **how):
        asked.append((name, device, weights, how) if any(how.values()) else (name, device, weights))
        return Predictor(DotModel(), "cpu")

    monkeypatch.setattr(predictor_room, "load", load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POISE_DEBUG", raising=False)
    return asked


def save(path, people=PEOPLE, size=(90, 120)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(dot_picture(size, people)).save(path)
    return path


def poise(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_pictures_and_poses_are_written(tmp_path):
    save(tmp_path / "pair.png")
    save(tmp_path / "one.webp", PEOPLE[:1])
    result = poise("pair.png", "one.webp")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "pair.png: 2 people -> poise-out/pair.png",
        "one.webp: 1 person -> poise-out/one.jpg",
    ]
    assert told(result) == ""
    document = json.loads((tmp_path / "poise-out/poses.json").read_text())
    assert document["images"] == [
        {"id": 1, "file_name": "pair.png", "width": 120, "height": 90, "drawn": "pair.png"},
        {"id": 2, "file_name": "one.webp", "width": 120, "height": 90, "drawn": "one.jpg"},
    ]
    assert document["categories"][0]["keypoints"] == list(DOTS.keypoints)
    assert document["categories"][0]["skeleton"] == [[1, 2], [2, 3]]
    assert [(a["id"], a["image_id"]) for a in document["annotations"]] == [(1, 1), (2, 1), (3, 2)]
    points = np.array(document["annotations"][0]["keypoints"]).reshape(3, 3)
    np.testing.assert_allclose(points[:, :2], keypoints_of(PEOPLE)[0], atol=0.2)
    for name in ("pair.png", "one.jpg"):
        drawn = read_image(tmp_path / "poise-out" / name)
        assert drawn.shape == (90, 120, 3)
    before = read_image(tmp_path / "pair.png").astype(int)
    assert np.abs(read_image(tmp_path / "poise-out/pair.png") - before).max() > 100


def test_where_the_model_runs_is_told_and_nothing_else_is_taken(dots_instead_of_people, tmp_path):
    save(tmp_path / "a.png")
    assert poise("a.png").stderr.startswith(RUNNING + "the CPU (")
    assert poise("a.png", "--json").stderr.startswith(RUNNING + "the CPU (")
    poise("a.png", "--half", "--compile", "--turns", "--device", "mps")
    assert dots_instead_of_people[-1] == ("default", "mps", None, {"half": True, "compile": True, "turns": True})
    poise("a.png", "--bf16")
    assert dots_instead_of_people[-1][3] == {"half": "bfloat16", "compile": False, "turns": False}
    both = poise("a.png", "--bf16", "--half")
    assert both.exit_code == 2
    assert "--half is float16 and --bf16 bfloat16; take one of them" in told(both)


def test_json_prints_and_writes_nothing(tmp_path):
    save(tmp_path / "pair.png")
    result = poise("pair.png", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert len(document["annotations"]) == 2
    assert "drawn" not in document["images"][0]
    assert [p.name for p in tmp_path.iterdir()] == ["pair.png"]
    both = poise("pair.png", "--json", "--out", "here")
    assert json.loads(both.stdout) == json.loads((tmp_path / "here/poses.json").read_text())
    assert (tmp_path / "here/pair.png").is_file()


def test_nobody_found_is_no_error(tmp_path):
    save(tmp_path / "empty.png", [])
    save(tmp_path / "dim.png", [(*PEOPLE[0][:2], 0.25)])
    result = poise("empty.png", "dim.png")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first == "empty.png: no people found -> poise-out/empty.png"
    assert second.startswith("dim.png: no people found (the best candidate has score 0.25, below --min-score 0.3)")
    np.testing.assert_array_equal(read_image(tmp_path / "poise-out/empty.png"), read_image(tmp_path / "empty.png"))
    assert poise("dim.png", "--min-score", "0.2").stdout.startswith("dim.png: 1 person")


def test_bad_pictures_are_listed_at_the_end_and_the_others_done(tmp_path):
    save(tmp_path / "good.png")
    save(tmp_path / "last.png")
    (tmp_path / "text.jpg").write_text("this is no picture")
    cut = save(tmp_path / "cut.jpg", size=(300, 300))
    cut.write_bytes(cut.read_bytes()[:1500])
    (tmp_path / "empty").mkdir()
    result = poise("good.png", "nowhere.jpg", "text.jpg", "cut.jpg", "empty", "no*thing", "last.png")
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["good.png", "last.png"]
    complaints = told(result).splitlines()
    assert len(complaints) == 5
    assert all(line.startswith("poise: ") for line in complaints)
    for word in (
        "nowhere.jpg does not exist",
        "text.jpg is not a picture",
        "cut.jpg",
        "empty has no pictures",
        "no*thing",
    ):
        assert sum(word in line for line in complaints) == 1
    assert len(json.loads((tmp_path / "poise-out/poses.json").read_text())["images"]) == 2


def test_nothing_to_do_does_not_load_a_model(dots_instead_of_people, tmp_path):
    result = poise("nowhere.jpg")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert told(result) == "poise: nowhere.jpg does not exist\n"
    assert dots_instead_of_people == []
    assert list(tmp_path.iterdir()) == []


def test_only_unreadable_pictures(tmp_path):
    (tmp_path / "text.jpg").write_text("this is no picture")
    result = poise("text.jpg")
    assert result.exit_code == 1
    assert told(result) == "poise: text.jpg is not a picture in a known format\n"


def test_sources_are_never_overwritten(tmp_path):
    source = save(tmp_path / "photos/a.png")
    before = source.read_bytes()
    result = poise("photos/a.png", "--out", "photos")
    assert result.exit_code == 0
    assert source.read_bytes() == before
    assert "-> photos/a-2.png" in result.stdout
    assert (tmp_path / "photos/a-2.png").is_file()


def test_files_of_others_are_never_overwritten_but_our_own_are(tmp_path):
    save(tmp_path / "a.png")
    theirs = save(tmp_path / "out/a.png", [])
    before = theirs.read_bytes()
    for _ in range(2):
        assert "-> out/a-2.png" in poise("a.png", "--out", "out").stdout
    assert theirs.read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a-2.png", "a.png", "poses.json"]


def test_equal_names_get_numbers(tmp_path):
    for name in ("x/a.jpg", "y/a.jpg", "y/a.bmp"):
        save(tmp_path / name)
    result = poise("x", "y")
    written = [line.split(" -> ")[1] for line in result.stdout.splitlines()]
    assert written == ["poise-out/a.jpg", "poise-out/a-2.jpg", "poise-out/a-3.jpg"]


def test_options_reach_the_predictor(dots_instead_of_people, monkeypatch, tmp_path):
    save(tmp_path / "a.png")
    asked = {}
    original = Predictor.predict_iter

    def spy(self, images, **options):
        asked.update(options)
        return original(self, images, **options)

    monkeypatch.setattr(Predictor, "predict_iter", spy)
    options = ("--model", "mine", "--weights", "w.safetensors", "--device", "cpu", "--batch", 3, "--scales", "96,128")
    assert poise("a.png", *options, "--flip").exit_code == 0
    [(name, device, weights)] = dots_instead_of_people
    assert (name, device, str(weights)) == ("mine", "cpu", "w.safetensors")
    assert asked == {"min_score": 0.0, "batch": 3, "scales": [96, 128], "flip": True}


def test_boxes_are_drawn_when_wanted(tmp_path):
    save(tmp_path / "a.png")
    poise("a.png", "--out", "plain")
    poise("a.png", "--out", "boxes", "--show-boxes")
    assert (read_image(tmp_path / "plain/a.png") != read_image(tmp_path / "boxes/a.png")).any()


def test_usage_errors(tmp_path):
    save(tmp_path / "a.png")
    for arguments in (
        (),
        ("a.png", "--min-score", "2"),
        ("a.png", "--batch", "0"),
        ("a.png", "--scales", "big"),
        ("a.png", "--scales", "640x"),
        ("--x",),
    ):
        result = poise(*arguments)
        assert result.exit_code == 2, arguments
        assert result.stdout == ""
        assert "Error" in result.stderr
    assert not (tmp_path / "poise-out").exists()


def test_scales_are_short_sides_or_limits_of_both():
    assert parse_scales("640,1333x800") == [640, (1333, 800)]
    assert parse_scales(None) is None


def test_mistakes_are_one_line(tmp_path):
    save(tmp_path / "a.png")
    result = poise("a.png", "--scales", "7")
    assert (result.exit_code, result.stdout) == (1, "")
    assert told(result).startswith("poise: scale 7: long_side = 7")
    assert len(told(result).splitlines()) == 1
    (tmp_path / "file").write_text("")
    blocked = poise("a.png", "--out", "file")
    assert blocked.exit_code == 1
    assert len(told(blocked).splitlines()) == 1


def test_bugs_are_one_line_too_unless_debugging(tmp_path, monkeypatch):
    def broken(name="default", **options):
        raise KeyError("weights")

    monkeypatch.setattr(predictor_room, "load", broken)
    save(tmp_path / "a.png")
    result = poise("a.png")
    assert result.exit_code == 1
    assert told(result).startswith("poise: internal error")
    assert len(told(result).splitlines()) == 1
    monkeypatch.setenv("POISE_DEBUG", "1")
    assert isinstance(poise("a.png").exception, KeyError)


@pytest.mark.parametrize("error", [MemoryError(), type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")])
def test_out_of_memory_says_what_to_do(tmp_path, monkeypatch, error):
    def detect(self, images, sizes):
        raise error

    monkeypatch.setattr(DotModel, "detect", detect)
    save(tmp_path / "a.png")
    result = poise("a.png")
    assert result.exit_code == 1
    assert told(result) == "poise: out of memory; try a smaller --batch, or smaller --scales\n"


def interrupt_the_third_look(monkeypatch):
    detect = DotModel.detect
    calls = []

    def interrupted(self, images, sizes):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(self, images, sizes)

    monkeypatch.setattr(DotModel, "detect", interrupted)


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch):
    for i in range(12):
        save(tmp_path / f"pictures/{i}.png")
    interrupt_the_third_look(monkeypatch)
    result = poise("pictures")
    assert result.exit_code == 130
    assert told(result) == "poise: interrupted\n"
    document = json.loads((tmp_path / "poise-out/poses.json").read_text())
    assert [i["drawn"] for i in document["images"]] == ["0.png", "1.png"]


def test_a_source_that_vanishes_after_it_was_read(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    detect = DotModel.detect

    def and_gone(self, images, sizes):
        shutil.move(tmp_path / "a.png", tmp_path / "b.png")
        return detect(self, images, sizes)

    monkeypatch.setattr(DotModel, "detect", and_gone)
    assert poise("a.png").stdout == "a.png: 2 people -> poise-out/a.png\n"
    drawn = read_image(tmp_path / "poise-out/a.png")
    assert (drawn != read_image(tmp_path / "b.png")).any()


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_others(tmp_path):
    long = "人" * 83
    save(tmp_path / "photos/a.png")
    save(tmp_path / f"photos/{long}.bmp")
    save(tmp_path / "photos/z.png")
    Image.new("RGB", (70_000, 4)).save(tmp_path / "photos/wide.tif")
    result = poise("photos")
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [
        "photos/a.png", "photos/wide.tif", "photos/z.png", f"photos/{long}.bmp",
    ]  # fmt: skip
    assert told(result).startswith("poise: photos/wide.tif cannot be drawn: 70000x4 is too large for a JPEG")
    assert len(told(result).splitlines()) == 1
    assert "wide.tif: no people found\n" in result.stdout
    images = json.loads((tmp_path / "poise-out/poses.json").read_text(encoding="utf-8"))["images"]
    assert [i.get("drawn") for i in images] == ["a.png", None, "z.png", f"{long}.jpg"]
    assert sorted(p.name for p in (tmp_path / "poise-out").iterdir()) == ["a.png", "poses.json", "z.png", f"{long}.jpg"]


def test_a_picture_of_too_many_tiles_does_not_stop_the_others(tmp_path):
    save(tmp_path / "a.png")
    Image.new("L", (4000, 3000)).save(tmp_path / "large.png")
    save(tmp_path / "z.png")
    result = poise("a.png", "large.png", "z.png", "--tiles", "100")
    assert result.exit_code == 1
    assert [line.split(" -> ")[0] for line in result.stdout.splitlines()] == ["a.png: 2 people", "z.png: 2 people"]
    assert told(result).startswith("poise: large.png: a picture of 4000x3000 has 2120 tiles")
    assert len(told(result).splitlines()) == 1


def test_a_name_that_is_no_utf_8(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / "photo\udcff.png")
    save(tmp_path / "z.png")
    result = poise(".", "--save", "csv", "--save", "yolo")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 2
    images = json.loads((tmp_path / "poise-out/poses.json").read_text(encoding="utf-8"))["images"]
    assert [i["drawn"] for i in images] == ["photo\udcff.png", "z.png"]
    assert (tmp_path / "poise-out/photo\udcff.png").is_file()


def test_ctrl_c_prints_the_poses_so_far(tmp_path, monkeypatch):
    for i in range(6):
        save(tmp_path / f"pictures/{i}.png")
    interrupt_the_third_look(monkeypatch)
    result = poise("pictures", "nowhere.jpg", "--json")
    assert result.exit_code == 130
    assert len(json.loads(result.stdout)["images"]) == 2
    assert told(result) == "poise: nowhere.jpg does not exist\npoise: interrupted\n"


def test_runs_that_share_a_folder_overwrite_what_is_theirs_alone(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    names = [poise(name).stdout.split(" -> ")[1].strip() for name in ("a.png", "b.png", "a.png", "b.png")]
    assert names == ["poise-out/a.png", "poise-out/b.png"] * 2
    mine = save(tmp_path / "poise-out/a.png", [])
    later = (tmp_path / "poise-out/poses.json").stat().st_mtime_ns + 10**9
    os.utime(mine, ns=(later, later))
    before = mine.read_bytes()
    for name in ("b.png", "a.png", "a.png"):
        assert f"-> poise-out/{name.replace('a.', 'a-2.')}" in poise(name).stdout
    assert mine.read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "poise-out").iterdir()) == ["a-2.png", "a.png", "b.png", "poses.json"]


def test_a_file_as_the_folder_is_told_before_a_model_is_loaded(dots_instead_of_people, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    for out in ("file", "file/deep/folder"):
        result = poise("a.png", "--out", out)
        assert (result.exit_code, told(result)) == (
            1, "poise: file is a file, not a folder; name another place with --out\n",
        )  # fmt: skip
    assert dots_instead_of_people == []


def test_saving_where_no_files_are_written_is_a_usage_error(tmp_path):
    save(tmp_path / "a.png")
    result = poise("a.png", "--json", "--save", "csv")
    assert result.exit_code == 2
    assert "add --out FOLDER" in " ".join(result.stderr.replace("│", " ").split())
    assert poise("a.png", "--json", "--save", "csv", "--out", "here").exit_code == 0
    assert (tmp_path / "here/poses.csv").is_file()


def test_that_pictures_are_not_followed_is_told(tmp_path):
    pytest.importorskip("scipy")
    save(tmp_path / "a.png")
    result = poise("a.png", "--track")
    assert result.exit_code == 0
    assert told(result).startswith("poise: --track follows people in videos, and these are pictures")
    assert len(told(result).splitlines()) == 1


def test_names_on_standard_input(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "z.png")
    result = CliRunner().invoke(app, ["predict", "-"], input="nowhere.jpg\na.png\n\nz.png\n")
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["a.png", "z.png"]
    assert told(result) == "poise: nowhere.jpg does not exist\n"
