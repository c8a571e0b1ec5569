"""How fast recipes train: forward, losses and backward, in several ways that take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from poise.benchmark.clock import Series, Stopwatch, Task, no_product, take_turns
from poise.benchmark.machine import describe
from poise.benchmark.report import Latency
from poise.models import PoseModel, build_model
from poise.nn.compiled import compile_parts
from poise.predict.devices import find_device
from poise.settings import nearest
from poise.skeletons import COCO17
from poise.train.config import RunConfig
from poise.train.optimiser import freeze_parameters, frozen_batch_norms
from poise.types import Persons, ViewSpec

WAYS = ("plain", "channels_last", "amp", "compiled")
"""``channels_last``: in memory. ``amp``: that, and mixed precision (bfloat16 on a CPU, float16 on a GPU). ``compiled``:
channels last, the parts that do the work by ``torch.compile``."""
PARTS = ("forward", "losses", "backward")
OTHER = "others"

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class StepRow:
    """A recipe in one way: milliseconds of the parts of a step (medians), and pictures a second of it.

    ``images_per_second`` is by the clock of the report; ``faster`` is against ``plain``.
    """

    recipe: str
    way: str
    batch: int
    size: tuple[int, int]
    parts: dict[str, Latency]
    images_per_second: float
    faster: float | None


@dataclass(frozen=True, slots=True)
class Operator:
    """What of a step's time one operator of torch takes by itself, all its calls together."""

    recipe: str
    name: str
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training benchmark found; ``profile`` is of the quickest way that is not compiled."""

    machine: dict[str, Any]
    clock: str
    rounds: int
    steps: list[StepRow]
    profile: list[Operator]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class TrainingStep:
    """Forward, losses and backward of a recipe on pictures of noise with one to four people each.

    Args:
        config: of the recipe; what it freezes is frozen.
        way: of `WAYS`.
        batch: pictures.
        side: of square pictures; a model of crops has a size of its own.
        device: where.
    """

    def __init__(self, config: RunConfig, way: str, batch: int, side: int, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = build_model(config.model)
        freeze_parameters(module, config.train.freeze)
        layout = torch.contiguous_format if way == "plain" else torch.channels_last
        module.train().to(device, memory_format=layout)  # type: ignore[call-overload]
        for norm in frozen_batch_norms(module, config.train.freeze_batch_norm):
            norm.eval()
        if way == "compiled":
            compile_parts(module)
        self._module, self._model = cast(nn.Module, module), cast(PoseModel, module)
        self.size = seen_size(self._model.view, side)
        self._truth = [t.to(device) for t in truths(batch, self.size, self._model.view)]
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(batch, 3, *self.size, generator=generator)
        self._images = images.to(device).to(memory_format=layout)
        kind = torch.float16 if device.type == "cuda" else torch.bfloat16
        self._precision = torch.autocast(device.type, kind) if way == "amp" else nullcontext()

    def __call__(self, watch: Stopwatch) -> None:
        """One step without the optimiser."""
        with watch.stage("forward"), self._precision:
            outputs = self._module(self._images)
        with watch.stage("losses"):
            total: Tensor = torch.stack(list(self._model.loss(_precise(outputs), self._truth).values())).sum()
        with watch.stage("backward"):
            total.backward()
            self._module.zero_grad()


def benchmark_training(
    recipes: dict[str, RunConfig],
    ways: Sequence[str] = ("plain", "channels_last", "amp"),
    batch: int = 8,
    side: int = 256,
    rounds: int = 3,
    device: str = "auto",
    profile: int = 8,
    advance: Advance = lambda done, total: None,
) -> TrainingReport:
    """Measure training steps.

    Args:
        recipes: settings by name.
        ways: of `WAYS`.
        batch: pictures a step.
        side: of the pictures.
        rounds: that count.
        device: as torch names it.
        profile: operators to list for each recipe; 0: none.
        advance: is told how far it is.

    Raises:
        ValueError: there is no such way or device, or a number is out of bounds.
    """
    for way in ways:
        if way not in WAYS:
            raise ValueError(f"way {way!r} is not known{nearest(way, WAYS)}")
    if min(batch, side, rounds) < 1 or not ways or not recipes:
        raise ValueError("batch, side and rounds must be at least 1, and there must be a recipe and a way")
    where, rows, operators, done = find_device(device), list[StepRow](), list[Operator](), 0
    clock = "processor" if where.type == "cpu" and torch.get_num_threads() == 1 else "wall"
    total = len(recipes) * len(ways) * (rounds + 1)

    def step() -> None:
        nonlocal done
        done += 1
        advance(done, total)

    for name, config in recipes.items():  # one after the other: the networks of all would not fit
        steps = {way: TrainingStep(config, way, batch, side, where) for way in ways}
        tasks: dict[str, Task] = dict(steps)
        measured = take_turns(tasks, no_product, rounds, where, step)
        rows += [_row(name, way, batch, steps[way].size, measured, clock) for way in ways]
        eager = [way for way in ways if way != "compiled"]
        if profile and eager:
            best = min(eager, key=lambda way: getattr(measured[way].spent(), clock))
            operators += operators_of(name, steps[best], where, profile)
    return TrainingReport(describe(where), clock, rounds, rows, operators)


def operators_of(recipe: str, step: TrainingStep, device: torch.device, count: int) -> list[Operator]:
    """The operators that a step spends most time in, and all others together."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with torch.profiler.profile(activities=activities) as seen:
        step(Stopwatch(device))
    own = [(e.key, e.self_device_time_total if gpu else e.self_cpu_time_total, e.count) for e in seen.key_averages()]
    total = max(sum(time for _, time, _ in own), 1e-9)
    best = sorted(own, key=lambda e: -e[1])[:count]
    rows = [Operator(recipe, name, time / total, calls) for name, time, calls in best]
    return [*rows, Operator(recipe, OTHER, 1 - sum(r.share for r in rows), sum(c for *_, c in own))]


