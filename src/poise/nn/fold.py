"""Folding batch norm into the convolution before it, for inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norm(module: nn.Module, example: Tensor) -> nn.Module:
    """A copy in eval mode whose batch norms are folded into the convolutions that feed them.

    Which batch norm follows which convolution is seen on one forward pass of ``example`` rather than guessed from
    names, so any backbone works. An activation inside the norm layer (timm's ``BatchNormAct2d``) is kept. A batch
    norm whose input is not the output of exactly one convolution stays as it is. A folded network stays as it is, too.

    Args:
        module: any network in which convolution outputs feed only their norm layer.
        example: an input it accepts; only the wiring is looked at, except for one check.

    Raises:
        ValueError: the folded network computes something else (a convolution's output was used elsewhere too), or
            the network's output is not finite to begin with.
    """
    folded = copy.deepcopy(module).eval()
    with torch.no_grad():
        pairs, before = _trace(folded, example)
        if not all(bool(torch.isfinite(a).all()) for a in before):
            raise ValueError("the network's output is not finite: its weights have diverged in training")
        for convolution, norm in pairs:
            _fold_pair(convolution, norm)
        after = _tensors(folded(example))
    for a, b in zip(before, after, strict=True):
        scale = max(1.0, float(a.abs().max())) if a.numel() else 1.0
        if a.numel() and not float((a - b).abs().max()) <= 1e-3 * scale:
            raise ValueError("folding the batch norms changed the network's output")
    return folded


def is_folded(norm: nn.Module) -> bool:
    """Whether a norm was folded, and leaves its input as it is."""
    return isinstance(norm, _FoldedNorm) and norm._modules.get("act") is None


def folded_pairs(module: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Convolutions of a folded network that feed a norm, with what is left of that norm: its activation ``act``."""
    return [(part.source[0], part) for part in module.modules() if isinstance(part, _FoldedNorm)]


def _trace(module: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[Tensor]]:
    producers: dict[int, tuple[nn.Conv2d, int]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    uses: dict[int, int] = {}
    alive: list[Any] = []

    def saw_convolution(part: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(part, nn.Conv2d)
        uses[id(part)] = uses.get(id(part), 0) + 1
        producers[id(output)] = (part, output._version)
        alive.append(output)

    def saw_norm(part: nn.Module, inputs: Any) -> None:
        assert isinstance(part, nn.BatchNorm2d)
        uses[id(part)] = uses.get(id(part), 0) + 1
        source, version = producers.get(id(inputs[0]), (None, -1))
        if source is not None and inputs[0]._version == version:
            pairs.append((source, part))

    hooks: list[Any] = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(saw_convolution))
        elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats and not isinstance(part, _FoldedNorm):
            hooks.append(part.register_forward_pre_hook(saw_norm))
    try:
        outputs = _tensors(module(example))
        outputs = [o.clone() for o in outputs]
    finally:
        for hook in hooks:
            hook.remove()
    return [(c, n) for c, n in pairs if uses[id(c)] == 1 and uses[id(n)] == 1], outputs


def _fold_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    convolution.weight = nn.Parameter(weight.detach(), requires_grad=False)
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)
    norm.__class__ = _FoldedNorm
    assert isinstance(norm, _FoldedNorm)
    norm.source = (convolution,)


class _FoldedNorm(nn.BatchNorm2d):
    """What is left of a folded batch norm: its activation, if it had one.

    Attributes:
        source: the convolution that feeds it, in a tuple, which does not make it a part.
    """

    source: tuple[nn.Conv2d]

    def forward(self, input: Tensor) -> Tensor:
        activation = self._modules.get("act")
        return input if activation is None else activation(input)


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, list | tuple):
        return [t for part in outputs for t in _tensors(part)]
    if isinstance(outputs, dict):
        return [t for part in outputs.values() for t in _tensors(part)]
    return []
