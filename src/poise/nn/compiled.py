"""Which parts of a network ``torch.compile`` is given, for prediction and for training."""

from __future__ import annotations

from torch import nn


def compile_parts(module: nn.Module) -> None:
    """Compile, in place and when they first run, the parts of a network that do most of the work.

    Backbone, neck, stages, and the towers of a head are compiled, once for all levels that share them. What looks at
    candidates stays as it is: it decides on values, and a whole head would be compiled once for each level, which
    takes ten minutes instead of one.
    """
    for part in module.children():
        towers = [p for p in part.children() if isinstance(p, nn.Sequential)] if _decides(part) else [part]
        for tower in towers:
            for each in tower if isinstance(tower, nn.ModuleList) else [tower]:
                each.compile()


def _decides(part: nn.Module) -> bool:
    """Whether a part is a head, which inference runs piece by piece."""
    return type(part).__name__.endswith("Head")
