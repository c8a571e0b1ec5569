"""Equality with the reference codes of RSN: networks, labels, losses, decoding (see rsn/README.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import Case, folder, normal
from golden_weights import golden_state_dict
from torch import Tensor, nn

from poise.converters.rsn import block_name, folded_biases, from_mmpose, from_official, prm_name
from poise.geometry import heatmaps
from poise.geometry.nms import Suppression, mutual_oks_nms
from poise.geometry.oks import mutual_oks
from poise.models import preset
from poise.models.rsn import RSN
from poise.models.rsn_blocks import LEVELS, ConvNorm, PoseRefineMachine, ResidualStepsBlock
from poise.models.rsn_loss import hardest_loss, level_kernels, plain_loss, read_truth, stage_terms
from poise.predict.topdown import unmirrored
from poise.skeletons import COCO17, MPII16
from poise.types import Persons

SYSTEM = "rsn"
NAMES = sorted(p.stem for p in folder(SYSTEM).glob("*.json"))
SMALL = [
    "off_rsn18_coco_small", "off_4xrsn18_coco_small", "mm_rsn18_small", "mm_rsn18_prm_small", "mm_rsn50_small",
    "mm_rsn50_prm_small", "mm_2xrsn50_small", "mm_2xrsn50_prm_small",
]  # fmt: skip
FULL = ["off_rsn18_coco", "off_4xrsn18_coco", "off_rsn18_mpii", "mm_rsn18"]
PRESET_OF = {
    "off_rsn18_coco_small": "rsn18", "off_4xrsn18_coco_small": "rsn18x4", "mm_rsn18_small": "rsn18_mmpose",
    "mm_rsn18_prm_small": "rsn18_mmpose", "mm_rsn50_small": "rsn50_mmpose", "mm_rsn50_prm_small": "rsn50_mmpose",
    "mm_2xrsn50_small": "rsn50x2_mmpose", "mm_2xrsn50_prm_small": "rsn50x2_mmpose", "off_rsn18_coco": "rsn18",
    "off_4xrsn18_coco": "rsn18x4", "off_rsn18_mpii": "rsn18_mpii", "mm_rsn18": "rsn18_mmpose",
}  # fmt: skip
KERNELS = (15, 11, 9, 7, 5)


def case(name: str) -> Case:
    if name not in NAMES:
        pytest.skip(f"no case {name} in {folder(SYSTEM)}")
    return Case(SYSTEM, name)


@pytest.fixture
def double() -> Iterator[None]:
    """Models and tensors are made in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(c: Case) -> dict[str, Tensor]:
    """The regenerated weights under the reference's names, in the default precision."""
    state = c.state_dict()
    for name in state:
        for pattern, factor in c.settings["weight_scales"]:
            if re.search(pattern, name):
                state[name] = state[name] * factor
    return {k: v.to(torch.get_default_dtype()) if v.is_floating_point() else v for k, v in state.items()}


def convert(c: Case) -> RSN:
    return from_official(weights(c)) if c.name.startswith("off_") else from_mmpose(weights(c))


def fed(c: Case, images: Tensor) -> Tensor:
    """What a converted model must see: the authors' networks take BGR, so channels are turned round."""
    images = images.to(torch.get_default_dtype())
    return images.flip(1) if c.name.startswith("off_") else images


def spy(module: nn.Module, what: dict[str, Tensor], key: str, part: int | None = None) -> None:
    def keep(_module: nn.Module, inputs: Any, output: Any) -> None:
        what[key] = (output if part is None else inputs[part]).clone()

    module.register_forward_hook(keep)


