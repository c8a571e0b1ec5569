"""Weights to start from: a backbone trained on ImageNet, or an earlier Poise model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from poise.checkpoints import CheckpointError, is_checkpoint, read_tensors, state_problems
from poise.converters.imagenet import resnet_to_anti_aliased, to_timm
from poise.models.base import PoseModel

_log = logging.getLogger(__name__)


def load_initial_weights(model: PoseModel, path: str | Path) -> int:
    """Give a fresh model the weights of a safetensors file; returns how many tensors were taken.

    From a Poise checkpoint every tensor is taken whose name and shape the model has too, so a model for another
    skeleton keeps its own output layers. Any other file must hold a whole backbone under the names of timm or
    torchvision (mobilenet_v2, ResNets); what it holds beyond that, such as a classifier, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a safetensors file, or does not fit the model.
    """
    path = Path(path)
    taken = _from_checkpoint(model, path) if is_checkpoint(path) else _from_backbone(model, path)
    _log.info("%d tensors taken from %s", taken, path)
    return taken


def _from_checkpoint(model: PoseModel, path: Path) -> int:
    module = cast(nn.Module, model)
    own = module.state_dict()
    found = {n: t for n, t in read_tensors(path).items() if n in own and own[n].shape == t.shape}
    if not found:
        raise CheckpointError(f"{path} has no tensor in common with the model: is it of another system?")
    left = [name for name in own if name not in found]
    if left:
        _log.warning("%s does not set %d of %d tensors, the first is %s", path, len(left), len(own), left[0])
    module.load_state_dict(found, strict=False)
    return len(found)


def _from_backbone(model: PoseModel, path: Path) -> int:
    body = _backbone_body(model)
    own = {n: t for n, t in body.state_dict().items() if not n.endswith("num_batches_tracked")}
    try:
        state = to_timm(read_tensors(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if "layer2.0.downsample.2.weight" in own:
        state = resnet_to_anti_aliased(state)
    found: dict[str, Tensor] = {name: tensor for name, tensor in state.items() if name in own}
    problems = state_problems(
        {name: tuple(t.shape) for name, t in found.items()}, {name: tuple(t.shape) for name, t in own.items()}
    )
    if problems:
        raise CheckpointError(f"{path} does not hold the model's backbone: {problems}")
    body.load_state_dict(found, strict=False)
    return len(found)


def _backbone_body(model: PoseModel) -> nn.Module:
    body = getattr(getattr(model, "backbone", None), "body", None)
    if not isinstance(body, nn.Module):
        raise CheckpointError(f"a {type(model).__name__} has no backbone to take ImageNet weights: give a checkpoint")
    return body
