"""Videos that are cut short are told from whole ones, and what there is of them is kept."""

import re

import pytest

from clips import SIZE, moving_dots, write_clip
from poise.predict.frames import frames

av = pytest.importorskip("av")

from poise.predict.completeness import VideoCutError  # noqa: E402
from poise.predict.video import VideoReader  # noqa: E402

COUNT = 40


def read(path, **part):
    """Numbers of the frames that come, and the error behind them."""
    found = []
    try:
        with VideoReader(path, **part) as reader:
            found.extend(frame.number for frame in reader)
    except VideoCutError as error:
        return found, str(error)
    return found, None


def cut(path, share=0.4):
    target = path.with_name(f"cut_{path.name}")
    data = path.read_bytes()
    target.write_bytes(data[: int(share * len(data))])
    return target


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A video of 4 s in several containers, with sound and without; in ``plain.mkv`` only the whole has a length."""
    folder = tmp_path_factory.mktemp("films")
    pictures = moving_dots(COUNT)
    write_clip(folder / "a.mkv", pictures)
    write_clip(folder / "b.mkv", pictures, sound="aac")
    write_clip(folder / "a.ts", pictures)
    (folder / "plain.mkv").write_bytes((folder / "b.mkv").read_bytes().replace(b"DURATION", b"DURATIOX"))
    with av.open(str(folder / "a.mkv")) as source:
        for name, options in (("a.mp4", {"movflags": "faststart"}), ("a.mov", {"movflags": "faststart"})):
            with av.open(str(folder / name), "w", options=options) as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                source.seek(0)
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        packet.stream = stream
                        target.mux(packet)
    return folder


@pytest.mark.parametrize("name", ["a.mkv", "b.mkv", "plain.mkv", "a.mp4", "a.mov"])
def test_a_cut_video_gives_what_it_has_and_says_where_it_ends(films, name):
    found, problem = read(cut(films / name))
    assert found == list(range(len(found)))
    assert 5 < len(found) < 30
    words = r"is cut short: it ends at (\d\.\d) of 4\.[01] s \(frame (\d+)\); what came before is kept"
    told = re.search(words, problem)
    assert (float(told[1]), int(told[2])) == (found[-1] / 10, found[-1])
    assert f"cut_{name} " in problem
    assert "\n" not in problem


@pytest.mark.parametrize("name", ["a.mkv", "b.mkv", "plain.mkv", "a.mp4", "a.mov", "a.ts"])
def test_whole_videos_also_with_something_behind_them_are_no_problem(films, name):
    assert read(films / name) == (list(range(COUNT)), None)
    longer = films / f"longer_{name}"
    longer.write_bytes((films / name).read_bytes() + bytes(range(256)) * 400)
    assert read(longer) == (list(range(COUNT)), None)


def test_a_part_of_a_cut_video_matters_only_where_it_is_missing(films):
    path = cut(films / "a.mkv")
    assert read(path, stop=1.0) == (list(range(10)), None)
    found, problem = read(path, start=1.0, stop=3.5, every=3)
    assert found[:2] == [10, 13]
    assert "is cut short" in problem
    found, problem = read(path, start=3.0)
    assert (found, "is cut short" in problem) == ([], True)


def test_a_small_part_may_be_missing(films):
    path = films / "a.mkv"
    assert read(cut(path, 0.96))[1] is None
    assert read(cut(path, 0.75))[1] is not None


def test_sound_may_go_on_and_a_picture_may_stand(films):
    """Eight seconds of sound with four of pictures; one picture for five seconds."""
    path = films / "song.mkv"
    pictures = moving_dots(COUNT)
    write_clip(path, pictures + pictures, sound="aac")
    with av.open(str(path)) as source, av.open(str(films / "short.mkv"), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts * packet.time_base < 4):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    (films / "plain_short.mkv").write_bytes((films / "short.mkv").read_bytes().replace(b"DURATION", b"DURATIOX"))
    for name in ("short.mkv", "plain_short.mkv"):
        found, problem = read(films / name)
        assert (found, problem) == (list(range(len(found))), None)
        assert COUNT - 3 <= len(found) <= COUNT
    with av.open(str(films / "still.mp4"), "w") as target:
        stream = target.add_stream("libx264", rate=1)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        packets = [*stream.encode(av.VideoFrame.from_ndarray(pictures[0], format="rgb24")), *stream.encode(None)]
        for packet in packets:
            packet.duration = round(5 / packet.time_base)
            target.mux(packet)
    assert read(films / "still.mp4") == ([0], None)


class Broken:
    """A container whose connection breaks after some packets, or whose packets are damaged from there on."""

    def __init__(self, container, error, after=12):
        self.container, self.error, self.after = container, error, after

    def __getattr__(self, name):
        return getattr(self.container, name)

    def demux(self, *streams):
        for number, packet in enumerate(self.container.demux(*streams)):
            if number == self.after:
                raise self.error
            yield packet


def test_a_connection_that_breaks_is_told(films):
    reader = VideoReader(films / "a.ts")
    reader._container = Broken(reader._container, ConnectionResetError(104, "Connection reset by peer"))
    found = []
    words = r"a\.ts breaks off at \d\.\d s \(frame \d+\): Connection reset by peer; what came before is kept"
    with reader, pytest.raises(VideoCutError, match=words):
        found.extend(frame.number for frame in reader)
    assert 5 < len(found) <= 12
    whole = VideoReader(films / "a.mp4")
    whole._container = Broken(whole._container, ConnectionResetError(104, "late"), after=COUNT + 1)
    with whole:
        assert len(list(whole)) == COUNT


def test_frames_come_before_the_problem(films):
    stream = frames(str(cut(films / "b.mkv")))
    assert next(stream).number == 0
    with pytest.raises(VideoCutError, match="cut_b"):
        list(stream)
