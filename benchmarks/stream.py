"""Memory and speed of a long video from decoding to encoding, with the shipped model or without any.

Makes a video of moving noise, predicts it as ``poise predict`` does, and prints the memory of the process every few
frames: it must stay flat.

    python benchmarks/stream.py --frames 2000
    python benchmarks/stream.py --frames 300 --model default --track
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import poise
from poise.predict.frames import Source, names_of, open_source
from poise.predict.output import PoseWriter
from poise.predict.stream import find, followed, following_of
from poise.predict.video import VideoWriter
from poise.skeletons import COCO17
from poise.types import Poses


class Walkers:
    """Stands for a model: four people who move, found in no time."""

    min_score = 0.3
    skeleton = COCO17

    def predict_iter(self, images: Any, **options: Any) -> Iterator[Poses]:
        """Four poses a picture."""
        shape = np.random.default_rng(0).uniform((0, 0), (60, 180), (1, 17, 2))
        for number, image in enumerate(images):
            size = image.image.shape[:2]
            points = np.concatenate(
                [np.add(shape, (40 + 120 * i + 20 * np.sin(number / 20 + i), 60)) for i in range(4)]
            )
            boxes = np.concatenate([points.min(1), points.max(1)], 1)
            yield Poses(points, np.full((4, 17), 0.9), boxes, np.full(4, 0.8), COCO17, size)


def memory() -> float:
    """Resident memory of this process, megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def make_clip(path: Path, frames: int, size: tuple[int, int]) -> None:
    """A video of noise that moves."""
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8) // 4 + 90
    with VideoWriter(path, Fraction(25), quality=30) as writer:
        for number in range(frames):
            writer.add(np.roll(noise, number % 64, axis=1))


def run(frames: int, size: tuple[int, int], model: str | None, track: bool) -> dict[str, Any]:
    """Predict a video; memory (MB) after every twentieth of it, and frames a second."""
    predictor: Any = Walkers() if model is None else poise.load(model)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, frames, size)
        source = Source("video", str(clip))
        used, start = [], time.perf_counter()
        seen = followed(find(predictor, open_source(source), min_score=0.0), following_of(track, None, 0.3))
        with PoseWriter(Path(folder) / "out", names_of([source]), predictor.skeleton, predictor.min_score) as writer:
            for number, (frame, poses) in enumerate(seen):
                writer.add(frame, poses)
                if number % max(1, frames // 20) == 0:
                    used.append(round(memory(), 1))
        seconds = time.perf_counter() - start
    return {"frames": frames, "size": size, "frames_per_second": round(frames / seconds, 1), "memory_mb": used}


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--model", help="without one only reading, following, drawing and writing are measured")
    parser.add_argument("--track", action="store_true")
    given = parser.parse_args()
    print(json.dumps(run(given.frames, tuple(given.size), given.model, given.track)))


if __name__ == "__main__":
    main()
