"""Where frames come from: files, videos, cameras, networks, memory, standard input."""

import functools
import http.server
import io
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from clips import SIZE, moving_dots, sound_of, write_clip
from dots import DOTS
from poise.predict import frames as frames_room
from poise.predict import network
from poise.predict.frames import Part, Source, find_sources, frames, readable
from poise.predict.output import PoseWriter
from poise.predict.video import VideoError, VideoReader
from poise.types import Poses

pytest.importorskip("av")


@pytest.fixture
def folder(tmp_path):
    picture = Image.fromarray(moving_dots(1)[0])
    for name in ("b.png", "a10.jpg", "a2.jpg"):
        picture.save(tmp_path / name)
    write_clip(tmp_path / "clip.mp4", moving_dots(6))
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def kinds(text):
    return [(s.kind, Path(s.name).name) for s in find_sources(text)]


def test_what_texts_mean(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert kinds("b.png") == [("picture", "b.png")]
    assert kinds("clip.mp4") == [("video", "clip.mp4")]
    assert kinds(".") == [
        ("picture", "a2.jpg"), ("picture", "a10.jpg"), ("picture", "b.png"), ("video", "clip.mp4"),
    ]  # fmt: skip
    assert kinds("*2.*") == [("picture", "a2.jpg")]
    assert kinds("-") == [("stdin", "-")]
    assert kinds("0") == [("camera", "0")]
    assert kinds("camera:2") == [("camera", "2")]
    assert find_sources("rtsp://host/door?a=b") == [Source("stream", "rtsp://host/door?a=b")]
    assert find_sources("https://host/x/photo.JPG?size=3") == [Source("picture", "https://host/x/photo.JPG?size=3")]
    Path("7").mkdir()
    with pytest.raises(ValueError, match="folder 7 has no pictures and no videos"):
        find_sources("7")


def test_lists_mix_everything(folder):
    (folder / "list.txt").write_text("# sources\nb.png\n\nclip.mp4\nrtsp://host/door\nnowhere.jpg\n")
    assert kinds(folder / "list.txt") == [
        ("picture", "b.png"), ("video", "clip.mp4"), ("stream", "door"), ("picture", "nowhere.jpg"),
    ]  # fmt: skip


def test_animated_and_still_gifs(tmp_path):
    pictures = [Image.fromarray(p) for p in moving_dots(4)]
    pictures[0].save(tmp_path / "one.gif")
    pictures[0].save(tmp_path / "many.gif", save_all=True, append_images=pictures[1:], duration=100)
    (tmp_path / "broken.gif").write_text("GIF89a?")
    assert [kinds(tmp_path / f"{n}.gif")[0][0] for n in ("one", "many", "broken")] == ["picture", "video", "picture"]
    found = list(frames(tmp_path / "many.gif"))
    assert len(found) == 4
    assert found[2].time == pytest.approx(0.2, abs=0.02)


def test_mixed_sources_in_order(folder):
    array = moving_dots(1)[0]
    many = [folder / "b.png", array, Image.fromarray(array), torch.from_numpy(array).permute(2, 0, 1), "clip.mp4"]
    many[-1] = str(folder / "clip.mp4")
    many.append((folder / "b.png").read_bytes())
    found = list(frames(many))
    assert [f.name and Path(f.name).name for f in found] == ["b.png", None, None, None, *["clip.mp4"] * 6, None]
    assert [f.number for f in found] == [None] * 4 + list(range(6)) + [None]
    assert found[4].clip is found[9].clip
    assert found[0].clip is None
    assert found[4].clip.expected == 6
    assert found[4].clip.path == folder / "clip.mp4"
    assert {f.image.shape for f in found} == {(*SIZE, 3)}
    for f in (*found[:4], found[-1]):
        np.testing.assert_array_equal(f.image, array)


def test_parts_of_videos_and_not_of_pictures(folder):
    found = list(frames([str(folder / "clip.mp4"), str(folder / "b.png")], Part(0.1, 0.5, 2)))
    assert [f.number for f in found] == [1, 3, None]


def test_a_part_without_frames_is_an_error(folder):
    with pytest.raises(ValueError, match=r"clip.mp4 has no frame in the part that is wanted; it ends after 0\.6 s"):
        list(frames(str(folder / "clip.mp4"), Part(start=9)))


def test_a_missing_file_is_named_when_it_is_its_turn(folder):
    stream = frames([str(folder / "b.png"), str(folder / "nowhere.jpg")])
    assert next(stream).name == str(folder / "b.png")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg does not exist"):
        next(stream)
    with pytest.raises(FileNotFoundError, match=r"no picture and no video matches .*\*\.bmp"):
        find_sources(str(folder / "*.bmp"))


class Pipe:
    """Standard input that is no terminal."""

    def __init__(self, data):
        self.buffer = io.BufferedReader(io.BytesIO(data))

    def isatty(self):
        return False


def piped(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", Pipe(data))
    return list(frames("-"))


def test_a_picture_from_standard_input(folder, monkeypatch):
    [found] = piped(monkeypatch, (folder / "b.png").read_bytes())
    np.testing.assert_array_equal(found.image, moving_dots(1)[0])
    assert found.name == "-"


def test_a_video_from_standard_input(folder, monkeypatch):
    write_clip(folder / "clip.mkv", moving_dots(9))
    found = piped(monkeypatch, (folder / "clip.mkv").read_bytes())
    assert [f.number for f in found] == list(range(9))
    assert found[0].clip.path is None


def test_names_from_standard_input(folder, monkeypatch):
    found = piped(monkeypatch, f"{folder}/b.png\n\n# more\n{folder}/clip.mp4\n-\n".encode())
    assert [Path(f.name).name for f in found] == ["b.png"] + ["clip.mp4"] * 6


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "nothing comes from standard input"), (b"\0\1\2" * 99, "neither a picture, nor a video")]
)
def test_other_standard_input_is_named(monkeypatch, data, words):
    with pytest.raises(ValueError, match=words):
        piped(monkeypatch, data)


