"""The compiler of torch stays out until somebody compiles, and works then."""

import subprocess
import sys

import pytest

from poise.nn.quick_import import COMPILER, _disable


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize(
    ("preset", "timm"), [("smpr_mobilenetv2", "False"), ("rsn_small", "False"), ("directpose_r50", "True")]
)
def test_a_model_loads_no_compiler_and_a_small_one_no_timm(preset, timm):
    code = f"""
import sys, poise.predict.predictor
from poise.models import PRESETS, build_model
build_model(PRESETS["{preset}"]())
print(*(name in sys.modules for name in ("{COMPILER}", "timm", "torchvision")))
"""
    assert run(code) == ["False", timm, timm]


def test_the_real_one_is_there_when_it_is_wanted():
    code = """
import sys, torch
from poise.nn import quick_import
quick_import.load_timm()
import torchvision, timm
from torch._dynamo.utils import is_compile_supported
from torchvision.ops import roi_align
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.disable.__module__.startswith("torch")
assert roi_align.__globals__["is_compile_supported"]("cpu") == is_compile_supported("cpu")

@quick_import._disable
def plain(x):
    return x + (10 if torch.compiler.is_compiling() else 1)

print(torch.compile(lambda x: plain(x) * 2, backend="eager")(torch.zeros(1)).item())
"""
    assert run(code) == ["2.0"]


def test_other_versions_are_loaded_in_the_ordinary_way():
    code = f"""
import sys, types
from poise.nn import quick_import
quick_import.vars = lambda module: {{}}  # the modules that stand in know nothing
quick_import.load_timm()
assert "timm" not in sys.modules and "torch._dynamo" not in sys.modules
import timm, torchvision
print('{COMPILER}' in sys.modules, len(timm.list_models("resnet50")), torchvision.ops.nms is not None)
"""
    assert run(code) == ["True", "1", "True"]


def test_names_and_documentation_stay():
    def function():
        """What it does."""

    assert (_disable(function).__name__, _disable(function).__doc__) == ("function", "What it does.")