def spied(model: RSN) -> dict[str, Tensor]:
    """Filled by a forward pass with all intermediate maps under the names of the cases."""
    seen: dict[str, Tensor] = {}
    spy(model.pool, seen, "stem")
    for s, stage in enumerate(model._stages()):
        for i, layer in enumerate(stage.layers, 1):
            if s == 0:
                spy(layer, seen, f"s{s}_x{i}")
        for u, unit in enumerate(stage.decoder()):
            spy(unit.lateral, seen, f"s{s}_x{4 - u}", 0)
            spy(unit, seen, f"s{s}_up{u + 1}")
            if unit.prm is not None:
                spy(unit.prm, seen, f"stage{s}_level{u}_before_prm", 0)
            if unit.skip_encoder is not None and unit.skip_decoder is not None:
                spy(unit.skip_encoder, seen, f"s{s}_skip1_{LEVELS - 1 - u}")
                spy(unit.skip_decoder, seen, f"s{s}_skip2_{LEVELS - 1 - u}")
            if unit.cross is not None:
                spy(unit.cross, seen, f"s{s}_cross")
    return seen


def check_outputs(c: Case, model: RSN, dtype: torch.dtype, tolerance: float) -> None:
    seen = spied(model)
    image = c.settings["inputs"]["image"]
    x = fed(c, normal(image["seed"], image["shape"])).to(dtype)
    with torch.no_grad():
        outputs = model(x)
        seen |= {f"stage{i // 4}_level{i % 4}": m for i, m in enumerate(outputs.heatmaps)}
        for key in c.settings["arrays"]:
            c.compare(key, seen[key], absolute=tolerance)
        c.compare(c.settings["final_output"], model.heatmaps(x), absolute=tolerance)


def check_network(name: str) -> None:
    """Every stored map in float64 to 1e-6 and in float32 to 1e-4, through the converter, and the settings it reads."""
    c = case(name)
    model = convert(c)
    wanted = preset(PRESET_OF[name])
    if "prm" in name:
        wanted = wanted.model_copy(update={"prm": "mmpose", "prm_at": "all"})
    assert model.config == wanted
    assert model.skeleton == (MPII16 if "mpii" in name else COCO17)
    check_outputs(c, model, torch.float64, 1e-6)
    check_outputs(c, model.float(), torch.float32, 1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_network(name: str, double: None) -> None:
    check_network(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_network(name: str, double: None) -> None:
    check_network(name)


# ------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("key", "abcd")
def test_residual_steps_block(key: str, double: None) -> None:
    c = case("off_rsb")
    facts, width = c.settings["settings"]["blocks"][key], c.settings["blocks"][key]["branch_channels"]
    block = ResidualStepsBlock(
        facts["in"], facts["planes"] * facts["expansion"], width, branches=4, stride=facts["stride"], bias=True
    )
    state = golden_state_dict(c.settings["blocks"][key]["state_dict"])
    block.load_state_dict({block_name(k): torch.from_numpy(np.asarray(v)) for k, v in state.items()})
    assert (block.shortcut is not None) == facts["projection"]
    assert width == facts["in"] * 26 // 64
    seen: dict[str, Tensor] = {}
    spy(block.enter, seen, "enter")
    image = c.settings["inputs"][key]
    with torch.no_grad():
        out = block.eval()(normal(image["seed"], image["shape"]).double())
    c.compare(f"{key}_conv1", seen["enter"], absolute=1e-6)
    c.compare(f"{key}_out", out, absolute=1e-6)


@pytest.mark.parametrize("form", ["official", "mmpose"])
def test_refine_machine(form: Any, double: None) -> None:
    c = case("prm")
    state = golden_state_dict(c.settings["variants"][form]["state_dict"])
    tensors = {prm_name(k): torch.from_numpy(np.asarray(v)) for k, v in state.items()}
    tensors = {k: v[..., None, None] if v.ndim == 2 else v for k, v in tensors.items()}
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    machine = PoseRefineMachine(17, form)
    machine.load_state_dict(folded_biases(tensors))
    seen: dict[str, Tensor] = {}
    for part, key in (
        (machine.feature, "feature"),
        (machine.weight, "channel_weight"),
        (machine.attention, "attention"),
    ):
        spy(part, seen, key)
    image = c.settings["inputs"]["heatmap"]
    with torch.no_grad():
        out = machine.eval()(normal(image["seed"], image["shape"]).double())
    c.compare(f"{form}_feature", seen["feature"], absolute=1e-6)
    c.compare(f"{form}_channel_weight", seen["channel_weight"].sigmoid(), absolute=1e-6)
    c.compare(f"{form}_attention", seen["attention"].sigmoid(), absolute=1e-6)
    c.compare(f"{form}_out", out, absolute=1e-6)


# ------------------------------------------------------------------------------------------------------------ losses


def uniform(seed: int, shape: tuple[int, ...], high: float) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, high, shape).astype(np.float32)).double()


