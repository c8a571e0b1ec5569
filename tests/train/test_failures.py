"""What goes wrong is told with a way out, and what was saved before stays."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from poise.checkpoints import read_header, save_checkpoint
from poise.data.loader import DataWorkerError
from poise.models import build_model
from poise.skeletons import COCO17
from poise.train import state as state_module
from poise.train.checkpointing import checkpoint_activations
from poise.train.config import RunConfig, TrainConfig
from poise.train.engine import Trainer
from poise.train.failures import NonFiniteLoss, SaveFailed, explain, is_out_of_memory
from poise.train.run import RunFolder
from poise.train.state import Position, read_state
from tiny import TinyBatches, tiny_model

SMALLEST = {"system": "rsn", "view": {"kind": "crop", "size": (32, 32), "half_pixel": False}}


def run_config(**changes: Any) -> RunConfig:
    source = {"annotations": "a.json", "images": "a"}
    data = {"sources": [source], "batch": 8} | changes.pop("data", {})
    train = {"steps": 3} | changes.pop("train", {})
    return RunConfig.parse({"model": "directpose_mobilenetv2", **changes, "data": data, "train": train})


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond ``room`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def trainer(state: Path, steps: int, folder: RunFolder | None = None) -> Trainer:
    settings = TrainConfig.parse({"steps": steps, "save_every": 1})
    watchers = [folder] if folder is not None else []
    return Trainer(tiny_model(), TinyBatches(), settings, state=state, watchers=watchers, device="cpu")


def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer(state, 2).run()
    again = trainer(state, 4)
    again.resume()
    with full_disk(1000), pytest.raises(SaveFailed, match=r"step 3 could not be saved .*; that of step 2 is still"):
        again.run()
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    last = trainer(state, 4)
    assert last.resume().step == 2
    assert last.run().finished


def test_a_full_disk_leaves_the_last_good_model(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model(), metadata={"step": 1})
    with full_disk(1000), pytest.raises(OSError, match=r"m\.safetensors cannot be written"):
        save_checkpoint(path, tiny_model(), metadata={"step": 2})
    assert read_header(path).metadata == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_first_save_on_a_full_disk(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(SaveFailed, match="there is no earlier one"):
        trainer(tmp_path / "state.pt", 1).run()
    assert list(tmp_path.iterdir()) == []


def test_a_state_cut_off_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    state_module.write_state(path, Position(1, 0, 1), {"model": {}})

    def cut_off(state: Any, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        state_module.write_state(path, Position(2, 0, 2), {"model": {}})
    assert read_state(path)[0] == Position(1, 0, 1)


def test_what_a_killed_process_left_goes_when_the_run_is_resumed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(run_config())
    folder.close()
    leftovers = [tmp_path / ".state-abcd1234.pt", tmp_path / "checkpoints" / ".last-abcd1234.safetensors"]
    other = tmp_path / ".state-of-mine.pt"
    (tmp_path / "checkpoints").mkdir()
    for path in (*leftovers, other):
        path.write_bytes(b"half")
    again = RunFolder(tmp_path)
    again.reopen(run_config(), step=0)
    again.close()
    assert [path.exists() for path in (*leftovers, other)] == [False, False, True]


def test_memory_that_ran_out_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "out of memory: a batch has 8 pictures; try --set data.batch=4 --set train.accumulate=2 (as many pictures "
            "a step as now, 8); --set train.checkpoint_activations=[backbone]; --set train.precision=bf16; smaller "
            "data.sizes (now [512])",
        ),
        (
            {
                "data": {"batch": 1, "pipeline": "paper"},
                "train": {"precision": "bf16", "checkpoint_activations": ["backbone"]},
            },
            "out of memory: a batch has 1 picture; try smaller data.paper.short_sides (now [480, 1600])",
        ),
        (
            {"model": "rsn18", "data": {"pipeline": "crop"}},
            "out of memory: a batch has 8 pictures; try --set data.batch=4 --set train.accumulate=2 (as many pictures "
            "a step as now, 8); --set train.checkpoint_activations=[stages]; --set train.precision=bf16; --set "
            "model.view.size=[192,128] (now [256, 192])",
        ),
        (
            {
                "model": SMALLEST,
                "data": {"batch": 1, "pipeline": "crop"},
                "train": {"precision": "bf16", "compile": True},
            },
            "out of memory: a batch has 1 picture; try a smaller model",
        ),
    ],
)
def test_less_memory(changes: dict[str, Any], expected: str) -> None:
    config = run_config(**changes)
    assert explain(MemoryError(), config) == expected
    settings = told_settings(expected)
    assert config.override(settings) != config or not settings


def told_settings(text: str) -> list[str]:
    return [word for word in text.replace(";", "").split() if "=" in word]


@pytest.mark.parametrize("name", ["directpose_mobilenetv2", "smpr_mobilenetv2", "rsn_small", "rsn18"])
def test_less_memory_suits_the_model(name: str) -> None:
    """What is told can be set, and the named parts are there and run."""
    config = run_config(model=name, data={"pipeline": "crop" if name.startswith("rsn") else "compose"})
    config = config.override(told_settings(str(explain(MemoryError(), config))))
    with torch.device("meta"):
        model = cast(nn.Module, build_model(config.model, COCO17))
    chosen = checkpoint_activations(model, config.train.checkpoint_activations)
    ran = []
    for part in chosen:
        model.get_submodule(part).register_forward_hook(lambda *call: ran.append(1))
    model(torch.empty(1, 3, *(config.model.view.size or (64, 64)), device="meta"))
    assert len(ran) == len(chosen) > 0


def test_calmer_training() -> None:
    error = NonFiniteLoss(Position(7, 1, 2), {"a": 1.0, "total": float("nan")}, ["x.jpg"] * 14, "a loss term")
    assert str(error) == (
        "a loss term is not finite at step 7: a 1, total nan; pictures: " + ", ".join(["x.jpg"] * 12) + " and 2 more"
    )
    told = explain(error, run_config())
    assert told is not None
    assert told.startswith(str(error))
    assert "--set train.optimiser.lr= (now 0.01), --set train.clip_norm=10, --set train.schedule.warmup=500" in told
    calm = run_config(train={"clip_norm": 1.0, "schedule": {"warmup": 9}, "precision": "fp16"})
    told = explain(error, calm)
    assert told is not None
    assert "clip_norm" not in told
    assert "warmup" not in told
    assert "--set train.precision=bf16" in told
    assert "--set train.precision=no" in str(explain(error, run_config(train={"precision": "bf16"})))


def test_workers_and_disks() -> None:
    told = explain(DataWorkerError("a data worker died"), run_config())
    assert told is not None
    assert "data.workers=0" in told
    full = explain(OSError(errno.ENOSPC, "No space left on device", "x"), run_config())
    assert full is not None
    assert "Free some space" in full
    assert explain(OSError(errno.ENOENT, "gone", "x"), run_config()) is None
    assert explain(ValueError("speaks for itself"), run_config()) is None
