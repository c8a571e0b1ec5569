"""Which parts of a network ``torch.compile`` is given, for prediction and for training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


class Sequence(nn.Sequential):
    """Layers one after the other. torch 2.6 compiles nothing whose ``forward`` is one of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Sequential``."""
        for layer in self:
            input = layer(input)
        return input


def compile_parts(module: nn.Module) -> None:
    """Compile, in place and when they first run, the parts of a network that do most of the work.

    Backbone, neck, stages, and the towers of a head and of its branches are compiled, once for all levels that share
    them. What looks at candidates stays as it is: it decides on values, and a whole head would be compiled once for
    each level, which takes more than ten minutes.
    """
    for part in module.children():
        for tower in _towers(part) if _decides(part) else [part]:
            for each in tower if isinstance(tower, nn.ModuleList) else [tower]:
                if type(each) is nn.Sequential:
                    each.__class__ = Sequence
                each.compile()


def _towers(head: nn.Module) -> Iterator[nn.Module]:
    """The sequences of layers of a head, and those of its other parts, but for empty ones.

    When torch finds nothing to compile in one module, it gives up on all that run after it.
    """
    for part in head.children():
        inner = [part] if isinstance(part, nn.Sequential) else part.children()
        yield from (p for p in inner if isinstance(p, nn.Sequential) and len(p))


def _decides(part: nn.Module) -> bool:
    """Whether a part is a head, which inference runs piece by piece."""
    return type(part).__name__.endswith("Head")