@pytest.mark.parametrize("name", ["RSN18.coco", "4XRSN18.coco", "RSN18.mpii"])
def test_official_loss(name: str) -> None:
    c = case("off_loss")
    facts, key = c.settings["cases"][name], name.replace(".", "_")
    s, b, k, h, w = (facts[letter] for letter in ("S", "B", "K", "h", "w"))
    stack = 40 * np.random.default_rng(51).standard_normal((s, 4, b, k, h, w))
    maps = torch.from_numpy(stack.astype(np.float32)).double().requires_grad_()
    drawn = uniform(52, (b, 5, k, h, w), 255)
    labels = {kernel: drawn[:, i] for i, kernel in enumerate(KERNELS)}
    visible = torch.from_numpy(c[f"{key}_valids"])[..., 0].double()
    terms = stage_terms(preset("rsn18"), list(maps.flatten(0, 1)), labels, visible)
    for stage, expected in enumerate(facts["weighted_terms[stage][level]"], 1):
        assert float(terms[f"stage{stage}_plain"].detach()) == pytest.approx(sum(expected[:3]), rel=1e-9)
        assert float(terms[f"stage{stage}_hardest"].detach()) == pytest.approx(expected[3], rel=1e-9)
    total = torch.stack(list(terms.values())).sum()
    assert float(total.detach()) == pytest.approx(facts["total_loss"], rel=1e-9)
    total.backward()
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad.numpy(), c[f"{key}_grad"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["rsn18", "2xrsn50", "3xrsn50"])
def test_mmpose_loss(name: str) -> None:
    c = case("mm_loss")
    config, facts = preset("rsn18_mmpose"), c.settings["cases"][name]
    s, b, k, h, w, count = (facts[letter] for letter in ("S", "B", "K", "h", "w", "L"))
    stack = 40 * np.random.default_rng(54).standard_normal((s, 4, b, k, h, w))
    maps = torch.from_numpy(stack.astype(np.float32)).double().requires_grad_()
    drawn = uniform(55, (b, count, k, h, w), 255)
    visible = torch.from_numpy(c[f"{name}_keypoint_weights"]).double()
    kernels = KERNELS[-count:]
    total = torch.zeros((), dtype=torch.float64)
    for stage, chosen in enumerate(level_kernels(config, s)):
        for level, kernel in enumerate(chosen):
            index = kernels.index(kernel)
            assert index == facts["level_indices"][4 * stage + level]
            loss = hardest_loss if level == 3 else plain_loss
            term = loss(config, maps[stage, level], drawn[:, index], visible[:, index])
            expected = facts["weighted_terms[stage][level]"][stage][level]
            assert float(term.detach()) == pytest.approx(expected, rel=1e-9)
            total = total + term
    assert float(total.detach()) == pytest.approx(facts["total_loss"], rel=1e-9)
    total.backward()
    assert maps.grad is not None
    np.testing.assert_allclose(maps.grad.numpy(), c[f"{name}_grad"], rtol=1e-6, atol=1e-6)


