"""The bar and the lines of ``poise predict``."""

import io
import sys
from fractions import Fraction

import numpy as np
import pytest

from dots import DOTS
from poise.cli.watching import Counter, Teller, frame_bar, summary
from poise.predict.frames import Clip, Frame, Source
from poise.predict.output import Written
from poise.predict.video import VideoInfo
from poise.types import Poses

PICTURE = Source("picture", "a.png")
VIDEO = Source("video", "clip.mp4")


def clip(expected, live=False):
    return Clip("clip.mp4", VideoInfo(Fraction(10), expected, None, False), expected, live)


def frame(of=None, name="a.png"):
    return Frame(np.zeros((2, 2, 3), np.uint8), name, of)


def people(*scores, ids=None):
    n = len(scores)
    return Poses(np.zeros((n, 3, 2)), np.ones((n, 3)), np.zeros((n, 4)), np.array(scores), DOTS, ids=ids)


def test_the_total_is_known_as_far_as_sources_are_open():
    count = Counter([PICTURE, VIDEO, PICTURE])
    seen = [count.total]
    film = clip(3)
    for each in (frame(), frame(film), frame(film), frame(film), frame()):
        count.add(each)
        seen.append((count.done, count.total))
    assert seen == [3, (1, 3), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_video_may_be_longer_or_shorter_than_it_says():
    count = Counter([VIDEO, PICTURE])
    film = clip(2)
    for _ in range(4):
        count.add(frame(film))
    assert (count.done, count.total) == (4, 5)
    count.add(frame())
    assert (count.done, count.total) == (5, 5)


def test_a_camera_has_no_total():
    count = Counter([Source("camera", "0")])
    count.add(frame(clip(None, live=True)))
    assert count.total is None


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_what_is_done_and_how_long_it_takes(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    film = clip(50)
    with frame_bar([VIDEO], every_line_is_shown=True) as step:
        for _ in range(50):
            step(frame(film, "videos/clip.mp4"))
    assert "clip.mp4" in screen.getvalue()
    assert "50/50" in screen.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_no_bar_without_a_terminal_or_where_lines_tell_enough(monkeypatch, terminal):
    screen = Screen() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", Screen())
    with frame_bar([PICTURE], every_line_is_shown=True) as step:
        step(frame())
    assert screen.getvalue() == ""


def test_lines_of_pictures_and_clips(capsys):
    teller = Teller(0.5, silent=False)
    film = clip(3)
    teller.add(frame(film), people(0.9, 0.8), Written(people(0.9, 0.8, ids=[1, 2]), None))
    teller.add(frame(film), people(0.9), Written(people(0.9, ids=[3]), None))
    teller.add(frame(), people(0.9, 0.2), Written(people(0.9), None))
    teller.add(frame(clip(1)), people(), Written(people(), None))
    teller.finish()
    teller.finish()
    assert capsys.readouterr().out.splitlines() == [
        "clip.mp4: 2 frames, 2 people at once, 3 people followed",
        "a.png: 1 person",
        "clip.mp4: 1 frame, nobody",
    ]
    silent = Teller(0.5, silent=True)
    silent.add(frame(), people(0.9), Written(people(0.9), None))
    assert capsys.readouterr().out == ""
    assert summary("b.png", people(0.2), 0.5).startswith("b.png: no people found (the best candidate has score 0.20")
    assert summary("b.png", people(), 0.5) == "b.png: no people found"
