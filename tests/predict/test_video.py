"""Video in and out: frames, times, sizes, colours, sound, and never half a file."""

import io
from fractions import Fraction

import numpy as np
import pytest

from clips import SIZE, moving_dots, sound_of, write_clip

av = pytest.importorskip("av")

from poise.predict.video import VideoError, VideoReader, VideoWriter, _FrameTimes  # noqa: E402


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("video") / "clip.mp4", moving_dots(30), sound="aac")


def read(path, **part):
    with VideoReader(path, **part) as reader:
        return list(reader)


def test_frames_numbers_and_times(clip):
    with VideoReader(clip) as reader:
        assert (reader.info.rate, reader.info.frames, reader.info.has_audio) == (10, 30, True)
        assert reader.expected == 30
        frames = list(reader)
    assert [f.number for f in frames] == list(range(30))
    np.testing.assert_allclose([f.time for f in frames], np.arange(30) / 10, atol=1e-6)
    for frame, original in zip(frames, moving_dots(30), strict=True):
        assert frame.image.shape == (*SIZE, 3)
        assert np.abs(frame.image.astype(int) - original).mean() < 6


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ({"every": 7}, [0, 7, 14, 21, 28]),
        ({"start": 0.5, "stop": 1.0}, [5, 6, 7, 8, 9]),
        ({"start": 1.95}, list(range(20, 30))),
        ({"start": 2.0, "every": 4}, [20, 24, 28]),
        ({"stop": 0.3}, [0, 1, 2]),
        ({"start": 99.0}, []),
    ],
)
def test_parts(clip, part, numbers):
    frames = read(clip, **part)
    assert [f.number for f in frames] == numbers
    np.testing.assert_allclose([f.time for f in frames], np.array(numbers) / 10, atol=1e-6)
    for frame in frames:
        assert np.abs(frame.image.astype(int) - moving_dots(30)[frame.number]).mean() < 6
    if numbers:
        with VideoReader(clip, **part) as reader:
            assert abs(reader.expected - len(numbers)) <= 1


def test_an_open_file_that_cannot_be_wound_back(clip):
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def read(self, size=-1):
            return self.data.read(size)

    target = clip.with_suffix(".mkv")
    write_clip(target, moving_dots(10))
    frames = list(VideoReader(Pipe(target.read_bytes())))
    assert len(frames) == 10


def test_what_is_no_video_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"video .*nowhere\.mp4 does not exist"):
        VideoReader(tmp_path / "nowhere.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4 is not a readable video: Invalid data"):
        VideoReader(text)
    with pytest.raises(ValueError, match="every 0 must be at least 1"):
        VideoReader(text, every=0)
    with pytest.raises(ValueError, match=r"from 3 to 2 seconds is empty"):
        VideoReader(text, start=3, stop=2)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="has no pictures in it"):
        VideoReader(path)


