"""A paper's ablation on a tiny data set: rows, tables, going on, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from poise.checkpoints import read_header
from poise.models import PRESETS
from poise.train import ablation, engine
from poise.train.ablation import ABLATIONS, Stopped, make_plan, run_ablation
from poise.train.ablation_table import COLUMNS, Line, Table
from poise.train.config import RunConfig
from poise.train.engine import Trainer
from poise.train.recipes import recipe
from tiny_set import write_tiny_set

MODEL = {
    "system": "smpr", "backbone": "mobilenetv2_035", "stride_in_1x1": False, "channels": 16, "tower_depth": 1,
    "heatmap_channels": 8, "view": {"long_side": 96, "short_side": None},
}  # fmt: skip
SOURCE = {"annotations": "tiny.json", "images": "pictures"}
DATA = {"sources": [SOURCE], "val": SOURCE, "sizes": [96], "batch": 2, "workers": 0}
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    root = write_tiny_set(tmp_path_factory.mktemp("data"))
    train = {"steps": 2, "log_every": 1, "optimiser": {"kind": "adamw", "lr": 1e-3}}
    return RunConfig.parse({"model": MODEL, "data": DATA, "train": train, "data_root": str(root)})


class Watched:
    """Remembers which runs started, and where."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int, int]] = []

    @contextmanager
    def __call__(self, preset: str, trainer: Trainer) -> Iterator[None]:
        self.runs.append((preset, trainer.position.step, trainer.total))
        yield


def test_rows_share_everything_but_their_switches(like: RunConfig) -> None:
    plan = make_plan("smpr", like=like, changes=["train.seed=3"])
    assert list(plan.settings) == [row.preset for row in ABLATIONS["smpr"].rows[:-1]]
    for preset, config in plan.settings.items():
        own, wanted = config.model.model_dump(mode="json"), PRESETS[preset]().model_dump(mode="json")
        for field, value in own.items():
            expected = wanted if field in ABLATIONS["smpr"].decided else like.model.model_dump(mode="json")
            assert value == expected[field], (preset, field)
        assert config.model_copy(update={"model": like.model}) == like.override(["train.seed=3"])


def test_without_a_model_to_be_like_rows_are_the_papers_recipes() -> None:
    plan = make_plan("smpr", ["psm", "baseline"])
    assert plan.settings == {name: recipe(name) for name in ("smpr_baseline", "smpr_psm")}
    assert [row.name for row in plan.rows] == ["baseline", "psm"]


def test_every_decided_switch_is_one_and_they_are_all() -> None:
    """No field beyond them differs between the presets of the rows."""
    presets = [PRESETS[row.preset]().model_dump(mode="json") for row in ABLATIONS["smpr"].rows]
    differing = {field for field in presets[0] if len({json.dumps(p[field]) for p in presets}) > 1}
    assert differing == set(ABLATIONS["smpr"].decided) - {"system"}


def test_every_row_has_the_papers_numbers_and_a_row_before() -> None:
    for entry in ABLATIONS.values():
        names = [row.name for row in entry.rows]
        assert len(set(names)) == len(names)
        assert [row.name for row in entry.rows if row.before is None] == names[:1]
        assert all(row.before in names for row in entry.rows[1:])
        assert all(set(METRICS[:5]) <= set(entry.published(row)) for row in entry.rows)
    assert ABLATIONS["smpr"].published(ABLATIONS["smpr"].rows[-1])["AP"] == 68.8


def test_rows_are_trained_measured_and_not_repeated(tmp_path: Path, like: RunConfig) -> None:
    watched = Watched()
    plan = make_plan("smpr", ["baseline", "psm", "psm_truth"], like=like)
    table = run_ablation(plan, tmp_path, device="cpu", watch=watched)
    assert watched.runs == [("smpr_baseline", 0, 2), ("smpr_psm", 0, 2)]
    assert [(line.title, line.paper_change) for line in table.lines] == [
        ("baseline", None), ("+ PSM", pytest.approx(58.5 - 43.3)),
        ("+ PSM, scores from the truth", pytest.approx(68.8 - 58.5)),
    ]  # fmt: skip
    assert "4 pictures of tiny.json, mobilenetv2_035, 2 steps of 2 pictures, seed 0" in table.measured
    for line in table.lines[:2]:
        stored = read_header(tmp_path / line.preset / "checkpoints" / "last.safetensors").metadata
        assert (dict(line.metrics), stored["step"]) == (stored["metrics"], 2)
    assert json.loads((tmp_path / "table.json").read_text()) == table.to_dict()

    again = run_ablation(plan, tmp_path, device="cpu", watch=watched)
    assert len(watched.runs) == 2
    assert again == table


