"""Help teaches: every verb ends with examples, and every example is a command that exists."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from poise.cli.examples import EXAMPLES, epilog
from poise.cli.main import VERBS, app

POISE = str(Path(sys.executable).with_name("poise"))
LINES = [example.line for examples in EXAMPLES.values() for example in examples]


def command_of(words):
    """The command that the first words name, and the words after it."""
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_every_verb_has_examples():
    data = typer.main.get_command(app).commands["data"].commands
    assert set(EXAMPLES) == {"", "data", *VERBS, *(f"data {name}" for name in data)}
    assert epilog("nothing") is None


@pytest.mark.parametrize("verb", EXAMPLES)
def test_help_ends_with_them(verb):
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    for example in EXAMPLES[verb]:
        assert f"\n    poise {example.line}\n        {example.does}\n" in result.stdout


@pytest.mark.parametrize("line", LINES)
def test_they_use_verbs_and_options_that_exist(line):
    command, words = command_of(shlex.split(line.partition(" > ")[0]))
    assert command.name != "poise"
    if "--help" not in words:
        with command.make_context(command.name, words):
            pass


def complete(*words):
    environment = {
        **os.environ, "_POISE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    result = subprocess.run([POISE], capture_output=True, text=True, check=False, env=environment)
    assert "Traceback" not in result.stderr
    return result.stdout.split()


def test_the_shell_completes_verbs_options_and_values():
    assert complete("poise", "ev") == ["evaluate"]
    assert complete("poise", "predict", "--tra") == ["--track"]
    assert complete("poise", "predict", "--style", "bo") == ["bold"]
    assert "default" in complete("poise", "predict", "--model", "d")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_shown(shell):
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    result = subprocess.run(
        [POISE, "--show-completion", shell], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert "_POISE_COMPLETE" in result.stdout
