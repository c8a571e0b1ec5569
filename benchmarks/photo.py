"""Time from a photograph in memory to poses, by the shipped models and by torchvision's Keypoint R-CNN, taking turns.

    python benchmarks/photo.py --rounds 7 --threads 2

The photograph is ``examples/three_people.jpg`` at 640x480 with black bars. The models do all that ``predict`` does,
preprocessing and suppression included; ``pipeline`` is ``rsn_small`` on the people of the default model, ``quick`` the
default model at one view of 384 pixels. Keypoint R-CNN (ResNet-50, FPN, random weights, told to find three people)
enlarges the picture to 800x1067, as its defaults say. Freed memory stays in the process, as in that of the command line
``poise``, for everybody. Processor time is what to compare where the machine has other work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import poise
from poise.benchmark.rcnn import KeypointRCNN, picture_tensor
from poise.memory import keep_freed_memory
from poise.predict.devices import running

PHOTO = Path(__file__).resolve().parents[1] / "examples/three_people.jpg"
PEOPLE = 3


def contenders() -> dict[str, Callable[[], object]]:
    """By name, what is timed."""
    with Image.open(PHOTO) as picture:
        image = np.array(ImageOps.pad(picture.convert("RGB"), (640, 480)))
    default, direct, pipeline = poise.load(), poise.load("directpose_mobilenetv2"), poise.pipeline()
    rcnn = KeypointRCNN(running("cpu"), (800, 1333))
    return {
        "default": lambda: default.predict(image),
        "quick": lambda: default.predict(image, scales=[(384, 384)]),
        "directpose_mobilenetv2": lambda: direct.predict(image),
        "pipeline": lambda: pipeline.predict(image),
        "keypointrcnn_resnet50_fpn": lambda: rcnn.find(picture_tensor(image, rcnn.device), PEOPLE),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    tasks = contenders()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(options.rounds + 1):
        for name, task in tasks.items():
            processor, wall = time.process_time(), time.perf_counter()
            task()
            measured[name].append((1e3 * (time.process_time() - processor), 1e3 * (time.perf_counter() - wall)))
    print(f"{'':28}{'processor ms':>14}{'wall ms':>10}{'R-CNN / this':>14}")
    slow = statistics.median(p for p, _ in measured["keypointrcnn_resnet50_fpn"][1:])
    for name, values in measured.items():
        processor, wall = (statistics.median(part) for part in zip(*values[1:], strict=True))
        print(f"{name:28}{processor:14.0f}{wall:10.0f}{slow / processor:13.1f}x")
