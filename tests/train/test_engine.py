"""The loop: it learns, resumes to the bit, accumulates, stops on nonsense, and stops when asked."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poise.data.views import Batch
from poise.train import engine
from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from poise.train.failures import NonFiniteLoss
from poise.train.watching import StepReport
from tiny import Recorder, TinyBatches, TinyModel, tiny_model


def config(**changes: Any) -> TrainConfig:
    base = {
        "steps": 12,
        "optimiser": {"kind": "sgd", "lr": 0.05},
        "schedule": {"kind": "cosine", "warmup": 3},
        "clip_norm": 10.0,
        "ema": 0.9,
        "save_every": 1000,
    }
    return TrainConfig.parse(base | changes)


def trainer(model: TinyModel, settings: TrainConfig, batches: Any = None, **more: Any) -> Trainer:
    return Trainer(model, batches if batches is not None else TinyBatches(), settings, device="cpu", **more)


def all_tensors(t: Trainer) -> dict[str, torch.Tensor]:
    assert t.ema is not None
    return dict(t.model.state_dict()) | {f"ema.{n}": v for n, v in t.ema.model.state_dict().items()}


class StopAfter(Recorder):
    """Asks for a stop, as Ctrl-C does, after some step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, report: Any) -> None:
        super().stepped(report)
        if report.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_loss_falls() -> None:
    seen = Recorder()
    settings = config(steps=300, optimiser={"kind": "adamw", "lr": 0.02}, ema=None)
    outcome = trainer(tiny_model(width=8), settings, watchers=[seen]).run()
    assert outcome.finished
    assert outcome.step == 300
    assert seen.reports[-1].losses["total"] < 0.5 * seen.reports[0].losses["total"]


def test_total_is_the_sum_of_the_terms_and_lr_follows_the_schedule() -> None:
    seen = Recorder()
    trainer(tiny_model(), config(schedule={"kind": "linear"}), watchers=[seen]).run()
    for number, report in enumerate(seen.reports):
        assert report.losses["total"] == pytest.approx(report.losses["score"] + report.losses["points"], rel=1e-6)
        assert report.lr == pytest.approx(0.05 * (1 - number / 12))
        assert report.images == 2
        assert report.grad_norm > 0
    assert [r.step for r in seen.reports] == list(range(1, 13))
    assert [r.epoch for r in seen.reports] == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("stop_at", [3, 4, 7])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_resuming_equals_not_having_stopped(tmp_path: Path, stop_at: int, kind: str) -> None:
    """Weights, average, momenta and the pictures seen are equal to the last bit; step 4 ends an epoch."""
    settings = config(optimiser={"kind": kind, "lr": 0.02}, accumulate=1)
    torch.manual_seed(11)
    whole_seen = Recorder()
    whole = trainer(tiny_model(dropout=0.3), settings, watchers=[whole_seen])
    whole.run()

    torch.manual_seed(11)
    first_seen = StopAfter(stop_at)
    state = tmp_path / "state.pt"
    first = trainer(tiny_model(dropout=0.3), settings, state=state, watchers=[first_seen])
    outcome = first.run()
    assert (outcome.step, outcome.finished) == (stop_at, False)
    assert first_seen.saves == [stop_at]

    torch.manual_seed(999)
    second_seen = Recorder()
    second = trainer(tiny_model(dropout=0.3), settings, state=state, watchers=[second_seen])
    assert second.resume().step == stop_at
    assert second.run().finished

    expected, got = all_tensors(whole), all_tensors(second)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    losses = [r.losses for r in whole_seen.reports]
    assert losses == [r.losses for r in first_seen.reports + second_seen.reports]


