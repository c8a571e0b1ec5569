"""Equality with the reference code of SMPR (see smpr/README.md for cases and tolerances)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import Case, folder

from poise import losses
from poise.converters import convert_state
from poise.converters.smpr import head_names, new_names
from poise.data import transforms
from poise.data.paper_smpr import clipped_crop, resize_to_fit, usable
from poise.data.samples import Sample, Truth
from poise.data.views import collate, sample_to_view
from poise.geometry.affine import compose, invert, mirror, scaling
from poise.geometry.boxes import keypoint_boxes, points_extent
from poise.geometry.nms import Suppression, soft_box_nms
from poise.models import build_model, dense, heatmap_branch, parameter_count, preset
from poise.models.smpr import SMPR, FeatureAlignment, SMPRConfig, SMPRHead, SMPROutputs
from poise.models.smpr_loss import judge, pose_error, pose_similarity, smpr_losses, weighted_mean
from poise.predict.mapping import mapped_back
from poise.skeletons import COCO17
from poise.train.optimiser import freeze_parameters, frozen_batch_norms, parameter_groups
from poise.train.recipes import recipe
from poise.types import Persons, Poses

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
        offsets = align.plan(inputs["pred_init"]).offsets
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


# ----------------------------------------------------------------------------------------------------------- targets


def people(c: Case, prefix: str) -> Persons:
    keypoints, boxes, areas = (tensor(c, f"{prefix}_{part}") for part in ("kpts", "boxes", "areas"))
    return Persons(keypoints, boxes, areas, torch.zeros(0, 4))


def grid_of(sizes: list[Any]) -> dense.Grid:
    return dense.make_grid([(h, w) for h, w in sizes], STRIDES, torch.device("cpu"))


def check_targets(c: Case, image: str, grid: dense.Grid, variants: dict[str, float | None]) -> None:
    truth = people(c, f"{image}_gt")
    np.testing.assert_array_equal(grid.points.numpy(), c[f"{image}_points"])
    for variant, radius in variants.items():
        owner = dense.assign(grid, truth.boxes, radius=radius, inclusive_area=True)
        assert owner.tolist() == c[f"{image}_{variant}_gt_index"].tolist(), (image, variant)
    owner = dense.assign(grid, truth.boxes, radius=1.5, inclusive_area=True)[None]
    target = dense.keypoint_targets(grid, owner, [truth])
    assert target.location.tolist() == c[f"{image}_pos_inds"].tolist()
    seen = c[f"{image}_pos_vis"]
    np.testing.assert_array_equal(target.labelled.numpy(), seen)
    expected = c[f"{image}_pos_offset_targets"].reshape(-1, 17, 2) * seen[..., None]
    np.testing.assert_allclose(target.offsets.numpy(), expected, rtol=1e-6, atol=1e-6)
    size = c[f"{image}_heatmap_target"].shape
    labels = heatmap_branch.single_target([truth], (size[0], size[1]), 8, heatmap_branch.rounded_cells)[0]
    np.testing.assert_array_equal(labels.numpy(), c[f"{image}_heatmap_target"])


def test_targets() -> None:
    c = case("targets")
    grid = grid_of(c.settings["settings"]["feature_sizes"])
    for image in ("img0", "img1"):
        check_targets(c, image, grid, {"shrunk": SMPRConfig().radius, "fullbox": None, "radius1": 1.0})


def test_oks() -> None:
    c = case("oks")
    keypoints = tensor(c, "gt_kpts")
    persons = Persons(keypoints, torch.zeros(len(keypoints), 4), tensor(c, "gt_areas"), torch.zeros(0, 4))
    poses = tensor(c, "pred").unflatten(1, (17, 2))
    np.testing.assert_allclose(COCO17.sigmas, c.settings["settings"]["sigmas"], rtol=1e-9)
    for area, key in (("segment", "oks_area"), ("box", "oks_box")):
        found = pose_similarity(poses, persons, COCO17.sigmas, area)
        close(found.T, c[key], 1e-5, key)


def test_refine_targets() -> None:
    c = case("refine_targets")
    truth = people(c, "gt")
    maps = [tensor(c, f"init_{level}") for level in LEVELS]
    grid = grid_of([m.shape[-2:] for m in maps])
    offsets = dense.flatten_levels(maps)
    judged = judge(SMPRConfig(), grid, offsets, [truth], COCO17.sigmas)
    close(judged.quality[0], c["max_oks"], 1e-5, "largest OKS")
    np.testing.assert_array_equal(judged.good[0].numpy(), c["oks_label"] > 0)
    np.testing.assert_array_equal(c["oks_label"] > 0, c["oks_gt_inds"] > 0)
    owner = dense.assign(grid, truth.boxes, inclusive_area=True)
    assert owner.tolist() == c["init_gt_index"].tolist()
    np.testing.assert_array_equal(((owner >= 0) & judged.good[0]).numpy(), c["final_label"] > 0)
    unforced = judge(SMPRConfig(force_best=False), grid, offsets, [truth], COCO17.sigmas)
    np.testing.assert_array_equal(unforced.good[0].numpy(), c["max_oks"] >= 0.5)
    assert not torch.equal(unforced.good, judged.good)
    poses = offsets[0].unflatten(1, (17, 2)) * grid.strides[:, None, None] + grid.points[:, None]
    close(poses.flatten(1), c["poses"], 1e-3, "poses")
    close(pose_similarity(poses, truth, COCO17.sigmas).T, c["oks"], 1e-5, "OKS")


# ------------------------------------------------------------------------------------------------------------ losses

TERMS = {
    "loss_cls": "classification", "loss_heatmap": "heatmap", "loss_kpt_init": "initial", "loss_kpt_refine": "refined",
    "loss_rescore": "quality",
}  # fmt: skip


def test_loss_elements() -> None:
    c = case("loss_elements")
    values = c.settings["values"]
    labels = torch.from_numpy(c["hm_labels"].astype(np.int64))
    wanted = (labels[:, None] == torch.arange(1, 18)).float()
    heat = losses.sigmoid_focal(tensor(c, "hm_logits"), wanted)
    np.testing.assert_allclose(heat.numpy(), c["hm_focal_elementwise"], rtol=1e-5, atol=1e-9)
    assert 4 * heat.sum().item() / 7 == pytest.approx(values["hm_focal_x4_avg7"], rel=1e-6)
    positive = torch.from_numpy(c["cls_labels"].astype(np.float32))[:, None]
    person = losses.sigmoid_focal(tensor(c, "cls_logits"), positive)
    np.testing.assert_allclose(person.numpy(), c["cls_focal_elementwise"], rtol=1e-5, atol=1e-9)
    assert person.sum().item() / 5 == pytest.approx(values["cls_focal_x1_avg5"], rel=1e-6)
    index = torch.arange(9)
    labelled = tensor(c, "kpt_vis").unflatten(1, (17, 2))[..., 0]
    offsets = tensor(c, "kpt_target").unflatten(1, (17, 2)) * labelled[..., None]
    error = pose_error(tensor(c, "kpt_pred"), dense.KeypointTargets(index, index, index, offsets, labelled))
    weight = tensor(c, "kpt_weight")
    assert 0.05 * weighted_mean(error, weight).item() == pytest.approx(values["kpt_l1_x005_weighted"], rel=1e-6)
    unweighted = 0.05 * weighted_mean(error, torch.ones(9)).item()
    assert unweighted == pytest.approx(values["kpt_l1_x005_unweighted_avg9"], rel=1e-6)
    entropy = losses.binary_cross_entropy(tensor(c, "rescore_logits"), tensor(c, "rescore_target"))
    assert entropy.mean().item() == pytest.approx(values["rescore_bce_mean"], rel=1e-6)


def predictions(c: Case, initial: str = "normal") -> SMPROutputs:
    def maps(prefix: str, kind: str) -> list[torch.Tensor]:
        return [tensor(c, f"{prefix}_{kind}_{level}").requires_grad_() for level in LEVELS]

    return SMPROutputs(
        maps("normal", "cls"), maps(initial, "init"), maps("normal", "refine"), maps("normal", "rescore"),
        tensor(c, "normal_hm_P3").requires_grad_(),
    )  # fmt: skip


def check_losses(expected: dict[str, float], terms: dict[str, torch.Tensor]) -> None:
    assert set(terms) == set(TERMS.values())
    for theirs, ours in TERMS.items():
        assert terms[ours].item() == pytest.approx(expected[theirs], rel=1e-4, abs=1e-7), ours
    assert sum(terms.values()).item() == pytest.approx(expected["total"], rel=1e-4)


def test_losses() -> None:
    c = case("losses")
    both = [people(c, "gt0"), people(c, "gt1")]
    nobody = Persons.empty(17)
    situations = {
        "normal": both, "no_refine_positive": both, "no_positive": [people(c, "no_positive_gt")] * 2,
        "last_image_empty": [both[0], nobody], "all_images_empty": [nobody, nobody],
    }  # fmt: skip
    for name, truth in situations.items():
        outputs = predictions(c, name if name == "no_refine_positive" else "normal")
        terms = smpr_losses(SMPRConfig(), STRIDES, COCO17.sigmas, outputs, truth)
        check_losses(c.settings["losses"][name], terms)
        sum(terms.values()).backward()
        if name == "normal":
            check_prediction_gradients(c, outputs)


def gradient_rows(maps: list[torch.Tensor]) -> np.ndarray:
    """Gradients in the order level, image, row-major location: (P B, C)."""
    rows = [m.grad.flatten(2).transpose(1, 2).flatten(0, 1) for m in maps if m.grad is not None]
    assert len(rows) == len(maps)
    return torch.cat(rows).numpy()


def check_prediction_gradients(c: Case, outputs: SMPROutputs) -> None:
    assert outputs.refined is not None
    assert outputs.quality is not None
    assert outputs.heatmaps is not None
    for key, maps in (("cls", outputs.logits), ("rescore", outputs.quality)):
        np.testing.assert_allclose(gradient_rows(maps)[:, 0], c[f"normal_grad_{key}"], rtol=1e-4, atol=1e-5)
    for key, maps in (("init", outputs.initial), ("refine", outputs.refined)):
        rows = gradient_rows(maps)
        index = c[f"normal_grad_{key}_rows"]
        np.testing.assert_allclose(rows[index], c[f"normal_grad_{key}"], rtol=1e-4, atol=1e-5)
        rows[index] = 0
        assert not rows.any(), key
    heat = gradient_rows([outputs.heatmaps])
    np.testing.assert_allclose(heat[c["normal_grad_hm_rows"]], c["normal_grad_hm"], rtol=1e-4, atol=1e-5)


def check_gradients(c: Case, gradients: dict[str, torch.Tensor | None], renamed: dict[str, str]) -> None:
    """Norm and sum of every parameter's gradient; ``renamed`` maps the reference's names to ours."""
    rows = c.settings["grad_norm_and_sum"]
    assert len(rows) == len(gradients)
    for name, row in rows.items():
        found = gradients[renamed[name]]
        if row is None:
            assert found is None, name
            continue
        norm, total = row
        assert found is not None, name
        assert float(found.double().norm()) == pytest.approx(norm, rel=1e-3, abs=1e-6), name
        spread = 1e-3 * max(abs(total), norm * np.sqrt(found.numel()))
        assert float(found.double().sum()) == pytest.approx(total, abs=max(1e-6, spread)), name


def our_names(names: list[str], rename: Any) -> dict[str, str]:
    """Reference name -> our name, found by sending marks through the converter."""
    marks = {name: torch.tensor([float(i)]) for i, name in enumerate(names)}
    return {names[int(mark)]: ours for ours, mark in rename(marks).items()}


@pytest.mark.parametrize("name", ["r50_pafpn", "hrnet_w32_hrfpn"])
def test_optimizer_groups(name: str) -> None:
    """The recipes freeze what the reference freezes, and treat every parameter as it does."""
    groups = facts("optimizer_groups")["groups"][name]
    config = recipe(MODELS[name])
    with torch.device("meta"):
        model = build_model(config.model)
    freeze_parameters(model, config.train.freeze)
    optimiser = config.train.optimiser
    found = {n: (g["lr"], g["weight_decay"]) for g in parameter_groups(model, optimiser) for n in g["names"]}
    expected = {"lr x1 wd x1": (0.02, 1e-4), "lr x2 wd x0": (0.04, 0.0), "frozen": None}
    count = 0
    for group, names in groups.items():
        for theirs, ours in our_names(names, new_names_of(name)).items():
            value = expected[group]
            assert found.get(ours) == (None if value is None else pytest.approx(value)), theirs
            count += 1
    assert count == len(list(model.parameters()))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == facts("checkpoint_keys")["models"][name]["trainable"]


def new_names_of(name: str) -> Any:
    """The converter for parts of a state dict: all names of the architecture are needed to tell the neck's parts."""
    keys = [key for key, _ in facts("checkpoint_keys")["models"][name]["keys"]]

    def rename(marks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nothing = torch.tensor([-1.0])
        renamed = new_names({key: marks.get(key, nothing) for key in keys})
        return {key: mark for key, mark in renamed.items() if mark.item() >= 0}

    return rename


def test_train_step_full() -> None:
    """In double precision: in single, an L1 error near 0 may change its sign, and some gradients by some per mille."""
    c = case("train_step_full")
    config = recipe("smpr_r50")
    model = convert_state(weights(c), "smpr").double().train()
    assert isinstance(model, SMPR)
    freeze_parameters(model, config.train.freeze)
    for norm in frozen_batch_norms(model, config.train.freeze_batch_norm):
        norm.eval()
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d) and m.training]
    terms = model.loss(model(drawn(c.settings["inputs"]["x"]).double()), [people(c, "gt0"), people(c, "gt1")])
    check_losses(c.settings["losses"], terms)
    sum(terms.values()).backward()
    total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert float(total) == pytest.approx(c.settings["total_grad_norm"], rel=1e-3)
    renamed = our_names([name for name, *_ in c.settings["state_dict"]], new_names_of("r50_pafpn"))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    check_gradients(c, gradients, renamed)


