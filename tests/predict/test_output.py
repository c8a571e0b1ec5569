"""Drawn pictures and videos: what becomes of those that cannot be drawn."""

import json
from fractions import Fraction

import numpy as np
import pytest

from dots import DOTS
from poise.predict.frames import Clip, Frame
from poise.predict.output import PoseWriter
from poise.predict.video import VideoInfo, VideoReader
from poise.types import Poses

pytest.importorskip("av")


def frame(clip=None, size=(32, 48), number=0):
    image = np.zeros((*size, 3), np.uint8)
    return Frame(image, "a.png" if clip is None else clip.name, clip, number, number / 10)


def written(folder, frames, **more):
    with PoseWriter(folder, [], DOTS, 0.5, **more) as writer:
        for each in frames:
            writer.add(each, Poses.empty(DOTS, each.image.shape[:2]))


def test_a_video_whose_frames_change_their_size_ends_there(tmp_path):
    clip = Clip("clip.mkv", VideoInfo(Fraction(10), None, None, False), None)
    sizes = [(32, 48)] * 5 + [(48, 32)] * 5
    frames = [*(frame(clip, size, i) for i, size in enumerate(sizes)), frame()]
    problems, told = [], []
    written(tmp_path, frames, noted=problems.append, told=lambda f, p, w: told.append(w.drawn and w.drawn.name))
    assert len(problems) == 1
    assert problems[0].startswith("clip.mkv cannot be drawn to its end: ")
    with VideoReader(tmp_path / "clip.mp4") as reader:
        assert len(list(reader)) == 5
    assert told == ["clip.mp4"] * 5 + [None] * 5 + ["a.png"]
    images = json.loads((tmp_path / "poses.json").read_text())["images"]
    assert [i.get("drawn") for i in images] == told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "clip.mp4", "poses.json"]


def test_who_wants_no_notes_gets_an_error(tmp_path):
    (tmp_path / "a.png").mkdir()
    written(tmp_path, [frame()])
    assert (tmp_path / "a-2.png").is_file()
    wide = Frame(np.zeros((1, 65_501, 3), np.uint8), "wide.tif")
    with pytest.raises(ValueError, match="65501x1 is too large for a JPEG"):
        written(tmp_path, [wide])
