"""RSN on top of a timm network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from poise.models.rsn import RSN, RSNConfig
from poise.nn.backbones import build_backbone
from poise.nn.fold import fold_batch_norm
from poise.train.initial import load_initial_weights
from poise.types import Persons, ViewSpec

TRUNK = "mobilenetv2_035"


def tiny(trunk: str = TRUNK, stages: int = 1) -> RSN:
    torch.manual_seed(0)
    view = ViewSpec(kind="crop", size=(64, 96), half_pixel=False)
    return RSN(
        RSNConfig(
            depth=10, trunk=trunk, stages=stages, stem=8, planes=(8, 16, 32, 64), branch_ratio=(1, 2), unit_channels=16,
            view=view,
        )
    )  # fmt: skip


def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def person() -> Persons:
    points = torch.full((1, 17, 3), 2.0)
    points[..., :2] = torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(2)) * 50 + 5
    return Persons.from_numpy(points.numpy(), torch.zeros(1, 4).numpy(), [1.0], torch.zeros(0, 4).numpy())


def test_a_trunk_takes_the_place_of_the_stem() -> None:
    """Its features reach the first stage as input and as skips; every part learns, and every norm folds."""
    model = tiny(stages=2)
    assert not hasattr(model, "stem")
    view = images()
    torch.stack(list(model.loss(model(view), [person(), person()]).values())).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    model.eval()
    with torch.no_grad():
        before = model.heatmaps(view)
        for skip in model.joints.skips:
            skip.norm.weight.zero_()
            skip.norm.bias.fill_(-1)  # behind a ReLU: nothing is handed on
        assert not torch.allclose(model.heatmaps(view), before)
    assert not [m for m in fold_batch_norm(model, view[:1]).modules() if type(m) is nn.BatchNorm2d]


@pytest.mark.parametrize(("name", "word"), [("no_such_network", "timm"), ("vit_tiny_patch16_224", "strides")])
def test_a_trunk_needs_features_of_four_sizes(name: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        tiny(trunk=name)


def test_imagenet_weights_go_to_the_trunk(tmp_path: Path) -> None:
    torch.manual_seed(1)
    backbone = build_backbone(TRUNK, strides=(4, 8, 16, 32))
    save_file(backbone.body.state_dict(), tmp_path / "imagenet.safetensors")
    model = tiny()
    load_initial_weights(model, tmp_path / "imagenet.safetensors")
    torch.testing.assert_close(model.backbone.body.conv_stem.weight, backbone.body.conv_stem.weight)
