"""A run that gets no better ends early, and goes on counting when it is resumed."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from poise.train.patience import Patience
from tiny import Recorder, TinyBatches, tiny_model


def test_evaluations_without_a_better_value_are_counted() -> None:
    patience = Patience(2, "AP")
    seen = []
    for value in (0.1, 0.3, 0.3, 0.2, 0.4):
        patience.update({"AP": value})
        seen.append((patience.best, patience.since, patience.exhausted))
    assert seen == [(0.1, 0, False), (0.3, 0, False), (0.3, 1, False), (0.3, 2, True), (0.4, 0, False)]


def test_values_that_are_no_numbers_are_no_better() -> None:
    patience = Patience(2, "PCKh")
    for value in (math.nan, math.inf):
        patience.update({"AP": 0.5, "PCKh": value})
    assert patience.best is None
    assert patience.exhausted


def test_a_metric_that_is_not_measured_is_an_error() -> None:
    patience = Patience(3, "mAP")
    with pytest.raises(ValueError, match=r"best_by 'mAP' is none of the metrics .*\(AP, AR\): choose .* --set train"):
        patience.update({"AP": 0.5, "AR": 0.6})
    assert patience.since == 0
    with pytest.raises(ValueError, match=r"reports \(none\)"):
        patience.update({})


def test_without_a_number_it_never_ends() -> None:
    patience = Patience(None, "AP")
    for _ in range(100):
        patience.update({"AP": 0.0})
    assert not patience.exhausted


def run(
    state: Path, values: list[float], steps: int = 20, resume: bool = False, watcher: Any = None, **more: Any
) -> tuple[Any, Recorder]:
    seen = watcher if watcher is not None else Recorder()
    settings = TrainConfig.parse({"steps": steps, "eval_every": 2, "patience": 2, "optimiser": {"lr": 0.01}, **more})
    measured = iter(values)
    trainer = Trainer(
        tiny_model(), TinyBatches(), settings, state=state, watchers=[seen], device="cpu",
        evaluate=lambda model: {settings.best_by: next(measured)},
    )  # fmt: skip
    if resume:
        trainer.resume()
    return trainer.run(), seen


@pytest.mark.parametrize("metric", ["AP", "PCKh"])
def test_a_run_ends_early_and_is_saved(tmp_path: Path, metric: str) -> None:
    outcome, seen = run(tmp_path / "s.pt", [0.1, 0.2, 0.2, 0.1], best_by=metric)
    assert (outcome.step, outcome.finished, outcome.early) == (8, True, True)
    assert [step for step, _ in seen.metrics] == [2, 4, 6, 8]
    assert seen.saves[-1] == 8
    again, more = run(tmp_path / "s.pt", [], resume=True, best_by=metric)
    assert (again.step, again.finished, again.early, more.reports) == (8, True, True, [])
    patient, _ = run(tmp_path / "s.pt", [0.1, 0.3, 0.3, 0.3], steps=14, resume=True, best_by=metric, patience=4)
    assert (patient.step, patient.early) == (14, False)


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    outcome, _ = run(tmp_path / "s.pt", [0.3, 0.2], steps=4)
    assert (outcome.finished, outcome.early) == (True, False)
    outcome, seen = run(tmp_path / "s.pt", [0.25], resume=True)
    assert (outcome.step, outcome.early) == (6, True)
    assert [step for step, _ in seen.metrics] == [6]


def test_an_evaluation_that_a_stop_left_out_counts(tmp_path: Path) -> None:
    class Stop(Recorder):
        def stepped(self, report: Any) -> None:
            if report.step == 6:
                os.kill(os.getpid(), signal.SIGINT)

    outcome, seen = run(tmp_path / "s.pt", [0.3, 0.2], watcher=Stop())
    assert (outcome.step, outcome.finished) == (6, False)
    assert [step for step, _ in seen.metrics] == [2, 4]
    outcome, seen = run(tmp_path / "s.pt", [0.1], resume=True)
    assert (outcome.step, outcome.early, outcome.metrics) == (6, True, {"AP": 0.1})
    assert (seen.metrics, seen.reports) == ([(6, {"AP": 0.1})], [])
    outcome, seen = run(tmp_path / "s.pt", [], resume=True)
    assert (outcome.early, seen.metrics) == (True, [])


def test_patience_needs_evaluations() -> None:
    with pytest.raises(ValueError, match="give eval_every, too"):
        TrainConfig.parse({"steps": 3, "patience": 2})