def test_train_step_head() -> None:
    c = case("train_step_head")
    head = head_of(c)
    features = [drawn(c.settings["inputs"][level]).requires_grad_() for level in LEVELS]
    terms = smpr_losses(SMPRConfig(), STRIDES, COCO17.sigmas, head(features), [people(c, "gt0"), people(c, "gt1")])
    check_losses(c.settings["losses"], terms)
    sum(terms.values()).backward()
    renamed = our_names(list(c.settings["grad_norm_and_sum"]), head_names)
    gradients = {f"head.{name}": p.grad for name, p in head.named_parameters()}
    check_gradients(c, gradients, renamed)
    for level, feature in zip(LEVELS, features, strict=True):
        assert feature.grad is not None
        expected = c[f"grad_{level}"]
        close(feature.grad[:, ::16], expected, 1e-5 + 1e-4 * float(np.abs(expected).max()), level)


# ---------------------------------------------------------------------------------------------------------- decoding


def decoder(**switches: Any) -> SMPR:
    """A model of which only the decoding is used."""
    with torch.device("meta"):
        model = build_model(SMPRConfig(**switches))
    assert isinstance(model, SMPR)
    return model


def raw_maps(c: Case, prefix: str = "") -> SMPROutputs:
    kinds = {k: [tensor(c, f"{prefix}{k}_{level}") for level in LEVELS] for k in ("cls", "refine", "rescore")}
    return SMPROutputs(kinds["cls"], kinds["refine"], kinds["refine"], kinds["rescore"], None)


