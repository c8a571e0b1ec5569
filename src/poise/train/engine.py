"""The training loop: batches in, a trained model out.

Letters: B views of a batch.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from poise.data.views import Batch
from poise.models.base import PoseModel
from poise.nn.compiled import compile_parts
from poise.train.checkpointing import checkpoint_activations
from poise.train.config import TrainConfig
from poise.train.devices import make_accelerator, mean_of_processes, memory_in_use, share_batch_norms
from poise.train.ema import ModelEma
from poise.train.failures import NonFiniteLoss, SaveFailed
from poise.train.interrupt import StopRequest, stop_on_signals
from poise.train.optimiser import build_optimiser, freeze_parameters, frozen_batch_norms, load_optimiser, set_lr
from poise.train.patience import Patience
from poise.train.schedule import lr_factor
from poise.train.state import Position, read_state, set_random_state, undisturbed_random_state, write_state
from poise.train.teacher import Teacher
from poise.train.watching import Batches, Evaluate, Outcome, StepReport, Watcher


class Update(NamedTuple):
    """What `Trainer.step` did, in all processes together.

    Attributes:
        losses: mean loss terms and their sum as ``total``.
        grad_norm: L2 norm of the gradient before clipping.
        lr: learning rate of parameters that no rule changes.
        people: persons with a labelled keypoint.
    """

    losses: dict[str, float]
    grad_norm: float
    lr: float
    people: int


class Trainer:
    """A model in training.

    Args:
        model: the network to train; it is moved to the device and trained in place.
        batches: training data.
        config: settings of the loop.
        state: file of the state to resume from, written every ``config.save_every`` steps; None: nothing is saved.
        evaluate: measures the model every ``config.eval_every`` steps and at the end.
        watchers: who is told.
        teacher: a larger model to learn from, too.
        device: ``auto`` takes what accelerate finds (its environment variables count); others as `training_device`.

    Several processes (see `poise.train.devices.join_processes`) train one model: each has a part of every batch, and
    what is reported is of all of them together.

    Raises:
        ValueError: a rule or pattern fits nothing of the model, fp16 is asked for without a GPU, the model cannot learn
            from the teacher, or there is no such device.
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
        teacher: PoseModel | None = None,
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
        self._saved: int | None = None
        self._measured: int | None = None
        self.patience = Patience(config.patience, config.best_by)

        module = cast(nn.Module, model)
        if config.sync_batch_norm:  # it replaces the norms
            share_batch_norms(module, self.accelerator)
        freeze_parameters(module, config.freeze)
        self._frozen_norms = frozen_batch_norms(module, config.freeze_batch_norm)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        module.to(self.accelerator.device, memory_format=layout)  # type: ignore[call-overload]
        self._teacher = Teacher(teacher, model, config.teacher_weight) if teacher is not None else None
        if self._teacher is not None:
            self._teacher.to(self.accelerator.device, layout)
        self.ema = ModelEma(module, config.ema) if config.ema is not None else None
        checkpoint_activations(module, config.checkpoint_activations)
        if config.compile:
            compile_parts(module)
        self.model = model
        self._network, self._optimiser = self.accelerator.prepare(module, build_optimiser(module, config.optimiser))

    @property
    def best_model(self) -> PoseModel:
        """What is evaluated and saved: the moving average if there is one, else the model; it computes in float32.

        In mixed precision it is a copy that shares the model's weights, but not the `forward` that accelerate gave it.
        """
        if self.ema is not None:
            return cast(PoseModel, self.ema.model)
        if "forward" not in vars(self.model):
            return self.model
        plain = copy.copy(self.model)
        for name in ("forward", "_original_forward"):
            vars(plain).pop(name, None)
        return plain

    @property
    def unmeasured(self) -> bool:
        """Whether the evaluation after the current step is due but not done, as in a run that was stopped before it."""
        due = self.position.step >= self.total or self._is_due(self.config.eval_every)
        return self._evaluate is not None and due and self.position.step not in (0, self._measured)

    def watch(self, watcher: Watcher) -> None:
        """Tell one more watcher; only the main process has any."""
        if self.accelerator.is_main_process:
            self._watchers.append(watcher)

    def run(self) -> Outcome:
        """Train from the current position to the last step, until it gets no better, or until Ctrl-C or SIGTERM.

        An evaluation that was due when the run stopped is made up for first.

        Raises:
            NonFiniteLoss: a term or the gradient is not finite; the state saved last is still there.
            SaveFailed: the disk is full, for example; likewise.
            ValueError: patience counts by a metric that the evaluation does not report.
        """
        self._train_mode()
        self._restore_random()
        with stop_on_signals() as stop, closing(self._steps(stop)) as steps:
            metrics = self.measure() if self.unmeasured else {}
            for report in steps if not self.patience.exhausted else ():
                for watcher in self._watchers:
                    watcher.stepped(report)
                last = self.position.step == self.total
                if not last and self._agreed(stop):
                    break
                if last or self._is_due(self.config.save_every):
                    self.save()
                if self.unmeasured:
                    metrics = self.measure()
                    if self.patience.exhausted:
                        break
        early = self.patience.exhausted and self.position.step < self.total
        finished = early or self.position.step >= self.total
        if self._saved != self.position.step:
            self.save()
        return Outcome(self.position.step, finished, early, metrics)

    def step(self, batches: Sequence[Batch]) -> Update:
        """One update of the weights from ``config.accumulate`` batches."""
        factor = lr_factor(self.position.step, self.config.schedule, self.total)
        set_lr(self._optimiser, factor)
        sums: dict[str, float] = {}
        people = 0
        for number, batch in enumerate(batches):
            with self.accelerator.accumulate(self._network):
                terms, total, count = self._losses(batch, number)
                self.accelerator.backward(total)
                norm = self._clip(terms, batches)
                self._optimiser.step()
                self._optimiser.zero_grad()
            people += count
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        if self.ema is not None:
            self.ema.update(cast(nn.Module, self.model))
        return Update(sums, norm, factor * self.config.optimiser.lr, people)

    def measure(self) -> dict[str, float]:
        """Evaluate `best_model` in the main process, tell the watchers, and go back to training.

        Raises:
            ValueError: patience counts by a metric that is not among those measured.
        """
        metrics: dict[str, float] = {}
        if self._evaluate is not None and self.accelerator.is_main_process:
            model = self.best_model
            cast(nn.Module, model).eval()
            with undisturbed_random_state(), torch.no_grad():
                metrics = {name: float(value) for name, value in self._evaluate(model).items()}
            for watcher in self._watchers:
                watcher.evaluated(self.position.step, metrics, model)
            self._train_mode()
        if self.accelerator.num_processes > 1:
            (metrics,) = broadcast_object_list([metrics])
        self.patience.update(metrics)
        self._measured = self.position.step
        if self._saved == self.position.step or self.config.patience is not None:
            self.save()  # so that a resumed run does not measure again, and counts on from here
        return metrics

    def save(self) -> None:
        """Write the state file and tell the watchers.

        Raises:
            SaveFailed: that is not possible; files from before are untouched.
        """
        self._saved, before = self.position.step, self._saved
        if self._state is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        parts = {
            "model": cast(nn.Module, self.model).state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "patience": self.patience.state_dict(),
            "measured": self._measured,
        }
        try:
            write_state(self._state, self.position, parts)
            for watcher in self._watchers:
                watcher.saved(self.position.step, self.best_model)
        except OSError as error:
            kept = f"that of step {before} is still there" if before is not None else "there is no earlier one"
            raise SaveFailed(
                f"the state after step {self.position.step} could not be saved ({error}); {kept}"
            ) from error

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
        self.patience.load_state_dict(parts.get("patience") or self.patience.state_dict())
        self.position = position
        self._saved = position.step
        self._measured = parts.get("measured", position.step)  # files from before it was kept do not say
        self.accelerator.wait_for_everyone()  # the main process may write the next state at once
        return position

    def _steps(self, stop: StopRequest) -> Generator[StepReport]:
        """Do the remaining steps; `position` is updated after each."""
        with closing(self._stream()) as stream:
            for number in range(self.position.step, self.total):
                started = time.perf_counter()
                batches = self._fetch(stream, stop)
                if self._agreed(stop):
                    return
                waited = time.perf_counter() - started
                update = self.step(batches)
                epoch = self.position.epoch
                self.position = Position(number + 1, *self.batches.state)
                images = sum(len(batch.views) for batch in batches) * self.accelerator.num_processes
                yield StepReport(
                    step=number + 1,
                    epoch=epoch,
                    losses=update.losses,
                    lr=update.lr,
                    grad_norm=update.grad_norm,
                    images=images,
                    seconds=time.perf_counter() - started,
                    waited=waited,
                    people=update.people,
                    memory=memory_in_use(self.accelerator.device),
                )

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

    def _losses(self, batch: Batch, number: int) -> tuple[dict[str, float], Tensor, int]:
        """Mean loss terms of all processes, this one's sum to differentiate, and the number of people in all.

        Losses are float32, outside autocast. ``number`` is the batch's within its step.
        """
        device = self.accelerator.device
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        images = batch.images.to(device, non_blocking=True, memory_format=layout)
        persons = [truth.to(device) for truth in batch.persons]
        outputs = self._network(images)
        losses = self.model.loss(outputs, persons)
        if self._teacher is not None:
            losses |= self._teacher.terms(outputs, images, self.accelerator.autocast())
        people = sum(int((truth.keypoints[..., 2] > 0).any(-1).sum()) for truth in batch.persons)
        own = [value.detach().float() for value in losses.values()]
        values = torch.stack([*own, own[0].new_tensor(float(people))])
        *means, count = mean_of_processes(values, self.accelerator).tolist()
        terms = dict(zip(losses, means, strict=True)) | {"total": math.fsum(means)}
        if not all(math.isfinite(value) for value in terms.values()):
            found = dict(zip(losses, values.tolist(), strict=False))
            raise self._non_finite(found | {"total": math.fsum(found.values())}, {number: batch}, "a loss term")
        return terms, torch.stack(list(losses.values())).sum(), round(count * self.accelerator.num_processes)

    def _clip(self, terms: dict[str, float], batches: Sequence[Batch]) -> float:
        """Clip the gradient on the last batch of a step; returns its norm before that (0 on other batches)."""
        if not self.accelerator.sync_gradients:
            return 0.0
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        norm = float(self.accelerator.clip_grad_norm_(self._network.parameters(), limit))
        if self.config.precision != "fp16" and not math.isfinite(norm):  # fp16's scaler skips such a step
            raise self._non_finite(terms, dict(enumerate(batches)), f"the gradient norm ({norm:g})")
        return norm

    def _non_finite(self, terms: dict[str, float], batches: Mapping[int, Batch], what: str) -> NonFiniteLoss:
        """The error, with the terms and pictures of the processes that are to blame; all of them call this.

        ``batches`` are by their numbers within the step.
        """
        pictures = list(dict.fromkeys(name for number, batch in batches.items() for name in self._names(number, batch)))
        parts = gather_object([(terms, pictures)]) if self.accelerator.num_processes > 1 else [(terms, pictures)]
        blamed = [part for part in parts if not all(math.isfinite(value) for value in part[0].values())] or parts
        return NonFiniteLoss(self.position, blamed[0][0], [name for _, names in blamed for name in names], what)

    def _names(self, number: int, batch: Batch) -> list[str]:
        """What a batch shows; a step's batches may lie in several epochs."""
        epoch = self.position.epoch + (self.position.batch + number) // self.batches.steps_per_epoch
        return self.batches.names(epoch, [view.image_id for view in batch.views])

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
