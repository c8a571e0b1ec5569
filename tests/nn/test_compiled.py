"""Which parts of networks are compiled."""

from __future__ import annotations

import pytest
from torch import nn

from poise.models import build_model, preset
from poise.nn.compiled import compile_parts


def compiled(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if part._compiled_call_impl is not None}


def test_the_parts_that_work_are_compiled():
    """Backbone and neck whole, of a list every member, of a head the towers alone."""

    class TinyHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = nn.Sequential(nn.Conv2d(3, 3, 1))
            self.output = nn.Conv2d(3, 3, 1)

    module = nn.Module()
    module.backbone, module.stages, module.head = nn.Conv2d(3, 3, 1), nn.ModuleList([nn.ReLU(), nn.ReLU()]), TinyHead()
    compile_parts(module)
    assert compiled(module) == {"backbone", "stages.0", "stages.1", "head.tower"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("directpose_mobilenetv2", {"backbone", "pyramid", "head.share", "head.cls_tower"}),
        ("smpr_mobilenetv2", {"backbone", "pyramid", "head.person_tower", "head.pose_tower", "head.heatmap"}),
        ("rsn_small", {"backbone", "joints", "stages.0"}),
    ],
)
def test_parts_of_networks(name, parts):
    """No whole head, which would be compiled once for each level."""
    network = build_model(preset(name))
    compile_parts(network)
    assert compiled(network) == parts
