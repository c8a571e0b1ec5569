"""Short videos of moving dots, made with PyAV."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from dots import dot_picture

SIZE = (96, 128)


def dots_at(frame):
    """Two people (see `dots`) who move down, one faster than the other."""
    return [
        ((100.0, 20.0 + 0.8 * frame), (30.0, 24.0 + 0.8 * frame), 1.0),
        ((90.0, 70.0 - 0.5 * frame), (20.0, 74.0 - 0.5 * frame), 0.9),
    ]


def moving_dots(count=20):
    return [dot_picture(SIZE, dots_at(i)) for i in range(count)]


def write_clip(path, pictures, rate=10, *, sound=None, times=None, codec="libx264", sample_rate=16000):
    """Encode pictures; ``sound`` names an audio codec for a rising tone, ``times`` are of the frames (seconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.codec_context.options = {"crf": "12", "preset": "ultrafast", "g": "8"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = None
        if sound is not None:
            audio = container.add_stream(sound, rate=sample_rate)
            audio.layout = "mono"
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[i]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            _tone(container, audio, len(pictures) / rate, sample_rate)
    return path


def _tone(container, audio, seconds, sample_rate):
    moments = np.arange(int(seconds * sample_rate)) / sample_rate
    wave = (8000 * np.sin(2 * np.pi * 300 * moments * (1 + moments))).astype(np.int16)
    for start in range(0, len(wave), 960):
        part = av.AudioFrame.from_ndarray(wave[None, start : start + 960], format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = sample_rate, start, Fraction(1, sample_rate)
        container.mux(audio.encode(part))
    container.mux(audio.encode(None))


def sound_of(path):
    """(samples, seconds of the first one, rate) of a file's sound; None if it has none."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        frames = list(container.decode(audio=0))
        wave = np.concatenate([f.to_ndarray().reshape(-1).astype(float) for f in frames])
        return wave, frames[0].time, frames[0].sample_rate
