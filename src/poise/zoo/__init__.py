"""The models that come with the package: ``<name>.safetensors``, its card ``<name>.md`` and numbers ``<name>.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = "smpr_mobilenetv2"
"""The shipped model that the name ``default`` stands for."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model that comes with the package.

    Attributes:
        name: what `poise.load` and ``--model`` take.
        path: the checkpoint.
        card: Markdown: data and their terms, recipe, measured numbers.
        metrics: the measured numbers, as far as they are written down for machines.
    """

    name: str
    path: Path
    card: Path
    metrics: dict[str, Any]

    @property
    def title(self) -> str:
        """The first line of the card, without its mark."""
        if not self.card.is_file():
            return ""
        with self.card.open(encoding="utf-8") as lines:
            return next((line.strip("# \n") for line in lines if line.strip()), "")


def shipped(folder: Path = _FOLDER) -> dict[str, ShippedModel]:
    """The models that come with the package, by name; empty if the package was built without weights."""
    return {path.stem: _shipped(path) for path in sorted(folder.glob("*.safetensors"))}


def _shipped(path: Path) -> ShippedModel:
    numbers = path.with_suffix(".json")
    metrics = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
    return ShippedModel(path.stem, path, path.with_suffix(".md"), metrics)
