"""What the names and shapes of an RSN checkpoint tell; equality with the references is shown by the golden cases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.checkpoints import load_checkpoint
from poise.converters import SOURCES, convert_file, convert_state
from poise.converters.rsn import folded_biases, from_official
from poise.models.rsn import RSN, RSNConfig
from poise.skeletons import COCO17, MPII16, Skeleton

NARROW: dict[str, Any] = {"stem": 16, "planes": (16, 32, 64, 128), "branch_ratio": (4, 16), "unit_channels": 24}
OFFICIAL_UNIT = {
    "lateral": "u_skip", "up": "up_conv", "skip_encoder": "skip1", "skip_decoder": "skip2", "cross": "cross_conv",
    "hidden": "res_conv1", "output": "res_conv2", "prm.feature": "prm.conv_bn_relu_prm_1",
    "prm.weight.0": "prm.conv_bn_relu_prm_2_1", "prm.weight.1": "prm.conv_bn_relu_prm_2_2",
    "prm.attention.0": "prm.conv_bn_relu_prm_3_1", "prm.attention.1": "prm.conv_bn_relu_prm_3_2",
}  # fmt: skip
MMPOSE_UNIT = {
    "lateral": "in_skip", "up": "up_conv", "skip_encoder": "out_skip1", "skip_decoder": "out_skip2",
    "cross": "cross_conv",
}  # fmt: skip


def theirs(name: str, form: str) -> str:
    """The name that the reference gives to an entry of ours; of its head only what has no refine machine."""
    name = name.replace(".norm.", ".bn.")
    if name.startswith("stem."):
        return name.replace("stem.", "top.conv." if form == "official" else "backbone.top.top.0.")
    stage = r"stage\1" if form == "official" else r"backbone.multi_stage_rsn.\1"
    block = re.match(r"stages\.(\d+)\.layers\.(\d)\.(\d+)\.(enter|exit|shortcut|steps\.(\d)\.(\d))\.", name)
    if block is not None:
        last = "conv_bn_relu3" if form == "official" else "conv_bn3"
        part = {"enter": "conv_bn_relu1", "exit": last, "shortcut": "downsample"}.get(block[4])
        part = part or f"conv_bn_relu2_{int(block[5]) + 1}_{int(block[6]) + 1}"
        prefix = block.expand(stage) + f".downsample.layer{int(block[2]) + 1}.{block[3]}"
        return f"{prefix}.{part}.{name[block.end() :]}"
    unit = re.match(r"stages\.(\d+)\.units\.(\d)\.((?:prm\.\w+(?:\.\d)?)|\w+)\.", name)
    assert unit is not None, name
    rest = name[unit.end() :]
    if form == "mmpose" and unit[3] in ("hidden", "output"):
        return f"head.predict_layers.{4 * int(unit[1]) + int(unit[2])}.conv_layers.{int(unit[3] == 'output')}.{rest}"
    part = (OFFICIAL_UNIT if form == "official" else MMPOSE_UNIT)[unit[3]]
    return f"{unit.expand(stage)}.upsample.up{int(unit[2]) + 1}.{part}.{rest}"


def network(skeleton: Skeleton = COCO17, **settings: Any) -> RSN:
    torch.manual_seed(0)
    model = RSN(RSNConfig.model_validate({**NARROW, **settings}), skeleton)
    for name, tensor in model.state_dict().items():
        if "running" in name or name.endswith("bias"):
            tensor.uniform_(0.5, 1.5)
    return model.eval()


def foreign(model: RSN, form: str) -> dict[str, Tensor]:
    state = {theirs(name, form): value for name, value in model.state_dict().items()}
    assert len(state) == len(model.state_dict())
    if form == "official":
        state["top.conv.conv.weight"] = state["top.conv.conv.weight"].flip(1)
    return state


CASES = [
    ({}, COCO17),
    ({"depth": 50, "stages": 2}, COCO17),
    ({"depth": 101}, COCO17),
    ({"stages": 3}, MPII16),
    ({"expansion": 4, "branch_from": "planes"}, COCO17),
    ({"expansion": 4}, COCO17),
    ({"branch_from": "planes"}, MPII16),
    ({"branches": 3}, COCO17),
]


@pytest.mark.parametrize(("settings", "skeleton"), CASES)
@pytest.mark.parametrize("source", ["rsn", "mmpose-rsn"])
def test_switches_are_read_off(settings: dict[str, Any], skeleton: Skeleton, source: str) -> None:
    form = "official" if source == "rsn" else "mmpose"
    model = network(skeleton, **settings)
    found = convert_state(foreign(model, form), source)
    assert isinstance(found, RSN)
    assert found.skeleton == skeleton
    wanted = {**NARROW, **settings}
    assert {k: getattr(found.config, k) for k in wanted} == wanted
    assert (found.config.decoding, found.config.view.extension) == (
        ("mmpose", (1.25, 1.25))
        if form == "mmpose"
        else ("official", (1.09, 1.135) if skeleton == COCO17 else (1.25, 1.25))
    )
    assert found.config.view.size == ((256, 192) if skeleton == COCO17 else (256, 256))
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in found.state_dict().items())


@pytest.mark.parametrize("where", ["last", "all"])
def test_official_refine_machines(where: str) -> None:
    model = network(stages=2, prm="official", prm_at=where)
    found = convert_state(foreign(model, "official"), "rsn")
    assert isinstance(found, RSN)
    assert (found.config.prm, found.config.prm_at) == ("official", where)


def test_biases_are_folded_or_kept() -> None:
    model = network(conv_bias=True, stages=2)
    state = foreign(model, "official")
    folded, kept = from_official(state), from_official(state, conv_bias=True)
    assert (folded.config.conv_bias, kept.config.conv_bias) == (False, True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(kept.heatmaps(x), model.heatmaps(x), rtol=0, atol=0)
        torch.testing.assert_close(folded.heatmaps(x), model.heatmaps(x), rtol=1e-3, atol=1e-2)


def test_a_bias_without_a_norm_is_left_alone() -> None:
    assert set(folded_biases({"a.conv.bias": torch.zeros(1)})) == {"a.conv.bias"}


def test_a_file_is_converted(tmp_path: Path) -> None:
    model = network()
    torch.save({"model": foreign(model, "official"), "iteration": 3}, tmp_path / "iter-3.pth")
    convert_file(tmp_path / "iter-3.pth", "rsn", tmp_path / "rsn.safetensors")
    found = load_checkpoint(tmp_path / "rsn.safetensors").model
    assert isinstance(found, RSN)
    assert torch.equal(found.stem.conv.weight, model.stem.conv.weight)


@pytest.mark.parametrize("source", ["rsn", "mmpose-rsn"])
def test_other_checkpoints_are_refused(source: str) -> None:
    assert source in SOURCES
    with pytest.raises(ValueError, match=r"not a .*RSN checkpoint"):
        convert_state({"conv1.weight": torch.zeros(3, 3)}, source)


def test_what_is_missing_or_too_much_is_named() -> None:
    state = foreign(network(), "official")
    del state["stage0.downsample.layer4.1.conv_bn_relu1.bn.weight"]
    with pytest.raises(ValueError, match=r"stages\.0\.layers\.3\.1\.enter\.norm\.weight"):
        convert_state(state, "rsn")
    state = foreign(network(), "official") | {"stage0.upsample.up9.u_skip.conv.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"units\.8\.lateral\.conv\.weight"):
        convert_state(state, "rsn")


def test_other_numbers_of_keypoints_are_refused() -> None:
    skeleton = Skeleton("three", ("a", "b", "c"), (), (), (0.1,) * 3)
    with pytest.raises(ValueError, match="16 or 17 keypoints, not 3"):
        convert_state(foreign(network(skeleton), "official"), "rsn")


def test_other_depths_are_refused() -> None:
    state = {k: v for k, v in foreign(network(), "official").items() if ".layer2.1." not in k}
    with pytest.raises(ValueError, match=r"not \(2, 1, 2, 2\)"):
        convert_state(state, "rsn")
