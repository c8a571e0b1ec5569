"""Other codes' checkpoints -> Poise checkpoints."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.settings import nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SOURCES", "convert_file", "convert_state"]

MAX_BYTES = 8 * 2**30
"""Largest checkpoint file that is opened."""


def _directpose_gluoncv(state: Mapping[str, Tensor]) -> nn.Module:
    from poise.converters.directpose import from_gluoncv

    return from_gluoncv(state)


def _directpose(state: Mapping[str, Tensor]) -> nn.Module:
    from poise.converters.directpose import from_official

    return from_official(state)


def _smpr(state: Mapping[str, Tensor]) -> nn.Module:
    from poise.converters.smpr import from_official

    return from_official(state)


def _rsn(state: Mapping[str, Tensor]) -> nn.Module:
    from poise.converters.rsn import from_official

    return from_official(state)


def _mmpose_rsn(state: Mapping[str, Tensor]) -> nn.Module:
    from poise.converters.rsn import from_mmpose

    return from_mmpose(state)


SOURCES: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    "directpose-gluoncv": _directpose_gluoncv,
    "directpose": _directpose,
    "smpr": _smpr,
    "rsn": _rsn,
    "mmpose-rsn": _mmpose_rsn,
}
"""What ``--from`` accepts: a function from a state dict with the source's names to a loaded model."""


def convert_state(state: Mapping[str, Tensor], source: str) -> nn.Module:
    """A Poise model holding the weights of another code's state dict.

    Raises:
        ValueError: unknown source, or missing, unexpected or wrongly shaped names (all are listed).
    """
    if source not in SOURCES:
        raise ValueError(f"unknown checkpoint source {source!r}{nearest(source, SOURCES)}")
    return SOURCES[source](state)


def convert_file(path: str | Path, source: str, output: str | Path) -> Path:
    """Convert a ``.pth`` or ``.safetensors`` file; the file is read without running any code in it.

    Args:
        path: the other code's checkpoint; a state dict, or a dict with one under ``state_dict`` or ``model``.
        source: a key of `SOURCES`.
        output: where the Poise checkpoint (safetensors) goes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read safely, is too large, or does not fit.
    """
    from poise.checkpoints import save_checkpoint

    path = Path(path)
    model = convert_state(read_state_dict(path), source)
    save_checkpoint(output, model, metadata={"converted_from": source, "file": path.name})  # type: ignore[arg-type]
    return Path(output)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file by name, without a ``module.`` prefix."""
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"checkpoint {path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about a file's format before it refuses or reads it
            found: Any = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"checkpoint {path} cannot be read as plain weights: {reason}") from None
    except Exception as error:  # safetensors raises its own class
        raise ValueError(f"checkpoint {path} cannot be read: {error}") from None
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping):
        raise ValueError(f"checkpoint {path} holds a {type(found).__name__}, not a state dict")
    state = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, torch.Tensor)}
    if not state:
        raise ValueError(f"checkpoint {path} holds no tensors; known wrappers are 'state_dict' and 'model'")
    return state
