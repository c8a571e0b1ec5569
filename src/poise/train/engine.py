"""The training loop: batches in, a trained model out.

Letters: B views of a batch.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from poise.data.views import Batch
from poise.models.base import PoseModel
from poise.train.config import TrainConfig
from poise.train.ema import ModelEma
from poise.train.interrupt import StopRequest, stop_on_signals
from poise.train.optimiser import build_optimiser, freeze_parameters, frozen_batch_norms, load_optimiser, set_lr
from poise.train.schedule import lr_factor
from poise.train.state import Position, read_state, set_random_state, undisturbed_random_state, write_state

Evaluate = Callable[[PoseModel], Mapping[str, float]]
"""Measures a model (in eval mode): numbers by name, ``AP`` among them if the best model is to be kept."""


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

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `state` on, without end."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did.

    Attributes:
        step: updates done, this one included.
        epoch: epoch of its first batch.
        losses: the weighted terms, averaged over the step's batches, and their sum as ``total``.
        lr: learning rate of parameters that no rule changes.
        grad_norm: L2 norm of the gradient before clipping.
        images: views seen.
        seconds: time it took, waiting for data included.
        waited: seconds of it spent waiting for data.
    """

    step: int
    epoch: int
    losses: dict[str, float]
    lr: float
    grad_norm: float
    images: int
    seconds: float
    waited: float


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