def seen_size(view: ViewSpec, side: int) -> tuple[int, int]:
    """(height, width) of training pictures: the model's own, or a square whose side is a multiple of the stride."""
    length = -(-side // view.stride) * view.stride
    return view.size if view.size is not None else (length, length)


def truths(batch: int, size: tuple[int, int], view: ViewSpec) -> list[Persons]:
    """One to four people in each picture; one in each crop."""
    rng, height_width = np.random.default_rng(0), np.array(size, np.float64)
    made = []
    for number in range(batch):
        count = 1 if view.kind == "crop" else 1 + number % 4
        centre = rng.uniform(0.25, 0.75, (count, 1, 2)) * height_width[::-1]
        reach = rng.uniform(0.08, 0.25, (count, 1, 1)) * height_width.min()
        points = centre + rng.uniform(-1, 1, (count, len(COCO17), 2)) * reach
        boxes = np.concatenate([points.min(1), points.max(1)], 1)
        labelled = np.concatenate([points, np.full((count, len(COCO17), 1), 2)], 2)
        areas = 0.5 * np.prod(boxes[:, 2:] - boxes[:, :2], 1)
        made.append(Persons.from_numpy(labelled, boxes, areas, np.zeros((0, 4))))
    return made


def _row(recipe: str, way: str, batch: int, size: tuple[int, int], measured: dict[str, Series], clock: str) -> StepRow:
    seconds = max(getattr(measured[way].spent(), clock), 1e-9)
    plain = measured.get("plain")
    faster = None if plain is None else getattr(plain.spent(), clock) / seconds
    parts = {name: measured[way].spent(name) for name in PARTS}
    told = {name: Latency(1e3 * spent.wall, 1e3 * spent.processor) for name, spent in parts.items()}
    return StepRow(recipe, way, batch, size, told, batch / seconds, faster)


def _precise(outputs: Any) -> Any:
    """Outputs in float32, as the losses get them in training."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(_precise(part) for part in outputs))
    return type(outputs)(_precise(part) for part in outputs) if isinstance(outputs, list | tuple) else outputs
