"""A real system on a tiny data set, from settings to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from poise.checkpoints import load_checkpoint, read_header, save_checkpoint
from poise.models import DirectPoseConfig
from poise.skeletons import COCO17
from poise.train import launch
from poise.train.config import RunConfig
from poise.train.engine import Trainer
from poise.train.launch import initial_model, prepare_run, run_skeleton, seed_everything
from poise.train.run import RunFolder
from poise.types import ViewSpec
from tiny import Recorder
from tiny_set import write_tiny_set

MODEL = DirectPoseConfig(
    backbone="mobilenetv2_035",
    anti_alias=False,
    channels=64,
    group_channels=8,
    cls_depth=1,
    keypoint_depth=1,
    view=ViewSpec(long_side=96, short_side=None),
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("data"))


def settings(data_root: Path, **train: Any) -> RunConfig:
    source = {"annotations": "tiny.json", "images": "pictures"}
    return RunConfig.parse(
        {
            "model": MODEL.model_dump(mode="json"),
            "data": {"sources": [source], "val": source, "sizes": [96], "batch": 2, "workers": 0},
            "train": {"steps": 4, "ema": 0.9, "clip_norm": 10, "log_every": 1, "optimiser": {"lr": 0.005}} | train,
            "data_root": str(data_root),
        }
    )


def prepared(config: RunConfig, path: Path, **more: Any) -> Trainer:
    return prepare_run(config, RunFolder(path), device="cpu", **more)


def states(trainer: Trainer) -> list[torch.Tensor]:
    assert trainer.ema is not None
    return [*trainer.model.state_dict().values(), *trainer.ema.model.state_dict().values()]  # type: ignore[attr-defined]


def test_a_real_run_resumes_to_the_bit(tmp_path: Path, data_root: Path) -> None:
    """Three steps, a stop, one more step in a new trainer; against four in a row."""
    whole_seen = Recorder()
    whole = prepared(settings(data_root), tmp_path / "whole")
    whole.watch(whole_seen)
    assert whole.run().finished

    class Stop(Recorder):
        def stepped(self, report: Any) -> None:
            super().stepped(report)
            if report.step == 3:
                raise KeyboardInterrupt

    part = prepared(settings(data_root, save_every=3), tmp_path / "part")
    part.watch(Stop())
    with pytest.raises(KeyboardInterrupt):
        part.run()
    part.save()
    rest_seen = Recorder()
    rest = prepared(settings(data_root), tmp_path / "part", resume=True)
    rest.watch(rest_seen)
    assert rest.position.step == 3
    assert rest.run().finished
    assert all(torch.equal(a, b) for a, b in zip(states(whole), states(rest), strict=True))
    assert [r.losses for r in rest_seen.reports] == [r.losses for r in whole_seen.reports[3:]]


def test_the_result_is_a_checkpoint_of_the_average(tmp_path: Path, data_root: Path) -> None:
    trainer = prepared(settings(data_root, eval_every=2), tmp_path)
    outcome = trainer.run()
    assert 0 <= outcome.metrics["AP"] <= 1
    loaded = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert loaded.model.config == MODEL
    assert loaded.metadata["metrics"]["AP"] == outcome.metrics["AP"]
    assert trainer.ema is not None
    expected = trainer.ema.model.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in loaded.model.state_dict().items())  # type: ignore[attr-defined]
    assert read_header(tmp_path / "checkpoints" / "best.safetensors").metadata["step"] in (2, 4)


def test_the_seed_decides_the_run(tmp_path: Path, data_root: Path) -> None:
    first = states(prepared(settings(data_root), tmp_path / "a"))
    again = states(prepared(settings(data_root), tmp_path / "b"))
    other = states(prepared(settings(data_root, seed=1), tmp_path / "c"))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_folder_with_a_run_is_refused_before_anything_is_read(tmp_path: Path, data_root: Path) -> None:
    prepared(settings(data_root), tmp_path)
    missing = settings(data_root / "gone")
    with pytest.raises(FileExistsError, match="holds a run that has saved nothing: add --resume"):
        prepared(missing, tmp_path)


def test_missing_data_leaves_no_run_behind(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tiny\.json"):
        prepared(settings(data_root / "gone"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_without_a_state(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        prepared(settings(data_root), tmp_path, resume=True)


def test_a_run_that_saved_nothing_starts_again(tmp_path: Path, data_root: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, prepared(settings(data_root), tmp_path / "other").model)
    config = settings(data_root, seed=3).override([f"init={start}"])
    first = prepared(config, tmp_path / "run")
    told: list[str] = []
    again = prepared(config, tmp_path / "run", resume=True, tell=told.append)
    assert again.position.step == 0
    assert all(torch.equal(a, b) for a, b in zip(states(first), states(again), strict=True))
    assert told[0].endswith("run: nothing was saved, so the run starts from its beginning")
    assert (tmp_path / "run" / "start.txt").read_text() == f"{told[1]}\n"


def test_a_run_whose_state_is_gone_is_left_alone(tmp_path: Path, data_root: Path) -> None:
    folder = RunFolder(tmp_path)
    prepare_run(settings(data_root), folder, device="cpu").save()
    folder.close()
    folder.log.write_text('{"step": 1, "metrics": {}}\n')
    folder.state.unlink()
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        prepared(settings(data_root), tmp_path, resume=True)
    assert folder.log.read_text() == '{"step": 1, "metrics": {}}\n'


def test_a_metric_that_is_never_measured_is_refused_at_once(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(ValueError, match=r"best_by 'mAP' is none of the metrics .*\(AP, AP50, .*ARL\)"):
        prepared(settings(data_root, best_by="mAP"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_skeleton_by_name_or_from_the_data(data_root: Path) -> None:
    data = settings(data_root).located_data()
    assert run_skeleton("crowdpose14", data).name == "crowdpose14"
    assert run_skeleton("data", data).keypoints == COCO17.keypoints
    with pytest.raises(ValueError, match=r"unknown skeleton 'coco'.*did you mean 'coco17'"):
        run_skeleton("coco", data)


def test_timm_that_cannot_fetch_is_explained(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no route to host\nlong story")

    monkeypatch.setattr(launch, "build_model", offline)
    config = settings(data_root).override(["init=timm"])
    with pytest.raises(ValueError, match=r"weights \(no route to host\): give a file with --set init=PATH"):
        initial_model(config, COCO17)


def test_timm_weights_are_asked_for(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(launch, "build_model", lambda *args, **kwargs: asked.append(kwargs))
    config = settings(data_root)
    initial_model(config.override(["init=timm"]), COCO17)
    initial_model(config.override(["init=timm"]), COCO17, load=False)
    initial_model(config, COCO17)
    assert asked == [{"pretrained": True}, {}, {}]


def test_data_paths_start_from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(Path("/here"))
    assert config.located_data().sources[0].annotations == "/here/tiny.json"
    assert config.located_data().val is not None
    free = config.model_copy(update={"data_root": None})
    monkeypatch.setenv("POISE_DATA", "/there")
    assert free.located_data().sources[0].images == "/there/pictures"
    monkeypatch.delenv("POISE_DATA")
    assert free.located_data().sources[0].images == "data/pictures"
    absolute = config.override(["data.negatives=['/elsewhere/empty', near]"])
    assert absolute.located_data().negatives == ("/elsewhere/empty", "/here/near")


def test_a_run_starts_from_a_checkpoint(tmp_path: Path, data_root: Path) -> None:
    prepared(settings(data_root), tmp_path / "first").run()
    start = tmp_path / "first" / "checkpoints" / "last.safetensors"
    model = initial_model(settings(data_root).override([f"init={start}"]), COCO17)
    expected = load_checkpoint(start).model.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(t, expected[n]) for n, t in model.state_dict().items())  # type: ignore[attr-defined]


def test_deterministic_operators_are_asked_for(data_root: Path) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        seed_everything(settings(data_root, deterministic=True).train)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
