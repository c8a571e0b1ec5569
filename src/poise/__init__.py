"""Poise: the poses of all people in a picture.

The public names are imported when first used, so that ``import poise`` is quick and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poise.predict.opening import load as load
    from poise.predict.pipeline import pipeline as pipeline
    from poise.predict.predictor import Predictor as Predictor
    from poise.predict.stream import stream as stream
    from poise.skeletons import COCO17 as COCO17
    from poise.skeletons import Skeleton as Skeleton
    from poise.types import Poses as Poses

__version__ = "0.1.0"

_HOMES = {
    "COCO17": "poise.skeletons",
    "Poses": "poise.types",
    "Predictor": "poise.predict.predictor",
    "Skeleton": "poise.skeletons",
    "load": "poise.predict.opening",
    "pipeline": "poise.predict.pipeline",
    "stream": "poise.predict.stream",
}

__all__ = ["COCO17", "Poses", "Predictor", "Skeleton", "__version__", "load", "pipeline", "stream"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'poise' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
