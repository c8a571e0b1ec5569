"""``poise predict`` on videos: what is written, told and kept."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clips import dots_at, moving_dots, sound_of, write_clip
from console import told
from dots import DotModel, keypoints_of
from poise import results
from poise.cli import video_options
from poise.cli.main import app
from poise.draw import STYLES
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor
from poise.predict.stream import SMOOTHERS
from poise.predict.video import VideoReader
from poise.results.coco import CocoWriter

pytest.importorskip("av")


@pytest.fixture(autouse=True)
def dots_instead_of_people(monkeypatch, tmp_path):
    monkeypatch.setattr(predictor_room, "load", lambda *a, **k: Predictor(DotModel(long_side=128), "cpu"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POISE_DEBUG", raising=False)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mov", moving_dots(16), sound="aac")


def poise(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def read(path):
    with VideoReader(path) as reader:
        return reader.info, list(reader)


def test_a_video_is_drawn_and_its_poses_are_kept(clip, tmp_path):
    result = poise("clip.mov", "--track")
    assert result.exit_code == 0, result.output
    assert result.stdout == "clip.mov: 16 frames, 2 people at once, 2 people followed -> poise-out/clip.mp4\n"
    assert told(result) == ""
    info, frames = read(tmp_path / "poise-out/clip.mp4")
    assert (info.rate, len(frames), info.has_audio) == (10, 16, True)
    assert frames[0].image.shape == moving_dots(1)[0].shape
    before, after = sound_of(clip), sound_of(tmp_path / "poise-out/clip.mp4")
    assert len(after[0]) > 0.9 * len(before[0])
    document = json.loads((tmp_path / "poise-out/poses.json").read_text())
    assert [i["frame"] for i in document["images"]] == list(range(16))
    assert document["images"][3] == {
        "id": 4, "file_name": "clip.mov", "width": 128, "height": 96, "frame": 3, "time": 0.3, "drawn": "clip.mp4",
    }  # fmt: skip
    assert {a["track_id"] for a in document["annotations"]} == {1, 2}
    poses = results.load(tmp_path / "poise-out/poses.json", DotModel().skeleton)
    for i, found in enumerate(poses):
        assert np.abs(found.keypoints - keypoints_of(dots_at(i))).max() < 1.5
        drawn = frames[i].image.astype(int) - moving_dots(16)[i]
        assert np.abs(drawn).max() > 80


def test_parts_and_every(clip, tmp_path):
    assert poise("clip.mov", "--from", "0.4", "--to", "0:01.2", "--every", 3).exit_code == 0
    info, frames = read(tmp_path / "poise-out/clip.mp4")
    assert len(frames) == 3
    assert float(info.rate) == pytest.approx(10 / 3, rel=0.01)
    document = json.loads((tmp_path / "poise-out/poses.json").read_text())
    assert [i["frame"] for i in document["images"]] == [4, 7, 10]


def test_mixed_sources_keep_their_order_and_names(clip, tmp_path):
    Image.fromarray(moving_dots(1)[0]).save("clip.png")
    (tmp_path / "b").mkdir()
    write_clip(tmp_path / "b/clip.mp4", moving_dots(3))
    result = poise("clip.mov", "clip.png", "b", "--save", "csv", "--save", "yolo")
    assert [line.split(" -> ")[1] for line in result.stdout.splitlines()] == [
        "poise-out/clip.mp4", "poise-out/clip.png", "poise-out/clip-2.mp4",
    ]  # fmt: skip
    assert len(read(tmp_path / "poise-out/clip-2.mp4")[1]) == 3
    table = (tmp_path / "poise-out/poses.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * (16 + 1 + 3)
    assert len(list((tmp_path / "poise-out/yolo").iterdir())) == 16 + 1 + 3
    again = poise("clip.mov", "clip.png", "b")
    assert again.stdout == result.stdout


def test_json_alone_writes_nothing(clip, tmp_path):
    result = poise("clip.mov", "--json", "--track", "--smooth", "offline")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert len(document["images"]) == 16
    assert "drawn" not in document["images"][0]
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mov"]


def test_a_damaged_video_does_not_stop_the_others(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    result = poise("text.mp4", "clip.mov", "nowhere.mp4")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert len(told(result).splitlines()) == 2
    assert "text.mp4 is not a readable video" in result.stderr
    assert sorted(p.name for p in (tmp_path / "poise-out").iterdir()) == ["clip.mp4", "poses.json"]


def test_an_error_leaves_no_half_video(clip, tmp_path, monkeypatch):
    detect = DotModel.detect
    calls = []

    def fails(self, images, sizes):
        calls.append(1)
        if len(calls) == 9:
            raise MemoryError
        return detect(self, images, sizes)

    monkeypatch.setattr(DotModel, "detect", fails)
    result = poise("clip.mov")
    assert (result.exit_code, told(result)[:21]) == (1, "poise: out of memory;")
    assert [p.name for p in (tmp_path / "poise-out").iterdir()] == ["poses.json"]


def test_ctrl_c_ends_the_video_where_it_is(clip, tmp_path, monkeypatch):
    detect = DotModel.detect
    calls = []

    def interrupted(self, images, sizes):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return detect(self, images, sizes)

    monkeypatch.setattr(DotModel, "detect", interrupted)
    result = poise("clip.mov")
    assert (result.exit_code, told(result)) == (130, "poise: interrupted\n")
    assert result.stdout == "clip.mov: 8 frames, 2 people at once -> poise-out/clip.mp4\n"
    assert len(read(tmp_path / "poise-out/clip.mp4")[1]) == 8
    assert len(json.loads((tmp_path / "poise-out/poses.json").read_text())["images"]) == 8
    assert sorted(p.name for p in (tmp_path / "poise-out").iterdir()) == ["clip.mp4", "poses.json"]


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_sigterm_ends_the_video_where_it_is(clip, tmp_path, monkeypatch, more):
    """Also where it comes twice, as some senders have it."""
    detect = DotModel.detect
    calls = []

    def ended(self, images, sizes):
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return detect(self, images, sizes)

    def ended_again(self):
        os.kill(os.getpid(), signal.SIGTERM)
        finish(self)

    finish = CocoWriter._finish
    monkeypatch.setattr(DotModel, "detect", ended)
    monkeypatch.setattr(CocoWriter, "_finish", ended_again)
    before = signal.getsignal(signal.SIGTERM)
    result = poise("clip.mov", "--out", "out", *more)
    assert (result.exit_code, told(result)) == (143, "poise: terminated\n")
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(read(tmp_path / "out/clip.mp4")[1]) == 8
    document = json.loads((tmp_path / "out/poses.json").read_text())
    assert len(document["images"]) == 8
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.mp4", "poses.json"]
    if more:
        assert json.loads(result.stdout) == document


@pytest.mark.slow
def test_a_real_signal_ends_a_real_process_cleanly(tmp_path):
    """Ctrl-C in the middle of a video without end."""
    code = """
