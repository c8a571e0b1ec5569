"""What a run leaves behind: curves, sample pictures, commands."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer.main

from poise.cli.main import app
from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.skeletons import COCO17
from poise.train import finish
from poise.train.commands import as_script, launcher, next_commands, resume_command
from poise.train.config import RunConfig
from poise.train.curves import draw_curves, read_curves
from poise.train.engine import Trainer
from poise.train.finish import finish_run
from poise.train.run import RunFolder
from poise.train.samples import draw_samples, side_by_side, true_poses
from poise.types import Poses
from tiny import TinyBatches, TinyModel
from tiny_set import write_tiny_set

LAUNCHED = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "first", "MASTER_PORT": "1234"}


def log(path: Path, *entries: Any) -> Path:
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries))
    return path


def test_curves_are_read_over_epochs(tmp_path: Path) -> None:
    path = log(
        tmp_path / "m.jsonl",
        {"step": 2, "losses": {"a": 1.0, "total": 3.0}},
        {"step": 4, "losses": {"a": None, "total": 2.0}},
        {"step": 4, "metrics": {"AP": 0.25}},
        '{"step": 6, "losses": {"to',
    )
    losses, metrics = read_curves(path, steps_per_epoch=4)
    assert losses == {"a": [(0.5, 1.0)], "total": [(0.5, 3.0), (1.0, 2.0)]}
    assert metrics == {"AP": [(1.0, 0.25)]}
    assert read_curves(tmp_path / "none", 4) == ({}, {})


@pytest.mark.parametrize("evaluated", [False, True])
def test_the_picture_shows_the_curves(tmp_path: Path, evaluated: bool) -> None:
    entries: list[Any] = [{"step": s, "losses": {"a": 1 / s, "total": 2 / s}} for s in range(1, 40)]
    if evaluated:
        entries += [{"step": s, "metrics": {"AP": s / 50, "AP50": s / 45, "ARL": 0.5}} for s in (10, 20, 30)]
    draw_curves(log(tmp_path / "m.jsonl", *entries), 10, tmp_path / "r.png")
    draw_curves(log(tmp_path / "none.jsonl"), 10, tmp_path / "empty.png")
    picture, empty = (cv2.imread(str(tmp_path / name)) for name in ("r.png", "empty.png"))
    assert picture.shape == empty.shape
    differs = (picture != empty).any(2)
    left, right = np.array_split(differs, 2, axis=1)
    assert left.mean() > 0.01
    assert (right.mean() > 0.01) == evaluated


class Pointing(TinyModel):
    """Finds one person, in the middle of the picture, with the score of its name."""

    score = 0.9

    def decode(self, outputs: Any, sizes: Any) -> list[Poses]:
        k = len(self.skeleton)
        return [
            Poses(
                np.tile([w / 2, h / 2], (1, k, 1)), np.ones((1, k)), np.array([[0.0, 0.0, w, h]]),
                np.array([self.score]), self.skeleton,
            )
            for h, w in sizes
        ]  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    root = write_tiny_set(tmp_path_factory.mktemp("data"), pictures=6)
    return SourceConfig(annotations=str(root / "tiny.json"), images=str(root / "pictures"))


@pytest.mark.parametrize(("count", "expected"), [(3, ["00_0", "01_2", "02_4"]), (1, ["00_0"]), (9, 5)])
def test_samples_are_spread_over_pictures_with_people(
    tmp_path: Path, source: SourceConfig, count: int, expected: Any
) -> None:
    (tmp_path / "17_old.jpg").write_bytes(b"of an earlier evaluation")
    model = Pointing(skeleton=COCO17)
    paths = draw_samples(model, next(model.parameters()).device, source, count, tmp_path)
    assert sorted(tmp_path.iterdir()) == paths
    assert (len(paths) if isinstance(expected, int) else [p.stem for p in paths]) == expected
    assert cv2.imread(str(paths[0])).shape == (320 + 24, 2 * 320 + 4, 3)


def test_truth_is_left_and_predictions_are_right(source: SourceConfig) -> None:
    record = read_source(source)[0]
    image = np.zeros((96, 96, 3), np.uint8)
    truth, nobody = true_poses(record, COCO17), Poses.empty(COCO17)
    both = side_by_side(image, truth, nobody)[24:]
    assert both[:, :320].any()
    assert not both[:, 324:].any()
    x, y = (record.keypoints[0, 0, :2] * 320 / 96).round().astype(int)
    assert both[y, x].any()
    assert not side_by_side(image, nobody, truth)[24:, :320].any()


def test_keypoints_that_are_not_labelled_are_not_drawn(source: SourceConfig) -> None:
    record = read_source(source)[0]
    record.keypoints[0, 3:, 2] = 0
    poses = true_poses(record, COCO17)
    assert np.isnan(poses.keypoints[0, 3:]).all()
    assert np.isfinite(poses.keypoints[0, :3]).all()
    assert poses.keypoint_scores[0].tolist() == [1.0] * 3 + [0.0] * 14


def test_a_weak_model_shows_its_best(tmp_path: Path, source: SourceConfig) -> None:
    model = Pointing(skeleton=COCO17)
    model.score = 0.01
    (path,) = draw_samples(model, next(model.parameters()).device, source, 1, tmp_path)
    assert cv2.imread(str(path))[24 + 150 : 24 + 170, 324 + 150 : 324 + 170].max() > 100


def test_what_cannot_be_drawn_costs_no_run(
    tmp_path: Path, source: SourceConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(finish, "draw_samples", broken)
    config = RunConfig.parse({"model": "directpose_mobilenetv2", "data": {"sources": [source]}, "train": {"steps": 1}})
    trainer = Trainer(Pointing(skeleton=COCO17), TinyBatches(), config.train, device="cpu")
    found = finish_run(config, trainer, RunFolder(tmp_path), "cpu")
    assert "samples of the run cannot be drawn: out of memory" in caplog.text
    assert (tmp_path / "results.png").is_file()
    assert (tmp_path / "commands.txt").read_text() == as_script(found)


def test_commands_exist_and_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a verb of the command line with its own options, from whatever folder it is called."""
    monkeypatch.chdir(tmp_path)
    val = SourceConfig(annotations="a b/truth.json", images="a b")
    found = next_commands(Path("runs/x"), Path("runs/x/best.safetensors"), val, "cpu", true_boxes=True)
    assert {"resume", "evaluate", "predict", "export"} == set(found)
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in found.values():
        program, verb, *words = shlex.split(command)
        assert program == "poise"
        known = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known
    assert found["resume"] == f"poise train --resume --run {tmp_path}/runs/x --device cpu"
    assert f"--annotations '{tmp_path}/a b/truth.json'" in found["evaluate"]
    assert f"--boxes '{tmp_path}/a b/truth.json'" in found["evaluate"]
    assert found["export"] == f"poise export {tmp_path}/runs/x/best.safetensors"
    assert "--boxes" not in next_commands(Path("x"), Path("y"), val)["evaluate"]
    part = val.model_copy(update={"kind": "mpii", "split": "val"})
    assert next_commands(Path("x"), Path("y"), part)["evaluate"].endswith(" --split val")
    assert "evaluate" not in next_commands(Path("x"), Path("y"), None)
    assert as_script({"resume": "poise x"}) == "# resume\npoise x\n"


def test_runs_of_several_processes_are_resumed_by_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher({}) == []
    assert launcher({"WORLD_SIZE": "2"}) == ["torchrun", "--nproc_per_node=2", "--no-python", "--"]
    assert launcher(LAUNCHED) == [
        "torchrun", "--nproc_per_node=2", "--nnodes=2", "--node_rank=0", "--master_addr=first", "--master_port=1234",
        "--no-python", "--",
    ]  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert resume_command(Path("/x")) == "torchrun --nproc_per_node=2 --no-python -- poise train --resume --run /x"
