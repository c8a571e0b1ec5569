"""The state of a training run: what a file must hold so that going on equals not having stopped."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from poise.files import replacing

STATE_FORMAT = 1
"""Version of the layout of a state file."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is.

    Attributes:
        step: updates done.
        epoch: epoch of the next batch, from 0.
        batch: number of the next batch within its epoch, from 0.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0


def write_state(path: str | Path, position: Position, parts: dict[str, Any]) -> None:
    """Write a state file, whole or not at all.

    ``parts`` are state dicts by name; the states of Python's, numpy's and torch's global generators are added.

    Raises:
        OSError: it cannot be written; a file from before is untouched.
    """
    state = {"format": STATE_FORMAT, "position": asdict(position), "random": random_state(), "parts": parts}
    with replacing(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's own writer has no other
            raise OSError(f"{path} cannot be written: {(str(error).splitlines() or [''])[0]}") from error


def read_state(path: str | Path) -> tuple[Position, dict[str, Any], dict[str, Any]]:
    """Position, parts and random state of a state file; tensors on the CPU. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no state file, or one of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no training state {path}: nothing to resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        version = int(state["format"])
        if version > STATE_FORMAT:
            raise ValueError(f"format {version} is newer than {STATE_FORMAT}, the one this version of Poise reads")
        return Position(**state["position"]), state["parts"], state["random"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(f"{path} cannot be resumed from: {reason}") from None


def random_state() -> dict[str, Any]:
    """State of the global generators, in types that ``torch.load(weights_only=True)`` accepts."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 (the state to keep)
    return {
        "python": random.getstate(),
        "numpy": (str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators into a state from `random_state`."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def undisturbed_random_state() -> Iterator[None]:
    """The global generators are afterwards as they were before."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
