"""The ablation of augmentation: its rows follow from the settings, and all are trained alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poise.data.augmentations import is_on, measurable
from poise.train.ablation import run_ablation
from poise.train.ablation_augment import augmentation_plan, plan_ablation
from poise.train.config import RunConfig
from poise.train.recipes import recipe
from tiny_set import write_tiny_set

SOURCE = {"annotations": "tiny.json", "images": "pictures"}
CROP_MODEL = recipe("rsn_small").model.model_dump(mode="json")
CROP_MODEL["view"]["size"] = (64, 64)


def settings(root: Path, **data: Any) -> RunConfig:
    values = {"sources": [SOURCE], "val": SOURCE, "batch": 2, "workers": 0, "pipeline": "crop"} | data
    train = {"steps": 1, "log_every": 1, "optimiser": {"kind": "adamw", "lr": 1e-3}}
    return RunConfig.parse({"model": CROP_MODEL, "data": values, "train": train, "data_root": str(root)})


def test_rows_are_the_settings_without_all_but_one(tmp_path: Path) -> None:
    like = settings(tmp_path)
    plan = augmentation_plan(like=like, changes=["data.crop.erase_p=0.7"], steps=5)
    names = [row.name for row in plan.rows]
    assert names == ["none", *(n for n in measurable(like.data) if n != "upright"), "all"]
    for name, config in plan.settings.items():
        on = [n for n in measurable(config.data) if is_on(config.data, n)]
        expected = {"none": [], "all": ["scale", "rotation", "translation", "flip", "crop", "half_body", "dropout"]}
        assert on == expected.get(name, [name])
        assert config.model_copy(update={"data": like.data}) == like.override(["train.steps=5"])
    assert plan.settings["dropout"].data.crop.erase_p == 0.7
    titles = {row.name: row.title for row in plan.rows}
    assert (titles["dropout"], titles["colour"]) == ("+ dropout", "+ colour (not in all)")
    assert [row.name for row in augmentation_plan(["all", "upright"], like=like).rows] == ["upright", "all"]


def test_rows_are_trained_and_tabled_without_a_paper(tmp_path: Path) -> None:
    like = settings(write_tiny_set(tmp_path / "data"))
    plan = plan_ablation("augmentation", ["none", "flip"], like=like)
    table = run_ablation(plan, tmp_path / "out", device="cpu")
    assert [line.title for line in table.lines] == ["none", "+ flip"]
    assert table.columns == ("row", "AP", "AP50", "change")
    markdown = (tmp_path / "out/table.md").read_text()
    assert "paper" not in markdown
    assert "| + flip | " in markdown
    assert [len(cells) for cells in table.cells()] == [4, 4]
    flips = [RunConfig.from_yaml(tmp_path / "out" / n / "config.yaml").data.crop.flip_p for n in ("none", "flip")]
    assert flips == [0.0, 0.5]
    scores = tmp_path / "out/none/scores.json"
    assert json.loads(scores.read_text())["metrics"] == dict(table.lines[0].metrics)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("augmentaton", {}, "unknown ablation 'augmentaton'; did you mean 'augmentation'"),
        ("augmentation", {}, "needs the settings of a run: --like"),
        ("augmentation", {"rows": ["flop"], "like": "rsn_small"}, "no row 'flop'; did you mean 'flip'"),
        ("augmentation", {"changes": ["data.val=null"], "like": "rsn_small"}, "must name validation data"),
        ("augmentation", {"like": "rsn18_mpii"}, "not of MPII"),
        ("augmentation", {"like": "directpose_r50"}, "'paper' is as published"),
    ],
)
def test_mistakes_are_explained(name: str, arguments: dict[str, Any], message: str) -> None:
    if "like" in arguments:
        arguments = arguments | {"like": recipe(arguments["like"])}
    with pytest.raises(ValueError, match=message):
        plan_ablation(name, **arguments)
