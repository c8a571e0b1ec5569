"""The moving average against its closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from poise.train.ema import ModelEma
from tiny import tiny_model


def decay_at(update: int, decay: float) -> float:
    return min(decay, (1 + update) / (10 + update))


@pytest.mark.parametrize("decay", [0.2, 0.5, 0.999])
def test_closed_form(decay: float) -> None:
    """average_n = prod(d) w_0 + sum_i (1 - d_i) prod_{j > i} d_j w_i."""
    model = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 1.5, -5.0, 9.0]
    with torch.no_grad():
        model.weight.fill_(values[0])
        ema = ModelEma(model, decay)
        for value in values[1:]:
            model.weight.fill_(value)
            ema.update(model)
    expected = values[0]
    for update, value in enumerate(values[1:], 1):
        expected = decay_at(update, decay) * expected + (1 - decay_at(update, decay)) * value
    assert ema.model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_after_the_warmup_the_decay_is_the_one_asked_for() -> None:
    model = nn.Linear(1, 1, bias=False)
    ema = ModelEma(model, 0.9)
    ema.updates = 1000
    with torch.no_grad():
        ema.model.weight.fill_(1.0)
        model.weight.fill_(2.0)
    ema.update(model)
    assert ema.model.weight.item() == pytest.approx(1.1)


def test_an_unchanged_model_is_its_own_average_to_the_bit() -> None:
    model = tiny_model()
    ema = ModelEma(model, 0.97)
    for _ in range(20):
        ema.update(model)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ema.model.state_dict().items())


def test_integer_buffers_are_copied_and_statistics_averaged() -> None:
    model = tiny_model()
    ema = ModelEma(model, 0.5)
    model.seen.fill_(42)
    model.backbone[1].running_mean.fill_(1.0)
    ema.update(model)
    assert ema.model.seen.item() == 42
    assert ema.model.backbone[1].running_mean[0].item() == pytest.approx(1 - 2 / 11)


def test_the_average_is_apart_from_the_model() -> None:
    model = tiny_model()
    ema = ModelEma(model, 0.5)
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    before = copy.deepcopy(ema.model.state_dict())
    with torch.no_grad():
        model.head.weight.add_(1)
    assert torch.equal(ema.model.state_dict()["head.weight"], before["head.weight"])


def test_state_round_trip() -> None:
    model = tiny_model()
    ema = ModelEma(model, 0.5)
    with torch.no_grad():
        model.head.weight.add_(1)
    ema.update(model)
    other = ModelEma(tiny_model(), 0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.model.head.weight, ema.model.head.weight)