import itertools, os, signal, sys
sys.path.insert(0, sys.argv[1])
from clips import moving_dots
from dots import DotModel
from poise.predict import frames, predictor
from poise.predict.frames import Clip, Frame
from poise.predict.video import VideoInfo
signal.signal(signal.SIGINT, signal.default_int_handler)
predictor.load = lambda *a, **k: predictor.Predictor(DotModel(long_side=128), "cpu")
def endless(source, part):
    clip = Clip("camera:0", VideoInfo(10, None, None, False), None, live=True)
    for i in itertools.count():
        if i == 40:
            os.kill(os.getpid(), signal.SIGINT)
        yield Frame(moving_dots(1)[0], "camera:0", clip, i, i / 10)
frames.open_source = endless
from poise.cli.main import run
sys.argv = ["poise", "predict", "0"]
run()
"""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [sys.executable, "-c", code, here]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert (result.returncode, told(result)) == (130, "poise: interrupted\n")
    frames = read(tmp_path / "poise-out/camera-0.mp4")[1]
    assert result.stdout.startswith(f"camera:0: {len(frames)} frames, 2 people at once -> ")
    count = len(json.loads((tmp_path / "poise-out/poses.json").read_text())["images"])
    assert len(frames) >= 20
    assert count == len(frames)


def test_from_standard_input(clip, tmp_path):
    write_clip(tmp_path / "in.mkv", moving_dots(4))
    result = CliRunner().invoke(app, ["predict", "-"], input=(tmp_path / "in.mkv").read_bytes())
    assert result.stdout == "-: 4 frames, 2 people at once -> poise-out/stdin.mp4\n"
    nothing = CliRunner().invoke(app, ["predict", "-"], input=b"")
    assert nothing.exit_code == 1
    assert "nothing comes from standard input" in nothing.stderr


def test_style_tiles_and_faces(clip, tmp_path, monkeypatch):
    poise("clip.mov", "--out", "plain")
    poise("clip.mov", "--out", "bold", "--style", "bold", "--show-boxes")
    poise("clip.mov", "--out", "tiles", "--tiles", "2x1")
    plain, bold, tiles = (
        read(tmp_path / name / "clip.mp4")[1][5].image.astype(int) for name in ("plain", "bold", "tiles")
    )
    assert np.abs(plain - bold).max() > 60
    assert np.abs(plain - tiles).mean() < 2
    hidden = []

    def spy(image, heads, method):
        hidden.append(method)
        return image

    monkeypatch.setattr("poise.draw.faces.cover", spy)
    assert poise("clip.mov", "--anonymise", "pixels").exit_code == 0
    assert hidden == ["pixels"] * 16


def test_usage_errors(clip):
    for arguments, words in (
        (("--smooth", "online"), "add --track"),
        (("--smooth", "much", "--track"), "--smooth 'much' is not known"),
        (("--style", "blod"), "did you mean 'bold'"),
        (("--anonymise", "x"), "--anonymise 'x' is not known; known: blur, fill, pixels"),
        (("--save", "exel"), "--save 'exel' is not known"),
        (("--from", "soon"), "write seconds"),
        (("--from", "5", "--to", "0:04"), "--to 0:04 is not after --from 5"),
        (("--every", "0"), "--every"),
    ):
        result = poise("clip.mov", *arguments)
        assert result.exit_code == 2, arguments
        assert words in " ".join(result.stderr.replace("│", " ").split())
    wrong = poise("clip.mov", "--tiles", "few")
    assert (wrong.exit_code, told(wrong).startswith("poise: tiles 'few': write columns")) == (1, True)


def test_names_of_the_options_are_those_of_the_code():
    assert set(video_options.STYLE_NAMES) == set(STYLES)
    assert set(video_options.FORMAT_NAMES) == set(results.FORMATS)
    assert set(video_options.SMOOTH_NAMES) == set(SMOOTHERS)


def test_times():
    assert video_options.parse_part("90", None, 2).start == 90
    part = video_options.parse_part("1:02:03.5", "2:00:00", 1)
    assert (part.start, part.stop) == (3723.5, 7200)