class NonFiniteLoss(ArithmeticError):  # noqa: N818 (named for what it is)
    """A loss term or the gradient became infinite or not a number; the message prints all terms, step and pictures."""

    def __init__(
        self, position: Position, terms: Mapping[str, float], image_ids: Sequence[int | str], what: str
    ) -> None:
        self.step = position.step
        self.terms = dict(terms)
        self.image_ids = list(image_ids)
        values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        ids = ", ".join(str(i) for i in image_ids)
        super().__init__(
            f"{what} is not finite at step {position.step}: {values}; pictures of epoch {position.epoch}: {ids}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call of `Trainer.run` ended.

    Attributes:
        step: updates done in all.
        finished: whether the run reached its last step; if not, it was asked to stop.
        metrics: of the last evaluation in this call.
    """

    step: int
    finished: bool
    metrics: dict[str, float] = field(default_factory=dict)


class Trainer:
    """A model in training.

    Args:
        model: the network to train; it is moved to the device and trained in place.
        batches: training data.
        config: settings of the loop.
        state: file of the state to resume from, written every ``config.save_every`` steps; None: nothing is saved.
        evaluate: measures the model every ``config.eval_every`` steps and at the end.
        watchers: who is told.
        device: ``auto`` takes what accelerate finds (its environment variables count), ``cpu`` forces the CPU.

    Raises:
        ValueError: a rule or pattern fits no parameter, or fp16 is asked for without a GPU.
    """

    def __init__(
        self,
        model: PoseModel,
        batches: Batches,
        config: TrainConfig,
        *,
        state: Path | None = None,
        evaluate: Evaluate | None = None,
        watchers: Sequence[Watcher] = (),
        device: str = "auto",
    ) -> None:
        self.config = config
        self.batches = batches
        self.total = config.total_steps(batches.steps_per_epoch)
        self.position = Position()
        self.accelerator = make_accelerator(config, device)
        self._state = state
        self._evaluate = evaluate
        self._watchers: list[Watcher] = []
        for watcher in watchers:
            self.watch(watcher)
        self._random: dict[str, Any] | None = None

        module = cast(nn.Module, model)
        freeze_parameters(module, config.freeze)
        self._frozen_norms = frozen_batch_norms(module, config.freeze_batch_norm)
        if config.sync_batch_norm:
            share_batch_norms(module, self.accelerator)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        module.to(self.accelerator.device, memory_format=layout)  # type: ignore[call-overload]
        self.ema = ModelEma(module, config.ema) if config.ema is not None else None
        if config.compile:
            module.compile()
        self.model = model
        self._network, self._optimiser = self.accelerator.prepare(module, build_optimiser(module, config.optimiser))

    @property
    def best_model(self) -> PoseModel:
        """What is evaluated and saved: the moving average if there is one, else the model."""
        return cast(PoseModel, self.ema.model) if self.ema is not None else self.model

    def watch(self, watcher: Watcher) -> None:
        """Tell one more watcher; only the main process has any."""
        if self.accelerator.is_main_process:
            self._watchers.append(watcher)

    def run(self) -> Outcome:
        """Train from the current position to the last step, or until Ctrl-C or SIGTERM.

        Raises:
            NonFiniteLoss: a term or the gradient is not finite; the state saved last is still there.
        """
        metrics: dict[str, float] = {}
        self._train_mode()
        with stop_on_signals() as stop, closing(self._steps(stop)) as steps:
            for report in steps:
                for watcher in self._watchers:
                    watcher.stepped(report)
                last = self.position.step == self.total
                if not last and self._agreed(stop):
                    break
                if last or self._is_due(self.config.save_every):
                    self.save()
                if self._evaluate is not None and (last or self._is_due(self.config.eval_every)):
                    metrics = self.measure()
        finished = self.position.step >= self.total
        if not finished:
            self.save()
        return Outcome(self.position.step, finished, metrics)

    def step(self, batches: Sequence[Batch]) -> tuple[dict[str, float], float, float]:
        """One update of the weights from ``config.accumulate`` batches: (mean loss terms, gradient norm, lr)."""
        factor = lr_factor(self.position.step, self.config.schedule, self.total)
        set_lr(self._optimiser, factor)
        sums: dict[str, float] = {}
        for batch in batches:
            with self.accelerator.accumulate(self._network):
                terms, total = self._losses(batch)
                self.accelerator.backward(total)
                norm = self._clip(terms, batch)
                self._optimiser.step()
                self._optimiser.zero_grad()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        if self.ema is not None:
            self.ema.update(cast(nn.Module, self.model))
        return sums, norm, factor * self.config.optimiser.lr

    def measure(self) -> dict[str, float]:
        """Evaluate `best_model`, tell the watchers, and go back to training."""
        metrics: dict[str, float] = {}
        if self._evaluate is not None and self.accelerator.is_main_process:
            model = self.best_model
            cast(nn.Module, model).eval()
            with undisturbed_random_state(), torch.no_grad():
                metrics = {name: float(value) for name, value in self._evaluate(model).items()}
            for watcher in self._watchers:
                watcher.evaluated(self.position.step, metrics, model)
            self._train_mode()
        self.accelerator.wait_for_everyone()
        return metrics

    def save(self) -> None:
        """Write the state file and tell the watchers."""
        if self._state is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        parts = {
            "model": cast(nn.Module, self.model).state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        write_state(self._state, self.position, parts)
        for watcher in self._watchers:
            watcher.saved(self.position.step, self.best_model)

    def resume(self) -> Position:
        """Read the state file: the next `run` does exactly what the interrupted one would have done.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged or was written by a run with another model, optimiser or EMA setting.
        """
        if self._state is None:
            raise ValueError("this trainer has no state file to resume from")
        position, parts, self._random = read_state(self._state)
        if (parts["ema"] is None) != (self.ema is None):
            raise ValueError(f"{self._state}: train.ema was switched on or off since this state was saved")
        try:
            cast(nn.Module, self.model).load_state_dict(parts["model"])
            load_optimiser(self._optimiser, parts["optimiser"])
            if self.ema is not None:
                self.ema.load_state_dict(parts["ema"])
            if self.accelerator.scaler is not None and parts["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(parts["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:500]
            raise ValueError(f"{self._state} does not fit this model and optimiser: {reason}") from None
        self.position = position
        return position

    def _steps(self, stop: StopRequest) -> Generator[StepReport]:
        """Do the remaining steps; `position` is updated after each."""
        self._restore_random()
        with closing(self._stream()) as stream:
            for number in range(self.position.step, self.total):
                started = time.perf_counter()
                batches = self._fetch(stream, stop)
                if self._agreed(stop):
                    return
                waited = time.perf_counter() - started
                losses, norm, lr = self.step(batches)
                epoch = self.position.epoch
                self.position = Position(number + 1, *self.batches.state)
                images = sum(len(batch.views) for batch in batches) * self.accelerator.num_processes
                seconds = time.perf_counter() - started
                yield StepReport(number + 1, epoch, losses, lr, norm, images, seconds, waited)

    def _fetch(self, stream: Iterator[Batch], stop: StopRequest) -> list[Batch]:
        """The batches of one step; possibly too few if a stop was requested meanwhile."""
        try:
            batches = list(itertools.islice(stream, self.config.accumulate))
        except Exception:
            if stop.requested:  # the same Ctrl-C has ended the loader's worker processes
                return []
            raise
        if len(batches) < self.config.accumulate:
            raise ValueError(f"the training data ended after {self.position.step} steps; a loader must be endless")
        return batches

    def _agreed(self, stop: StopRequest) -> bool:
        """Whether any process was asked to stop; all get the same answer, so none waits for one that has left."""
        if self.accelerator.num_processes == 1:
            return stop.requested
        requests = torch.tensor(float(stop.requested), device=self.accelerator.device)
        return bool(cast(Tensor, self.accelerator.reduce(requests, "sum")) > 0)

    def _stream(self) -> Generator[Batch]:
        """Batches from the current position on."""
        self.batches.set_state(self.position.epoch, self.position.batch)
        with undisturbed_random_state():  # starting a loader draws a seed
            batches = iter(self.batches)
            first = next(batches)
        yield first
        yield from batches

    def _losses(self, batch: Batch) -> tuple[dict[str, float], Tensor]:
        """Loss terms as numbers, and their sum to differentiate; float32, outside autocast."""
        device = self.accelerator.device
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        images = batch.images.to(device, non_blocking=True, memory_format=layout)
        persons = [truth.to(device) for truth in batch.persons]
        outputs = self._network(images)
        losses = self.model.loss(outputs, persons)
        values = torch.stack([value.detach().float() for value in losses.values()]).tolist()
        total = torch.stack(list(losses.values())).sum()
        terms = dict(zip(losses, values, strict=True)) | {"total": math.fsum(values)}
        self._check_finite(terms, terms.values(), batch, "a loss term")
        return terms, total

    def _clip(self, terms: Mapping[str, float], batch: Batch) -> float:
        """Clip the gradient on the last batch of a step; returns its norm before that (0 on other batches)."""
        if not self.accelerator.sync_gradients:
            return 0.0
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        norm = float(self.accelerator.clip_grad_norm_(self._network.parameters(), limit))
        if self.config.precision != "fp16":  # there the scaler skips the step and lowers its scale
            self._check_finite(terms, [norm], batch, f"the gradient norm ({norm:g})")
        return norm

    def _check_finite(self, terms: Mapping[str, float], values: Any, batch: Batch, what: str) -> None:
        if not all(math.isfinite(value) for value in values):
            raise NonFiniteLoss(self.position, terms, [view.image_id for view in batch.views], what)

    def _train_mode(self) -> None:
        cast(nn.Module, self.model).train()
        for norm in self._frozen_norms:
            norm.eval()

    def _restore_random(self) -> None:
        if self._random is not None:
            set_random_state(self._random)
            self._random = None

    def _is_due(self, every: int | None) -> bool:
        return every is not None and self.position.step % every == 0


def make_accelerator(config: TrainConfig, device: str) -> Accelerator:
    """The accelerator of a run; a process that trains several runs in turn may give each its own precision."""
    on_cpu = device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if config.precision == "fp16" and on_cpu:
        raise ValueError("train.precision=fp16 needs a GPU; on a CPU use bf16 or no")
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device == "cpu", mixed_precision=config.precision, gradient_accumulation_steps=config.accumulate
    )


def share_batch_norms(module: nn.Module, accelerator: Accelerator) -> None:
    """Let the batch norms of all processes share their statistics; nothing to do for a single process.

    Raises:
        ValueError: there are several processes but no GPU, where torch has no such norm.
    """
    if accelerator.num_processes == 1:
        return
    if accelerator.device.type != "cuda":
        raise ValueError("train.sync_batch_norm with several processes needs GPUs; set it to false on a CPU")
    convert_sync_batchnorm(module)
