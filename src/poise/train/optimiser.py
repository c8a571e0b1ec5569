"""Parameter groups from rules, and the optimiser over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from poise.train.config import OptimiserConfig, ParameterRule

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
"""Normalisation layers: batch and instance norms (`_NormBase`), group, layer and RMS norms."""


def parameter_groups(model: nn.Module, config: OptimiserConfig) -> list[dict[str, Any]]:
    """Optimiser groups of all parameters that require a gradient, one group per rule that fits some.

    Each group holds ``params``, ``names``, ``lr``, ``base_lr`` (what a schedule multiplies) and ``weight_decay``.

    Raises:
        ValueError: a rule fits no parameter first, so that it would silently do nothing; or nothing is left to train.
    """
    rules = (*config.rules, ParameterRule())
    members: list[list[tuple[str, nn.Parameter]]] = [[] for _ in rules]
    unused = set(range(len(config.rules)))
    for name, parameter, owner in _named_parameters(model):
        index = next(i for i, rule in enumerate(rules) if _fits(rule, name, owner))
        unused.discard(index)
        if parameter.requires_grad:
            members[index].append((name, parameter))
    if unused:
        rule = config.rules[min(unused)]
        raise ValueError(
            f"optimiser rule {rule.pattern!r} (kind {rule.kind}) is the first to fit no parameter of the model; "
            "correct it, move it before the rules that hide it, or take it out"
        )
    if not any(members):
        raise ValueError("no parameter is left to train: train.freeze fits all of them")
    return [_group(rule, found, config) for rule, found in zip(rules, members, strict=True) if found]


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The optimiser over `parameter_groups`."""
    groups = parameter_groups(model, config)
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])  # several times faster
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
    kind = torch.optim.Adam if config.kind == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, fused=fused)


def set_lr(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its own base."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the momenta of a saved one; learning rates and decays stay as they are now configured.

    Raises:
        ValueError: the groups do not hold the same parameters.
    """
    if [g["names"] for g in state["param_groups"]] != [g["names"] for g in optimiser.param_groups]:
        raise ValueError("the optimiser's groups hold other parameters (train.optimiser.rules or train.freeze changed)")
    configured = [(g["base_lr"], g["weight_decay"]) for g in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, (lr, decay) in zip(optimiser.param_groups, configured, strict=True):
        group["base_lr"], group["weight_decay"] = lr, decay


def freeze_parameters(model: nn.Module, patterns: Iterable[str]) -> None:
    """Take the parameters whose names fit a pattern out of training.

    Raises:
        ValueError: a pattern fits none.
    """
    for pattern in patterns:
        found = [p for name, p in model.named_parameters() if re.search(pattern, name)]
        if not found:
            raise ValueError(f"train.freeze pattern {pattern!r} fits no parameter of the model")
        for parameter in found:
            parameter.requires_grad_(False)


def frozen_batch_norms(model: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """The batch norms below modules whose names fit a pattern; kept in eval mode they do not touch their statistics.

    Raises:
        ValueError: a pattern fits none.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    frozen: dict[str, nn.Module] = {}
    for pattern in patterns:
        found = {name: m for name, m in norms.items() if re.search(pattern, name)}
        if not found:
            raise ValueError(f"train.freeze_batch_norm pattern {pattern!r} fits no batch norm of the model")
        frozen |= found
    return list(frozen.values())


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Name, parameter and the module it belongs to; a shared parameter comes once."""
    owners = {
        f"{path}.{leaf}" if path else leaf: module
        for path, module in model.named_modules()
        for leaf, _ in module.named_parameters(recurse=False)
    }
    for name, parameter in model.named_parameters():
        yield name, parameter, owners[name]


def _fits(rule: ParameterRule, name: str, owner: nn.Module) -> bool:
    if rule.kind == "norm" and not isinstance(owner, NORMS):
        return False
    if rule.kind == "bias" and name.rpartition(".")[2] != "bias":
        return False
    return re.search(rule.pattern, name) is not None


def _group(rule: ParameterRule, found: list[tuple[str, nn.Parameter]], config: OptimiserConfig) -> dict[str, Any]:
    lr = config.lr * rule.lr_factor
    return {
        "params": [parameter for _, parameter in found],
        "names": [name for name, _ in found],
        "lr": lr,
        "base_lr": lr,
        "weight_decay": config.weight_decay * rule.decay_factor,
    }
