"""Packed blocks compute what plain ones compute."""

import pytest
import torch
from torch import nn

from poise.models import build_model, preset
from poise.models import rsn_packed as room
from poise.models.rsn_blocks import BlockPlan, ConvNorm
from poise.models.rsn_packed import PackedConvNorm, PackedStepsBlock, pack
from poise.nn.fold import fold_batch_norm, is_folded
from poise.predict.devices import Running
from poise.predict.predictor import prepared

CPU = torch.device("cpu")


def random_norms(module):
    """Norms as after some training: other statistics than 0 and 1."""
    generator = torch.Generator().manual_seed(5)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(0.2 * torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=generator))
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["rsn18", "rsn_small"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_network_has_the_same_heatmaps(name, batch):
    model = random_norms(build_model(preset(name)))
    size = (64, 64)
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))
    quick = prepared(model, CPU)
    blocks = [type(part) for part in quick.modules()]
    assert PackedConvNorm in blocks
    assert ConvNorm not in blocks
    with torch.inference_mode():
        expected = model.heatmaps(images)
        found = quick.heatmaps(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_packed_block_adds_its_shortcut(stride):
    plan = BlockPlan((26, 64), "planes", 1, 4, False)
    block = random_norms(plan.block(16, 16 * stride, stride))
    images = torch.randn(2, 16, 12, 8, generator=torch.Generator().manual_seed(0))
    expected = block(images)
    folded = fold_batch_norm(block, images)
    assert pack(folded)
    assert type(folded) is PackedStepsBlock
    torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 0.1


def test_norms_that_are_not_folded_stay_apart():
    part = ConvNorm(4, 4, 3).eval()
    assert not pack(part)
    assert type(part) is ConvNorm
    assert not is_folded(part.norm)
    assert not pack(nn.Conv2d(3, 3, 1))
    double = fold_batch_norm(random_norms(ConvNorm(4, 4, 3).double()), torch.randn(1, 4, 8, 8, dtype=torch.float64))
    assert not pack(double)


def test_another_torch_goes_without(monkeypatch):
    class Missing:
        def __call__(self, *_):
            raise AttributeError("no such operator")

    monkeypatch.setattr(room, "pointwise_operator", Missing)
    folded = fold_batch_norm(random_norms(ConvNorm(4, 4, 3)), torch.randn(1, 4, 8, 8))
    assert not pack(folded)
    monkeypatch.setattr(room, "pointwise_operator", lambda: lambda *_: torch.zeros(1, 8, 4, 4))
    assert not pack(folded)
    assert type(folded) is ConvNorm


def test_compiled_networks_are_left_alone(monkeypatch):
    monkeypatch.setattr("poise.predict.predictor.compile_parts", lambda module: None)
    quick = prepared(build_model(preset("rsn_small")), Running(CPU, compiled=True))
    assert not any(isinstance(part, PackedConvNorm) for part in quick.modules())
