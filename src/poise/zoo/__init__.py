"""The models that come with the package: ``<name>.safetensors``, its card ``<name>.md`` and numbers ``<name>.json``.

Of larger models the package has card and numbers; their weights are in the folder ``models`` of the repository.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT = "smpr_mobilenetv2"
"""The shipped model that the name ``default`` stands for."""

LARGER = Path("models")
"""Folder of the weights of larger models, in the repository."""

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model that comes with the package, or, if it is larger, with the repository.

    Attributes:
        name: what `poise.load` and ``--model`` take; of a larger model they take the path.
        path: the checkpoint; of a larger model from the root of the repository.
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
    return {path.stem: _described(path, path) for path in sorted(folder.glob("*.safetensors"))}


def larger(folder: Path = _FOLDER) -> dict[str, ShippedModel]:
    """The larger models, by name: whose numbers are in the package and whose weights are not."""
    paths = [path.with_suffix(".safetensors") for path in sorted(folder.glob("*.json"))]
    return {path.stem: _described(path, LARGER / path.name) for path in paths if not path.is_file()}


def _described(beside: Path, weights: Path) -> ShippedModel:
    """A model with weights somewhere, whose card and numbers are where ``beside`` is or would be."""
    numbers = beside.with_suffix(".json")
    metrics = json.loads(numbers.read_text(encoding="utf-8")) if numbers.is_file() else {}
    return ShippedModel(beside.stem, weights, beside.with_suffix(".md"), metrics)
