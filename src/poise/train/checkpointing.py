"""Activation checkpointing: less memory for more time.

The activations inside a checkpointed module are not kept for the backward pass but computed once more there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """Checkpoint the modules whose names fit a pattern; of nested ones only the outermost. Names do not change.

    Lists of modules are never called themselves: where one fits, it stands for the modules in it.

    Losses and gradients stay what they were, and so do the statistics of batch norms: the second computation does not
    count for them. Random numbers, as of dropout, are the same in both.

    Args:
        model: changed in place.
        patterns: regular expressions, searched in the names of modules.

    Returns:
        The names of the checkpointed modules.

    Raises:
        ValueError: a pattern fits none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = [(name, part) for name, part in model.named_modules() if name and re.search(pattern, name)]
        found = {called for name, part in fitting for called in _called(name, part)}
        if not found:
            raise ValueError(f"train.checkpoint_activations pattern {pattern!r} fits no module of the model")
        chosen |= found
    outermost = [name for name in chosen if not any(name.startswith(other + ".") for other in chosen)]
    for name in outermost:
        _wrap(model.get_submodule(name))
    return sorted(outermost)


def _called(name: str, module: nn.Module) -> Iterator[str]:
    """The name, or of what computes nothing itself, such as a list of modules, the names of those in it."""
    if type(module).forward is not nn.Module.forward:
        yield name
        return
    for child, part in module.named_children():
        yield from _called(f"{name}.{child}", part)


class _Checkpointed(nn.Module):
    """Stands before a module's own class, so that copies of the module are checkpointed modules of their own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own; in training without keeping what is computed on the way."""
        forward = super().forward
        if not self.training:
            return forward(*args, **kwargs)
        return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """What surrounds the first and the second computation."""
        return nullcontext(), _untracked([m for m in self.modules() if isinstance(m, _NormBase)])


def _wrap(module: nn.Module) -> None:
    own = type(module)
    module.__class__ = type(own.__name__, (_Checkpointed, own), {"__module__": own.__module__})


@contextmanager
def _untracked(norms: list[_NormBase]) -> Iterator[None]:
    """Norms move their statistics by nothing within the block, and do not count it."""
    tracking = [norm for norm in norms if norm.training and norm.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in tracking]
    for norm in tracking:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:  # norms of several processes do not work without a counter
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(tracking, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
