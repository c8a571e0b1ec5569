"""``poise train`` on the command line."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from poise.checkpoints import read_header
from poise.cli.errors import guarded
from poise.cli.train import train
from poise.data.loader import TrainDataset
from poise.models import DirectPose
from poise.train import engine
from poise.train.failures import SaveFailed
from poise.train.validation import Validator
from tiny_set import write_tiny_set

CONFIG = """
model: {system: directpose, backbone: mobilenetv2_035, anti_alias: false, channels: 64, group_channels: 8,
        cls_depth: 1, keypoint_depth: 1, view: {long_side: 64, short_side: null}}
data: {sources: [{annotations: tiny.json, images: pictures}], sizes: [64], batch: 2, workers: 0}
train: {steps: 3, log_every: 1, samples: 0}
"""

app = typer.Typer()
app.command()(train)
guarded_app = typer.Typer()
guarded_app.command()(guarded(train))


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(guarded_app, [str(a) for a in (*arguments, "--device", "cpu")])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tiny_set(tmp_path_factory.mktemp("data"))
    (root / "small.yaml").write_text(CONFIG)
    return root


def test_a_run_from_yaml(tmp_path: Path, data: Path) -> None:
    result = invoke(data / "small.yaml", "--data", data, "--run", tmp_path, "--set", "train.steps=2")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "checkpoints" / "last.safetensors")
    assert "step 2/2" in result.stderr
    assert read_header(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == 2


def test_ctrl_c_says_how_to_go_on_and_resume_does(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = engine.Trainer.step

    def interrupted(self: engine.Trainer, batches: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", interrupted)
        result = invoke(data / "small.yaml", "--data", data, "--run", tmp_path)
    assert result.exit_code == 130
    resume = f"poise train --resume --run {tmp_path} --device cpu"
    assert f"stopped after step 1 of 3 and saved; go on with: {resume}" in result.stderr
    assert read_header(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == 1

    result = invoke("--resume", "--run", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert "step 2/3" in result.stderr
    model = tmp_path / "checkpoints" / "last.safetensors"
    assert json.loads(result.stdout) == {"run": str(tmp_path), "model": str(model)}
    assert "step 1/3" not in result.stderr
    assert read_header(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == 3

    result = invoke("--resume", "--run", tmp_path)
    assert result.exit_code == 0, result.output
    assert "nothing to do: 3 of 3 steps are done" in result.stderr
    result = invoke("--resume", "--run", tmp_path, "--set", "train.steps=4")
    assert "step 4/4" in result.stderr


def failing(data: Path, run: Path, *changes: str) -> str:
    """What is told of a run that ends with an error: one line."""
    sets = [word for change in changes for word in ("--set", change)]
    result = invoke(data / "small.yaml", "--data", data, "--run", run, *sets)
    assert result.exit_code == 1, result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("poise: ")
    return str(line)


def test_a_loss_that_is_not_a_number_names_terms_and_pictures(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = DirectPose.loss

    def poisoned(self: DirectPose, outputs: Any, persons: Any) -> Any:
        return loss(self, outputs, persons) | {"centerness": torch.tensor(float("nan"), requires_grad=True)}

    monkeypatch.setattr(DirectPose, "loss", poisoned)
    line = failing(data, tmp_path)
    assert "a loss term is not finite at step 0: classification" in line
    assert "centerness nan" in line
    named = re.findall(rf"{data}/pictures/\d\.png", line)
    assert named
    assert len(named) == len(set(named))
    assert "a lower --set train.optimiser.lr=" in line
    resume = f"poise train --resume --run {tmp_path} --device cpu"
    assert line.endswith(f"; nothing was saved yet; start again with: {resume}")
    again = failing(data, tmp_path)
    assert "has saved nothing: add --resume to start it again with its settings, or choose another --run" in again
    monkeypatch.undo()
    result = invoke("--resume", "--run", tmp_path, "--set", "train.steps=1")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path}: nothing was saved, so the run starts from its beginning" in result.stderr
    assert "step 1/1" in result.stderr


def test_the_last_evaluation_is_made_up_for(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Validator, model: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", broken)
        line = failing(data, tmp_path, "train.steps=1", "data.val={annotations: tiny.json, images: pictures}")
    assert line.endswith(f"; go on with: poise train --resume --run {tmp_path} --device cpu")
    for told in ("evaluated after 1 steps: AP", "nothing to do: 1 of 1 steps are done"):
        result = invoke("--resume", "--run", tmp_path)
        assert result.exit_code == 0, result.output
        assert told in result.stderr
        assert ("evaluated after" in result.stderr) != ("nothing to do" in result.stderr)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["metrics" in entry for entry in log] == [False, True]


def test_no_memory_suggests_less(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = engine.Trainer.step

    def greedy(self: engine.Trainer, batches: Any) -> Any:
        if self.position.step == 1:
            torch.empty(2**62, dtype=torch.uint8)
        return step(self, batches)

    monkeypatch.setattr(engine.Trainer, "step", greedy)
    line = failing(data, tmp_path, "train.save_every=1")
    assert "out of memory: a batch has 2 pictures; try --set data.batch=1 --set train.accumulate=2" in line
    assert line.endswith(f"; go on with: poise train --resume --run {tmp_path} --device cpu")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a batch was on its way
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_dying_worker_is_told(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainDataset, "__getitem__", lambda self, key: os._exit(1))
    line = failing(data, tmp_path, "data.workers=1")
    assert "a data worker died before batch 0 of epoch 0" in line
    assert "--set data.workers=0" in line


def test_a_full_disk_is_told(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: engine.Trainer) -> None:
        raise SaveFailed("step 3 could not be saved (No space left on device)")

    monkeypatch.setattr(engine.Trainer, "save", full)
    assert "No space left on device). Free some space" in failing(data, tmp_path)


def test_data_without_anybody_is_told(tmp_path: Path, data: Path) -> None:
    truth = json.loads((data / "tiny.json").read_text())
    (data / "nobody.json").write_text(json.dumps(truth | {"annotations": []}))
    sources = "data.sources=[{annotations: nobody.json, images: pictures}]"
    assert "has a labelled keypoint" in failing(data, tmp_path / "run", sources)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a recipe or a YAML file"),
        (["--run", "somewhere"], "name a recipe \\(directpose_r50, "),
        (["directpose_r5"], "unknown recipe 'directpose_r5'.*directpose_r50"),
        (["gone.yaml"], "settings file gone.yaml does not exist"),
        (["directpose_r50", "--set", "train.step=3"], "unknown key 'train.step'; did you mean 'steps'"),
        (["directpose_r50", "--data", "nowhere"], "nowhere/coco/annotations/person_keypoints_train2017.json"),
        (["--resume", "--run", "nothing"], "nothing holds no run to resume"),
        (["directpose_r50", "--device", "tpu"], "device 'tpu' cannot be used .auto, cpu, cuda, cuda:1, mps"),
        (["directpose_r50", "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments, *([] if "--device" in arguments else ["--set", "init=null"])])
    assert isinstance(result.exception, ValueError | FileNotFoundError)
    with pytest.raises(type(result.exception), match=message):
        raise result.exception
    assert list(tmp_path.iterdir()) == []
