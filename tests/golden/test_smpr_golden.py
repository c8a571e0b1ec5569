"""Equality with the reference code of SMPR (see smpr/README.md for cases and tolerances)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import Case, folder

from poise.converters import convert_state
from poise.converters.smpr import head_names, new_names
from poise.models import build_model, parameter_count, preset
from poise.models.smpr import SMPR, FeatureAlignment, SMPRConfig, SMPRHead, SMPROutputs
from poise.skeletons import COCO17

SYSTEM = "smpr"
NAMES = sorted(p.stem for p in folder(SYSTEM).glob("*.json"))
STRIDES = (8, 16, 32, 64, 128)
LEVELS = ("P3", "P4", "P5", "P6", "P7")
MODELS = {
    "r50_pafpn": "smpr_r50", "r50_fpn": "smpr_r50_fpn", "hrnet_w32_hrfpn": "smpr_hrnet_w32",
    "hrnet_w48_hrfpn": "smpr_hrnet_w48",
}  # fmt: skip


def require(name: str) -> None:
    if name not in NAMES:
        pytest.skip(f"no case {name} in {folder(SYSTEM)}")


def case(name: str) -> Case:
    require(name)
    return Case(SYSTEM, name)


def facts(name: str) -> dict[str, Any]:
    """A case without arrays."""
    require(name)
    found: dict[str, Any] = json.loads((folder(SYSTEM) / f"{name}.json").read_text())
    return found


def tensor(c: Case, key: str) -> torch.Tensor:
    return torch.from_numpy(c[key].astype(np.float32))


def drawn(rule: dict[str, Any]) -> torch.Tensor:
    values = np.random.default_rng(rule["seed"]).standard_normal(rule["shape"]) * rule["scale"]
    return torch.from_numpy(values.astype(np.float32))


def weights(c: Case, entries: list[Any] | None = None) -> dict[str, torch.Tensor]:
    """The regenerated weights under the reference's names, scalars as scalars."""
    state = c.state_dict(entries)
    return {k: v.reshape(()) if k in c.settings.get("scalars", ()) else v for k, v in state.items()}


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float, what: str) -> None:
    assert tuple(found.shape) == expected.shape, what
    gap = np.abs(found.detach().double().numpy() - expected).max()
    assert gap <= tolerance, f"{what}: {gap} > {tolerance}"


def spy(module: torch.nn.Module) -> list[Any]:
    seen: list[Any] = []
    module.register_forward_hook(lambda _m, _i, output: seen.append(output))
    return seen


# ----------------------------------------------------------------------------------------------------------- network


def check_outputs(c: Case, outputs: SMPROutputs) -> None:
    """Logits to 1e-4, poses (in pixels in the reference) to 1e-4 strides."""
    assert outputs.refined is not None
    assert outputs.quality is not None
    for i, (level, stride) in enumerate(zip(LEVELS, STRIDES, strict=True)):
        close(outputs.logits[i], c[f"cls_{level}"], 1e-4, f"cls {level}")
        close(outputs.initial[i] * stride, c[f"init_{level}"], 1e-4 * stride, f"init {level}")
        close(outputs.refined[i] * stride, c[f"refine_{level}"], 1e-4 * stride, f"refine {level}")
        close(outputs.quality[i], c[f"rescore_{level}"], 1e-4, f"rescore {level}")
    if "hm_P3" in c:
        assert outputs.heatmaps is not None
        close(outputs.heatmaps, c["hm_P3"], 1e-4, "heatmaps")


@pytest.mark.parametrize(
    ("name", "like"),
    [("full_r50_pafpn", "smpr_r50"), ("full_r50_fpn", "smpr_r50_fpn"), ("full_hrnet_w32", "smpr_hrnet_w32")],
)
def test_full(name: str, like: str) -> None:
    c = case(name)
    model = convert_state(weights(c), "smpr")
    assert isinstance(model, SMPR)
    assert model.config == preset(like)
    bodies, pyramids = spy(model.backbone), spy(model.pyramid)
    with torch.no_grad():
        outputs = model(drawn(c.settings["inputs"]["x"]))
    steps = c.settings["settings"]["channel_step"]
    found = {f"C{6 - i}": m for i, m in enumerate(reversed(bodies[0]), 1)}
    for key, values in found.items():
        step = steps["C"][int(key[1]) - 2]
        close(values[:, ::step], c[key], 1e-4 * float(np.abs(c[key]).max()), key)
    for key, values in zip(LEVELS, pyramids[0], strict=True):
        close(values[:, :: steps["P"]], c[key], 1e-4 * float(np.abs(c[key]).max()), key)
    check_outputs(c, outputs)


