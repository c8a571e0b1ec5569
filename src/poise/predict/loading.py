"""What a model's name means: a shipped model, a checkpoint, or a preset with weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from poise.checkpoints import (
    CheckpointError,
    Header,
    LoadedCheckpoint,
    is_checkpoint,
    load_checkpoint,
    read_header,
    read_tensors,
    state_problems,
)
from poise.models import PRESETS, PoseModel, build_model, parse_model_config, preset
from poise.runtime import OPENERS
from poise.settings import nearest
from poise.skeletons import COCO17
from poise.zoo import DEFAULT, larger, shipped


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
    header = read_header(weights) if is_checkpoint(weights) else None
    model = build_model(preset(name), COCO17 if header is None else header.skeleton)
    tensors = read_tensors(weights)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    problems = state_problems({key: tuple(value.shape) for key, value in tensors.items()}, expected)
    if problems:
        raise CheckpointError(f"{weights} does not fit the preset {name!r}: {problems}")
    if header is not None:
        _require_settings_of(name, weights, header)
    model.load_state_dict(tensors)
    return LoadedCheckpoint(cast(PoseModel, model.eval()), {} if header is None else header.metadata)


def _require_settings_of(name: str, weights: Path, header: Header) -> None:
    """``CheckpointError`` if a checkpoint whose tensors fit a preset is of a model with other settings."""
    wanted, own = (
        _flat(preset(name).model_dump(mode="json")),
        _flat(parse_model_config(header.model).model_dump(mode="json")),
    )
    others = [
        f"{key} = {own.get(key)}, not {wanted.get(key)}" for key in own | wanted if own.get(key) != wanted.get(key)
    ]
    if others:
        told = "; ".join(others[:3]) + ("; ..." if len(others) > 3 else "")
        raise CheckpointError(
            f"{weights} has other settings than the preset {name!r} ({told}); name the file itself as the model"
        )


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted names, but for what training alone makes of boxes."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key != "person_box":
            found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key: value}
    return found


def _looks_like_path(name: str | Path) -> bool:
    return isinstance(name, Path) or Path(name).suffix == ".safetensors" or len(Path(name).parts) > 1


def _unknown(name: str, models: list[str]) -> str:
    if name == "default" or (name == DEFAULT and not models):
        return f"this copy of Poise was built without its model {DEFAULT!r}; give the path of a checkpoint instead"
    if name in larger():
        return (
            f"{name!r} does not come with the package but with the repository: give the path of {larger()[name].path}"
        )
    if name in PRESETS:
        return f"{name!r} is a preset without weights; give its weights, or train it: poise train {name}"
    known = ["default", *models] if DEFAULT in models else models
    return f"unknown model {name!r}{nearest(name, known) if known else '; none comes with this copy of Poise'}; " + (
        "or give the path of a checkpoint (.safetensors)"
    )
