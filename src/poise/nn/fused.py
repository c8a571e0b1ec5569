"""Convolutions for inference on a CPU: one operator each, with its bias and activation.

On one thread torch computes 1x1 convolutions of few pictures as a product of its own, after the bias was copied to
every place of the output, and every activation is one more pass over the map. The operator that does without is the one
that ``torch.compile`` puts into its CPU code. It wants filters laid out as suits the size of the map, and lays them out
at every call; here that is done once for each of a few sizes. The results are the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.nn.fold import folded_pairs, is_folded
from poise.nn.mobilenet import Block

_EPILOGUES: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "hardtanh": F.relu6}
"""What the operator does with its outputs, by the first word of `_EPILOGUES`."""
KEPT_SIZES = 4
"""For so many sizes of its input a convolution keeps its filters as that size wants them."""
PATIENCE = 64
"""After so many calls with other sizes than those that are kept, these make room."""
SMALL = 1 << 17
"""Weights up to which a convolution keeps its filters for twice as many sizes: heads see all levels of a pyramid.
Without an activation to take only those are worth it; larger ones take much longer than laying out their filters."""

Shape = tuple[int, ...]
Key = tuple[torch.dtype, Shape]
"""Kind of the numbers and shape of an input."""


@cache
def pointwise_operator() -> Any:
    """oneDNN's convolution with what is done to each of its outputs; no part of torch's public interface."""
    return torch.ops.mkldnn._convolution_pointwise


@cache
def _computes(kind: torch.dtype) -> bool:
    """Whether the operator computes with such numbers on this processor."""
    return kind == torch.float32 or (kind == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


@cache
def adding_operator() -> Any:
    """The same, whose outputs are added to a map in place."""
    return torch.ops.mkldnn._convolution_pointwise_


class FusedConv2d(nn.Conv2d):
    """A convolution with the activation that follows its folded norm."""

    epilogue: tuple[str, list[float]]
    laid_out: _Layouts

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv2d``, and the activation; in the precision of autocast, if there is one."""
        bias = self.bias
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            if not _computes(kind):
                return _ACTIVATIONS[self.epilogue[0]](super().forward(input))
            input, bias = input.to(kind), None if bias is None else bias.to(kind)
        done: Tensor = pointwise_operator().default(
            input, self._filters(input), bias, self.padding, self.stride, self.dilation, self.groups, *self.epilogue, ""
        )
        return done

    def added(self, sums: Tensor, input: Tensor) -> Tensor:
        """``sums``, which nobody else needs any more, plus the convolution, which must have no activation."""
        if torch.is_autocast_enabled("cpu"):
            total: Tensor = sums + self(input)
            return total
        done: Tensor = adding_operator().binary(
            sums, input, self._filters(input), self.bias, self.padding, self.stride, self.dilation, self.groups,
            "add", None, None, [], None,
        )  # fmt: skip
        return done

    def _filters(self, input: Tensor) -> Tensor:
        """Laid out for an input."""
        filters = self.laid_out.get((input.dtype, input.shape))
        return self._lay_out(input.dtype, input.shape) if filters is None else filters

    def _lay_out(self, kind: torch.dtype, shape: Shape) -> Tensor:
        """Filters as maps of that shape want them, kept; or as they are, while there is no room for more.

        Shapes that take turns would else push each other out, and filters would be laid out at every call.
        """
        assert not isinstance(self.padding, str)
        kept, weight = self.laid_out, self.weight.to(kind)
        if len(kept) >= (KEPT_SIZES if weight.numel() > SMALL else 2 * KEPT_SIZES):
            kept.missed += 1
            if kept.missed < PATIENCE:
                return weight
            kept.clear()
            kept.missed = 0
        filters = laid_out_for(weight, self.padding, self.stride, self.dilation, self.groups, shape)
        kept[kind, shape] = filters
        return filters


def added(convolution: nn.Module, sums: Tensor, input: Tensor) -> Tensor:
    """``sums``, which nobody else needs any more, plus the convolution of the input."""
    if type(convolution) is FusedConv2d:
        return convolution.added(sums, input)
    plain: Tensor = sums + convolution(input)
    return plain


class _FusedBlock(Block):
    """A block of a MobileNetV2 whose last convolution adds its outputs to the block's input in place."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Block`; ``x`` is gone afterwards."""
        return added(self.conv_pwl, x, self.bn2(self.conv_dw(self.bn1(self.conv_pw(x)))))


class _Layouts(dict[Key, Tensor]):
    """Filters by the input. Copies are empty: what is in such a layout cannot be copied."""

    missed = 0
    """Calls with other inputs since there is no room for more."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Layouts:
        return _Layouts()

    def __reduce__(self) -> tuple[type[_Layouts], tuple[()]]:
        return _Layouts, ()


def laid_out_for(
    weight: Tensor,
    padding: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    shape: Shape | None = None,
) -> Tensor:
    """Filters as oneDNN computes with them, for an input of a shape, or of one that it supposes."""
    dense = weight.detach().contiguous().to_mkldnn()
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    filters: Tensor = reorder(dense, padding, stride, dilation, groups, None if shape is None else list(shape))
    return filters


def fuse_activations(module: nn.Module) -> int:
    """Change a network in eval mode, on the CPU, with folded norms, in place; it is for inference only afterwards.

    Small convolutions without a folded norm keep their filters laid out, too.

    Returns:
        How many convolutions take their activation with them; none where torch has no such operator.
    """
    pairs = [(c, n) for c, n in folded_pairs(module) if _is_plain(c)]
    if not (pairs and _works()):
        return 0
    for convolution, norm in pairs:
        activation = norm._modules.get("act")
        epilogue = _EPILOGUES.get(type(activation) if activation is not None else nn.Identity)
        _fuse(convolution, epilogue or _EPILOGUES[nn.Identity])
        if activation is not None and epilogue is not None:
            norm._modules["act"] = nn.Identity()
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and _is_plain(part) and part.weight.numel() <= SMALL:
            _fuse(part, _EPILOGUES[nn.Identity])
        if type(part) is Block and part.shortcut and is_folded(part.bn3):
            part.__class__ = _FusedBlock
    return len(pairs)


def _is_plain(convolution: nn.Conv2d) -> bool:
    return (
        type(convolution) is nn.Conv2d
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and convolution.weight.dtype == torch.float32
    )


def _fuse(convolution: nn.Conv2d, epilogue: tuple[str, list[float]]) -> None:
    convolution.__class__ = FusedConv2d
    assert isinstance(convolution, FusedConv2d)
    convolution.epilogue = epilogue
    convolution.laid_out = _Layouts()


@torch.no_grad()
def _works() -> bool:
    """Whether the operator is there and computes what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    example = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    part = nn.Conv2d(8, 8, 1)
    plain = part(example)
    try:
        for activation, epilogue in _EPILOGUES.items():
            _fuse(part, epilogue)
            if not torch.allclose(part(example), activation()(plain), atol=1e-4):
                return False
        _fuse(part, _EPILOGUES[nn.Identity])
        if not torch.allclose(part.added(plain.clone(), example), 2 * plain, atol=1e-4):  # type: ignore[operator]
            return False
    except (RuntimeError, AttributeError, TypeError):  # see `pointwise_operator`
        return False
    return True
