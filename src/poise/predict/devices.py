"""Where and how networks run: on which device, in which precision, compiled or not."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

_NAMES = "auto, cpu, cuda, cuda:1, mps ..."


@dataclass(frozen=True, slots=True)
class Running:
    """How a network runs. Its text says it to users: ``cuda:0 (NVIDIA H200), float16, compiled``.

    Attributes:
        device: where.
        half: convolutions in float16; what becomes of their outputs is computed in float32 as ever.
        compiled: by ``torch.compile``.
    """

    device: torch.device
    half: bool = False
    compiled: bool = False

    def precision(self) -> AbstractContextManager[object]:
        """A context to run the network in."""
        return torch.autocast(self.device.type, torch.float16) if self.half else contextlib.nullcontext()

    def __str__(self) -> str:
        """For users."""
        return f"{_told(self.device)}, {'float16' if self.half else 'float32'}{', compiled' if self.compiled else ''}"


def running(name: str | torch.device = "auto", *, half: bool = False, compiled: bool = False) -> Running:
    """What is asked for, if this machine has it; nothing is exchanged for something else in silence.

    Args:
        name: see `find_device`.
        half: compute in float16.
        compiled: compile networks.

    Raises:
        ValueError: there is no such device, half precision is asked for on a CPU, or nothing can be compiled here.
    """
    device = find_device(name)
    if half and device.type == "cpu":
        raise ValueError("half precision is for GPUs, and this would run on the CPU; leave it out, or name a GPU")
    if compiled:
        _try_compiler(device)
    return Running(device, half, compiled)


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


def compile_parts(module: nn.Module) -> None:
    """Compile, in place and when they first run, the parts of a network that do most of the work.

    Only parts without decisions on values are compiled: backbone, neck, stages, and the towers of a head. What
    looks at candidates stays as it is.
    """
    for part in module.children():
        towers = [p for p in part.children() if isinstance(p, nn.Sequential)] if _decides(part) else [part]
        for tower in towers:
            for each in tower if isinstance(tower, nn.ModuleList) else [tower]:
                each.compile()


def _decides(part: nn.Module) -> bool:
    """Whether a part is a head, which inference runs piece by piece."""
    return type(part).__name__.endswith("Head")


def _told(device: torch.device) -> str:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"the CPU ({threads} {'thread' if threads == 1 else 'threads'})"
    if device.type == "cuda":
        return f"cuda:{device.index or 0} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _try_compiler(device: torch.device) -> None:
    """Compile a small function; ``ValueError`` with the reason if that is not possible here."""
    try:
        torch.compile(_small)(torch.zeros(8, device=device))
    except Exception as error:  # the compiler's own kinds of errors have no common base
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ValueError(f"networks cannot be compiled on this machine: {reason.strip()}") from None


def _small(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) * 2
