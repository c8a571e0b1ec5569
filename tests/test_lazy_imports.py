"""What is quick must stay quick: heavy libraries are loaded when they are needed."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import poise

HEAVY = ("torch", "torchvision", "cv2", "timm", "accelerate", "numpy", "PIL", "faster_coco_eval")
POISE = str(Path(sys.executable).with_name("poise"))


def loaded(code):
    """Which heavy libraries a fresh interpreter has loaded after the code, and its standard output."""
    report = f"import sys; sys.stderr.write(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return result.stderr, result.stdout


def call(arguments):
    return f"""
import sys
from poise.cli.main import run
sys.argv = ["poise", *{arguments!r}]
try:
    run()
except SystemExit as end:
    print("code", end.code)
"""


def test_import_poise():
    assert loaded("import poise; dir(poise)") == ("", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("--version",),
        *((verb, "--help") for verb in ("predict", "evaluate", "train", "convert", "models", "data")),
        ("data", "check", "--help"),
    ],
    ids=" ".join,
)
def test_help_and_version(arguments):
    heavy, output = loaded(call(arguments))
    assert heavy == ""
    assert output.endswith("code 0\n")
    assert output.startswith(f"poise {poise.__version__}" if "--version" in arguments else "Usage: poise")


def test_usage_errors():
    hush = "import os, sys; sys.stderr = open(os.devnull, 'w')"
    heavy, output = loaded(f"{hush}\n{call(('predict',))}\nsys.stderr = sys.__stderr__")
    assert (heavy, output) == ("", "code 2\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage of child processes")
def test_help_is_quick():
    import resource

    def seconds(*arguments):
        """Processor time: a busy machine does not lengthen it much."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(seconds("-c", "import typer, pydantic") for _ in range(4))
    assert min(seconds(POISE, "--help") for _ in range(4)) < bare + 0.15


def test_public_names():
    assert sorted(poise.__all__) == dir(poise)
    for name in poise.__all__:
        value = getattr(poise, name)
        assert value is not None
        if callable(value):
            assert value.__doc__
    with pytest.raises(AttributeError, match="no attribute 'pose'"):
        poise.pose  # noqa: B018


def modules():
    return [m.name for m in pkgutil.walk_packages(poise.__path__, "poise.") if not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_and_what_it_exports(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert module.__doc__.strip(". ")
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


@pytest.mark.parametrize("name", ["poise.zoo", "poise.predict.sources", "poise.evaluate.coco", "poise.draw"])
def test_these_rooms_need_no_torch(name):
    assert "torch" not in loaded(f"import {name}")[0].split(",")
