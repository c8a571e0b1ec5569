"""Some steps of the tiny model; each process takes its part of the batch. Usage: two_processes.py RESULT_FOLDER."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from poise.train.failures import NonFiniteLoss
from poise.train.state import Position
from tiny import Recorder, TinyBatches, TinyModel, tiny_model


class Part(TinyBatches):
    """Every ``world``-th picture of each batch of four, from number ``rank`` on."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(batch=4)
        self.rank, self.world = rank, world

    def __iter__(self):
        for batch in super().__iter__():
            own = slice(self.rank, None, self.world)
            yield type(batch)(batch.images[own], batch.persons[own], batch.views[own])


def main(results: Path) -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    settings = TrainConfig.parse(
        {"steps": 3, "save_every": 2, "freeze_batch_norm": ["."], "ema": 0.5, "optimiser": {"lr": 0.1}}
    )
    model, seen = tiny_model(), Recorder()
    state = results / f"state-{world}.pt"
    trainer = Trainer(model, Part(rank, world), settings, state=state, watchers=[seen], device="cpu")
    outcome = trainer.run()
    assert outcome.finished
    assert trainer.position == Position(3, 1, 1)
    assert seen.saves == ([2, 3] if rank == 0 else [])
    assert not seen.reports or seen.reports[0].images == 4
    check_stop(rank, world, settings, results)
    check_patience(rank, world)
    check_made_up(rank, world, results)
    check_non_finite(rank, world, settings)
    torch.save(model.state_dict(), results / f"model-{world}-{rank}.pt")
    if rank == 0:
        torch.save([(r.losses, r.grad_norm, r.people) for r in seen.reports], results / f"reports-{world}.pt")


def check_stop(rank: int, world: int, settings: TrainConfig, results: Path) -> None:
    """A signal that reaches the last process only stops all of them, after the same step."""

    class Stop(Recorder):
        def stepped(self, report):
            if report.step == 1 and world == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    class Signalled(Part):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if number == 1 and rank == world - 1 > 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    state = results / f"stopped-{world}.pt"
    trainer = Trainer(tiny_model(), Signalled(rank, world), settings, state=state, watchers=[Stop()], device="cpu")
    outcome = trainer.run()
    assert (outcome.step, outcome.finished) == (1, False), outcome


def check_patience(rank: int, world: int) -> None:
    """All end early after the same step, though the first alone evaluates."""
    settings = TrainConfig.parse({"steps": 9, "eval_every": 1, "patience": 2})
    trainer = Trainer(tiny_model(), Part(rank, world), settings, evaluate=lambda model: {"AP": 0.5}, device="cpu")
    outcome = trainer.run()
    assert (outcome.step, outcome.early, outcome.metrics) == (3, True, {"AP": 0.5}), outcome


def check_made_up(rank: int, world: int, results: Path) -> None:
    """An evaluation that was left out is made up for by all before they go on."""
    settings = TrainConfig.parse({"steps": 2, "eval_every": 1, "patience": 5})
    state = results / f"unmeasured-{world}.pt"
    seen = Recorder()

    def trainer():
        return Trainer(
            tiny_model(), Part(rank, world), settings, state=state, evaluate=lambda model: {"AP": 0.5},
            watchers=[seen], device="cpu",
        )  # fmt: skip

    stopped = trainer()
    stopped.position = Position(1, 0, 1)
    stopped.save()
    stopped.accelerator.wait_for_everyone()
    again = trainer()
    assert again.resume() == stopped.position
    assert again.unmeasured
    assert again.run().finished
    assert [step for step, _ in seen.metrics] == ([1, 2] if rank == 0 else [])
    assert again.patience.since == 1


def check_non_finite(rank: int, world: int, settings: TrainConfig) -> None:
    """A loss that is not a number in the last process stops all of them, and all name its pictures alone."""

    class Poisoned(TinyModel):
        def loss(self, outputs, persons):
            losses = super().loss(outputs, persons)
            return losses | {"points": losses["points"] * (float("nan") if rank == world - 1 else 1.0)}

    seen = []

    class Watched(Part):
        def __iter__(self):
            for batch in super().__iter__():
                seen.append([f"0:{view.image_id}" for view in batch.views])
                yield batch

    trainer = Trainer(Poisoned(), Watched(rank, world), settings, device="cpu")
    with pytest.raises(NonFiniteLoss, match="points nan") as caught:
        trainer.run()
    assert len(caught.value.pictures) == 4 // world
    assert (caught.value.pictures == seen[0]) == (rank == world - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