def training_loss(c: Case, model: RSN) -> Tensor:
    image, seed = c.settings["inputs"]["image"], c.settings["inputs"]["labels"]["seed"]
    images = fed(c, normal(image["seed"], image["shape"]))
    maps = model(images).heatmaps
    drawn = uniform(seed, (len(images), 5, *maps[0].shape[1:]), 10).to(images.dtype)
    labels = {kernel: drawn[:, i] for i, kernel in enumerate(KERNELS)}
    visible = torch.from_numpy(c["valids"])[..., 0].to(images.dtype)
    return torch.stack(list(stage_terms(model.config, maps, labels, visible).values())).sum()


def parameter_of(name: str, model: RSN) -> nn.Parameter:
    """The parameter that the authors' name stands for."""
    from poise.converters.rsn import new_names

    (ours,) = new_names({name: torch.zeros(1)})
    return model.get_parameter(ours)


def check_step(c: Case, mode: str, losses: float, norms: float | None) -> RSN:
    model = from_official(weights(c), conv_bias=True).train(mode == "train")
    expected = c.settings[mode]
    loss = training_loss(c, model)
    assert float(loss.detach()) == pytest.approx(expected["total_loss"], rel=losses)
    if norms is None:
        return model
    loss.backward()
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(expected["grad_total_norm"], rel=norms)
    for name, norm in expected["grad_norms"].items():
        gradient = parameter_of(name, model).grad
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(norm, rel=norms), name
    return model


@pytest.mark.parametrize("name", ["off_rsn18_train_step", "off_2xrsn18_train_step", "off_4xrsn18_eval_loss"])
def test_loss_and_gradients_with_fixed_statistics(name: str, double: None) -> None:
    check_step(case(name), "eval", 1e-6, 1e-6)


@pytest.mark.parametrize("name", ["off_rsn18_train_step", "off_2xrsn18_train_step"])
def test_a_training_step(name: str, double: None) -> None:
    c = case(name)
    model = check_step(c, "train", 1e-6, 1e-6)
    buffers = {id(p): m for m in model.modules() if isinstance(m, ConvNorm) for p in m.norm.parameters()}
    for entry, (mean, std) in c.settings["running_stats_after_train"].items():
        layer, _, which = entry.rpartition(".")
        buffer = getattr(buffers[id(parameter_of(f"{layer}.weight", model))].norm, which)
        assert float(buffer.mean()) == pytest.approx(mean, rel=1e-6)
        assert float(buffer.std()) == pytest.approx(std, rel=1e-6)


@pytest.mark.parametrize("name", ["off_rsn18_train_step", "off_2xrsn18_train_step", "off_4xrsn18_eval_loss"])
def test_loss_in_float32(name: str) -> None:
    c = case(name)
    check_step(c, "eval", 1e-5, 1e-3)
    if "train" in c.settings:
        check_step(c, "train", 1e-3, None)


# ------------------------------------------------------------------------------------------------ labels and decoding


@pytest.mark.parametrize("data", ["COCO", "MPII"])
@pytest.mark.parametrize("form", ["official", "mmpose"])
def test_labels(data: str, form: str) -> None:
    c = case("labels")
    config = preset("rsn18" if form == "official" else "rsn18_mmpose")
    points, visible = c[f"{data}_keypoints"], c[f"{data}_visible"]
    person = Persons.from_numpy(
        np.concatenate([points, visible[:, None]], 1)[None], np.zeros((1, 4)), [1.0], np.zeros((0, 4))
    )
    expected = c[f"{data}_official_labels" if form == "official" else f"{data}_mmpose_heatmaps"]
    truth = read_truth(config, [person], torch.zeros(1, *expected.shape[1:]))
    if form == "official":
        np.testing.assert_array_equal(truth.visible[0].numpy(), c[f"{data}_official_valid"])
    else:
        np.testing.assert_array_equal(truth.visible[0].numpy() > 0, c[f"{data}_mmpose_weights"][0] > 0)
    for i, kernel in enumerate(KERNELS):
        size = (expected.shape[-2], expected.shape[-1])
        ours = heatmaps.draw_labels(truth.cells[0], truth.visible[0] > 0, size, kernel, config.label_peak)
        np.testing.assert_allclose(ours.numpy(), expected[i], atol=1e-3, err_msg=f"kernel {kernel}")


