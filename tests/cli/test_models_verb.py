"""``poise models`` on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from poise import zoo
from poise.cli.main import app
from poise.models import PRESETS
from poise.zoo import ShippedModel, counting, shipped
from poise.zoo.counting import Count
from poise.zoo.papers import COSTS, RESULTS, reported


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", *arguments])


def test_presets_are_listed() -> None:
    result = invoke()
    assert result.exit_code == 0, result.output
    assert all(f"  {name}\n" in result.stdout for name in PRESETS)
    assert json.loads(invoke("--json").stdout)["presets"] == list(PRESETS)


def test_a_model_that_looks_at_people_has_a_time_where_somebody_finds_them() -> None:
    """Its AP with true boxes and the time of the whole pipeline do not stand in one row."""
    if "rsn_small" not in shipped():
        pytest.skip("this copy was built without weights")
    lines = invoke().stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  rsn_small"))
    finder = next(i for i, line in enumerate(lines) if line.startswith("    on people of smpr_mobilenetv2 "))
    metrics = shipped()["rsn_small"].metrics
    assert f"{100 * metrics['AP']:.1f}" in lines[at]
    assert " ms" not in lines[at]
    assert finder > at
    assert f"{100 * metrics['with_smpr_mobilenetv2']['AP']:.1f}" in lines[finder]
    assert f"{metrics['milliseconds']:.0f} ms" in lines[finder]
    assert sum(line.startswith("  Time: ") for line in lines) == 2  # below the table, and that of larger models
    assert "AP looks at those found with 0.01 or more, time at those with 0.05" in "\n".join(lines)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def count(name: str) -> Count:
        names.append(name)
        return Count((480, 640), 12_345_678, 9_876_543_210)

    monkeypatch.setattr(counting, "count", count)
    return names


def test_published_numbers_stand_beside_counted_ones(counted: list[str]) -> None:
    result = invoke("--papers")
    assert result.exit_code == 0, result.output
    assert counted == reported()
    assert "none of them was measured with Poise" in result.stdout
    lines = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    assert [
        "smpr_hrnet_w32",
        "480x640",
        "12.35",
        "38.91",
        "9.88",
        "95",
        "68.2",
        "COCO test-dev",
        "paper (Table III)",
    ] in lines
    assert ["70.4", "COCO val2017", "authors' code"] in lines
    assert any(line[0] == "rsn50x4_paper_mpii" and "91.6 PCKh" in line for line in lines)
    assert sum(bool(re.search(r"(paper|code|mmpose)( \(\S+ \S+\))?$", line[-1])) for line in lines) >= len(RESULTS)


def test_json_has_everything(counted: list[str]) -> None:
    result = invoke("--papers", "--json")
    assert result.stderr == ""
    entries = {entry["preset"]: entry for entry in json.loads(result.stdout)}
    assert list(entries) == counted
    assert sum(len(entry["results"]) for entry in entries.values()) == len(RESULTS)
    assert sum(len(entry["costs"]) for entry in entries.values()) == len(COSTS)
    assert entries["smpr_r50"]["counted"] == {"size": [480, 640], "parameters": 12_345_678, "macs": 9_876_543_210}
    assert entries["smpr_psm"]["results"][1]["metrics"]["AP"] == 68.8


def test_larger_models_are_listed_with_their_numbers_and_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"AP": 0.345, "AP50": 0.678, "parameters": 25_159_432, "bytes": 50_500_000, "input": [256, 192]}
    model = ShippedModel("large", Path("models/large.safetensors"), Path("large.md"), metrics)
    monkeypatch.setattr(zoo, "larger", lambda: {"large": model})
    lines = invoke().stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Larger models"))
    row = next(line for line in lines[at:] if line.startswith("  large "))
    assert "models/NAME.safetensors" in lines[at]
    assert row.split() == ["large", "256x192", "25.16", "M", "50.5", "MB", "34.5", "67.8"]
    listed = json.loads(invoke("--json").stdout)["larger"]
    assert [entry["path"] for entry in listed] == ["models/large.safetensors"]
