"""Means of what the steps between two log lines reported."""

from __future__ import annotations

from dataclasses import dataclass

from poise.train.watching import StepReport


@dataclass(frozen=True, slots=True)
class Summary:
    """Some steps in a row, in numbers.

    Attributes:
        step: updates done at their end.
        epoch: epoch at their end.
        losses: mean of each term.
        lr: learning rate of the last step.
        grad_norm: mean gradient norm before clipping.
        images_per_second: views seen per second.
        seconds_per_step: mean duration of a step.
        waiting: share of the time spent waiting for data, 0..1.
        people: mean number of labelled persons in a view.
        memory: bytes in use at their end.
    """

    step: int
    epoch: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    images_per_second: float
    seconds_per_step: float
    waiting: float
    people: float
    memory: int


class Meter:
    """Collects step reports until `summarise` is called."""

    def __init__(self) -> None:
        self._reports: list[StepReport] = []

    def add(self, report: StepReport) -> None:
        """Count one more step."""
        self._reports.append(report)

    def summarise(self) -> Summary:
        """Means over the steps since the last call, of which there must be one."""
        reports, self._reports = self._reports, []
        count, last = len(reports), reports[-1]
        seconds = sum(r.seconds for r in reports)
        names = dict.fromkeys(name for r in reports for name in r.losses)
        return Summary(
            step=last.step,
            epoch=last.epoch,
            losses={name: sum(r.losses.get(name, 0.0) for r in reports) / count for name in names},
            lr=last.lr,
            grad_norm=sum(r.grad_norm for r in reports) / count,
            images_per_second=sum(r.images for r in reports) / max(seconds, 1e-9),
            seconds_per_step=seconds / count,
            waiting=sum(r.waited for r in reports) / max(seconds, 1e-9),
            people=sum(r.people for r in reports) / max(sum(r.images for r in reports), 1),
            memory=last.memory,
        )