def check_final(c: Case, prefix: str, final: Any) -> None:
    assert len(final) == len(c[f"{prefix}scores"]), prefix
    np.testing.assert_allclose(final.scores, c[f"{prefix}scores"], atol=1e-5)
    np.testing.assert_allclose(final.keypoints, c[f"{prefix}poses"], atol=1e-3)
    boxes = np.concatenate([final.keypoints.min(1), final.keypoints.max(1)], 1)
    np.testing.assert_allclose(boxes, c[f"{prefix}boxes"], atol=1e-3)
    if f"{prefix}raw_scores" in c:
        np.testing.assert_allclose(final.keypoint_scores[:, 0], c[f"{prefix}raw_scores"], atol=1e-5)


def in_picture(poses: Any, factor: float, mirrored_width: int | None = None) -> Any:
    """What the predictor does with the candidates of a view scaled by ``factor`` and perhaps mirrored."""
    to_input = scaling(factor, factor, half_pixel=False)
    if mirrored_width is not None:
        to_input = compose(to_input, mirror(mirrored_width))
    height, width = (round(side / factor) for side in poses.image_size)
    return mapped_back(poses, invert(to_input), (height, width))


@pytest.mark.parametrize("run", ["main", "pre100", "nopre_noscale"])
def test_decode(run: str) -> None:
    c = case("decode")
    settings = c.settings["settings"]
    height, width, _ = settings["img_shape"]
    model = decoder(pre_nms=settings["runs"][run]["nms_pre"])
    poses = model.decode(raw_maps(c), [(height, width)])[0]
    if run == "nopre_noscale":
        assert len(poses) == c.settings["candidates_above_threshold"]
    else:
        poses = in_picture(poses, settings["scale_factor"])
    if run == "pre100":
        passing = c["pre100_candidate_cls"] > 0.05
        expected = c["pre100_candidate_poses"][passing].reshape(-1, 17, 2)
        scores = (c["pre100_candidate_cls"] * c["pre100_candidate_rescore"])[passing]
        assert len(poses) == len(expected)
        ours, theirs = np.argsort(-poses.scores), np.argsort(-scores)
        np.testing.assert_allclose(poses.scores[ours], scores[theirs], atol=1e-6)
        np.testing.assert_allclose(poses.keypoints[ours], expected[theirs], atol=1e-3)
    final = model.suppress(poses)
    check_final(c, f"{run}_", final)
    if run == "main":
        entry, first = c.settings["coco_json_of_first"], final.to_coco(7)[0]
        assert first["score"] == pytest.approx(entry["score"], abs=1e-5)
        theirs = np.reshape(entry["keypoints"], (17, 3))
        np.testing.assert_allclose(np.reshape(first["keypoints"], (17, 3))[:, :2], theirs[:, :2], atol=1e-3)


