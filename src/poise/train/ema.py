"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn


class ModelEma:
    """A copy of a model whose floating-point weights and buffers follow the model's own slowly.

    After update n (counted from 1) average = d * average + (1 - d) * model with d = min(decay, (1 + n) / (10 + n)):
    the warm-up lets the average forget the initial weights. Integer buffers are copied.

    Attributes:
        model: the averaged model, in eval mode, without gradients.
        decay: the decay after the warm-up.
        updates: number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``."""
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        source = model.state_dict()
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(source[name])
            else:
                average.copy_(source[name])
        torch._foreach_lerp_(averages, values, weight)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read what ``state_dict`` wrote."""
        self.model.load_state_dict(cast("dict[str, Tensor]", state["model"]))
        self.updates = int(state["updates"])
