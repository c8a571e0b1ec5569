"""The examples of the guides run, in their order, as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import poise
from poise.checkpoints import save_checkpoint
from poise.cli.main import app
from poise.models.rsn import RSN, RSNConfig
from poise.predict import predictor as predictor_room
from poise.types import ViewSpec

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs/guides"
PAGES = ["quick_start", "recipes", "python", "predict"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working folder with the examples in it; the model is loaded once."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    small = Image.open(ROOT / "examples/three_people.jpg").reduce(4)
    for name in ("photos/a.jpg", "photos/b.jpg", "holiday.jpg", "archive/old/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(tmp_path / name)
    save_checkpoint(tmp_path / "runs/rsn/checkpoints/best.safetensors", tiny_top_down())
    monkeypatch.chdir(tmp_path)
    original, loaded = predictor_room.load, {}

    def load(name="default", **options):
        if name not in loaded:
            loaded[name] = original(name, device="cpu")
        return loaded[name]

    monkeypatch.setattr(predictor_room, "load", load)
    return tmp_path


def tiny_top_down():
    """Finds nothing: its weights are random."""
    view = ViewSpec(kind="crop", size=(64, 64), half_pixel=False)
    small = {"stem": 16, "planes": (16, 16, 16, 16), "unit_channels": 16, "branch_ratio": (32, 64)}
    return RSN(RSNConfig.parse({**small, "view": view.model_dump(), "kernels": (7, 7, 7, 5, 5)}))


def blocks(page):
    text = (GUIDES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run_commands(text):
    for line in text.splitlines():
        command = line.partition(" > ")[0]
        verb, *words = shlex.split(command)
        assert verb == "poise"
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (line, result.output)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, here):
    for library in ("av", "scipy", "pandas", "matplotlib"):
        pytest.importorskip(library)
    found = blocks(page)
    assert {kind for kind, _ in found} >= {"python"}
    names = {}
    for kind, text in found:
        if kind == "bash":
            run_commands(text)
        else:
            exec(compile(text, f"{page}.md", "exec"), names)  # noqa: S102
    left = {p.name for p in here.iterdir()}
    assert left >= {"recipes": {"people.csv", "elbow.png", "hidden.png"}, "python": {"poses.json", "part.mp4"}}.get(
        page, {"poise-out"}
    )


def test_the_table_of_fields_is_that_of_the_class():
    table = (GUIDES / "python.md").read_text(encoding="utf-8").partition("## Poses")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert set(named) == set(poise.Poses.__dataclass_fields__)