SUPPRESSIONS: dict[str, dict[str, Any]] = {
    "linear03": {}, "linear05": {"threshold": 0.5}, "gaussian": {"method": "gaussian", "sigma": 0.5},
    "linear03_min01": {"min_score": 0.01}, "hard03": {"method": "hard"},
}  # fmt: skip


@pytest.mark.parametrize("name", SUPPRESSIONS)
def test_soft_nms(name: str) -> None:
    c = case("soft_nms")
    boxes, scores = c["dets"][:, :4], c["dets"][:, 4]
    kept = soft_box_nms(boxes, scores, Suppression(**SUPPRESSIONS[name]))
    if name == "hard03":  # in the order of the input there
        assert sorted(kept.indices.tolist()) == c["hard03_inds"].tolist()
        return
    assert kept.indices.tolist() == c[f"{name}_inds"].tolist()
    np.testing.assert_allclose(kept.scores, c[f"{name}_dets"][:, 4], atol=1e-6)
    few = soft_box_nms(boxes, scores, Suppression(**SUPPRESSIONS[name]), 7)
    assert few.indices.tolist() == kept.indices[:7].tolist()


def test_tta_merge() -> None:
    c = case("tta_merge")
    model = decoder(pre_nms=c.settings["settings"]["nms_pre"])
    parts = []
    for i, view in enumerate(c.settings["settings"]["views"]):
        height, width = view["img_shape"]
        poses = model.decode(raw_maps(c, f"view{i}_"), [(height, width)])[0]
        parts.append(in_picture(poses, view["scale_factor"], width if view["flip"] else None))
    check_final(c, "", model.suppress(Poses.concatenate(parts)))


