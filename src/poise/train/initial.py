"""Weights to start from: a backbone trained on ImageNet, or an earlier Poise model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from poise.checkpoints import CheckpointError, is_checkpoint, read_header, read_tensors, state_problems
from poise.converters.imagenet import resnet_to_anti_aliased, to_timm
from poise.models.base import PoseModel
from poise.settings import Settings
from poise.train.state import undisturbed_random_state

_log = logging.getLogger(__name__)
_LISTED = 8


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """What a model took from a file.

    Attributes:
        path: the file.
        taken: number of tensors.
        total: number of tensors of the model, or of its backbone.
        remade: modules that keep their own, random weights, in the model's order.
        skeletons: names of the file's skeleton and of the model's, if they differ.
    """

    path: Path
    taken: int
    total: int
    remade: tuple[str, ...] = ()
    skeletons: tuple[str, str] | None = None

    def __str__(self) -> str:
        """One line for the user."""
        text = f"started from {self.path.name}: {self.taken} of {self.total} tensors taken"
        if not self.remade:
            return text
        names = ", ".join(self.remade[:_LISTED])
        more = f" and {len(self.remade) - _LISTED} more" if len(self.remade) > _LISTED else ""
        why = f" for {self.skeletons[1]} instead of {self.skeletons[0]}" if self.skeletons else ""
        return f"{text}; made anew{why}: {names}{more}"


def load_initial_weights(model: PoseModel, path: str | Path) -> InitialWeights:
    """Give a fresh model the weights of a safetensors file; returns what was taken.

    From a Poise checkpoint every tensor is taken whose name and shape the model has too. If the checkpoint is for
    other keypoints, the layers whose size follows from the keypoints stay as they were made, even where sizes agree by
    chance. Any other file must hold a whole backbone under the names of timm or torchvision (mobilenet_v2, ResNets);
    what it holds beyond that, such as a classifier, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a safetensors file, or does not fit the model.
    """
    path = Path(path)
    report = _from_checkpoint(model, path) if is_checkpoint(path) else _from_backbone(model, path)
    _log.info("%s", report)
    return report


def _from_checkpoint(model: PoseModel, path: Path) -> InitialWeights:
    module = cast(nn.Module, model)
    own = module.state_dict()
    skeleton = read_header(path).skeleton
    other = skeleton.keypoints != model.skeleton.keypoints
    bound = skeleton_bound(model) if other else set()
    tensors = read_tensors(path)
    found = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape and n not in bound}
    if not found:
        raise CheckpointError(f"{path} has no tensor in common with the model: is it of another system?")
    module.load_state_dict(found, strict=False)
    remade = _modules((name for name in own if name not in found), found)
    return InitialWeights(path, len(found), len(own), remade, (skeleton.name, model.skeleton.name) if other else None)


def skeleton_bound(model: PoseModel) -> set[str]:
    """Names of the tensors whose shape changes when the skeleton gets one keypoint more."""
    skeleton = model.skeleton
    more = replace(
        skeleton, keypoints=(*skeleton.keypoints, "one_more"), sigmas=(*skeleton.sigmas, skeleton.sigmas[-1])
    )
    build: Any = type(model)
    with undisturbed_random_state():
        probe = cast(nn.Module, build(_with_room(model.config, len(skeleton)), more)).state_dict()
    own = cast(nn.Module, model).state_dict()
    return {name for name, tensor in own.items() if name not in probe or probe[name].shape != tensor.shape}


def _with_room(config: Settings, keypoint: int) -> Settings:
    """The settings for one keypoint more, of that index: where they name groups, it is one of its own."""
    groups = getattr(config, "groups", None)
    return config if groups is None else config.model_copy(update={"groups": (*groups, (keypoint,))})


def _modules(names: Iterable[str], found: Collection[str]) -> tuple[str, ...]:
    """The largest modules, by name, of whose tensors ``names`` none was found; a tensor that stands alone is itself."""
    return tuple(dict.fromkeys(_largest(name, found) for name in names))


def _largest(name: str, found: Collection[str]) -> str:
    parts = name.split(".")
    prefixes = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return next((p for p in prefixes if not any(other.startswith(p + ".") for other in found)), name)


def _from_backbone(model: PoseModel, path: Path) -> InitialWeights:
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
    return InitialWeights(path, len(found), len(own))


def _backbone_body(model: PoseModel) -> nn.Module:
    body = getattr(getattr(model, "backbone", None), "body", None)
    if not isinstance(body, nn.Module):
        raise CheckpointError(f"a {type(model).__name__} has no backbone to take ImageNet weights: give a checkpoint")
    return body
