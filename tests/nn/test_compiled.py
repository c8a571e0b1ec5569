"""Which parts of networks are compiled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.models import build_model, preset
from poise.models.directpose import DirectPoseConfig, HeatmapConfig
from poise.nn.compiled import compile_parts


def compiled(module: nn.Module) -> set[str]:
    return {name for name, part in module.named_modules() if part._compiled_call_impl is not None}


def test_the_parts_that_work_are_compiled():
    """Backbone and neck whole, of a list every member, of a head and its branches the towers alone."""

    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)))
            self.output = nn.Conv2d(3, 3, 1)

    class TinyHead(Branch):
        def __init__(self):
            super().__init__()
            self.branch = Branch()

    module = nn.Module()
    module.backbone, module.stages, module.head = nn.Conv2d(3, 3, 1), nn.ModuleList([nn.ReLU(), nn.ReLU()]), TinyHead()
    compile_parts(module)
    assert compiled(module) == {"backbone", "stages.0", "stages.1", "head.tower", "head.branch.tower"}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "directpose_mobilenetv2",
            {"backbone", "pyramid"}
            | {f"head.{part}" for part in ("cls_tower", "align.tower", "align.sampler", "heatmap.tower")},
        ),
        ("smpr_mobilenetv2", {"backbone", "pyramid", "head.person_tower", "head.pose_tower", "head.heatmap"}),
        ("rsn_small", {"backbone", "joints", "stages.0"}),
    ],
)
def test_parts_of_networks(name, parts):
    """No whole head, which would be compiled once for each level."""
    network = build_model(preset(name))
    compile_parts(network)
    assert compiled(network) == parts


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides it itself
def test_compiled_towers_of_a_head_are_the_same_towers(monkeypatch):
    """Outputs and gradients of a head whose branches have towers, at the sizes of several levels."""
    runs: list[torch.fx.GraphModule] = []

    def backend(graph, inputs):
        return lambda *args: runs.append(graph) or graph.forward(*args)

    config = DirectPoseConfig(
        backbone="mobilenetv2_035", anti_alias=False, channels=16, group_channels=4, cls_depth=1, keypoint_depth=2,
        heatmap=HeatmapConfig(channels=8), levels=3,
    )  # fmt: skip
    head = build_model(config).head
    maps = [torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 4, 2)]

    def run() -> list[torch.Tensor]:
        head.zero_grad()
        outputs = head(maps)
        found = [*outputs.logits, *outputs.keypoints, outputs.heatmaps]
        torch.stack([each.square().sum() for each in found]).sum().backward()
        return [*(each.detach() for each in found), *(p.grad for p in head.parameters() if p.grad is not None)]

    plain = run()
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend=backend))
    network = nn.Module()
    network.head = head
    compile_parts(network)
    try:
        again = run()
    finally:
        torch._dynamo.reset()
    assert len(runs) == 3 * 3 + 1, "three towers at three levels, the one of the heatmaps once"
    for expected, got in zip(plain, again, strict=True):
        torch.testing.assert_close(got, expected)
