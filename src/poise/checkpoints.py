"""Poise checkpoints: one safetensors file that holds weights, configuration, skeleton and view.

The header's metadata has one entry, ``poise``, a JSON object: ``format`` (version of this layout), ``poise`` (version
of the package), ``model`` (the system's settings), ``skeleton``, ``view`` and ``metadata`` (recipe, metrics ...).
Nothing in such a file is executed when it is read.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import poise
from poise.files import replacing
from poise.models.base import PoseModel
from poise.skeletons import Skeleton
from poise.types import ViewSpec

FORMAT = 1
"""Version of the layout that this package writes; it reads this one and older ones."""
MAX_HEADER = 32 * 2**20
"""Largest header that is read, bytes; the header of a network with 10,000 tensors has about 1 MB."""
NUMBERS_A_BYTE, SPARE_NUMBERS = 2, 2**24
"""While a checkpoint's model is built it makes so many numbers for each byte of the file, and so many more.

Half precision needs half a number a byte; the rest is for what networks make and throw away, or do not save.
"""
LISTED = 10
"""How many names of a kind an error lists before it only counts."""
_KEY = "poise"


class CheckpointError(ValueError):
    """A file that is not a usable checkpoint; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a checkpoint says about itself.

    Attributes:
        model: settings of the system, as ``poise.models.parse_model_config`` takes them.
        skeleton: the keypoints the model predicts.
        view: what the model wants to see.
        metadata: free JSON object: training recipe, metrics, origin.
        version: version of the package that wrote the file.
        tensors: shape of every tensor, by name.
    """

    model: dict[str, Any]
    skeleton: Skeleton
    view: ViewSpec
    metadata: dict[str, Any]
    version: str
    tensors: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A model with the weights of a checkpoint, in eval mode, and the checkpoint's metadata."""

    model: PoseModel
    metadata: dict[str, Any]


def save_checkpoint(
    path: str | Path, model: PoseModel, *, metadata: Mapping[str, Any] | None = None, half: bool = False
) -> None:
    """Write ``model`` to one file, whole or not at all.

    Args:
        path: the file, usually ``*.safetensors``; its folder is made.
        model: an ``nn.Module`` with ``config``, ``skeleton`` and ``view``.
        metadata: a JSON-ready object to store with it.
        half: store filters and matrices as float16, half the size; vectors (biases, norms and their statistics) and
            tensors with values beyond float16 stay float32.

    Raises:
        ValueError: the metadata is not JSON-ready.
        OSError: the file cannot be written; one from before is untouched.
    """
    description = {
        "format": FORMAT,
        "poise": poise.__version__,
        "model": model.config.model_dump(mode="json"),
        "skeleton": model.skeleton.to_dict(),
        "view": model.view.model_dump(mode="json"),
        "metadata": dict(metadata or {}),
    }
    try:
        text = json.dumps(description, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint metadata cannot be written as JSON: {error}") from None
    state = cast(nn.Module, model).state_dict()
    tensors = {name: _stored(tensor, half) for name, tensor in state.items()}
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={_KEY: text})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def read_header(path: str | Path) -> Header:
    """Read what a checkpoint says about itself, without its weights.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a safetensors file, not a Poise checkpoint, or from a newer Poise.
    """
    path = Path(path)
    raw = _read_raw_header(path)
    entry = raw.pop("__metadata__", {}).get(_KEY)
    if entry is None:
        raise CheckpointError(
            f"{path} is a safetensors file but not a Poise checkpoint: its header has no {_KEY!r} entry"
        )
    try:
        data = json.loads(entry)
        version = int(data["format"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path}: the {_KEY!r} entry of the header is damaged: {error!r}") from None
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, this version of Poise ({poise.__version__}) reads up to {FORMAT}; "
            f"it was written by Poise {data.get('poise', 'of unknown version')}: upgrade"
        )
    try:
        return Header(
            model=dict(data["model"]),
            skeleton=Skeleton.from_dict(data["skeleton"]),
            view=ViewSpec.parse(data["view"], where="view"),
            metadata=dict(data["metadata"]),
            version=str(data["poise"]),
            tensors={name: tuple(entry["shape"]) for name, entry in raw.items()},
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: the {_KEY!r} entry of the header is damaged: {error}") from None


def is_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a safetensors file with a Poise header, of whatever format version.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a safetensors file.
    """
    return _KEY in _read_raw_header(Path(path)).get("__metadata__", {})


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> LoadedCheckpoint:
    """Build the model that a checkpoint describes and give it the checkpoint's weights.

    Half-precision tensors are loaded as float32.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: see `read_header`; or the model would be far larger than the file; or tensors are missing,
            unexpected or of the wrong shape; or this version of Poise builds a model with another view.
    """
    path = Path(path)
    header = read_header(path)
    try:
        with _Allowance(SPARE_NUMBERS + NUMBERS_A_BYTE * path.stat().st_size):
            model = _build(header)
    except (ValueError, OverflowError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: the model it describes cannot be built: {reason}") from None
    if model.view != header.view:
        raise CheckpointError(f"{path}: the model was made for {header.view}, this version would show it {model.view}")
    module = cast(nn.Module, model)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = state_problems(header.tensors, shapes)
    if problems:
        raise CheckpointError(f"{path} does not fit its own model description: {problems}")
    module.load_state_dict(read_tensors(path))
    return LoadedCheckpoint(cast(PoseModel, module.to(device).eval()), header.metadata)


class _Allowance(TorchFunctionMode):
    """Stops whoever makes more new numbers than allowed, before the memory is taken."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = numbers

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _MAKERS:
            size = args[0] if args and not isinstance(args[0], int) else args
            self._left -= math.prod((kwargs or {}).get("size", size))
            if self._left < 0:
                raise ValueError("it would be many times larger than the file")
        return func(*args, **(kwargs or {}))


_MAKERS = frozenset({torch.empty, torch.full, torch.ones, torch.zeros, torch.rand, torch.randn})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a safetensors file, or damaged.
    """
    _read_raw_header(Path(path))
    try:
        return cast("dict[str, Tensor]", load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def state_problems(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> str:
    """What keeps tensors of the shapes ``found`` out of a model that has ``expected``; empty if nothing does."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} has {tuple(found[name])} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("wrong shape", wrong))
    return "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names)


def _build(header: Header) -> PoseModel:
    from poise.models import build_model, parse_model_config

    return cast(PoseModel, build_model(parse_model_config(header.model), header.skeleton))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if half and tensor.dtype == torch.float32 and tensor.ndim >= 2:
        smaller = tensor.half()
        if bool(torch.isfinite(smaller).all()):
            return smaller
    return tensor.clone()


def _read_raw_header(path: Path) -> dict[str, Any]:
    """The JSON object at the head of a safetensors file, checked for its size before it is read."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    with path.open("rb") as file:
        head = file.read(8)
        size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= size <= min(MAX_HEADER, path.stat().st_size - 8):
            raise CheckpointError(f"{path} is not a safetensors file (or is damaged)")
        text = file.read(size)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is not a safetensors file (or is damaged)") from None
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise CheckpointError(f"{path} is not a safetensors file (or is damaged)")
    return header


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
