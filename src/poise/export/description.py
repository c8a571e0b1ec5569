"""What an exported file says about itself: everything a runtime needs besides the graph.

It is a JSON object in the file's metadata, under the key ``poise``. docs/guides/export.md lists its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import poise
from poise.models.base import PoseModel
from poise.models.rsn import LEAST_SCORE, RSNConfig
from poise.runtime import FORMAT, Size
from poise.types import ViewSpec

Weights = Literal["float32", "float16", "int8"]


def describe(
    model: PoseModel,
    metadata: Mapping[str, Any],
    canvas: Size | None,
    weights: Weights,
    name: str = "",
    least_side: int = 0,
) -> dict[str, Any]:
    """The description of a model's file.

    Args:
        model: what is exported.
        metadata: of its checkpoint.
        canvas: (height, width) that the input always has; None: it follows from the picture.
        weights: how the weights are stored.
        name: how the user called the model.
        least_side: of an input of any size.
    """
    config = model.config.model_dump(mode="json")
    return {
        "format": FORMAT,
        "poise": poise.__version__,
        "name": name,
        "system": config["system"],
        "skeleton": model.skeleton.to_dict(),
        "view": model.view.model_dump(mode="json"),
        "canvas": None if canvas is None else list(canvas),
        "least_side": least_side if canvas is None else 0,
        "weights": weights,
        "suppression": _suppression(model),
        "min_score": metadata.get("min_score"),
        "model": config,
        "metadata": dict(metadata),
    }


def fixed_canvas(view: ViewSpec, size: Size | None = None) -> Size | None:
    """The (height, width) of the input of an exported model of whole pictures; None for a model of crops.

    Args:
        view: of the model.
        size: wanted sides; None: of a lying picture at the model's own size, or a square if only its long side counts.

    Raises:
        ValueError: a model of crops is given a size, or one that is no multiple of the stride.
    """
    if view.kind == "crop":
        if size is not None:
            raise ValueError(f"this model looks at crops of {view.size}; their size cannot be changed")
        return None
    stride = view.stride
    if size is None:
        sides = view.short_side or view.long_side, view.long_side
        return (-(-sides[0] // stride) * stride, -(-sides[1] // stride) * stride)
    if min(size) < stride or size[0] % stride or size[1] % stride:
        raise ValueError(f"size {size[0]}x{size[1]} (height x width) must be multiples of {stride}")
    return size


def _suppression(model: PoseModel) -> dict[str, Any]:
    """What the runtime still has to do across people; ``method`` none where everything is in the graph."""
    config = model.config
    if not isinstance(config, RSNConfig) or config.oks_nms == "none":
        return {"method": "none"}
    return {
        "method": config.oks_nms,
        "threshold": config.oks_threshold,
        "max_poses": config.max_poses,
        "min_score": LEAST_SCORE,
    }
