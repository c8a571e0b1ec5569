"""Reading golden cases: settings and arrays, regenerated weights and inputs, comparison with stored samples."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_weights import golden_state_dict

HERE = Path(__file__).parent


def folder(system: str) -> Path:
    """The folder of a system's cases: ``POISE_GOLDEN_<SYSTEM>`` or the committed one."""
    return Path(os.environ.get(f"POISE_GOLDEN_{system.upper()}") or HERE / system)


class Case:
    """One golden case."""

    def __init__(self, system: str, name: str) -> None:
        self.name = name
        self.settings: dict[str, Any] = json.loads((folder(system) / f"{name}.json").read_text())
        self.arrays = np.load(folder(system) / f"{name}.npz")

    def __getitem__(self, key: str) -> Any:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays or f"{key}__sample" in self.arrays

    def state_dict(self, entries: list[Any] | None = None) -> dict[str, torch.Tensor]:
        entries = self.settings["state_dict"] if entries is None else entries
        weights = golden_state_dict(entries, self.settings.get("fixed", ()))
        return {k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()}

    def compare(self, key: str, found: torch.Tensor, *, absolute: float = 0.0, of_absmax: float = 0.0) -> None:
        """Assert that ``found`` equals a stored array, whole or sampled, within the tolerance."""
        values = found.detach().cpu().numpy()
        assert list(values.shape) == list(self.settings["arrays"][key]["shape"]), key
        if f"{key}__sample" in self.arrays:
            step = self.settings["arrays"][key]["step"]
            expected, actual = self.arrays[f"{key}__sample"], values.reshape(-1)[::step]
            largest = float(self.arrays[f"{key}__stats"][2])
            assert abs(np.abs(values).max() - largest) <= max(absolute, of_absmax * largest), key
        else:
            expected, actual = self.arrays[key], values
            largest = float(np.abs(expected).max())
        worst = float(np.abs(actual - expected).max())
        assert worst <= absolute + of_absmax * largest, f"{self.name} {key}: {worst} of {largest}"


def normal(seed: int, shape: list[int] | tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32))


def noise_image(seed: int, shape: list[int]) -> np.ndarray:
    """An RGB picture (3, H, W) float32 of whole numbers 0..255."""
    draw = np.random.default_rng(seed).standard_normal(tuple(shape))
    return np.clip(np.rint(127.5 + 64 * draw), 0, 255).astype(np.float32)