def in_picture(points: np.ndarray, c: Case, data: str, size: tuple[int, int]) -> np.ndarray:
    side = 200.0 * c[f"{data}_scale"][:, None].astype(np.float64)
    return points / np.array(size[::-1]) * side + c[f"{data}_center"][:, None] - side / 2


@pytest.mark.parametrize(("data", "like"), [("COCO", "rsn18"), ("MPII", "rsn18_mpii")])
def test_official_decoding(data: str, like: str) -> None:
    c = case("decode")
    model = RSN(preset(like), COCO17 if data == "COCO" else MPII16)
    points, scores = model.decode_heatmaps(torch.from_numpy(c[f"{data}_heatmaps"]))
    assert model.view.size is not None
    found = in_picture(points, c, data, model.view.size)
    np.testing.assert_allclose(found, c[f"{data}_official_keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, c[f"{data}_official_scores"], atol=1e-5)
    np.testing.assert_allclose(model.pose_scores(scores), c[f"{data}_official_instance_kp_score"], atol=1e-5)


def test_mmpose_decoding() -> None:
    c = case("decode")
    model = RSN(preset("rsn18_mmpose"))
    points, scores = model.decode_heatmaps(torch.from_numpy(c["COCO_heatmaps"]))
    expected = c["COCO_mmpose_keypoints_input_frame"]
    known = np.isfinite(expected).all(-1) & np.isfinite(c["COCO_mmpose_scores"])
    assert known.sum() == known.size - 1
    np.testing.assert_allclose(points[known], expected[known], atol=1e-3)
    np.testing.assert_allclose(scores[known], c["COCO_mmpose_scores"][known], atol=1e-5)
    assert model.view.size is not None
    found = in_picture(points, c, "COCO", model.view.size)
    np.testing.assert_allclose(found[known], c["COCO_mmpose_keypoints_image"][known], atol=1e-3)
    np.testing.assert_array_equal(points[~known], [[-4.0, -4.0]])
    np.testing.assert_array_equal(scores[~known], [0.5])


# ------------------------------------------------------------------------------------------------------- suppression


def test_mutual_oks() -> None:
    c = case("mm_nms")
    points, marks = c["keypoints"][..., :2], c["keypoints"][..., 2]
    np.testing.assert_allclose(mutual_oks(points, c["area"], COCO17.sigmas), c["oks_matrix"], atol=1e-6)
    counted = mutual_oks(points, c["area"], COCO17.sigmas, marks > 0.4)
    np.testing.assert_allclose(counted, c["oks_matrix_vis0.4"], atol=1e-6)


def test_oks_suppression() -> None:
    c = case("mm_nms")
    for name, kept in c.settings["keep"].items():
        threshold = float(name.split("nms_")[1].split("_")[0])
        hard = Suppression(method="hard", threshold=threshold)
        soft = Suppression(method="gaussian", sigma=threshold, min_score=1e-30)
        found = mutual_oks_nms(
            c["keypoints"][..., :2], c["score"], c["area"], COCO17.sigmas, soft if name.startswith("soft") else hard,
            int(name.split("max")[1]) if "max" in name else 0,
        )  # fmt: skip
        assert found.indices.tolist() == kept, name


def test_flip() -> None:
    c = case("flip")
    plain, mirrored = (normal(rule["seed"], rule["shape"]) for rule in c.settings["inputs"].values())
    for skeleton, name in ((COCO17, "COCO"), (MPII16, "MPII")):
        assert [list(pair) for pair in skeleton.flip_pairs] == c.settings["flip_pairs"][name]
    for shift, name in ((False, "official_average"), (False, "mmpose_average_noshift"), (True, "mmpose_average_shift")):
        ours = (plain + unmirrored(mirrored, COCO17.flip_index, shift)) / 2
        c.compare(name, ours, absolute=1e-6)
