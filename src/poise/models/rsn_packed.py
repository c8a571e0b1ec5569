"""RSN's blocks for inference on a CPU: filters laid out as oneDNN computes with them, ReLU and sums in convolutions.

torch brings filters into that layout at every call, and makes another pass over the maps for each ReLU and sum. The
operators that do without are those that ``torch.compile`` puts into its CPU code. The results are the same numbers.

Letters: B views, C channels of a feature map, h w feature size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.models.rsn_blocks import ConvNorm, ResidualStepsBlock
from poise.nn.fold import is_folded
from poise.nn.fused import laid_out_for, pointwise_operator

Arguments = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Padding, stride, dilation, groups."""


class PackedConvNorm(ConvNorm):
    """A `ConvNorm` whose norm is folded, as one operator."""

    packed: Tensor

    def pack(self) -> None:
        """Lay out the filters; they must not change any more."""
        self.packed = laid_out_for(self.conv.weight, *self.arguments)

    @property
    def arguments(self) -> Arguments:
        """What the operators take besides tensors."""
        conv = self.conv
        assert not isinstance(conv.padding, str)
        return conv.padding, conv.stride, conv.dilation, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        """As `ConvNorm`."""
        done: Tensor = pointwise_operator().default(
            x, self.packed, self.conv.bias, *self.arguments, "relu" if self.relu else "none", [], ""
        )
        return done

    def summed(self, x: Tensor, other: Tensor) -> Tensor:
        """ReLU of the sum of ``forward(x)`` (without ReLU of its own) and another map of its size."""
        done: Tensor = pointwise_operator().binary(
            x, other, self.packed, self.conv.bias, *self.arguments, "add", 1.0, "relu", [], ""
        )
        return done


class PackedStepsBlock(ResidualStepsBlock):
    """A `ResidualStepsBlock` that adds its shortcut in its last convolution."""

    def joined(self, ends: Tensor, x: Tensor) -> Tensor:
        """As `ResidualStepsBlock`."""
        assert isinstance(self.exit, PackedConvNorm)
        return self.exit.summed(ends, x if self.shortcut is None else self.shortcut(x))


def pack(module: nn.Module) -> bool:
    """Change a network in eval mode, on the CPU, with folded norms, in place; it is for inference only afterwards.

    Returns:
        Whether that was possible: with a torch that has these operators, in single precision, and where every
        `ConvNorm` is folded.
    """
    parts = [part for part in module.modules() if type(part) is ConvNorm]
    plain = all(is_folded(part.norm) and part.conv.weight.dtype == torch.float32 for part in parts)
    if not (parts and plain and _works()):
        return False
    for part in parts:
        part.__class__ = PackedConvNorm
        assert isinstance(part, PackedConvNorm)
        part.pack()
    for block in module.modules():
        if type(block) is ResidualStepsBlock:
            block.__class__ = PackedStepsBlock
    return True


@torch.no_grad()
def _works() -> bool:
    """Whether the operators are there and compute what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    example, other = torch.randn(2, 1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = ConvNorm(8, 8, 3, bias=True).eval()
    part = PackedConvNorm(8, 8, 3, bias=True).eval()
    part.load_state_dict(plain.state_dict())
    try:
        part.pack()
        convolved = plain.conv(example)
        close = torch.allclose(part(example), convolved.relu(), atol=1e-4)
        return close and torch.allclose(part.summed(example, other), (convolved + other).relu(), atol=1e-4)
    except (RuntimeError, AttributeError, TypeError):  # they are no part of torch's public interface
        return False
