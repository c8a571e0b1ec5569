"""``poise train`` on the command line."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from poise.checkpoints import read_header
from poise.cli.train import train
from poise.train import engine
from tiny_set import write_tiny_set

CONFIG = """
model: {system: directpose, backbone: mobilenetv2_035, anti_alias: false, channels: 64, group_channels: 8,
        cls_depth: 1, keypoint_depth: 1, view: {long_side: 96, short_side: null}}
data: {sources: [{annotations: tiny.json, images: pictures}], sizes: [96], batch: 2, workers: 0}
train: {steps: 3, log_every: 1}
"""

app = typer.Typer()
app.command()(train)


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in (*arguments, "--device", "cpu")])


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
    assert f"stopped after step 1 of 3 and saved; go on with: poise train --resume --run {tmp_path}" in result.stderr
    assert read_header(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == 1

    result = invoke("--resume", "--run", tmp_path)
    assert result.exit_code == 0, result.output
    assert "step 2/3" in result.stderr
    assert "step 1/3" not in result.stderr
    assert read_header(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == 3

    result = invoke("--resume", "--run", tmp_path)
    assert result.exit_code == 0, result.output
    assert "nothing to do: 3 of 3 steps are done" in result.stderr
    result = invoke("--resume", "--run", tmp_path, "--set", "train.steps=4")
    assert "step 4/4" in result.stderr


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
        (["directpose_r50", "--device", "tpu"], "--device 'tpu'"),
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