def test_truth_scores_are_measured_by_the_truth(
    tmp_path: Path, like: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def measured(*_: Any, truth_scores: bool) -> dict[str, float]:
        asked.append(truth_scores)
        return dict.fromkeys(METRICS, 0.25)

    monkeypatch.setattr(ablation, "evaluate_model", measured)
    plan = make_plan("smpr", ["psm", "psm_truth"], like=like, steps=1)
    table = run_ablation(plan, tmp_path, device="cpu")
    assert asked == [True]
    assert table.lines[1].metrics["AP"] == 0.25
    assert json.loads((tmp_path / "smpr_psm" / "truth_scores.json").read_text())["metrics"]["AP"] == 0.25


def test_an_interrupted_row_goes_on(tmp_path: Path, like: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, step, done = Watched(), engine.Trainer.step, []

    def interrupted(self: Trainer, batches: Any) -> Any:
        done.append(1)
        if len(done) == 3:  # the first step of the second row
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batches)

    plan = make_plan("smpr", ["baseline", "refine"], like=like)
    with monkeypatch.context() as patch:
        patch.setattr(engine.Trainer, "step", interrupted)
        with pytest.raises(Stopped, match="smpr_refine after step 1 of 2"):
            run_ablation(plan, tmp_path, device="cpu", watch=watched)
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 1
    run_ablation(plan, tmp_path, device="cpu", watch=watched)
    assert watched.runs == [("smpr_baseline", 0, 2), ("smpr_refine", 0, 2), ("smpr_refine", 1, 2)]
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 2


def test_a_row_that_was_never_saved_starts_anew_and_a_lost_measurement_is_made_again(
    tmp_path: Path, like: RunConfig
) -> None:
    plan, watched = make_plan("smpr", ["baseline"], like=like), Watched()
    first = run_ablation(plan, tmp_path, device="cpu", watch=watched)
    folder = tmp_path / "smpr_baseline"
    (folder / "scores.json").unlink()
    assert run_ablation(plan, tmp_path, device="cpu", watch=watched) == first
    assert len(watched.runs) == 1
    (folder / "scores.json").unlink()
    (folder / "state.pt").unlink()
    assert run_ablation(plan, tmp_path, device="cpu", watch=watched) == first
    assert watched.runs == 2 * [("smpr_baseline", 0, 2)]
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 2]


def test_a_folder_with_other_settings_is_refused(tmp_path: Path, like: RunConfig) -> None:
    run_ablation(make_plan("smpr", ["baseline"], like=like, steps=1), tmp_path, device="cpu")
    other = make_plan("smpr", ["baseline"], like=like, steps=1, changes=["train.seed=4"])
    with pytest.raises(ValueError, match=r"holds a run with train\.seed = 0, not 4: choose another --out"):
        run_ablation(other, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "smrp"}, "unknown ablation 'smrp'; did you mean 'smpr'"),
        ({"rows": ["refined"]}, "ablation smpr has no row 'refined'; did you mean 'refine"),
        ({"changes": ["model.psm=true"]}, "--set 'model.psm=true': the rows of the ablation decide this"),
        ({"changes": ["model={}"]}, "the rows of the ablation decide this"),
        ({"changes": ["model.chanels=8"]}, "did you mean 'channels'"),
        ({"changes": ["data.val=null"]}, "must name validation data"),
        ({"like": recipe("directpose_mobilenetv2")}, "the ablation is of smpr, but .* of directpose"),
    ],
)
def test_mistakes_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(**{"name": "smpr", **arguments})


def test_tables_say_the_same_in_every_form() -> None:
    first = Line("a", "smpr_baseline", dict.fromkeys(METRICS, 0.125), {"AP": 43.3, "AP50": 72.7}, None)
    second = Line("b | c", "smpr_refine", dict.fromkeys(METRICS, 0.1), {"AP": 54.2}, first)
    table = Table("Title", "measured: here", "paper: there", (first, second))
    assert second.cells() == ("b | c", "10.0", "10.0", "-2.5", "54.2", "", "+10.9")
    assert len(second.cells()) == len(COLUMNS)
    markdown = table.to_markdown()
    assert "measured: here" in markdown
    assert r"| b \| c | 10.0 | 10.0 | -2.5 | 54.2 |  | +10.9 |" in markdown
    lines = table.to_csv().splitlines()
    assert lines[:3] == ["# Title", "# measured: here", "# paper: there"]
    records = list(csv.DictReader(lines[3:]))
    assert [r["row"] for r in records] == ["a", "b | c"]
    assert float(records[1]["change"]) == pytest.approx(table.to_dict()["rows"][1]["change"]) == pytest.approx(-2.5)
    assert records[0]["change"] == ""
    assert Table("Title", "", "", ()).to_csv() == "# Title\n"