class Camera:
    """As ``cv2.VideoCapture``, with ``count`` frames."""

    def __init__(self, number, count=5):
        self.number, self.left, self.released = number, count, False

    def isOpened(self):  # noqa: N802
        return self.number == 0

    def get(self, what):
        return 30.0 if what == cv2.CAP_PROP_FPS else 0.0

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((4, 6, 3), (255, 0, 0), np.uint8)

    def release(self):
        self.released = True


def test_a_camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(frames_room, "newest", iter)
    found = list(frames("camera:0", Part(every=2)))
    assert [f.number for f in found] == [0, 2, 4]
    assert found[0].image[0, 0].tolist() == [0, 0, 255]
    assert found[0].time == 0
    assert found[0].time < found[1].time < found[2].time < 5
    assert (found[0].clip.live, found[0].clip.expected, found[0].clip.info.rate) == (True, None, 30)
    with pytest.raises(ValueError, match="camera 3 cannot be opened"):
        list(frames("3"))


def test_a_camera_by_its_number(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(frames_room, "newest", iter)
    assert [f.clip.name for f in frames(0)] == ["camera:0"] * 5
    assert [f.name for f in frames([0, moving_dots(1)[0]])] == ["camera:0"] * 5 + [None]
    with pytest.raises(ValueError, match="camera 3 cannot be opened"):
        list(frames(3))


@pytest.mark.parametrize("value", [None, 2.5, True, -1, [None], ["clip.mp4", 2.5], object(), [[1, 2]]])
def test_what_is_no_source_is_named(folder, monkeypatch, value):
    monkeypatch.chdir(folder)
    bad = value[-1] if isinstance(value, list) else value
    with pytest.raises(ValueError, match=r" is no source; give a path, an address, the number of a camera") as error:
        list(frames(value))
    assert str(error.value).startswith(repr(bad)[:12])


def test_of_a_camera_only_the_newest_frame_waits(monkeypatch):
    released = threading.Event()

    class Watched(Camera):
        def release(self):
            released.set()

    monkeypatch.setattr(cv2, "VideoCapture", Watched)
    found = frames("0")
    first = next(found)
    assert released.wait(30)
    assert [f.number for f in found] == ([4] if first.number < 4 else [])


@pytest.fixture
def server(folder):
    """The folder over HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_over_http(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    [found] = frames(f"{server}/b.png")
    np.testing.assert_array_equal(found.image, moving_dots(1)[0])
    found = list(frames(f"{server}/clip.mp4"))
    assert [f.number for f in found] == list(range(6))
    assert (found[0].clip.path, found[0].clip.live) == (f"{server}/clip.mp4", False)
    with pytest.raises(ValueError, match=r"nowhere\.png cannot be fetched: HTTP Error 404"):
        list(frames(f"{server}/nowhere.png"))
    with pytest.raises(VideoError, match=r"nowhere\.mp4 is not a readable video"):
        list(frames(f"{server}/nowhere.mp4"))
    monkeypatch.setattr(network, "MAX_DOWNLOAD", 100)
    with pytest.raises(ValueError, match="has more than 100 bytes"):
        list(frames(f"{server}/b.png"))
    with pytest.raises(ValueError, match="fetched from http:// and https:// addresses only"):
        list(frames("ftp://host/a.png"))


@pytest.mark.parametrize("part", [Part(), Part(start=1.5)], ids=["whole", "part"])
def test_the_sound_of_a_video_at_an_address_is_kept(folder, server, monkeypatch, tmp_path, part):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write_clip(folder / "loud.mp4", moving_dots(25), sound="aac")
    found = list(frames(f"{server}/loud.mp4", part))
    with PoseWriter(tmp_path / "out", [], DOTS, 0.5) as writer:
        for frame in found:
            writer.add(frame, Poses.empty(DOTS, SIZE))
    wave, start, rate = sound_of(tmp_path / "out/loud.mp4")
    assert start + len(wave) / rate == pytest.approx(len(found) / 10, abs=0.2)


def test_streams_use_tcp_and_a_time_limit(monkeypatch):
    asked = {}

    def spy(self, source, *, options, **part):
        asked.update(options, source=source)
        raise VideoError("enough")

    monkeypatch.setattr(VideoReader, "__init__", spy)
    with pytest.raises(VideoError):
        list(frames("rtsp://host/door"))
    assert asked == {"source": "rtsp://host/door", "rtsp_transport": "tcp", "timeout": "15000000"}


def test_lists_hold_folders_patterns_and_cameras(folder, monkeypatch):
    """All are seen from the list's folder, whatever its name."""
    home = folder / "my [lists]"
    (home / "sub").mkdir(parents=True)
    (home / "empty").mkdir()
    for name in ("2.jpg", "10.jpg", "c.png"):
        Image.fromarray(moving_dots(1)[0]).save(home / "sub" / name)
    Image.fromarray(moving_dots(1)[0]).save(home / "a[1].jpg")
    lines = "sub\nsub/*.png\na[1].jpg\n0\ncamera:3\nempty\nno*thing\n../b.png\n"
    (home / "list.txt").write_text(lines, encoding="utf-8-sig")
    assert kinds(home / "list.txt") == [
        ("picture", "2.jpg"), ("picture", "10.jpg"), ("picture", "c.png"), ("picture", "c.png"),
        ("picture", "a[1].jpg"), ("camera", "0"), ("camera", "3"), ("missing", "empty"), ("missing", "no*thing"),
        ("picture", "b.png"),
    ]  # fmt: skip
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    problems = []
    found = list(readable(find_sources(home / "list.txt"), Part(), problems.append))
    names = list(dict.fromkeys(Path(f.name).name for f in found))  # a camera gives as many frames as are taken
    assert names == ["2.jpg", "10.jpg", "c.png", "a[1].jpg", "camera:0", "b.png"]
    assert len(problems) == 3
    for words in ("camera 3 cannot be opened", "empty has no pictures and no videos", "matches"):
        assert sum(words in problem for problem in problems) == 1


def test_one_bad_source_does_not_end_the_others(folder):
    (folder / "text.jpg").write_text("no picture")
    problems = []

    def check(frame):
        if frame.name.endswith("clip.mp4"):
            raise ValueError("too long")

    sources = [Source("picture", str(folder / n)) for n in ("text.jpg", "b.png", "nowhere.png")]
    sources += [Source("video", str(folder / "clip.mp4")), Source("picture", str(folder / "a2.jpg"))]
    found = list(readable(sources, Part(), problems.append, check))
    assert [Path(f.name).name for f in found] == ["b.png", "a2.jpg"]
    assert len(problems) == 3
    assert all(name in problem for name, problem in zip(("text.jpg", "nowhere.png"), problems, strict=False))
    assert problems[-1] == f"{folder}/clip.mp4: too long"


def test_a_bad_name_on_standard_input_does_not_end_the_list(folder, monkeypatch):
    lines = f"\ufeff{folder}/nowhere.jpg\n{folder}/b.png\n{folder}/*.bmp\n{folder}/a2.jpg\n"
    monkeypatch.setattr(sys, "stdin", Pipe(lines.encode()))
    problems = []
    found = list(readable([Source("stdin", "-")], Part(), problems.append))
    assert [Path(f.name).name for f in found] == ["b.png", "a2.jpg"]
    assert [Path(p.split()[-1]).name for p in problems] == ["exist", "*.bmp"]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg does not exist"):
        piped(monkeypatch, lines.encode())


def test_closed_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="nothing comes from standard input"):
        list(frames("-"))


def test_opencv_is_silent_while_a_camera_is_opened(monkeypatch):
    from cv2.utils import logging

    levels = []

    class Noted(Camera):
        def __init__(self, number):
            levels.append(logging.getLogLevel())
            super().__init__(number)

    monkeypatch.setattr(cv2, "VideoCapture", Noted)
    before = logging.getLogLevel()
    list(frames("0"))
    assert levels == [logging.LOG_LEVEL_SILENT]
    assert logging.getLogLevel() == before != logging.LOG_LEVEL_SILENT
