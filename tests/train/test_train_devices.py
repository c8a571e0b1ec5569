"""Which device a run trains on: what is asked for, or an error."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from poise.train import devices
from poise.train.config import TrainConfig
from poise.train.devices import join_processes, make_accelerator, training_device


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every device that torch can name is there."""
    monkeypatch.setattr(devices, "find_device", torch.device)


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_run_takes_the_device_that_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert join_processes(name).device == torch.device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_accelerator(TrainConfig(steps=1), name).device == torch.device(name)
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ, "told to accelerate alone, while it starts"


def test_auto_leaves_the_choice_to_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "meta")
    assert training_device("auto") is None
    assert make_accelerator(TrainConfig(steps=1), "auto").device == torch.device("meta")


@pytest.mark.parametrize("name", ["toaster", "cuda:999", ""])
def test_what_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used"):
        join_processes(name)
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used"):
        make_accelerator(TrainConfig(steps=1), name)


@pytest.mark.usefixtures("any_device")
def test_several_processes_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    second = {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    assert training_device("cuda", second) == torch.device("cuda:1")
    assert training_device("cpu", second) == torch.device("cpu")
    for name in ("cuda:1", "mps", "toaster"):
        with pytest.raises(ValueError, match=f"device '{name}' is one for all processes of the run: .*--device cuda"):
            training_device(name, second)


def test_half_precision_without_a_gpu_is_an_error() -> None:
    with pytest.raises(ValueError, match="fp16 needs a GPU; on a CPU use bf16 or no"):
        make_accelerator(TrainConfig(steps=1, precision="fp16"), "cpu")
