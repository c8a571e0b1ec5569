"""What a model's name means: a shipped model, a checkpoint, or a preset with weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from poise.checkpoints import (
    CheckpointError,
    LoadedCheckpoint,
    is_checkpoint,
    load_checkpoint,
    read_header,
    read_tensors,
    state_problems,
)
from poise.models import PRESETS, PoseModel, build_model, preset
from poise.runtime import OPENERS
from poise.settings import nearest
from poise.skeletons import COCO17
from poise.zoo import DEFAULT, shipped


def load_model(name_or_path: str | Path, weights: str | Path | None = None) -> LoadedCheckpoint:
    """The model, on the CPU, and its metadata; arguments and errors as `poise.predict.predictor.load`."""
    name = str(name_or_path)
    if weights is not None:
        return _from_preset(name, Path(weights))
    models = shipped()
    key = DEFAULT if name == "default" else name
    if isinstance(name_or_path, str) and key in models:
        return load_checkpoint(models[key].path)
    if Path(name).suffix.lower() in OPENERS:
        raise ValueError(f"{name} is an exported model; here a checkpoint (.safetensors) is needed")
    if Path(name).is_file() or _looks_like_path(name_or_path):
        return load_checkpoint(name)
    raise ValueError(_unknown(name, list(models)))


def _from_preset(name: str, weights: Path) -> LoadedCheckpoint:
    if name not in PRESETS:
        raise ValueError(f"weights go with a preset, and {name!r} is none{nearest(name, PRESETS)}")
    skeleton, metadata = COCO17, cast("dict[str, Any]", {})
    if is_checkpoint(weights):
        header = read_header(weights)
        skeleton, metadata = header.skeleton, header.metadata
    model = build_model(preset(name), skeleton)
    tensors = read_tensors(weights)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    problems = state_problems({key: tuple(value.shape) for key, value in tensors.items()}, expected)
    if problems:
        raise CheckpointError(f"{weights} does not fit the preset {name!r}: {problems}")
    model.load_state_dict(tensors)
    return LoadedCheckpoint(cast(PoseModel, model.eval()), metadata)


def _looks_like_path(name: str | Path) -> bool:
    return isinstance(name, Path) or Path(name).suffix == ".safetensors" or len(Path(name).parts) > 1


def _unknown(name: str, models: list[str]) -> str:
    if name == "default" or (name == DEFAULT and not models):
        return f"this copy of Poise was built without its model {DEFAULT!r}; give the path of a checkpoint instead"
    if name in PRESETS:
        return f"{name!r} is a preset without weights; give its weights, or train it: poise train {name}"
    known = ["default", *models] if DEFAULT in models else models
    return f"unknown model {name!r}{nearest(name, known) if known else '; none comes with this copy of Poise'}; " + (
        "or give the path of a checkpoint (.safetensors)"
    )
