"""The run's folder: what is in it, and what a resumed run does with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from poise import checkpoints
from poise.checkpoints import read_header
from poise.data.config import DataConfig, SourceConfig
from poise.models import preset
from poise.train.config import RunConfig, TrainConfig
from poise.train.run import RunFolder
from poise.train.watching import StepReport
from tiny import tiny_model


def run_config(**train: Any) -> RunConfig:
    source = SourceConfig(annotations="set/train.json", images="/somewhere/else/pictures")
    return RunConfig(
        model=preset("directpose_mobilenetv2"),
        data=DataConfig(sources=(source,), negatives=("/somewhere/else/empty",)),
        train=TrainConfig.parse({"steps": 10, "log_every": 2} | train),
        init="/somewhere/else/start.safetensors",
        data_root="/somewhere/data",
    )


def report(step: int, total: float = 1.0) -> StepReport:
    return StepReport(step, 0, {"a": total / 2, "total": total}, 0.1 * step, 2.0, 4, 0.5, 0.25, 6, 1_000_000)


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    made = RunFolder(tmp_path / "run")
    made.create(run_config())
    yield made
    made.close()


def test_settings_are_written_complete(folder: RunFolder) -> None:
    assert RunConfig.from_yaml(folder.settings) == run_config()


def test_a_run_is_not_overwritten(folder: RunFolder) -> None:
    def refused(message: str) -> None:
        with pytest.raises(FileExistsError, match=message):
            RunFolder(folder.path).create(run_config())

    refused("has saved nothing: add --resume to start it again with its settings, or choose another --run")
    assert folder.never_saved
    folder.state.write_bytes(b"state")
    refused("already holds a run: add --resume to go on with it, or choose another --run")
    assert not folder.never_saved


def test_a_run_whose_state_is_gone_is_not_overwritten_either(folder: RunFolder) -> None:
    folder.saved(3, tiny_model())
    assert not folder.never_saved
    with pytest.raises(FileExistsError, match=r"holds a run whose state\.pt is gone"):
        folder.refuse_existing()


def test_means_are_logged_every_few_steps(folder: RunFolder) -> None:
    for step, total in ((1, 2.0), (2, 4.0), (3, 100.0)):
        folder.stepped(report(step, total))
    (line,) = lines(folder)
    assert line["step"] == 2
    assert line["losses"] == {"a": 1.5, "total": 3.0}
    assert line["images_per_second"] == pytest.approx(8.0)
    assert line["seconds_per_step"] == pytest.approx(0.5)
    assert line["waiting"] == pytest.approx(0.5)
    assert line["lr"] == pytest.approx(0.2)


def test_best_is_the_best_by_ap_and_last_the_newest(folder: RunFolder) -> None:
    for step, ap in ((2, 0.3), (4, 0.5), (6, 0.4), (8, math.nan)):
        folder.saved(step, tiny_model())
        folder.evaluated(step, {"AP": ap, "AP50": 0.9}, tiny_model())
    assert read_header(folder.best).metadata["step"] == 4
    assert read_header(folder.best).metadata["metrics"] == {"AP": 0.5, "AP50": 0.9}
    assert read_header(folder.last).metadata["step"] == 8
    assert read_header(folder.last).metadata["metrics"] == {"AP": None, "AP50": 0.9}
    assert [line["metrics"]["AP"] for line in lines(folder)] == [0.3, 0.5, 0.4, None]


def test_last_carries_no_metrics_of_another_model(folder: RunFolder) -> None:
    folder.evaluated(2, {"AP": 0.3}, tiny_model())
    folder.saved(3, tiny_model())
    assert read_header(folder.last).metadata["metrics"] == {}
    folder.evaluated(4, {"AP": 0.4}, tiny_model())
    assert read_header(folder.last).metadata["metrics"] == {}
    assert read_header(folder.last).metadata["step"] == 3


def test_without_ap_there_is_no_best(folder: RunFolder) -> None:
    folder.evaluated(2, {"PCKh": 0.3}, tiny_model())
    assert not folder.best.exists()


def test_checkpoints_carry_the_recipe_without_folders_of_this_machine(folder: RunFolder) -> None:
    folder.saved(1, tiny_model())
    recipe = read_header(folder.last).metadata["recipe"]
    assert "somewhere" not in json.dumps(recipe).replace("somewhere/else/pictures", "")
    assert recipe["init"] == "start.safetensors"
    assert recipe["data"]["sources"][0]["annotations"] == "set/train.json"
    assert recipe["data"]["sources"][0]["images"] == "else/pictures"
    assert recipe["train"]["steps"] == 10


def test_numbered_checkpoints_are_kept_as_asked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create(run_config(keep=2))
    for step in (9, 10, 11):
        folder.saved(step, tiny_model())
    folder.close()
    names = sorted(p.name for p in folder.last.parent.iterdir())
    assert names == ["last.safetensors", "step_00000010.safetensors", "step_00000011.safetensors"]


def test_reopening_drops_what_was_logged_after_the_saved_step(folder: RunFolder) -> None:
    for step in range(1, 9):
        folder.stepped(report(step))
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "cut o')
    again = RunFolder(folder.path)
    again.reopen(run_config(), step=5)
    again.close()
    assert [line["step"] for line in lines(again)] == [2, 4]


def test_reopening_drops_metrics_that_are_measured_once_more(folder: RunFolder) -> None:
    for step in (2, 4):
        folder.stepped(report(step))
        folder.evaluated(step, {"AP": 0.5}, tiny_model())
    for measured, expected in ((True, [2, 2, 4, 4]), (False, [2, 2, 4])):
        again = RunFolder(folder.path)
        again.reopen(run_config(), step=4, measured=measured)
        again.close()
        assert [line["step"] for line in lines(again)] == expected
    assert "losses" in lines(folder)[-1]


def test_reopening_remembers_the_best(folder: RunFolder) -> None:
    folder.evaluated(2, {"AP": 0.6}, tiny_model())
    again = RunFolder(folder.path)
    again.reopen(run_config(), step=2)
    again.evaluated(4, {"AP": 0.5}, tiny_model())
    assert read_header(again.best).metadata["step"] == 2
    again.evaluated(6, {"AP": 0.7}, tiny_model())
    again.close()
    assert read_header(again.best).metadata["step"] == 6


def test_an_interrupted_save_leaves_the_last_good_model(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.saved(1, tiny_model())

    def cut_off(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", cut_off)
    with pytest.raises(KeyboardInterrupt):
        folder.saved(2, tiny_model())
    assert read_header(folder.last).metadata["step"] == 1


def test_tensorboard_gets_the_numbers(folder: RunFolder) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder.stepped(report(1))
    folder.stepped(report(2, 3.0))
    folder.evaluated(2, {"AP": 0.25}, tiny_model())
    folder.close()
    events = reader.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert {"losses/total", "losses/a", "lr", "metrics/AP"} <= set(events.Tags()["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("losses/total")] == [(2, 2.0)]
    assert [(e.step, e.value) for e in events.Scalars("metrics/AP")] == [(2, 0.25)]
