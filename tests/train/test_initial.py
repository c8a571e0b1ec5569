"""Weights to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from poise.checkpoints import CheckpointError, read_header, save_checkpoint
from poise.models import DirectPose, DirectPoseConfig, build_model, parse_model_config
from poise.skeletons import COCO17, CROWDPOSE14, LSP14, Skeleton
from poise.train.initial import load_initial_weights
from poise.zoo import shipped
from tiny import TinyModel, tiny_model

SMALL = DirectPoseConfig(backbone="mobilenetv2_100", anti_alias=False, channels=64, group_channels=8, heatmap=None)


def changed_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {n: t + 0.5 if t.is_floating_point() else t for n, t in network.state_dict().items()}


def test_a_torchvision_backbone(tmp_path: Path) -> None:
    state = changed_state(torchvision.models.mobilenet_v2())
    save_file(state, tmp_path / "w.safetensors")
    model = DirectPose(SMALL, COCO17)
    taken = load_initial_weights(model, tmp_path / "w.safetensors")
    body = model.backbone.body
    assert torch.equal(body.conv_stem.weight, state["features.0.0.weight"])
    assert torch.equal(body.blocks[6][0].conv_pwl.weight, state["features.17.conv.2.weight"])
    assert taken.taken == taken.total == len([n for n in body.state_dict() if not n.endswith("num_batches_tracked")])
    assert str(taken) == f"started from w.safetensors: {taken.taken} of {taken.taken} tensors taken"


def test_a_plain_resnet_for_the_anti_aliased_one(tmp_path: Path) -> None:
    state = changed_state(timm.create_model("resnet50"))
    save_file(state, tmp_path / "w.safetensors")
    model = DirectPose(DirectPoseConfig(backbone="resnet50", channels=64, group_channels=8, heatmap=None), COCO17)
    load_initial_weights(model, tmp_path / "w.safetensors")
    body = model.backbone.body
    assert torch.equal(body.layer3[0].downsample[1].weight, state["layer3.0.downsample.0.weight"])
    assert torch.equal(body.layer1[0].downsample[0].weight, state["layer1.0.downsample.0.weight"])
    assert torch.equal(body.layer4[2].bn3.running_var, state["layer4.2.bn3.running_var"])


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    save_file(dict(timm.create_model("mobilenetv2_050").state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"does not hold the model's backbone: wrong shape: .* and \d+ more"):
        load_initial_weights(DirectPose(SMALL, COCO17), tmp_path / "w.safetensors")


def test_a_file_without_a_backbone_is_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"does not hold the model's backbone: missing: conv_stem\.weight"):
        load_initial_weights(DirectPose(SMALL, COCO17), tmp_path / "w.safetensors")


def test_a_model_without_a_backbone_is_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="a TinyModel has no backbone"):
        load_initial_weights(tiny_model(), tmp_path / "w.safetensors")


def test_a_foreign_torchvision_file_is_refused(tmp_path: Path) -> None:
    save_file({"features.0.0.weight": torch.zeros(1), "features.40.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: 'features\.40\.weight' is not a tensor"):
        load_initial_weights(DirectPose(SMALL, COCO17), tmp_path / "w.safetensors")


@pytest.mark.parametrize("count", [2, 14])
def test_a_checkpoint_of_another_skeleton_keeps_the_own_outputs(tmp_path: Path, count: int) -> None:
    """Also where the other skeleton has as many keypoints: they are others."""
    other = Skeleton(f"other{count}", CROWDPOSE14.keypoints[:count], (), (), CROWDPOSE14.sigmas[:count])
    source = TinyModel(skeleton=other)
    with torch.no_grad():
        source.backbone[0].weight.fill_(0.25)
    save_checkpoint(tmp_path / "c.safetensors", source)
    model = tiny_model()
    outputs = model.head.weight.detach().clone()
    before = torch.get_rng_state()
    taken = load_initial_weights(model, tmp_path / "c.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.backbone[0].weight, source.backbone[0].weight)
    assert torch.equal(model.head.weight, outputs)
    total = len(model.state_dict())
    assert str(taken) == (
        f"started from c.safetensors: {total - 2} of {total} tensors taken; "
        f"made anew for pair instead of other{count}: head"
    )


def test_groups_of_the_settings_make_room_for_other_keypoints(tmp_path: Path) -> None:
    """Groups hold each keypoint once, also where the layers that count keypoints are looked for."""
    five = Skeleton("five", ("a", "b", "c", "d", "e"), (), (), (0.05,) * 5)
    other = Skeleton("other", ("v", "w", "x", "y", "z"), (), (), (0.05,) * 5)
    config = SMALL.model_copy(update={"groups": ((0, 1, 2), (3, 4))})
    save_checkpoint(tmp_path / "c.safetensors", DirectPose(config, other))
    model = DirectPose(config, five)
    own = model.head.align.locator.weight.detach().clone()
    taken = load_initial_weights(model, tmp_path / "c.safetensors")
    assert "head.align.tower" in taken.remade
    assert torch.equal(model.head.align.locator.weight, own)
    assert not any(name.startswith(("backbone", "pyramid")) for name in taken.remade)


def test_a_checkpoint_of_the_same_keypoints_is_taken_whole(tmp_path: Path) -> None:
    source = TinyModel()
    save_checkpoint(tmp_path / "c.safetensors", source)
    model = tiny_model()
    taken = load_initial_weights(model, tmp_path / "c.safetensors")
    assert taken.taken == taken.total
    assert taken.remade == ()
    assert torch.equal(model.head.weight, source.head.weight)


def test_a_shipped_model_finds_other_keypoints() -> None:
    """All but the layers that count keypoints is taken."""
    path = shipped()["directpose_mobilenetv2"].path
    model = build_model(parse_model_config(read_header(path).model), LSP14)
    taken = load_initial_weights(model, path)
    assert taken.skeletons == ("coco17", "lsp14")
    assert taken.taken > 0.9 * taken.total
    assert taken.remade[0] == "head.align.tower"
    assert not any(name.startswith("backbone") for name in taken.remade)


def test_a_checkpoint_of_another_system_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", tiny_model())
    with pytest.raises(CheckpointError, match="no tensor in common"):
        load_initial_weights(DirectPose(SMALL, COCO17), tmp_path / "c.safetensors")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_initial_weights(tiny_model(), tmp_path / "c.safetensors")