def test_a_damaged_video_gives_what_can_be_read(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    assert 10 < len(read(broken)) <= 30


def test_what_is_written_is_what_is_read(tmp_path):
    pictures = moving_dots(12)
    with VideoWriter(tmp_path / "deep/out.mp4", Fraction(30000, 1001)) as writer:
        for picture in pictures:
            writer.add(picture)
    with VideoReader(tmp_path / "deep/out.mp4") as reader:
        assert float(reader.info.rate) == pytest.approx(30000 / 1001, rel=1e-4)
        frames = list(reader)
    assert len(frames) == 12
    np.testing.assert_allclose([f.time for f in frames], np.arange(12) * 1001 / 30000, atol=1e-4)
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.image.shape == picture.shape
        assert np.abs(frame.image.astype(int) - picture).mean() < 8
    with av.open(str(tmp_path / "deep/out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("colour", [(220, 30, 60), (10, 200, 90), (30, 40, 230), (128, 128, 128)])
def test_colours_are_kept(tmp_path, colour):
    with VideoWriter(tmp_path / "c.mp4", 10) as writer:
        for _ in range(3):
            writer.add(np.full((64, 64, 3), colour, np.uint8))
    assert np.abs(read(tmp_path / "c.mp4")[1].image[32, 32].astype(int) - colour).max() <= 4


def test_uneven_times_are_kept(tmp_path):
    times = [5.0, 5.1, 5.35, 5.4, 6.0]
    with VideoWriter(tmp_path / "v.mp4", 10) as writer:
        for time, picture in zip(times, moving_dots(5), strict=True):
            writer.add(picture, time)
    np.testing.assert_allclose([f.time for f in read(tmp_path / "v.mp4")], np.array(times) - 5, atol=1e-3)


def test_odd_sizes_grow_by_one(tmp_path):
    picture = moving_dots(1)[0][:51, :33]
    with VideoWriter(tmp_path / "v.mp4", 10) as writer:
        writer.add(picture)
    [frame] = read(tmp_path / "v.mp4")
    assert frame.image.shape == (52, 34, 3)
    assert np.abs(frame.image[:51, :33].astype(int) - picture).mean() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_copied(clip, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    with VideoReader(clip) as reader, VideoWriter(out, reader.info.rate, audio=clip) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time)
    before, after = sound_of(clip), sound_of(out)
    assert after[2] == before[2]
    size = min(len(before[0]), len(after[0]))
    assert size > 0.95 * len(before[0])
    assert np.corrcoef(before[0][:size], after[0][:size])[0, 1] > 0.99


def test_sound_of_a_part_starts_with_the_part(clip, tmp_path):
    out = tmp_path / "out.mp4"
    with VideoReader(clip, start=1.5, stop=2.5, every=2) as reader, VideoWriter(out, 5, audio=clip) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time)
    wave, start, rate = sound_of(out)
    assert len(wave) / rate == pytest.approx(1.0, abs=0.15)
    whole = sound_of(clip)[0]
    lag = np.correlate(whole, wave[2000:8000], "valid").argmax() - 2000 - round(start * rate)
    assert lag / rate == pytest.approx(1.5, abs=0.1)


def test_sound_that_mp4_cannot_hold_is_encoded_anew(tmp_path):
    source = write_clip(tmp_path / "pcm.mkv", moving_dots(20), sound="pcm_s16le")
    out = tmp_path / "out.mp4"
    with VideoReader(source) as reader, VideoWriter(out, 10, audio=source) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time)
    before, after = sound_of(source), sound_of(out)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert len(after[0]) / after[2] == pytest.approx(len(before[0]) / before[2], abs=0.15)


def test_a_video_without_sound_stays_so(tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", moving_dots(3))
    with VideoWriter(tmp_path / "out.mp4", 10, audio=silent) as writer:
        writer.add(moving_dots(1)[0])
    assert sound_of(tmp_path / "out.mp4") is None


def test_an_error_leaves_no_file_and_ctrl_c_a_whole_one(tmp_path):
    out = tmp_path / "out.mp4"
    out.write_text("before")

    def write(error):
        with VideoWriter(out, 10) as writer:
            for picture in moving_dots(7):
                writer.add(picture)
            raise error

    with pytest.raises(RuntimeError):
        write(RuntimeError("stop"))
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt())
    assert len(read(out)) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_no_frame_no_file(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 10) as writer:
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_writers_name_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"out\.avi: videos are written as \.mkv, \.mov, \.mp4"):
        VideoWriter(tmp_path / "out.avi", 10)
    with pytest.raises(ValueError, match="rate 0 must be positive"):
        VideoWriter(tmp_path / "out.mp4", 0)

    def other_size():
        with VideoWriter(tmp_path / "out.mp4", 10) as writer:
            writer.add(moving_dots(1)[0])
            writer.add(moving_dots(1)[0][:50])

    with pytest.raises(ValueError, match=r"frame 1 has size \(50, 128\), the first one \(96, 128\)"):
        other_size()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_phones_that_were_turned(tmp_path, monkeypatch, degrees):
    """The turn that a file asks for, in the direction of FFmpeg: counter-clockwise."""
    path = write_clip(tmp_path / "t.mp4", moving_dots(2))
    plain = read(path)[0].image

    class Turned:
        rotation = degrees

        def __init__(self, frame):
            self.frame, self.time = frame, frame.time

        def to_ndarray(self, format):
            return self.frame.to_ndarray(format=format)

    original = VideoReader._decoded
    monkeypatch.setattr(VideoReader, "_decoded", lambda self: map(Turned, original(self)))
    np.testing.assert_array_equal(read(path)[0].image, np.rot90(plain, degrees // 90))


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([5.0, 5.1, 5.3], [0.0, 0.1, 0.3]),
        ([None, None, None], [0.0, 0.1, 0.2]),
        ([None, 5.0, 5.1], [0.0, 0.1, 0.2]),  # the first frame of an RTSP stream
        ([5.0, None, 5.2, 5.3], [0.0, 0.1, 0.2, 0.3]),
        ([5.0, 5.1, 5.1, 5.2], [0.0, 0.1, 0.1001, 0.2]),
        ([5.0, 5.1, 5.05, 5.2], [0.0, 0.1, 0.1001, 0.2]),
        ([65.0, 65.1, 5.0, 5.1], [0.0, 0.1, 0.2, 0.3]),  # a camera that was restarted
    ],
)
def test_times_grow_whatever_the_time_stamps_say(stamps, times):
    clock = _FrameTimes(next((s for s in stamps if s is not None), 0.0), 0.1)
    assert [clock.time(stamp) for stamp in stamps] == pytest.approx(times)
