"""The tutorials as a reader follows them, on tiny data: settings are saved, commands are run, one after the other.

What makes it quick is changed in the settings alone: fewer steps, smaller pictures, no worker processes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from poise.checkpoints import read_header
from poise.cli.main import app
from poise.skeletons import LSP14
from poise.train.config import RunConfig
from tiny_set import write_tiny_set

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
FIGURE = {"keypoints": ["top", "left_end", "right_end", "bottom"], "skeleton": [[1, 2], [1, 3], [1, 4]]}
REAL = Path(os.environ.get("POISE_DATA", TUTORIALS.parents[2] / "shared" / "data"))
"""Where the real pictures are."""


def fences(page: str, language: str) -> list[str]:
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def quick(text: str, **changes: Any) -> str:
    """Settings for two steps on small pictures, as YAML."""
    settings = RunConfig.parse(yaml.safe_load(text)).model_dump(mode="json")
    settings["model"]["view"].update(long_side=64, short_side=None)
    settings["data"].update(sizes=[64], batch=2, workers=0, samples_per_epoch=4)
    settings["train"].update(steps=2, epochs=None, eval_every=2, log_every=1, samples=2, trackers=[])
    for key, value in changes.items():
        settings[key] = value
    return RunConfig.parse(settings).to_yaml()


def follow(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Any]:
    """Save the page's settings and run its commands in ``folder``; the results of the commands."""
    monkeypatch.chdir(folder)
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    (name,) = dict.fromkeys(re.findall(r"[Ss]ave (?:the settings )?as `(\w+\.yaml)`", text))
    (settings,) = fences(page, "yaml")
    (folder / name).write_text(quick(settings, **changes))
    commands = [line for block in fences(page, "bash") for line in block.strip().splitlines()]
    results = []
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "poise"
        verb_options = ["--device", "cpu"] if words[0] in ("train", "evaluate", "predict") else []
        result = CliRunner().invoke(app, [*words, *verb_options])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        results.append(result)
    return results


def as_figure(truth: dict[str, Any]) -> None:
    """Keep four keypoints, and call them by names that no skeleton has."""
    truth["categories"][0].update(FIGURE)
    for person in truth["annotations"]:
        person.update(keypoints=person["keypoints"][:12], num_keypoints=4)


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``data/people/{train,val}``, by the tutorials' names."""

    def write(change: Callable[[dict[str, Any]], None] | None = None) -> Path:
        for part in ("train", "val"):
            made = write_tiny_set(tmp_path / "made" / part, pictures=4, side=64)
            target = tmp_path / "data" / "people" / part
            shutil.copytree(made / "pictures", target)
            truth = json.loads((made / "tiny.json").read_text())
            if change is not None:
                change(truth)
            target.with_suffix(".json").write_text(json.dumps(truth))
        return tmp_path

    return write


def test_own_data(people: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = people()
    results = follow("own_data.md", folder, monkeypatch)
    run = folder / "runs/mine"
    assert results[1].stdout.strip() == "runs/mine/checkpoints/best.safetensors"
    assert "started from directpose_mobilenetv2.safetensors: 376 of 376 tensors taken" in results[1].stderr
    assert "nothing to do" in results[2].stderr
    assert len(list((folder / "drawn").glob("*.png"))) == 4
    for name in ("results.png", "samples/00_0.jpg", "commands.txt", "start.txt", "config.yaml", "metrics.jsonl"):
        assert (run / name).is_file(), name
    assert f"--annotations {folder}/data/people/val.json" in (run / "commands.txt").read_text()


def test_fine_tune(people: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = people(as_figure)
    results = follow("fine_tune.md", folder, monkeypatch)
    (start,) = (folder / "runs/tuned/start.txt").read_text().splitlines()
    assert start in results[0].stderr
    assert re.search(r"3\d\d of 3\d\d tensors taken; made anew for .* instead of coco17: head\.align", start)
    header = read_header(folder / "runs/tuned/checkpoints/best.safetensors")
    assert list(header.skeleton.keypoints) == FIGURE["keypoints"]


@pytest.mark.data
@pytest.mark.skipif(not (REAL / "lspet").is_dir(), reason="set POISE_DATA to the folder with lspet/")
def test_fourteen_joints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "val"):
        copy_some(f"{part}_lsp14.json", tmp_path / "data", 4)
    category = json.loads((tmp_path / "data/lspet/annotations/train_lsp14.json").read_text())["categories"][0]
    (shown,) = fences("custom_skeleton.md", "json")
    assert {key: category[key] for key in json.loads(shown)} == json.loads(shown)
    follow("custom_skeleton.md", tmp_path, monkeypatch, init=None)
    header = read_header(tmp_path / "runs/joints/checkpoints/best.safetensors")
    assert header.skeleton.keypoints == LSP14.keypoints
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert len(drawn) > 4
    assert "poses.json" in [path.name for path in drawn]


def copy_some(name: str, data: Path, count: int) -> None:
    """The first pictures of a real annotation file, with their people."""
    truth = json.loads((REAL / "lspet/annotations" / name).read_text())
    images = truth["images"][:count]
    chosen = {image["id"] for image in images}
    (data / "lspet/annotations").mkdir(parents=True, exist_ok=True)
    (data / "lspet/images").mkdir(parents=True, exist_ok=True)
    for image in images:
        shutil.copy(REAL / "lspet/images" / image["file_name"], data / "lspet/images" / image["file_name"])
    people = [a for a in truth["annotations"] if a["image_id"] in chosen]
    (data / "lspet/annotations" / name).write_text(json.dumps(truth | {"images": images, "annotations": people}))


def test_two_processes_have_the_losses_of_one(people: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the page, with half the batch; statistics of batch norms, which are each process's own, stand."""
    folder = people()
    monkeypatch.chdir(folder)
    (line,) = [c for block in fences("several_gpus.md", "text") for c in block.splitlines() if "--device cpu" in c]
    small = {
        "system": "directpose", "backbone": "mobilenetv2_035", "anti_alias": False, "channels": 32, "group_channels": 8,
        "cls_depth": 1, "keypoint_depth": 1, "view": {"long_side": 64, "short_side": None},
    }  # fmt: skip
    source = {"annotations": "people/train.json", "images": "people/train"}
    settings: dict[str, Any] = {
        "model": small,
        "data": {"sources": [source], "sizes": [64], "batch": 2, "workers": 0},
        "train": {
            "steps": 2,
            "log_every": 1,
            "samples": 0,
            "trackers": [],
            "ema": 0.9,
            "freeze_batch_norm": ["."],
            "clip_norm": 5,
        },
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": folders, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        shlex.split(line), env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "runs/two/checkpoints/last.safetensors"
    assert result.stderr.count("step 2/2") == 1
    assert "torchrun --nproc_per_node=2 --no-python -- poise train --resume" in result.stderr

    settings["data"]["batch"] = 4
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    alone = CliRunner().invoke(app, ["train", "mine.yaml", "--data", "data", "--run", "runs/one", "--device", "cpu"])
    assert alone.exit_code == 0, alone.output
    one, two = (read_losses(folder / "runs" / name / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) == 2
    for expected, got in zip(one, two, strict=True):
        assert got == pytest.approx(expected, rel=2e-5)


def read_losses(path: Path) -> list[dict[str, float]]:
    """Losses, gradient norm and people of each step."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [e["losses"] | {"gradient": e["grad_norm"], "people": e["people"]} for e in entries if "losses" in e]
