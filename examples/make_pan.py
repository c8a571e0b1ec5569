"""Make ``pan.mp4``: five seconds of H.264 video, a camera pan across ``three_people.jpg`` and back.

Needs PyAV (``pip install av``). Run it anywhere: ``python examples/make_pan.py [OUTPUT]``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image

FOLDER = Path(__file__).resolve().parent
RATE = 20
FRAMES = 100
SIZE = (640, 480)
"""Width and height of the clip, pixels."""


def frames() -> Iterator[Image.Image]:
    """The window starts at the left edge, swings smoothly to the right edge and returns."""
    picture = Image.open(FOLDER / "three_people.jpg").convert("RGB")
    for index in range(FRAMES):
        swing = (1 - math.cos(2 * math.pi * index / FRAMES)) / 2
        left = round(swing * (picture.width - SIZE[0]))
        yield picture.crop((left, 0, left + SIZE[0], SIZE[1]))


def write(target: Path) -> None:
    """Encode `frames` to an MP4 file."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "28", "preset": "slow"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames():
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "pan.mp4"
    write(output)
    print(output)