def head_of(c: Case, **switches: Any) -> SMPRHead:
    head = SMPRHead(SMPRConfig(**switches), COCO17)
    state = {k: v.reshape(1) if v.ndim == 0 else v for k, v in head_names(weights(c)).items()}
    head.load_state_dict({k.removeprefix("head."): v for k, v in state.items()})
    return head


def test_head() -> None:
    c = case("head")
    head = head_of(c)
    assert head.align is not None
    towers = {"reg_tower": spy(head.pose_tower), "cls_tower": spy(head.person_tower)}
    aligned, offsets = spy(head.align), spy(head.align.offset)
    with torch.no_grad():
        outputs = head([drawn(c.settings["inputs"][level]) for level in LEVELS])
    check_outputs(c, outputs)
    for key, seen in towers.items():
        close(seen[0][:, ::16], c[f"{key}_P3"], 1e-4, key)
    for key, values in zip(("reg_dcn", "cls_dcn"), aligned[0], strict=True):
        close(values[:, ::16], c[f"{key}_P3"], 1e-4, key)
    close(offsets[0], c["dcn_offset_P3"], 1e-4, "offsets")


@pytest.mark.parametrize("name", ["small", "wide", "inout"])
def test_feature_adaption(name: str) -> None:
    c = case("feature_adaption")
    state = weights(c, c.settings["state_dicts"][name])
    weight = state["conv_adaption_reg.weight"]
    align = FeatureAlignment(weight.shape[1], weight.shape[0], 17, 4)
    ours = {"conv_offset": "offset", "conv_adaption_reg": "pose", "conv_adaption_cls": "person"}
    align.load_state_dict({f"{ours[k.removesuffix('.weight')]}.weight": v for k, v in state.items()})
    inputs = {k: drawn(v) for k, v in c.settings["inputs"][name].items()}
    with torch.no_grad():
        pose, person = align(inputs["reg_feat"], inputs["cls_feat"], inputs["pred_init"])
        offsets = align.offsets(inputs["pred_init"])
    close(offsets, c[f"{name}_offset"], 2e-5, "offsets")
    close(pose, c[f"{name}_reg"], 2e-5, "pose")
    close(person, c[f"{name}_cls"], 2e-5, "person")
    close(pose, np.maximum(c[f"{name}_reg_prerelu"], 0), 2e-5, "pose before the ReLU")


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint_keys(name: str) -> None:
    """Names, shapes and parameter counts of the four published architectures."""
    expected = facts("checkpoint_keys")["models"][name]
    with torch.device("meta"):
        model = build_model(preset(MODELS[name]))
        state = {key: torch.zeros(shape) for key, shape in expected["keys"]}
    assert len(state) == expected["entries"]
    renamed = {key: tuple(value.shape) for key, value in new_names(state).items()}
    assert renamed == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert parameter_count(model) == expected["parameters"]


def test_init_statistics() -> None:
    expected = facts("init_statistics")["parameters"]
    torch.manual_seed(0)
    with torch.device("meta"):
        backbone_free = SMPRConfig(backbone="resnet50")
        model = build_model(backbone_free)
    model.pyramid = type(model.pyramid)((512, 1024, 2048), 256, init="xavier")
    model.head = SMPRHead(backbone_free, COCO17)
    state = model.state_dict()
    marks = {name: torch.tensor([float(i)]) for i, name in enumerate(expected)}
    full = {name if name.startswith("neck.") else f"bbox_head.{name}": mark for name, mark in marks.items()}
    names = list(expected)
    for ours, mark in new_names(full).items():
        row, value = expected[names[int(mark)]], state[ours].double()
        assert value.numel() == int(np.prod(row["shape"]))
        mean, std = float(value.mean()), float(value.std(correction=0))
        if row["std"] == 0:
            assert float(value.abs().max()) == pytest.approx(row["absmax"], abs=1e-5), ours
            assert mean == pytest.approx(row["mean"], abs=1e-5), ours
        else:
            noise = row["std"] / np.sqrt(value.numel())
            assert abs(mean) < 5 * noise, ours
            assert std == pytest.approx(row["std"], abs=6 * noise), ours
        if "neck." in names[int(mark)]:
            assert float(value.abs().max()) == pytest.approx(row["absmax"], rel=1e-3, abs=1e-12), ours
