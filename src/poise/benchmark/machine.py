"""What this machine can do at most, and what it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from poise.benchmark.clock import Stopwatch

SIDE_CPU, SIDE_GPU = 1536, 8192
"""Sides of the matrices: large enough for full speed, small enough for many rounds."""


class MatrixProduct:
    """A large matrix product: as fast as arithmetic gets on a device, with the libraries that the networks use.

    Args:
        device: where.
        kind: of the numbers.
        side: of the square matrices; None: what suits the device.
    """

    def __init__(self, device: torch.device, kind: torch.dtype = torch.float32, side: int | None = None) -> None:
        self.side = side or (SIDE_CPU if device.type == "cpu" else SIDE_GPU)
        generator = torch.Generator().manual_seed(0)
        self._a, self._b = (torch.randn(self.side, self.side, generator=generator).to(device, kind) for _ in range(2))
        self._out = torch.empty_like(self._a)

    @property
    def macs(self) -> int:
        """Multiply-adds of one product."""
        return self.side**3

    def __call__(self, watch: Stopwatch) -> None:
        """One product, as the stage ``product``."""
        with torch.inference_mode(), watch.stage("product"):
            torch.mm(self._a, self._b, out=self._out)


def describe(device: torch.device) -> dict[str, Any]:
    """The machine and the libraries, JSON-ready."""
    told = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if device.type == "cuda":
        told["gpu"] = torch.cuda.get_device_name(device)
    return told


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