def test_pseudo_boxes() -> None:
    c = case("pseudo_boxes")
    keypoints = c["kpts"]
    rule = preset("smpr_r50").view.person_box
    boxes = keypoint_boxes(keypoints, rule, (1000, 1000)).astype(np.float32)
    known = ~np.isnan(c["xywh"]).any(1)
    np.testing.assert_array_equal(boxes[known, :2], c["xywh"][known, :2])
    np.testing.assert_array_equal(boxes[known, 2:] - boxes[known, :2] + 1, c["xywh"][known, 2:])
    areas = 40.0 * np.arange(1, 7, dtype=np.float32)
    truth = usable(Truth(keypoints.astype(np.float32), boxes, areas, np.zeros((0, 4), np.float32), boxes))
    np.testing.assert_array_equal(truth.person_boxes, c["dataset_boxes"])
    np.testing.assert_array_equal(truth.areas, c["dataset_areas"])
    np.testing.assert_array_equal(truth.keypoints, c["dataset_kpts"])
    poses = tensor(c, "pred_poses").unflatten(1, (17, 2))
    np.testing.assert_array_equal(points_extent(poses).numpy(), c["pred_boxes"])
    areas[1] = 0
    truth = usable(Truth(keypoints.astype(np.float32), boxes, areas, np.zeros((0, 4), np.float32), boxes))
    assert len(truth) == 3


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_augment(name: str) -> None:
    c = case("augment")
    rule = c.settings["cases"][name]
    boxes = c[f"{name}_in_boxes"]
    truth = Truth(c[f"{name}_in_kpts"], boxes, c[f"{name}_in_areas"], np.zeros((0, 4), np.float32), boxes)
    image = np.ascontiguousarray(c[f"{name}_in_img"][..., ::-1])
    sample = resize_to_fit(Sample(image, truth), max(rule["img_scale"]), min(rule["img_scale"]))
    check_truth(c, f"{name}_resized", sample.truth)
    if name == "a":
        assert np.abs(sample.image[..., ::-1].astype(int) - c["a_resized_img"]).max() <= 1
    if rule["flip"]:
        sample = transforms.flip(sample, COCO17.flip_index)
    check_truth(c, f"{name}_flipped", sample.truth)
    height, width = (min(a, b) for a, b in zip(rule["crop_size"], sample.size, strict=True))
    sample = clipped_crop(sample, rule["offset_w"], rule["offset_h"], (height, width))
    assert list(sample.size) == rule["cropped_shape"][:2]
    assert len(sample.truth) == rule["kept"]
    check_truth(c, f"{name}_cropped", sample.truth)
    if name == "a":
        batch = collate([sample_to_view(sample, preset("smpr_r50").view)], 32)
        assert list(batch.images.shape[2:]) == rule["padded_shape"][:2]
        final = batch.images[0].permute(1, 2, 0)[:, ::4]
        np.testing.assert_allclose(final.numpy(), c["a_final_img_slice"], atol=1.01)


def check_truth(c: Case, key: str, truth: Truth) -> None:
    for part, values in (("boxes", truth.person_boxes), ("kpts", truth.keypoints), ("areas", truth.areas)):
        if f"{key}_{part}" in c:
            np.testing.assert_allclose(values, c[f"{key}_{part}"], rtol=1e-6, atol=1e-4, err_msg=f"{key} {part}")
