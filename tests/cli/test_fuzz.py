"""Whatever is typed: an exit code and a line, never a traceback.

POISE_FUZZ=1000 in the environment tries more.
"""

import os

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from clips import moving_dots, write_clip
from dots import DotModel
from poise.cli.main import app
from poise.predict import predictor as predictor_room
from poise.predict.predictor import Predictor

ROOT = typer.main.get_command(app)
COMMANDS = {
    **{name: command for name, command in ROOT.commands.items() if not hasattr(command, "commands")},
    **{f"data {name}": command for name, command in ROOT.commands["data"].commands.items()},
}
LONG = {"train": ["--data", "nowhere"], "ablation": ["--data", "nowhere"], "benchmark": ["nowhere"]}
"""With a good command line these go on for minutes or hours: they get data or a model that does not exist."""
VALUES = (
    *("a.png", "clip.mp4", "pictures", "empty", "nowhere.jpg", "text.txt", "*.png", "[", "-", "--", "", " ", ".", ".."),
    *(
        "/dev/null",
        "0",
        "1",
        "-1",
        "0.3",
        "1e9",
        "nan",
        "inf",
        "2x2",
        "0x0",
        "32",
        "640,64",
        "1:30",
        "0:00.1",
        "99:99:99",
    ),
    *("bold", "blur", "csv", "parquet", "online", "offline", "directpose", "smpr", "default", "directpose_r50", "cpu"),
    *("cuda:99", "a=b", "train.steps=x", "rtsp://", "http://127.0.0.1:9/a.jpg", "camera:77", "%s{0}", "file\x7f"),
    *("a\nb", "\u00e9\u4eba\U0001f600", "9" * 40, "poses.json"),
)


FITTING = {
    "--style": ("bold", "people"), "--anonymise": ("blur", "fill"), "--save": ("csv", "yolo", "openpose", "coco"),
    "--smooth": ("online", "offline"), "--tiles": ("2x2", "64"), "--every": ("1", "2"), "--from": ("0", "0.1"),
    "--to": ("0.1", "5"), "--batch": ("1", "3"), "--min-score": ("0", "0.5"), "--scales": ("64", "64,96"),
    "--out": ("out",), "-o": ("out",), "--device": ("cpu", "auto"), "--model": ("default",), "-m": ("default",),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("fuzz")
    (here / "pictures").mkdir()
    (here / "empty").mkdir()
    Image.fromarray(moving_dots(1)[0]).save(here / "a.png")
    Image.fromarray(moving_dots(1)[0]).save(here / "pictures/b.png")
    write_clip(here / "clip.mp4", moving_dots(2))
    (here / "text.txt").write_text("a.png\nnowhere.png\n")
    (here / "poses.json").write_text('{"images": [], "annotations": [], "categories": []}')
    return here


def original_or_dots(original):
    def load(name="default", *, device="auto", weights=None, **how):
        if name == "default" and weights is None:
            return Predictor(DotModel(long_side=64), "cpu")
        return original(name, device=device, weights=weights, **how)

    return load


@pytest.fixture(autouse=True)
def quick(monkeypatch, folder):
    monkeypatch.setattr(predictor_room, "load", original_or_dots(predictor_room.load))
    monkeypatch.delenv("POISE_DEBUG", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(folder)


@st.composite
def command_lines(draw, verbs):
    """Mostly well formed: sources, options with values that often fit, and now and then anything at all."""
    verb = draw(st.sampled_from(verbs))
    value = st.one_of(st.sampled_from(VALUES), st.text(max_size=8).map(lambda text: text.replace("\0", "")))
    words = draw(st.lists(st.sampled_from(("a.png", "clip.mp4", "pictures", "text.txt")), max_size=2))
    options = [p for p in COMMANDS[verb].params if p.opts[0].startswith("-")]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        words.append(draw(st.sampled_from(option.opts)))
        if not getattr(option, "is_flag", False):
            words.append(draw(st.one_of(value, st.sampled_from(FITTING.get(words[-1], VALUES)))))
    words += draw(st.one_of(st.just([]), st.just([]), st.lists(value, max_size=2)))
    words = [w for w in words if not w.lstrip("/").startswith(("dev/video", "proc", "sys"))]
    return [*verb.split(), *words, *LONG.get(verb, [])]


def never_a_traceback(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code in (0, 1, 2), (words, result.output)
    assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
    assert "Traceback" not in result.output, words
    assert "internal error" not in result.output, (words, result.output)
    if result.exit_code:
        assert result.stderr.strip() or words[:2] == ["data", "check"], words


HOW = settings(
    max_examples=int(os.environ.get("POISE_FUZZ", "25")), deadline=None, derandomize="POISE_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip


@HOW
@given(command_lines(["predict"]))
def test_predict(words):
    never_a_traceback(words)


@HOW
@given(command_lines([verb for verb in COMMANDS if verb != "predict"]))
def test_the_other_verbs(words):
    never_a_traceback(words)


@HOW
@given(st.lists(st.one_of(st.sampled_from(VALUES), st.text(max_size=6).map(lambda t: t.replace("\0", ""))), max_size=4))
def test_no_verb_at_all(words):
    never_a_traceback([w for w in words if w not in COMMANDS])