def test_resuming_across_epochs_with_accumulation(tmp_path: Path) -> None:
    settings = config(accumulate=3, steps=6)  # 3 does not divide the 4 batches of an epoch
    whole = trainer(tiny_model(), settings)
    whole.run()
    first = trainer(tiny_model(), settings, state=tmp_path / "s.pt", watchers=[StopAfter(3)])
    first.run()
    second = trainer(tiny_model(), settings, state=tmp_path / "s.pt")
    assert second.resume() == first.position
    second.run()
    expected, got = all_tensors(whole), all_tensors(second)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_evaluation_does_not_change_the_run(tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        assert not model.training
        np.random.rand(3)  # noqa: NPY002 (an evaluation that draws)
        return {"AP": float(torch.rand(()))}

    runs = []
    for measure in (None, evaluate):
        torch.manual_seed(1)
        seen = Recorder()
        t = trainer(tiny_model(dropout=0.5), config(eval_every=5), evaluate=measure, watchers=[seen])
        t.run()
        runs.append((all_tensors(t), [step for step, _ in seen.metrics]))
    assert runs[0][1] == []
    assert runs[1][1] == [5, 10, 12]
    assert all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in runs[0][0])


class Measure:
    """An evaluation that depends on the weights and on chance, and can come to grief."""

    def __init__(self, trouble_at: int = 0, trouble: Callable[[], None] = lambda: None) -> None:
        self.count, self.trouble_at, self.trouble = 0, trouble_at, trouble

    def __call__(self, model: Any) -> dict[str, float]:
        self.count += 1
        if self.count == self.trouble_at:
            self.trouble()
        return {"AP": float(model.head.weight.sum() + torch.rand(()))}


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class BrokenError(Exception):
    """Of an evaluation."""


def broken() -> None:
    raise BrokenError


def run_in_two(state: Path, first: Recorder, measure: Measure, **changes: Any) -> tuple[Trainer, list[Any], list[Any]]:
    """The trainer that goes on after a stop or an error, and the evaluations before and after that."""
    settings = config(steps=6, eval_every=2, **changes)
    torch.manual_seed(1)
    one = trainer(tiny_model(dropout=0.5), settings, state=state, evaluate=measure, watchers=[first])
    with suppress(BrokenError):
        assert not one.run().finished
    torch.manual_seed(999)
    then = Recorder()
    two = trainer(tiny_model(dropout=0.5), settings, state=state, evaluate=Measure(), watchers=[then])
    two.resume()
    outcome = two.run()
    assert outcome.finished
    assert outcome.metrics == then.metrics[-1][1]
    return two, first.metrics, then.metrics


@pytest.mark.parametrize(
    ("first", "measure", "changes", "steps"),
    [
        (StopAfter(4), Measure(), {}, [2]),  # asked to stop during the step after which an evaluation is due
        (Recorder(), Measure(2, stop), {"save_every": 2}, [2, 4]),  # during the evaluation
        (Recorder(), Measure(2, broken), {"save_every": 2}, [2]),
        (Recorder(), Measure(3, broken), {}, [2, 4]),  # after the last step
    ],
)
def test_an_evaluation_is_neither_lost_nor_repeated(
    tmp_path: Path, first: Recorder, measure: Measure, changes: dict[str, Any], steps: list[int]
) -> None:
    torch.manual_seed(1)
    seen = Recorder()
    whole = trainer(tiny_model(dropout=0.5), config(steps=6, eval_every=2), evaluate=Measure(), watchers=[seen])
    whole.run()
    resumed, before, after = run_in_two(tmp_path / "s.pt", first, measure, **changes)
    assert [step for step, _ in before] == steps
    assert before + after == seen.metrics
    assert [step for step, _ in seen.metrics] == [2, 4, 6]
    expected, got = all_tensors(whole), all_tensors(resumed)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_state_that_does_not_say_what_was_measured_counts_as_measured(tmp_path: Path) -> None:
    state = tmp_path / "s.pt"
    trainer(tiny_model(), config(steps=2), state=state).run()
    t = trainer(tiny_model(), config(steps=2), state=state, evaluate=Measure())
    t.resume()
    assert t.unmeasured
    old = torch.load(state, weights_only=True)
    del old["parts"]["measured"]
    torch.save(old, state)
    t.resume()
    assert not t.unmeasured


