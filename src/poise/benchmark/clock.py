"""Clocks for machines that have other work: contenders take turns, and every turn is set beside a matrix product."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch


class Spent(NamedTuple):
    """Time that something took.

    ``wall`` is what passed, ``processor`` what this process had of the processor in it, all threads together.
    """

    wall: float
    processor: float

    def __add__(self, other: object) -> Spent:
        """Both together."""
        if not isinstance(other, Spent):
            return NotImplemented
        return Spent(self.wall + other.wall, self.processor + other.processor)


NOTHING = Spent(0.0, 0.0)


def now(device: torch.device) -> Spent:
    """What both clocks show when the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return Spent(time.perf_counter(), time.process_time())


def between(start: Spent, end: Spent) -> Spent:
    """From one look at the clocks to another."""
    return Spent(end.wall - start.wall, end.processor - start.processor)


@dataclass(slots=True)
class Stopwatch:
    """Adds up what stages take.

    Attributes:
        device: what is waited for at the ends of a stage.
        stages: seconds of each stage so far.
        counts: other numbers that a task tells of itself, such as how many people it found.
    """

    device: torch.device
    stages: dict[str, Spent] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block and add it to that stage."""
        start = now(self.device)
        yield
        self.add(name, between(start, now(self.device)))

    def add(self, name: str, spent: Spent) -> None:
        """Add to a stage."""
        self.stages[name] = self.stages.get(name, NOTHING) + spent


Task = Callable[[Stopwatch], object]
"""Does something once and notes its stages."""


class Turn(NamedTuple):
    """One round of one task, and the matrix product just before it."""

    stages: Mapping[str, Spent]
    counts: Mapping[str, float]
    product: Spent

    def total(self, names: Iterable[str] | None = None) -> Spent:
        """Some stages together, or all of them."""
        chosen = self.stages if names is None else [name for name in names if name in self.stages]
        return sum((self.stages[name] for name in chosen), NOTHING)


@dataclass(frozen=True, slots=True)
class Series:
    """All rounds of a task. Numbers are medians over the rounds."""

    turns: tuple[Turn, ...]

    @property
    def names(self) -> list[str]:
        """The stages."""
        return list(dict.fromkeys(name for turn in self.turns for name in turn.stages))

    def spent(self, *names: str) -> Spent:
        """Seconds of some stages together; without names of all of them."""
        parts = [turn.total(names or None) for turn in self.turns]
        return Spent(statistics.median(p.wall for p in parts), statistics.median(p.processor for p in parts))

    def count(self, name: str) -> float | None:
        """A number that the task told; None if it did not."""
        told = [turn.counts[name] for turn in self.turns if name in turn.counts]
        return statistics.median(told) if told else None

    def of_product(self, names: Iterable[str], clock: str) -> float:
        """Time of some stages, in times of the matrix product that ran just before."""
        chosen = tuple(names)
        which = Spent._fields.index(clock)
        return statistics.median(turn.total(chosen)[which] / max(turn.product[which], 1e-9) for turn in self.turns)


def no_product(watch: Stopwatch) -> None:
    """Stands for the matrix product where shares of the peak are not asked for."""


def take_turns(
    tasks: Mapping[str, Task],
    product: Task,
    rounds: int,
    device: torch.device,
    step: Callable[[], None] = lambda: None,
) -> dict[str, Series]:
    """Run all tasks in turn, again and again, each just after the matrix product.

    Args:
        tasks: by name.
        product: see `poise.benchmark.machine.MatrixProduct`; may do nothing.
        rounds: that count; one more comes first, in which memory is taken and caches fill.
        device: of the tasks.
        step: called after every turn.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            before, watch = Stopwatch(device), Stopwatch(device)
            product(before)
            task(watch)
            step()
            if number:
                turns[name].append(Turn(watch.stages, watch.counts, sum(before.stages.values(), NOTHING)))
    return {name: Series(tuple(done)) for name, done in turns.items()}


def use_threads(count: int) -> None:
    """Let torch use so many threads of the processor from now on."""
    torch.set_num_threads(count)
