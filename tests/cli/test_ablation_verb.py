"""``poise ablation`` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poise.cli import ablation as verb
from poise.cli.main import app
from poise.train import ablation
from tiny_set import write_tiny_set

CONFIG = """
model: {system: smpr, backbone: mobilenetv2_035, stride_in_1x1: false, channels: 16, tower_depth: 1,
        heatmap_channels: 8, view: {long_side: 96, short_side: null}}
data: {sources: [{annotations: tiny.json, images: pictures}], val: {annotations: tiny.json, images: pictures},
       sizes: [96], batch: 2, workers: 0}
train: {steps: 3, log_every: 1}
"""


def invoke(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["ablation", *(str(a) for a in arguments), "--device", "cpu"])


def test_one_command_makes_one_table(tmp_path: Path) -> None:
    root = write_tiny_set(tmp_path / "data")
    (root / "small.yaml").write_text(CONFIG)
    out = tmp_path / "out"
    command = ("smpr", "--rows", "baseline,refine", "--like", root / "small.yaml", "--data", root, "--out", out)
    short = (*command, "--steps", "1", "--set", "train.seed=2")
    result = invoke(*short)
    assert result.exit_code == 0, result.output
    assert "4 pictures of tiny.json" in result.stdout
    assert "1 steps of 2 pictures, seed 2" in result.stdout
    assert re.search(r"^row +AP +AP50 +change +paper AP +paper AP50 +paper change$", result.stdout, re.MULTILINE)
    assert re.search(r"^\+ refine +\S+ +\S+ +\S+ +54\.2 +80\.6 +\+10\.9$", result.stdout, re.MULTILINE)
    assert "smpr_refine: 0 of 1 steps done" in result.stderr
    assert {p.name for p in out.iterdir()} == {
        "smpr_baseline", "smpr_refine", "table.md", "table.json", "table.csv",
    }  # fmt: skip

    result = invoke(*short, "--json")
    assert json.loads(result.stdout) == json.loads((out / "table.json").read_text())
    assert result.stderr == ""

    result = invoke(*command)
    assert result.exit_code == 1
    assert "holds a run with train.seed = 2, not 0" in result.stderr


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> Any:
        raise ablation.Stopped("smpr_baseline after step 1 of 9")

    monkeypatch.setattr(ablation, "run_ablation", stopped)
    result = invoke("smpr", "--out", tmp_path)
    assert result.exit_code == verb.INTERRUPTED
    assert "stopped in smpr_baseline after step 1 of 9 and saved; the same command goes on" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smrp"], "unknown ablation 'smrp'"),
        (["smpr", "--rows", "bsaeline"], "has no row 'bsaeline'; did you mean 'baseline'"),
        (["smpr", "--like", "gone.yaml"], "settings file gone.yaml does not exist"),
        (["smpr", "--data", "nowhere"], "nowhere/coco/annotations/person_keypoints_val2017.json"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = invoke(*arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
