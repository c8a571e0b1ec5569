"""``poise predict`` on a video that is cut short: what there is of it is kept, and it counts as a problem."""

import json

import pytest
from typer.testing import CliRunner

from clips import moving_dots, write_clip
from dots import DotModel
from poise.cli.main import app
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor
from poise.predict.video import VideoReader

pytest.importorskip("av")


@pytest.mark.parametrize("sound", [None, "aac"])
def test_a_cut_video_is_drawn_as_far_as_it_goes_and_listed(tmp_path, monkeypatch, sound):
    monkeypatch.setattr(predictor_room, "load", lambda *a, **k: Predictor(DotModel(long_side=128), "cpu"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POISE_DEBUG", raising=False)
    data = write_clip(tmp_path / "whole.mkv", moving_dots(40), sound=sound).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: int(0.4 * len(data))])
    result = CliRunner().invoke(app, ["predict", "cut.mkv", "whole.mkv", "--every", "5"])
    assert result.exit_code == 1, result.stderr
    assert "cut.mkv is cut short: it ends at" in result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert "whole.mkv: 8 frames" in lines[1]
    images = json.loads((tmp_path / "poise-out/poses.json").read_text())["images"]
    kept = [image for image in images if image["file_name"] == "cut.mkv"]
    assert 2 <= len(kept) < 6
    with VideoReader(tmp_path / "poise-out/cut.mp4") as reader:
        assert len(list(reader)) == len(kept)
