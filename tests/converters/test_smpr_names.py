"""What the names and shapes of a checkpoint tell; equality with the reference is shown by the golden cases."""

import re

import pytest
import torch

from poise.converters import convert_state
from poise.converters.smpr import head_names
from poise.models.smpr import SMPR, SMPRConfig

NECK = {
    r"pyramid\.lateral\.": "neck.lateral_convs.", r"pyramid\.output\.": "neck.fpn_convs.",
    r"pyramid\.down\.": "neck.downsample_convs.", r"pyramid\.post\.": "neck.pafpn_convs.",
}  # fmt: skip


def official(config: SMPRConfig) -> dict[str, torch.Tensor]:
    """The names that the authors' code would give to a model with an FPN or PAFPN, with random values."""
    torch.manual_seed(0)
    own = SMPR(config).state_dict()
    head = {k: v for k, v in own.items() if k.startswith("head.")}
    state = {f"bbox_head.{_head_name(k)}": v.reshape(()) if k.endswith(".scale") else v for k, v in head.items()}
    for name, value in own.items():
        if name.startswith("backbone.body."):
            state[name.replace(".body.", ".")] = value
        elif name.startswith("pyramid.extra."):
            _, _, number, leaf = name.split(".")
            state[f"neck.fpn_convs.{3 + int(number)}.conv.{leaf}"] = value
        elif name.startswith("pyramid."):
            pattern, prefix = next(item for item in NECK.items() if re.match(item[0], name))
            number, leaf = re.sub(pattern, "", name).split(".")
            state[f"{prefix}{number}.conv.{leaf}"] = value
    return state


def _head_name(name: str) -> str:
    towers = {"person_tower": "cls_convs", "pose_tower": "reg_convs", "heatmap": "hm_convs"}
    part, *rest = name.removeprefix("head.").split(".")
    if part in towers and not (part == "heatmap" and rest[0] == "6"):
        return f"{towers[part]}.{int(rest[0]) // 3}.{('conv', 'gn')[int(rest[0]) % 3]}.{rest[1]}"
    singles = {
        "heatmap.6": "hm_out", "initial": "fcos_reg", "align.offset": "feature_adaption.conv_offset",
        "align.pose": "feature_adaption.conv_adaption_reg", "align.person": "feature_adaption.conv_adaption_cls",
        "refined": "fcos_refine_out", "logits": "fcos_cls", "quality": "fcos_rescore",
    }  # fmt: skip
    path = name.removeprefix("head.")
    if path.startswith(("initial_scales", "refined_scales")):
        return f"scales_{1 if path.startswith('initial') else 2}.{rest[0]}.scale"
    stem, _, leaf = path.rpartition(".")
    return f"{singles[stem]}.{leaf}"


@pytest.mark.parametrize(
    "config",
    [
        SMPRConfig(neck="fpn", channels=32, tower_depth=2, offset_groups=1, heatmap_channels=16),
        SMPRConfig(channels=32, heatmap=False),
        SMPRConfig(neck="fpn", channels=32, psm=False, score="class", backbone="resnet101"),
        SMPRConfig(neck="fpn", channels=32, align=False, psm=False, score="class", heatmap=False),
    ],
    ids=["one group", "pafpn without heatmap", "resnet101 without pose scoring", "plain"],
)
def test_switches_are_read_off(config: SMPRConfig) -> None:
    state = official(config)
    model = convert_state(state, "smpr")
    assert isinstance(model, SMPR)
    usual = SMPRConfig().heatmap_channels
    assert model.config == (config if config.heatmap else config.model_copy(update={"heatmap_channels": usual}))
    torch.testing.assert_close(model.head.logits.weight, state["bbox_head.fcos_cls.weight"])
    torch.testing.assert_close(model.head.initial_scales[2].scale, state["bbox_head.scales_1.2.scale"].reshape(1))
    torch.testing.assert_close(model.pyramid.extra[1].weight, state["neck.fpn_convs.4.conv.weight"])
    torch.testing.assert_close(model.backbone.body.layer4[2].conv3.weight, state["backbone.layer4.2.conv3.weight"])


def test_problems_are_listed() -> None:
    state = official(SMPRConfig(neck="fpn", channels=32, heatmap=False))
    del state["bbox_head.fcos_reg.bias"]
    state["bbox_head.something.weight"] = torch.zeros(3)
    state["neck.lateral_convs.0.conv.weight"] = torch.zeros(7, 512, 1, 1)
    with pytest.raises(ValueError, match="not a SMPR checkpoint") as caught:
        convert_state(state, "smpr")
    for words in ("missing: head.initial.bias", "unexpected: something.weight", "pyramid.lateral.0.weight has (7, 512"):
        assert words in str(caught.value)


def test_something_else_entirely() -> None:
    with pytest.raises(ValueError, match="not a SMPR checkpoint: missing"):
        convert_state({"fc.weight": torch.zeros(2, 2)}, "smpr")


def test_layers_of_towers_are_triples() -> None:
    names = head_names({"cls_convs.3.gn.bias": torch.zeros(1), "hm_convs.1.conv.weight": torch.zeros(1)})
    assert list(names) == ["head.person_tower.10.bias", "head.heatmap.3.weight"]
