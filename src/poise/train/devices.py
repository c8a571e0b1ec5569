"""The processes and devices of a run, and what has to be told to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from torch import Tensor, nn

from poise.memory import resident_bytes
from poise.nn.mobilenet import NormAct
from poise.nn.quick_import import load_timm
from poise.predict.devices import find_device
from poise.train.config import TrainConfig

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: the main process measures the model while the others wait."""


def training_device(name: str, environment: Mapping[str, str] = os.environ) -> torch.device | None:
    """The device of that name (`find_device`); None for ``auto``: accelerate looks for one, and its variables count.

    Raises:
        ValueError: torch knows no such device, this machine has none, or several processes are to share it.
    """
    if name == "auto":
        return None
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return find_device(name)
    if name == "cuda":
        return find_device(f"cuda:{environment.get('LOCAL_RANK', '0')}")
    if name != "cpu":
        raise ValueError(
            f"device {name!r} is one for all processes of the run: give each its own with --device cuda "
            "(CUDA_VISIBLE_DEVICES chooses among them), or train in one process"
        )
    return find_device(name)


def join_processes(device: str) -> PartialState:
    """This process's place among all of the run; on the first call they find each other.

    ``accelerate launch`` and ``torchrun`` say in the environment how many there are; without them there is one.

    Raises:
        ValueError: as `training_device`.
    """
    chosen = training_device(device)
    with _told_to_accelerate(chosen):
        return PartialState(cpu=_is_cpu(chosen), timeout=PATIENCE)


def make_accelerator(config: TrainConfig, device: str) -> Accelerator:
    """The accelerator of a run; a process that trains several runs in turn may give each its own precision.

    Raises:
        ValueError: fp16 is asked for without a GPU; others as `training_device`.
    """
    chosen = training_device(device)
    on_cpu = _is_cpu(chosen) or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if config.precision == "fp16" and on_cpu:
        raise ValueError("train.precision=fp16 needs a GPU; on a CPU use bf16 or no")
    AcceleratorState._reset_state(reset_partial_state=True)
    with _told_to_accelerate(chosen):
        return Accelerator(
            cpu=_is_cpu(chosen),
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )


def _is_cpu(device: torch.device | None) -> bool:
    return device is not None and device.type == "cpu"


def _told_to_accelerate(device: torch.device | None) -> AbstractContextManager[None]:
    """Where accelerate takes a device from: a variable, while its state is made.

    Of the CPU and of the GPUs of several processes it is told otherwise, or finds them itself.
    """
    if device is None or device.type == "cpu" or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return nullcontext()
    return cast(AbstractContextManager[None], patch_environment(ACCELERATE_TORCH_DEVICE=str(device)))


def share_batch_norms(module: nn.Module, accelerator: Accelerator) -> None:
    """Let the batch norms of all processes share their statistics; nothing to do for a single process.

    Raises:
        ValueError: there are several processes but no GPU, where torch has no such norm.
    """
    if accelerator.num_processes == 1:
        return
    if accelerator.device.type != "cuda":
        raise ValueError("train.sync_batch_norm with several processes needs GPUs; set it to false on a CPU")
    load_timm()
    from timm.layers import convert_sync_batchnorm

    activations = {name: part.act for name, part in module.named_modules() if isinstance(part, NormAct)}
    convert_sync_batchnorm(module)
    for name, activation in activations.items():  # timm knows only its own norms with activations
        norm = module.get_submodule(name)
        norm.__class__ = _SharedNormAct
        norm.act = activation


class _SharedNormAct(nn.SyncBatchNorm):
    """`NormAct` over several processes."""

    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        activated: Tensor = self.act(super().forward(input))
        return activated


def mean_of_processes(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Elementwise mean over all processes; every process gets it."""
    if accelerator.num_processes == 1:
        return values
    return cast(Tensor, accelerator.reduce(values, "mean"))


def memory_in_use(device: torch.device) -> int:
    """Bytes: the largest amount so far on a GPU, what the process has in RAM elsewhere."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else resident_bytes()
