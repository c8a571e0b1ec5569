"""Time a training step on CPU: forward, losses and backward of recipes, taking turns.

    python benchmarks/training_step.py smpr_mobilenetv2 directpose_mobilenetv2 --threads 1 --rounds 5

Weights are random, the recipe freezes what it freezes; pictures are noise, with one to four people each. Processor time
is what to compare where the machine has other work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from poise.models import PoseModel, build_model
from poise.train.optimiser import freeze_parameters, frozen_batch_norms
from poise.train.recipes import recipe
from poise.types import Persons

PARTS = ("forward", "losses", "backward")


def people(count: int, keypoints: int, side: int, rng: np.random.Generator) -> Persons:
    """People of random shape somewhere in a picture."""
    centre = rng.uniform(0.25 * side, 0.75 * side, (count, 1, 2))
    points = centre + rng.uniform(-1, 1, (count, keypoints, 2)) * rng.uniform(0.08, 0.25, (count, 1, 1)) * side
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    labelled = np.concatenate([points, np.full((count, keypoints, 1), 2)], 2)
    return Persons.from_numpy(labelled, boxes, 0.5 * np.prod(boxes[:, 2:] - boxes[:, :2], 1), np.zeros((0, 4)))


def step_of(name: str, batch: int, side: int) -> Callable[[], list[float]]:
    """A function that makes one step of a recipe and returns the processor seconds of `PARTS`."""
    settings = recipe(name)
    torch.manual_seed(0)
    module = build_model(settings.model)
    freeze_parameters(module, settings.train.freeze)
    module.train().to(memory_format=torch.channels_last)
    for norm in frozen_batch_norms(module, settings.train.freeze_batch_norm):
        norm.eval()
    model, rng = cast(PoseModel, module), np.random.default_rng(0)
    truth = [people(1 + i % 4, len(model.skeleton), side, rng) for i in range(batch)]
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)

    def step() -> list[float]:
        marks = [time.process_time()]
        outputs = cast(nn.Module, model)(images)
        marks.append(time.process_time())
        total: Tensor = torch.stack(list(model.loss(outputs, truth).values())).sum()
        marks.append(time.process_time())
        total.backward()
        marks.append(time.process_time())
        module.zero_grad()
        return [after - before for before, after in pairwise(marks)]

    return step


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = {name: step_of(name, options.batch, options.side) for name in options.recipes}
    measured: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(options.rounds + 1):
        for name, step in steps.items():
            measured[name].append(step())
    print(f"{'processor ms':28}" + "".join(f"{part:>10}" for part in (*PARTS, "together")))
    for name, times in measured.items():
        counted = [[*row, sum(row)] for row in times[1:]]
        print(f"{name:28}" + "".join(f"{1e3 * statistics.median(c):10.0f}" for c in zip(*counted, strict=True)))


if __name__ == "__main__":
    main()
