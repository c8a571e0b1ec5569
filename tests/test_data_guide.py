"""The guide about data: its commands and its Python run, one after the other, on a tiny data set."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from poise.cli.main import app
from tiny_set import write_tiny_set

GUIDE = (Path(__file__).parents[1] / "docs/guides/data.md").read_text(encoding="utf-8")


@pytest.fixture
def people(tmp_path, monkeypatch):
    write_tiny_set(tmp_path / "people", pictures=6)
    (tmp_path / "people/tiny.json").rename(tmp_path / "people/train.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block(language):
    """The first fenced block of a language."""
    return re.search(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL).group(1)


def test_the_commands_run(people):
    commands = block("bash").splitlines()
    assert {shlex.split(c)[2] for c in commands} == {"check", "stats", "show", "convert", "split"}
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, (command, result.stderr)
    assert (people / "people.png").is_file()
    assert len(list((people / "drawn").iterdir())) == 6
    assert len(list((people / "canvases").iterdir())) == 4
    assert (people / "people-again.json").is_file()
    assert sorted(p.name for p in (people / "parts").iterdir()) == ["train_train.json", "train_val.json"]


def test_the_python_runs(people, capsys):
    exec(compile(block("python"), "guide", "exec"), {})  # noqa: S102 (our own guide)
    assert capsys.readouterr().out == "0 5 (1, 5)\n"
    assert (people / "halves/train_two.json").is_file()
    assert len(list((people / "shown").iterdir())) == 2


def test_the_skeleton_file_of_the_guide_is_one(tmp_path):
    from poise.data.outlines import read_outline

    (tmp_path / "skeleton.yaml").write_text(block("text"))
    skeleton = read_outline(tmp_path / "skeleton.yaml").skeleton()
    assert (len(skeleton), skeleton.flip_pairs) == (4, ((1, 2),))
