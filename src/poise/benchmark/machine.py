"""What this machine can do at most, and what it is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poise.benchmark.clock import Stopwatch

SIDE_CPU, SIDE_GPU = 1536, 8192
"""Sides of the matrices: large enough for full speed, small enough for many rounds."""


class MatrixProduct:
    """A large matrix product: as fast as arithmetic gets on a device, with the libraries that the networks use.

    On a CPU torch has two of them: that of its products, which is slow on some processors, and that of its
    convolutions. The quicker one counts.

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
        ways = [self._product]
        if device.type == "cpu" and kind == torch.float32 and self._has_convolutions_product():
            ways.append(self._convolutions_product)
        self._way = min(ways, key=_least_time) if len(ways) > 1 else ways[0]

    @property
    def macs(self) -> int:
        """Multiply-adds of one product."""
        return self.side**3

    def __call__(self, watch: Stopwatch) -> Tensor:
        """One product, as the stage ``product``."""
        with torch.inference_mode(), watch.stage("product"):
            return self._way()

    def _product(self) -> Tensor:
        return torch.mm(self._a, self._b, out=self._out)

    def _convolutions_product(self) -> Tensor:
        """The same by oneDNN; no part of torch's public interface."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(self._a, self._turned, None, "none", [], "")
        return made

    def _has_convolutions_product(self) -> bool:
        self._turned = self._b.T.contiguous()
        try:
            with torch.inference_mode():
                return torch.allclose(self._convolutions_product(), self._product(), rtol=1e-3, atol=1e-2)
        except (RuntimeError, AttributeError, TypeError):
            return False


def _least_time(way: Callable[[], Tensor], runs: int = 4) -> float:
    """The least time that it takes, seconds."""
    times = []
    with torch.inference_mode():
        for _ in range(runs):
            start = time.perf_counter()
            way()
            times.append(time.perf_counter() - start)
    return min(times)


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