def test_without_ema_the_model_itself_is_evaluated_and_trains_on() -> None:
    modes = []
    t = trainer(tiny_model(), config(ema=None, eval_every=6), evaluate=lambda m: modes.append(m) or {})
    t.run()
    assert modes == [t.model, t.model]
    assert t.model.training


def one_plain_step(batch: int, accumulate: int) -> tuple[dict[str, torch.Tensor], StepReport]:
    """Change of the weights after one plain SGD step of rate 1, that is minus the gradient; and its report."""
    settings = config(
        steps=1, accumulate=accumulate, ema=None, clip_norm=None, freeze_batch_norm=["."],
        schedule={"kind": "constant"}, optimiser={"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
    )  # fmt: skip
    model, seen = tiny_model(), Recorder()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trainer(model, settings, TinyBatches(batch=batch), watchers=[seen]).run()
    return {n: before[n] - p.detach() for n, p in model.named_parameters()}, seen.reports[0]


def test_two_accumulated_batches_equal_one_of_twice_the_size() -> None:
    (twice, twice_report), (once, once_report) = one_plain_step(2, accumulate=2), one_plain_step(4, accumulate=1)
    for name in once:
        torch.testing.assert_close(twice[name], once[name], rtol=1e-5, atol=1e-7)
    assert any(g.abs().max() > 1e-3 for g in once.values())
    assert twice_report.losses == pytest.approx(once_report.losses, rel=1e-5)
    assert twice_report.grad_norm == pytest.approx(once_report.grad_norm, rel=1e-5)
    assert twice_report.images == once_report.images == 4


def test_clipping_bounds_the_update() -> None:
    model = tiny_model()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    settings = config(
        steps=1, clip_norm=0.01, schedule={"kind": "constant"},
        optimiser={"kind": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
    )  # fmt: skip
    seen = Recorder()
    trainer(model, settings, watchers=[seen]).run()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm() == pytest.approx(0.01, rel=1e-3)
    assert seen.reports[0].grad_norm > 0.01


class Poisoned(TinyModel):
    """Its points term is not a number at the third step."""

    calls = 0

    def loss(self, outputs: Any, persons: Any) -> dict[str, torch.Tensor]:
        losses = super().loss(outputs, persons)
        self.calls += 1
        return losses | {"points": losses["points"] * (float("nan") if self.calls == 3 else 1.0)}


def test_a_non_finite_term_stops_the_run_and_is_explained(tmp_path: Path) -> None:
    model = Poisoned()
    t = trainer(model, config(save_every=1), state=tmp_path / "state.pt")
    with pytest.raises(
        NonFiniteLoss, match=r"a loss term is not finite at step 2: score .*, points nan, total nan"
    ) as e:
        t.run()
    assert e.value.step == 2
    assert len(e.value.pictures) == 2
    assert all(re.fullmatch(r"0:10[0-7]", name) and name in str(e.value) for name in e.value.pictures)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    resumed = trainer(Poisoned(), config(save_every=1), state=tmp_path / "state.pt")
    assert resumed.resume().step == 2


class LatePoison(TinyModel):
    """Its points term is not a number in the fifth batch."""

    calls = 0

    def loss(self, outputs: Any, persons: Any) -> dict[str, torch.Tensor]:
        losses = super().loss(outputs, persons)
        self.calls += 1
        return losses | {"points": losses["points"] * (float("nan") if self.calls == 5 else 1.0)}


class LateRoot(TinyModel):
    """Its points term has an infinite gradient in the fifth batch."""

    calls = 0

    def loss(self, outputs: Any, persons: Any) -> dict[str, torch.Tensor]:
        losses = super().loss(outputs, persons)
        self.calls += 1
        return losses | ({"points": (outputs.points * 0).abs().sum().sqrt()} if self.calls == 5 else {})


@pytest.mark.parametrize(("kind", "epochs"), [(LatePoison, [1, 1]), (LateRoot, [0, 0, 1, 1, 1, 1])])
def test_pictures_are_named_by_the_epoch_of_their_batch(kind: type[TinyModel], epochs: list[int]) -> None:
    """The second step of three batches begins with the last of the four batches of an epoch."""
    with pytest.raises(NonFiniteLoss) as e:
        trainer(kind(), config(accumulate=3)).run()
    assert e.value.step == 1
    assert [int(name.partition(":")[0]) for name in e.value.pictures] == epochs


class RootOfZero(TinyModel):
    """A finite loss with an infinite gradient."""

    def loss(self, outputs: Any, persons: Any) -> dict[str, torch.Tensor]:
        return {"root": (outputs.points * 0).abs().sum().sqrt() + outputs.score.sum() * 0}


def test_a_non_finite_gradient_stops_the_run_too() -> None:
    model = RootOfZero()
    with pytest.raises(NonFiniteLoss, match="gradient norm"):
        trainer(model, config()).run()
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_people_are_counted_and_a_batch_without_anybody_is_no_harm() -> None:
    seen = Recorder()
    trainer(tiny_model(), config(steps=4), watchers=[seen]).run()
    assert [r.people <= r.images for r in seen.reports] == [True] * 4
    assert sum(r.people for r in seen.reports) == 7  # of the eight pictures of an epoch one shows nobody
    nobody = Recorder()
    trainer(tiny_model(), config(steps=3), TinyBatches(pictures=1, batch=1), watchers=[nobody]).run()
    assert [r.people for r in nobody.reports] == [0, 0, 0]
    assert all(math.isfinite(value) for r in nobody.reports for value in r.losses.values())


def test_memory_in_use_is_reported() -> None:
    seen = Recorder()
    trainer(tiny_model(), config(steps=1), watchers=[seen]).run()
    assert 50e6 < seen.reports[0].memory < 50e9


def test_compiling_and_checkpointing_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        config(compile=True, checkpoint_activations=["backbone"])


def test_frozen_parameters_and_statistics_stay() -> None:
    model = tiny_model()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    trainer(model, config(freeze=[r"^backbone\.0"], freeze_batch_norm=["backbone"], eval_every=2)).run()
    after = model.state_dict()
    same = {n for n in before if torch.equal(before[n], after[n])}
    assert {"backbone.0.weight", "backbone.0.bias", "backbone.1.running_mean", "backbone.1.running_var"} <= same
    assert not {"backbone.1.weight", "head.weight", "scale"} & same


def test_norms_that_processes_share_can_be_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(module: torch.nn.Module, accelerator: Any) -> None:
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)

    monkeypatch.setattr(engine, "share_batch_norms", share)
    model = tiny_model()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    settings = config(sync_batch_norm=True, freeze=[r"^backbone\.1"], freeze_batch_norm=["backbone"], steps=2)
    trainer(model, settings).run()
    assert isinstance(model.backbone[1], torch.nn.SyncBatchNorm)
    after = model.state_dict()
    assert {n for n in before if "backbone.1" in n and not torch.equal(before[n], after[n])} == set()
    assert not torch.equal(before["backbone.0.weight"], after["backbone.0.weight"])


def test_statistics_move_unless_frozen() -> None:
    model = tiny_model()
    trainer(model, config(steps=1)).run()
    assert model.backbone[1].running_mean.abs().max() > 0


@pytest.mark.parametrize("field", ["freeze", "freeze_batch_norm"])
def test_a_pattern_that_fits_nothing_is_an_error(field: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.{field} pattern 'nothing'"):
        trainer(tiny_model(), config(**{field: ["nothing"]}))


class Finite(TinyBatches):
    """Not endless, as a loader must be."""

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(super().__iter__(), 5)


def test_data_that_ends_is_an_error() -> None:
    with pytest.raises(ValueError, match="training data ended after 5 steps"):
        trainer(tiny_model(), config(), Finite()).run()


class DyingLoader(TinyBatches):
    """Its worker processes die of the Ctrl-C that also reaches the run."""

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().__iter__()):
            if number == 2:
                os.kill(os.getpid(), signal.SIGINT)
                raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")
            yield batch


def test_ctrl_c_while_waiting_for_data_saves(tmp_path: Path) -> None:
    t = trainer(tiny_model(), config(), DyingLoader(), state=tmp_path / "state.pt")
    outcome = t.run()
    assert (outcome.step, outcome.finished) == (2, False)
    assert (tmp_path / "state.pt").is_file()


def test_a_failing_loader_is_not_hidden() -> None:
    class Failing(TinyBatches):
        def __iter__(self) -> Iterator[Batch]:
            yield next(super().__iter__())
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        trainer(tiny_model(), config(), Failing()).run()


def test_resume_without_a_state(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trainer(tiny_model(), config(), state=tmp_path / "state.pt").resume()


def test_resume_refuses_another_model_optimiser_or_ema(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer(tiny_model(), config(steps=1), state=state).run()
    with pytest.raises(ValueError, match="does not fit this model"):
        trainer(tiny_model(width=5), config(), state=state).resume()
    rules = {"kind": "sgd", "rules": [{"pattern": "^head", "lr_factor": 10}]}
    with pytest.raises(ValueError, match="groups hold other parameters"):
        trainer(tiny_model(), config(optimiser=rules), state=state).resume()
    with pytest.raises(ValueError, match=r"train\.ema was switched"):
        trainer(tiny_model(), config(ema=None), state=state).resume()


def test_resume_takes_a_changed_learning_rate(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer(tiny_model(), config(steps=1), state=state).run()
    seen = Recorder()
    settings = config(steps=2, schedule={"kind": "constant"}, optimiser={"kind": "sgd", "lr": 0.5})
    t = trainer(tiny_model(), settings, state=state, watchers=[seen])
    t.resume()
    t.run()
    assert seen.reports[0].lr == 0.5
    assert {g["lr"] for g in t._optimiser.param_groups} == {0.5}


@pytest.mark.parametrize("damage", [b"", b"not a zip file at all"])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: bytes) -> None:
    state = tmp_path / "state.pt"
    state.write_bytes(damage)
    with pytest.raises(ValueError, match="cannot be resumed from"):
        trainer(tiny_model(), config(), state=state).resume()


def test_bf16_keeps_losses_and_weights_in_float32() -> None:
    dtypes = []

    class Spy(TinyModel):
        def loss(self, outputs: Any, persons: Any) -> dict[str, torch.Tensor]:
            losses = super().loss(outputs, persons)
            autocast = torch.is_autocast_enabled("cpu")
            dtypes.append((outputs.points.dtype, losses["points"].dtype, autocast))
            return losses

    torch.manual_seed(0)
    exact = trainer(TinyModel(), config(steps=2, ema=None))
    exact.run()
    torch.manual_seed(0)
    model = Spy()
    trainer(model, config(precision="bf16", steps=2, ema=None)).run()
    assert dtypes == [(torch.float32, torch.float32, False)] * 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    gap = (model.head.weight - exact.model.head.weight).abs().max()
    assert 0 < gap < 0.05  # bfloat16 was really used, and was accurate enough


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        trainer(tiny_model(), config(precision="fp16"))


def test_channels_last_trains_the_same_network() -> None:
    a, b = tiny_model(), tiny_model()
    trainer(a, config(steps=3)).run()
    trainer(b, config(steps=3, channels_last=True)).run()
    assert b.backbone[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(a.head.weight, b.head.weight, rtol=1e-4, atol=1e-6)
