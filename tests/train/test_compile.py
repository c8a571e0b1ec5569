"""A compiled network trains as the plain one; what stands for the compiler here runs the traced graph as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from tiny import TinyBatches, tiny_model


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that were compiled."""
    compiled: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend=backend))
    yield compiled
    torch._dynamo.reset()


def weights(**more: Any) -> dict[str, torch.Tensor]:
    settings = TrainConfig.parse({"steps": 2, "ema": 0.9, "eval_every": 1, "optimiser": {"lr": 0.05}, **more})
    trainer = Trainer(tiny_model(), TinyBatches(), settings, device="cpu", evaluate=lambda model: {})
    trainer.run()
    assert trainer.ema is not None
    return trainer.model.state_dict() | {f"ema.{n}": v for n, v in trainer.ema.model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides it itself
def test_a_compiled_network_is_the_same_network(graphs: list[Any]) -> None:
    expected = weights()
    assert graphs == []
    got = weights(compile=True)
    assert len(graphs) >= 1
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-7)
