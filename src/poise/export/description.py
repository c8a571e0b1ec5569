"""What an exported file says about itself: everything a runtime needs besides the graph.

It is a JSON object in the file's metadata, under the key ``poise``. docs/guides/export.md lists its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import poise
from poise.models.base import PoseModel
from poise.models.rsn import LEAST_SCORE, RSNConfig
from poise.predict.views import scaled_specs
from poise.runtime import FORMAT, Size
from poise.types import ViewSpec

Weights = Literal["float32", "float16", "int8"]
SCALES = "scales"
"""In a checkpoint's metadata: the sizes at which its model is best shown a picture."""


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
        "model_scales": model_scales(model.view, metadata),
        "model": config,
        "metadata": {key: value for key, value in metadata.items() if key != SCALES},  # a graph does not follow them
    }


def model_scales(view: ViewSpec, metadata: Mapping[str, Any]) -> list[list[int]] | None:
    """The sizes at which a checkpoint's model looks at each picture, where an exported file does not: that looks once.

    Args:
        view: of the model.
        metadata: of its checkpoint; ``scales`` in it are what it recommends.

    Returns:
        Limits of the long and the short side, input px; None: it looks once, at the size of its view.

    Raises:
        ValueError: ``scales`` are no sizes.
    """
    told = metadata.get(SCALES)
    if told is None or view.kind == "crop":
        return None
    try:
        wanted = [side if isinstance(side, int) else (int(side[0]), int(side[1])) for side in told]
    except (TypeError, ValueError, IndexError):
        raise ValueError(f"the checkpoint's metadata has scales {told!r}, which are none; save it without") from None
    sizes = [_limits(spec.long_side, spec.short_side) for spec in scaled_specs(view, wanted)]
    return None if sizes == [_limits(view.long_side, view.short_side)] else sizes


def looks_once(description: Mapping[str, Any]) -> str | None:
    """What a file misses of what its checkpoint sees, as a sentence; None if that is nothing."""
    if description["model_scales"] is None:
        return None
    view, canvas = description["view"], description["canvas"]
    here = _pixels(canvas or _limits(view["long_side"], view["short_side"]))
    *first, last = (_pixels(size) for size in description["model_scales"])
    there = f"{', '.join(first)} and {last}" if first else last
    return f"looks once, at {here} px; the model itself looks at {there} px"


def _limits(long_side: int, short_side: int | None) -> list[int]:
    """Of the long and the short side."""
    return [long_side, min(long_side, short_side or long_side)]


def _pixels(size: Sequence[int]) -> str:
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"


def canvas_of(view: ViewSpec, size: Size | None = None, dynamic: bool = False) -> Size | None:
    """The (height, width) of the input of an exported model; None: it follows from the picture, or from the crops.

    With limits of both sides no size suits upright and lying pictures: in that of the one, the other becomes small.
    There the sides are free unless a size is wanted.

    Args:
        view: of the model.
        size: wanted sides.
        dynamic: free sides are wanted.

    Raises:
        ValueError: as `fixed_canvas`.
    """
    if dynamic or (view.kind == "whole" and size is None and view.short_side is not None):
        return None
    return fixed_canvas(view, size)


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
        "oks_min_score": config.oks_min_score,
        "max_poses": config.max_poses,
        "min_score": LEAST_SCORE,
    }
