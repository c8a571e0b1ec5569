"""What the loop takes and what it tells: batches, reports of steps, watchers.

Letters: B views of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from poise.data.views import Batch
from poise.models.base import PoseModel

Evaluate = Callable[[PoseModel], Mapping[str, float]]
"""Measures a model (in eval mode): numbers by name, ``train.best_by`` (``AP``) among them if the best model is to be
kept or ``train.patience`` is set."""


class Batches(Protocol):
    """Endless training batches whose content depends on (epoch, number within the epoch) alone."""

    steps_per_epoch: int

    @property
    def state(self) -> tuple[int, int]:
        """(epoch, number) of the batch that comes next."""
        ...

    def set_state(self, epoch: int, batch: int = 0) -> None:
        """Go on with that batch at the next ``iter``."""
        ...

    def names(self, epoch: int, image_ids: Sequence[int | str]) -> list[str]:
        """What the views of an epoch with those ids show, in words that help to find it, such as files."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `state` on, without end."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did, in all processes together.

    Attributes:
        step: updates done, this one included.
        epoch: epoch of its first batch.
        losses: the weighted terms, averaged over the step's batches, and their sum as ``total``.
        lr: learning rate of parameters that no rule changes.
        grad_norm: L2 norm of the gradient before clipping.
        images: views seen.
        seconds: time it took, waiting for data included.
        waited: seconds of it spent waiting for data.
        people: persons with a labelled keypoint in those views.
        memory: bytes in use by the main process: the largest amount so far on a GPU, in RAM without one.
    """

    step: int
    epoch: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    images: int
    seconds: float
    waited: float
    people: int
    memory: int


class Watcher(Protocol):
    """Who is told how a run goes; `poise.train.run.RunFolder` and the progress display are watchers."""

    def stepped(self, report: StepReport) -> None:
        """A step is done."""
        ...

    def evaluated(self, step: int, metrics: Mapping[str, float], model: PoseModel) -> None:
        """``model``, in eval mode, was measured after ``step`` steps."""
        ...

    def saved(self, step: int, model: PoseModel) -> None:
        """The state after ``step`` steps was saved; ``model`` is what a user of the run gets."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of `poise.train.engine.Trainer.run` ended.

    Attributes:
        step: updates done in all.
        finished: whether the run is over; if not, it was asked to stop and can go on.
        early: whether it is over before its last step, since it had stopped getting better.
        metrics: of the last evaluation in this call.
    """

    step: int
    finished: bool
    early: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
