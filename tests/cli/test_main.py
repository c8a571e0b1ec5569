"""The command ``poise`` as a process: exit codes, streams, interruption."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

import poise
from poise.cli.main import VERBS, app
from poise.models import PRESETS
from poise.zoo import shipped

POISE = str(Path(sys.executable).with_name("poise"))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_alone_it_prints_help():
    alone, asked = invoke(), invoke("--help")
    assert alone.exit_code == asked.exit_code == 0
    assert alone.stdout.strip() == asked.stdout.strip()
    for verb in VERBS:
        assert f"\n  {verb} " in alone.stdout


def test_every_verb_explains_itself():
    for verb in VERBS:
        result = invoke(verb, "-h")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 5


def test_version():
    assert invoke("--version").stdout == f"poise {poise.__version__}\n"


def test_unknown_verb_and_option():
    result = invoke("prdict")
    assert result.exit_code == 2
    assert "predict" in result.stderr
    assert invoke("predict", "--modle", "x").exit_code == 2


def test_as_a_process_a_mistake_is_one_line_and_exit_code_1(tmp_path):
    result = subprocess.run([POISE, "predict", "no.jpg"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "poise: no.jpg does not exist\n")


def test_mistakes_are_one_line_and_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("a.png")
    for arguments, words in (
        (("predict", "a.png", "--model", "nowhere.safetensors"), "nowhere.safetensors does not exist"),
        (("predict", "a.png", "--model", "direktpose"), "unknown model 'direktpose'"),
        (("predict", "a.png", "--model", "direktpose", "--weights", "w"), "weights go with a preset"),
        (("convert", "nowhere.pth", "out.safetensors", "--from", "directpose"), "nowhere.pth does not exist"),
        (
            ("convert", "a.png", "out.safetensors", "--from", "caffe"),
            "--from 'caffe' is not known; known: directpose",
        ),
        (("train", "directpose_r5"), "directpose_r50"),
    ):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert result.stderr.startswith("poise: ")
        assert words in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_ctrl_c():
    """A real signal, sent while the verb runs."""
    code = """
import os, signal, sys, time
import poise.predict.frames
from poise.cli.main import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with it ignored

def find_sources(source):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

poise.predict.frames.find_sources = find_sources
sys.argv = ["poise", "predict", "a.png"]
run()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "poise: interrupted\n")


def test_a_reader_that_has_seen_enough():
    """As in ``poise ... | head -1``: no traceback, no complaint."""
    code = """
import typer
from poise.cli.errors import guarded

def many() -> None:
    for _ in range(100_000):
        typer.echo("one of many lines")

app = typer.Typer()
app.command()(guarded(many))
app()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_models():
    listed = json.loads(invoke("models", "--json").stdout)
    assert [m["name"] for m in listed["models"]] == list(shipped())
    assert listed["presets"] == list(PRESETS)
    assert listed["default"] in [None, *shipped()]
    text = invoke("models").stdout
    assert all(f"\n  {name}" in text for name in (*shipped(), *PRESETS))


def test_every_verb_prints_json_if_asked():
    root = typer.main.get_command(app)
    verbs = {**root.commands, **root.commands["data"].commands}
    del verbs["data"]
    assert [name for name, verb in verbs.items() if not any("--json" in o.opts for o in verb.params)] == []


def test_convert_names_its_output_once(tmp_path):
    for output in ((), ("a.safetensors", "-o", "b.safetensors")):
        result = invoke("convert", tmp_path / "x.pth", *output, "--from", "directpose")
        assert result.exit_code == 2
    assert invoke("convert", tmp_path / "x.pth", "out.safetensors").exit_code == 2


@pytest.mark.parametrize("option", [False, True])
def test_convert(tmp_path, monkeypatch, option):
    asked = []

    def convert_file(path, source, output):
        asked.append((path, source, output))
        return output

    monkeypatch.setattr("poise.converters.convert_file", convert_file)
    output = ("-o", "out.safetensors") if option else ("out.safetensors",)
    result = invoke("convert", "x.pth", *output, "--from", "directpose-gluoncv")
    assert (result.exit_code, result.stdout) == (0, "out.safetensors\n")
    assert asked == [(Path("x.pth"), "directpose-gluoncv", Path("out.safetensors"))]
    told = invoke("convert", "x.pth", *output, "--from", "directpose-gluoncv", "--json").stdout
    assert json.loads(told) == {"model": "out.safetensors"}
