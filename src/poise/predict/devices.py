"""Where and how networks run: on which device, in which precision, compiled or not."""

from __future__ import annotations

import contextlib
import functools
import logging
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

Half = bool | Literal["float16", "bfloat16"]
"""Whether networks compute in half precision, and in which; True is float16."""

_NAMES = "auto, cpu, cuda, cuda:1, mps ..."
_HALVES: dict[Half, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, True: torch.float16}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """How a network runs. Its text says it to users: ``cuda:0 (NVIDIA H200), float16, compiled``.

    Attributes:
        device: where.
        precision: of the network's layers; what becomes of its outputs, keypoints and scores, is computed in float32.
        compiled: by ``torch.compile``.
    """

    device: torch.device
    precision: torch.dtype = torch.float32
    compiled: bool = False

    @property
    def half(self) -> Half:
        """Whether convolutions are in half precision, and in which, as `running` takes it."""
        return next((name for name, kind in _HALVES.items() if kind == self.precision), False)

    def context(self) -> AbstractContextManager[object]:
        """A context to run the network in."""
        return torch.autocast(self.device.type, self.precision) if self.half else contextlib.nullcontext()

    def __str__(self) -> str:
        """For users."""
        precision = str(self.precision).removeprefix("torch.")
        return f"{_told(self.device)}, {precision}{', compiled' if self.compiled else ''}"


def running(name: str | torch.device = "auto", *, half: Half = False, compiled: bool = False) -> Running:
    """What is asked for, if this machine has it; nothing is exchanged for something else in silence.

    Args:
        name: see `find_device`.
        half: compute in float16 (True) or ``bfloat16``. On a CPU bfloat16 only; a warning says where that is slow.
        compiled: compile networks.

    Raises:
        ValueError: there is no such device or precision, float16 is asked for on a CPU, or nothing can be compiled
            here.
    """
    device = find_device(name)
    if half not in (False, *_HALVES):
        raise ValueError(f"half precision {half!r} is not known; True or 'float16', 'bfloat16'")
    precision = _HALVES[half] if half else torch.float32
    if precision == torch.float16 and device.type == "cpu":
        raise ValueError(
            "half precision in float16 is for GPUs, and this would run on the CPU; leave it out, name a GPU, or take "
            "bfloat16"
        )
    if precision == torch.bfloat16 and device.type == "cpu" and not _has_bfloat16():
        _warn_slow()
    if compiled:
        _try_compiler(device)
    return Running(device, precision, compiled)


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; ``auto`` is a CUDA device if there is one, else the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise RuntimeError("there is no Apple GPU that torch can use")
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(f"device {str(name)!r} cannot be used ({_NAMES}): {reason}") from None
    return device


def _told(device: torch.device) -> str:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"the CPU ({threads} {'thread' if threads == 1 else 'threads'})"
    if device.type == "cuda":
        return f"cuda:{device.index or 0} ({torch.cuda.get_device_name(device)})"
    return str(device)


@functools.cache
def _warn_slow() -> None:
    """Once, not for every model."""
    _log.warning("this processor has no arithmetic for bfloat16, which will take longer than float32")


def _has_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, or torch cannot tell."""
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    known = [ask for ask in asked if ask is not None]
    return not known or platform.machine().lower() not in ("x86_64", "amd64") or any(ask() for ask in known)


def _try_compiler(device: torch.device) -> None:
    """Compile a small function; ``ValueError`` with the reason if that is not possible here."""
    try:
        torch.compile(_small)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler's own kinds of errors have no common base
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ValueError(f"networks cannot be compiled on this machine: {reason.strip()}") from None


def _small(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) * 2
