"""Time from a photograph in memory to poses, by a model in torch and by files made of it, each in a process of its own.

    poise export default --format openvino --size 384x512 --out fp32.xml
    python benchmarks/exported.py default fp32.xml --rounds 8

The photograph is that of ``photo.py``; all that ``predict`` does is in the times. Processes take turns, since threads
of one runtime would wait in the way of the next's, and a round's ratios are of times that lie seconds apart. All
runtimes have all threads. Freed memory stays in the process, as in that of the command line ``poise``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import poise
from poise.memory import keep_freed_memory

PHOTO = Path(__file__).resolve().parents[1] / "examples/three_people.jpg"
CALLS, COLD = 40, 5
"""How often a process predicts, and how many of the first of these are not counted."""


def alone(model: str) -> float:
    """Median time of a call, ms, in this process."""
    with Image.open(PHOTO) as picture:
        image = np.array(ImageOps.pad(picture.convert("RGB"), (640, 480)))
    keep_freed_memory()
    predictor, times = poise.load(model), []
    for _ in range(CALLS):
        start = time.perf_counter()
        predictor.predict(image)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[COLD:])


def in_turns(models: list[str], rounds: int) -> list[list[float]]:
    """Times of the models, ms, round by round."""
    command = [sys.executable, __file__, "--alone"]
    return [
        [float(subprocess.run([*command, m], check=True, capture_output=True, text=True).stdout) for m in models]  # noqa: S603
        for _ in range(rounds)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", help="the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="print the time of one model, measured in this process")
    options = parser.parse_args()
    if options.alone:
        print(alone(options.models[0]))
        sys.exit()
    measured = in_turns(options.models, options.rounds)
    print(f"{'':28}{'median ms':>10}{'least':>8}{'most':>8}   {options.models[0]} / this, round by round")
    for model, times in zip(options.models, zip(*measured, strict=True), strict=True):
        ratios = [first[0] / own for first, own in zip(measured, times, strict=True)]
        told = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{model[-27:]:28}{statistics.median(times):10.1f}{min(times):8.1f}{max(times):8.1f}   {told}")
