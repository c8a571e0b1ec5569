"""Sound beside drawn pictures: at the right moment, and never the end of the pictures."""

import logging
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

from poise.predict.audio import AudioTrack  # noqa: E402
from poise.predict.video import VideoReader, VideoWriter  # noqa: E402

RATE = 20
SECONDS = 2
FLASH = 1.0
"""When a frame is white and a beep is heard, by the clock of the file."""


def write_flash(path, codec="aac", *, pictures_from=0.0, sound_from=0.0, sample_rate=16000):
    """A video with a white frame and a beep at one moment; pictures and sound begin when they are told to."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.options = {"preset": "ultrafast", "tune": "zerolatency"}
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(codec, rate=sample_rate)
        audio.layout = "mono"
        for number in range(round(pictures_from * RATE), SECONDS * RATE):
            white = number == round(FLASH * RATE)
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * white, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * number / RATE), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = np.zeros(SECONDS * sample_rate, np.int16)
        beep = slice(round(FLASH * sample_rate), round((FLASH + 0.05) * sample_rate))
        wave[beep] = 12000 * np.sin(0.5 * np.arange(beep.stop - beep.start))
        for start in range(round(sound_from * sample_rate), len(wave), 960):
            part = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="s16", layout="mono")
            part.sample_rate, part.pts, part.time_base = sample_rate, start, Fraction(1, sample_rate)
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


def copied(source, out, **part):
    with VideoReader(source, **part) as reader, VideoWriter(out, RATE, audio=source) as writer:
        for frame in reader:
            writer.add(frame.image, frame.time)
    return out


def flash_and_beep(path):
    """When the white frame is seen and the beep is heard; seconds of the file."""
    with av.open(str(path)) as container:
        white = [float(f.time) for f in container.decode(video=0) if f.to_ndarray(format="gray").mean() > 120]
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            values = frame.to_ndarray().astype(float).reshape(-1) / (1 if frame.format.name == "fltp" else 1 << 15)
            if (loud := np.flatnonzero(np.abs(values) > 0.1)).size:
                return white, float(frame.time) + float(loud[0]) / frame.sample_rate
    return white, None


def count_of_pictures(path):
    with VideoReader(path) as reader:
        return len(list(reader))


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(
    ("begin", "part", "moment"),
    [
        ({}, {}, 1.0),
        ({"pictures_from": 0.5}, {}, 0.5),
        ({"sound_from": 0.5}, {}, 1.0),
        ({"pictures_from": 0.25}, {"start": 0.5}, 0.25),
    ],
    ids=["together", "pictures later", "sound later", "a part"],
)
def test_sound_stays_with_the_pictures(tmp_path, codec, begin, part, moment):
    source = write_flash(tmp_path / "in.mkv", codec, **begin)
    white, beep = flash_and_beep(copied(source, tmp_path / "out.mp4", **part))
    assert white == pytest.approx([moment], abs=0.002)
    assert beep == pytest.approx(moment, abs=0.03)


def test_sound_from_a_file_without_pictures(tmp_path):
    source = write_flash(tmp_path / "in.mkv", sound_from=0.5)
    with av.open(str(source)) as container, av.open(str(tmp_path / "sound.mka"), "w", format="matroska") as sound:
        stream = sound.add_stream_from_template(container.streams.audio[0])
        for packet in container.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                sound.mux(packet)
    with VideoWriter(tmp_path / "out.mp4", RATE, audio=tmp_path / "sound.mka") as writer:
        for _ in range(SECONDS * RATE):
            writer.add(np.zeros((48, 64, 3), np.uint8))
    assert flash_and_beep(tmp_path / "out.mp4")[1] == pytest.approx(0.5, abs=0.03)


def damage(path, number):
    """Zeros in a packet of sound."""
    with av.open(str(path)) as container:
        packet = [(p.pos, bytes(p)) for p in container.demux(audio=0) if p.size][number]
    data = bytearray(path.read_bytes())
    place = data.index(packet[1], packet[0])
    data[place : place + len(packet[1])] = bytes(len(packet[1]))
    path.write_bytes(data)


@pytest.mark.parametrize("codec", ["flac", "eac3"])
def test_a_damaged_packet_of_sound_is_left_out(tmp_path, caplog, codec):
    """Of FLAC, which is encoded anew, and of E-AC-3, which is copied; the beep behind it is where it was."""
    source = write_flash(tmp_path / "in.mkv", codec, sample_rate=48000)
    damage(source, 8)
    with av.open(str(source)) as container, pytest.raises(av.FFmpegError):
        list(container.decode(audio=0))
    white, beep = flash_and_beep(copied(source, tmp_path / "out.mp4"))
    assert (white, count_of_pictures(tmp_path / "out.mp4")) == ([FLASH], SECONDS * RATE)
    assert beep == pytest.approx(FLASH, abs=0.03)
    assert caplog.records == []


@pytest.mark.parametrize("sample_rate", [4000, 192_000])
def test_a_rate_that_the_encoder_refuses_becomes_48000(tmp_path, sample_rate):
    source = write_flash(tmp_path / "in.mkv", "pcm_s16le", sample_rate=sample_rate)
    white, beep = flash_and_beep(copied(source, tmp_path / "out.mp4"))
    assert white == [FLASH]
    assert beep == pytest.approx(FLASH, abs=0.03)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].rate == 48_000


def test_a_container_that_cannot_hold_the_sound_gets_aac(tmp_path):
    source = write_flash(tmp_path / "in.mkv", "libopus", sample_rate=48_000)
    copied(source, tmp_path / "out.mov")
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


class Refusing:
    """A stream whose encoder fails from some call on."""

    def __init__(self, stream, call):
        self.stream, self.left = stream, call

    def encode(self, frame):
        self.left -= 1
        if self.left < 0 or frame is None:
            raise av.error.ArgumentError(22, "Invalid argument")
        return self.stream.encode(frame)


@pytest.mark.parametrize("call", [0, 9, 10**9], ids=["at once", "later", "at the end"])
def test_an_encoder_that_fails_ends_the_sound_only(tmp_path, caplog, monkeypatch, call):
    begin = AudioTrack.__init__

    def refusing(self, *rest):
        begin(self, *rest)
        self._out = Refusing(self._out, call)

    monkeypatch.setattr(AudioTrack, "__init__", refusing)
    source = write_flash(tmp_path / "in.mkv", "pcm_s16le")
    assert count_of_pictures(copied(source, tmp_path / "out.mp4")) == SECONDS * RATE
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "poise.predict.audio")
    assert record.getMessage().startswith(f"the sound of {source} ends at ")
    assert record.getMessage().endswith(" s of the video: Invalid argument")


def test_packets_that_the_file_refuses_end_the_sound_only(tmp_path, caplog, monkeypatch):
    """Time stamps that go backwards, which no file may have."""
    pieces = AudioTrack._after_start

    def backwards(self, stream):
        for piece in pieces(self, stream):
            if piece.packet.pts > 700:
                piece.packet.pts = piece.packet.dts = 0
            yield piece

    monkeypatch.setattr(AudioTrack, "_after_start", backwards)
    source = write_flash(tmp_path / "in.mkv")
    assert count_of_pictures(copied(source, tmp_path / "out.mp4")) == SECONDS * RATE
    [record] = caplog.records
    assert record.getMessage().startswith(f"the sound of {source} ends at 0.7")


@pytest.mark.parametrize("content", [None, b"no video"], ids=["missing", "no video"])
def test_sound_that_cannot_be_opened_is_missed_in_the_log(tmp_path, caplog, content):
    source = tmp_path / "sound.mkv"
    if content is not None:
        source.write_bytes(content)
    with VideoWriter(tmp_path / "out.mp4", RATE, audio=source) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    assert count_of_pictures(tmp_path / "out.mp4") == 1
    [record] = caplog.records
    assert record.getMessage().startswith(f"the sound of {source} is not kept: ")
