"""Equality with the reference codes of DirectPose (see directpose/README.md for cases and tolerances)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_case import Case, folder, noise_image, normal
from golden_weights import golden_state_dict

from poise.converters import convert_state
from poise.converters.directpose import OFFICIAL_HEAD
from poise.converters.names import rename
from poise.geometry.affine import invert, scaling
from poise.geometry.boxes import keypoint_boxes
from poise.geometry.nms import box_nms, cut_by_score
from poise.models import dense, heatmap_branch, preset
from poise.models.dense import Candidates
from poise.models.directpose import (
    DirectPose,
    DirectPoseConfig,
    DirectPoseHead,
    DirectPoseOutputs,
    HeatmapBranch,
    HeatmapConfig,
    KeypointBranch,
    keypoint_groups,
)
from poise.models.directpose_loss import directpose_losses, positives
from poise.nn.pyramids import FPN
from poise.predict.mapping import mapped_back
from poise.skeletons import COCO17
from poise.train.config import ScheduleConfig
from poise.train.schedule import lr_factor
from poise.types import PersonBoxRule, Persons

SYSTEM = "directpose"
NAMES = sorted(p.stem for p in folder(SYSTEM).glob("*.json"))
FULL = [n for n in NAMES if n.startswith("full_")]
OFFICIAL_HEADS = [n for n in NAMES if n.startswith("official_head_")]


def case(name: str) -> Case:
    if name not in NAMES:
        pytest.skip(f"no case {name} in {folder(SYSTEM)}")
    return Case(SYSTEM, name)


def kind(name: str) -> str:
    return json.loads((folder(SYSTEM) / f"{name}.json").read_text())["case"]


# ------------------------------------------------------------------------------------------------------------- rules


def test_misc_schedule() -> None:
    c = case("misc")
    config = ScheduleConfig(kind="poly", power=1.0, warmup=1000, warmup_factor=0.001, warmup_kind="linear")
    ours = [0.01 * lr_factor(int(i), config, 180000) for i in c["lr_iterations"]]
    np.testing.assert_allclose(ours, c["lr_values"], rtol=1e-5)


def test_misc_pseudo_boxes() -> None:
    c = case("misc")
    keypoints = c["pseudo_keypoints"]
    official = keypoint_boxes(keypoints, PersonBoxRule(), (512, 640))
    np.testing.assert_allclose(official, c["pseudo_boxes_official"], rtol=1e-5, atol=1e-4)
    gluoncv = keypoint_boxes(keypoints, preset("directpose_r50_gluoncv").view.person_box, (512, 640))
    gluoncv[:, 2:] -= gluoncv[:, :2]
    np.testing.assert_allclose(gluoncv, c["pseudo_boxes_gluoncv_xywh"], rtol=1e-5, atol=1e-4)


def test_misc_orders_and_blur() -> None:
    c = case("misc")
    order = [k for g in keypoint_groups(COCO17) for k in g]
    assert [order.index(k) for k in range(17)] == c["kpt_index"].tolist()
    assert list(COCO17.flip_index) == c["flip_index"].tolist()
    np.testing.assert_allclose(COCO17.sigmas, c["oks_sigmas"], rtol=1e-9)
    blur = DirectPose(preset("directpose_r50")).backbone.body.maxpool[1]
    np.testing.assert_array_equal(blur.filt[0, 0].numpy(), c["blur_filter"])
    four = torch.nn.functional.pad(normal(5, (1, 4, 7, 10)), (1, 1, 1, 1), mode="reflect")
    out = torch.nn.functional.conv2d(four, blur.filt[:4], stride=2, groups=4)
    np.testing.assert_allclose(out.numpy(), c["blur_in_seed5_1x4x7x10_out"], atol=1e-5)


def test_kpalign_unit() -> None:
    c = case("kpalign_unit")
    for sub in c.settings["subcases"]:
        branch = _unit_branch(sub)
        weights = golden_state_dict(sub["state_dict"])
        predictor = branch.predictors[0]
        predictor.weight.data = torch.from_numpy(weights["kpt_predictor.weight"])
        predictor.bias.data = torch.from_numpy(weights["kpt_predictor.bias"])
        bases = normal(sub["bases"]["seed"], sub["bases"]["shape"]) * sub["bases"]["scale"]
        features = normal(sub["features"]["seed"], sub["features"]["shape"])
        branch.locator = _Fixed(bases)
        values = 3 if sub["visibility"] else 2
        tower = torch.zeros(len(bases), 1, *bases.shape[-2:])
        ours = branch._predict_level(1, tower, [features, tower]).unflatten(1, (-1, values))
        np.testing.assert_allclose(ours.detach().numpy(), c[f"{sub['name']}_kpt"], atol=1e-5, err_msg=sub["name"])


class _Fixed(torch.nn.Module):
    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.output


def _unit_branch(sub: dict[str, Any]) -> KeypointBranch:
    """A branch of one group that reads level 0 from level 1 at the subcase's ratio."""
    from poise.skeletons import Skeleton

    count = sub["keypoints"]
    skeleton = Skeleton("unit", tuple(f"k{i}" for i in range(count)), (), (), (0.1,) * count)
    config = DirectPoseConfig(
        head="separate", groups=(tuple(range(count)),), group_channels=4, channels=8, visibility=sub["visibility"]
    )
    branch = KeypointBranch(config, skeleton, (sub["feature_stride"], sub["level_stride"]))
    branch.group_channels = sub["in_channels"]
    return branch


# ----------------------------------------------------------------------------------------------------------- targets

SIZES = [(136, 100), (68, 50), (34, 25), (17, 13), (9, 7)]
STRIDES = (8, 16, 32, 64, 128)


def truth_of(c: Case, images: list[int], count: int = 3) -> list[Persons]:
    people = []
    for i in range(count):
        boxes, keypoints = torch.from_numpy(c[f"gt_boxes_im{i}"]), torch.from_numpy(c[f"gt_keypoints_im{i}"])
        people.append(Persons(keypoints, boxes, torch.ones(len(boxes)), torch.zeros(0, 4)))
    return [people[i] for i in images]


def flat_order(image: torch.Tensor, location: torch.Tensor, grid: dense.Grid, images: int) -> np.ndarray:
    """Index in the order level, image, row-major location."""
    sizes = torch.tensor([h * w for h, w in grid.sizes])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)[:-1]])
    level = grid.levels[location]
    return (starts[level] * images + image * sizes[level] + location - starts[level]).numpy()


def test_targets() -> None:
    c = case("targets")
    truth = truth_of(c, [0, 1, 2])
    grid = dense.make_grid(SIZES, STRIDES, torch.device("cpu"))
    matched = dense.match(grid, truth)
    target = positives(grid, matched.owner, truth)
    flat = flat_order(target.image, target.location, grid, 3)
    order = np.argsort(flat)
    assert flat[order].tolist() == c["pos_inds"].tolist()
    first = torch.tensor([0, len(truth[0]), len(truth[0])])
    person = (first[target.image] + matched.owner[target.image, target.location]).numpy()
    assert person[order].tolist() == c["pos_gt_inds"].tolist()
    labels = np.ones(3 * len(grid.points), dtype=np.uint8)
    labels[flat] = 0
    assert labels.tolist() == c["labels"].tolist()
    np.testing.assert_allclose(target.distances.numpy()[order], c["pos_bbox_targets"], rtol=1e-5)
    np.testing.assert_allclose(target.centerness.numpy()[order], c["pos_ctr_targets"], rtol=1e-5)
    ours = torch.cat([target.keypoints, target.labelled[..., None]], -1).numpy()[order]
    theirs = c["pos_kpt_targets"].copy()
    theirs[..., 2] = theirs[..., 2] > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("levels", [3, 5])
def test_targets_official(levels: int) -> None:
    c = case("targets")
    truth = truth_of(c, [0, 2])
    grid = dense.make_grid(SIZES[:levels], STRIDES[:levels], torch.device("cpu"))
    matched = dense.match(grid, truth, ranges=dense.SIZE_RANGES[:levels], inclusive_area=True)
    target = positives(grid, matched.owner, truth)
    flat = flat_order(target.image, target.location, grid, 2)
    order = np.argsort(flat)
    key = f"official{levels}_pos"
    assert flat[order].tolist() == c[f"{key}_inds"].tolist()
    pixels = (target.distances * grid.strides[target.location][:, None]).numpy()[order]
    np.testing.assert_allclose(pixels, c[f"{key}_ltrb_pixels"], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(target.centerness.numpy()[order], c[f"{key}_ctr_targets"], rtol=1e-5)
    theirs = c[f"{key}_kpt_targets"]
    np.testing.assert_allclose(target.keypoints.numpy()[order], theirs[..., :2], rtol=1e-5, atol=1e-5)
    assert ((theirs[..., 2] > 0) == (target.labelled.numpy()[order] > 0)).all()


def test_heatmap_targets() -> None:
    c = case("targets")
    truth = truth_of(c, [0, 1, 2])
    binary = heatmap_branch.binary_target(truth, SIZES[0], 8, 17)
    ones = {tuple(r) for r in torch.nonzero(binary).tolist()}
    assert ones == {tuple(r) for r in c["hm_binary_nonzero"].tolist()}
    single = heatmap_branch.single_target(truth, SIZES[0], 8)
    assert (single.numpy() == c["hm_official_label_map"]).all()
    gauss = heatmap_branch.gaussian_target(truth, SIZES[0], 8, 17)
    np.testing.assert_allclose(gauss.maps[0].numpy(), c["hm_gauss"], rtol=1e-5, atol=1e-7)
    weight = torch.where(gauss.window, 1.0, 0.1)[0]
    np.testing.assert_allclose(weight.numpy(), c["hm_gauss_weight"], rtol=1e-5)
    found = dict(zip(map(tuple, gauss.cells.tolist()), gauss.offset.numpy(), strict=True))
    for index, value in zip(c["hm_gauss_offset_index"].tolist(), c["hm_gauss_offset_value"], strict=True):
        np.testing.assert_allclose(found[tuple(index)], value, rtol=1e-5, atol=1e-5)
    assert len(found) == len(c["hm_gauss_offset_index"])


# ------------------------------------------------------------------------------------------------------------ losses

TERMS = {
    "loss_directpose_cls": "classification", "loss_directpose_ctr": "centerness",
    "loss_directpose_kpt_loc": "keypoints", "loss_directpose_kpt_vis": "visibility", "loss_directpose_hm": "heatmap",
    "loss_directpose_hm_offset": "heatmap_offset", "loss_directpose_bbox_loc": "box",
    "loss_cls": "classification", "loss_centerness": "centerness", "loss_kps": "keypoints", "heatmaps_loss": "heatmap",
}  # fmt: skip


def gluoncv_config(overrides: dict[str, Any]) -> DirectPoseConfig:
    heatmap = None
    if overrides.get("ENABLE_HM_BRANCH"):
        heatmap = HeatmapConfig(
            norm="gn",
            target="gaussian" if overrides.get("HM_TYPE") == "Gaussian" else "binary",
            loss=overrides.get("HM_LOSS_TYPE", "focal"),
            offset=overrides.get("HM_OFFSET", False),
            mse_weight=overrides.get("HM_MSELOSS_WEIGHT", 1.0),
            background_weight=overrides.get("HM_MSELOSS_BG_WEIGHT", 1.0),
        )
    return preset("directpose_r50_gluoncv").model_copy(
        update={
            "heatmap": heatmap,
            "visibility": overrides.get("KPT_VIS", True),
            "radius": 1.5 if overrides.get("CENTER_SAMPLE", True) else None,
            "box_branch": overrides.get("ENABLE_BBOX_BRANCH", False),
            "box_loss": overrides.get("LOC_LOSS_TYPE", "giou"),
            "smooth_l1_beta": overrides.get("KPT_L1_beta", 1 / 9),
            "scales": overrides.get("USE_SCALE", False),
            "centerness_on": overrides.get("CENTER_BRANCH", "kpt").replace("kpt", "keypoint"),
            "threshold_with_centerness": overrides.get("THRESH_WITH_CTR", False),
            "pre_nms": overrides.get("PRE_NMS_TOPK_TEST", 1000),
            "max_poses": overrides.get("POST_NMS_TOPK_TEST", 100),
            "nms_iou": overrides.get("NMS_TH", 0.6),
            "refine_keypoints": overrides.get("REFINE_KPT", False),
        }
    )


def loss_inputs(images: int, levels: int, config: DirectPoseConfig, pick: list[int]) -> DirectPoseOutputs:
    d = 3 if config.visibility else 2

    def maps(
        first: int, channels: int, factor: float, shift: float = 0.0, absolute: bool = False
    ) -> list[torch.Tensor]:
        found = []
        for level, (h, w) in enumerate(SIZES[:levels]):
            value = normal(200 + first + level, (images, channels, h, w))
            value = (value.abs() if absolute else value) * factor + shift
            found.append(value[pick].clone().requires_grad_())
        return found

    h, w = SIZES[0]
    heatmap = offset = None
    if config.heatmap is not None:
        heatmap = (normal(250, (images, 17, h, w)) * 1.5 - 2)[pick].clone().requires_grad_()
        if config.heatmap.offset:
            offset = (normal(251, (images, 2, h, w)) * 0.5)[pick].clone().requires_grad_()
    return DirectPoseOutputs(
        maps(10, 1, 1.5, -2.0), maps(20, 1, 1.0), maps(30, 17 * d, 2.0),
        maps(40, 4, 3.0, absolute=True) if config.box_branch else None, heatmap, offset,
    )  # fmt: skip


def check_gradients(c: Case, prefix: str, outputs: DirectPoseOutputs) -> None:
    fields = {
        "cls": outputs.logits, "ctr": outputs.centerness, "kpt": outputs.keypoints, "box": outputs.boxes,
        "hm": None if outputs.heatmaps is None else [outputs.heatmaps],
    }  # fmt: skip
    for key, maps in fields.items():
        if f"{prefix}_grad_{key}" not in c or maps is None:
            continue
        for row, value in zip(np.atleast_2d(c[f"{prefix}_grad_{key}"]), maps, strict=True):
            g = torch.zeros_like(value) if value.grad is None else value.grad.double()
            found = [float(g.sum()), float(g.abs().sum()), float(g.norm())]
            np.testing.assert_allclose(found, row, rtol=1e-4, atol=2e-4 * max(1e-3, abs(row[1])), err_msg=key)


def test_losses_gluoncv() -> None:
    c = case("losses")
    for name, variant in c.settings["variants"].items():
        if name.startswith("official"):
            continue
        config = gluoncv_config(variant["overrides"])
        truth = truth_of(c, [0, 1, 2])
        if name == "no_gt":
            truth = [Persons.empty(17)] * 3
        outputs = loss_inputs(3, 5, config, [0, 1, 2])
        terms = directpose_losses(config, STRIDES, outputs, truth)
        expected = {TERMS[k]: v for k, v in variant["losses"].items()}
        assert set(terms) == set(expected), name
        for key, value in expected.items():
            assert terms[key].item() == pytest.approx(value, rel=1e-5, abs=1e-7), f"{name} {key}"
        sum(terms.values()).backward()
        check_gradients(c, name, outputs)


@pytest.mark.parametrize("levels", [3, 5])
def test_losses_official(levels: int) -> None:
    c = case("losses")
    expected = c.settings["variants"][f"official_{levels}_levels"]["losses"]
    config = DirectPoseConfig(
        levels=levels, heatmap=HeatmapConfig(target="single"), cls_normaliser="official", keypoint_loss="official"
    )
    outputs = loss_inputs(3, levels, config, [0, 2])
    terms = directpose_losses(config, STRIDES[:levels], outputs, truth_of(c, [0, 2]))
    for key, name in TERMS.items():
        if key in expected:
            assert terms[name].item() == pytest.approx(expected[key], rel=1e-5), key


# ---------------------------------------------------------------------------------------------------------- decoding

FINAL = ("scores", "boxes", "keypoints", "levels", "locations")


def final_candidates(model: DirectPose, candidates: Candidates) -> Candidates:
    """NMS and the cut, on candidates."""
    boxes, scores = candidates.boxes.detach().numpy(), candidates.scores.detach().numpy()
    keep = box_nms(boxes, scores, model.config.nms_iou)
    keep = keep[cut_by_score(scores[keep], model.config.max_poses)]
    return Candidates(*(value[torch.from_numpy(keep)] for value in candidates))


def check_final(c: Case, prefix: str, found: Candidates, pixels: float, scores: float = 1e-5) -> None:
    """Compare as sets keyed by level and location."""
    theirs = {
        (int(level), float(x), float(y)): i
        for i, (level, (x, y)) in enumerate(zip(c[f"{prefix}_levels"], c[f"{prefix}_locations"], strict=True))
    }
    ours = {
        (int(level), float(x), float(y)): i
        for i, (level, (x, y)) in enumerate(zip(found.levels, found.points, strict=True))
    }
    assert set(ours) == set(theirs), f"{prefix}: {len(ours)} against {len(theirs)}"
    a = [ours[k] for k in theirs]
    b = list(theirs.values())
    np.testing.assert_allclose(found.scores.detach().numpy()[a], c[f"{prefix}_scores"][b], atol=scores)
    np.testing.assert_allclose(found.boxes.detach().numpy()[a], c[f"{prefix}_boxes"][b], atol=pixels)
    keypoints = c[f"{prefix}_keypoints"][b]
    np.testing.assert_allclose(found.keypoints.detach().numpy()[a], keypoints[..., :2], atol=pixels)
    np.testing.assert_allclose(found.keypoint_scores.detach().numpy()[a], keypoints[..., 2], atol=scores * 10)


def decode_inputs(c: Case, config: DirectPoseConfig) -> DirectPoseOutputs:
    d = 3 if config.visibility else 2
    sizes = c.settings["settings"]["level_hw"]
    template = torch.from_numpy(c["kpt_template"])
    keypoints = []
    for level, (h, w) in enumerate(sizes):
        value = normal(330 + level, (2, 17, d, h, w)) * 0.4
        value[:, :, :2] += template[None, :, :, None, None]
        keypoints.append(value.flatten(1, 2))
    h, w = sizes[0]
    refine = config.refine_keypoints
    offset = refine and config.heatmap is not None and config.heatmap.offset
    return DirectPoseOutputs(
        [normal(310 + i, (2, 1, *s)) * 1.5 - 3.5 for i, s in enumerate(sizes)],
        [normal(320 + i, (2, 1, *s)) for i, s in enumerate(sizes)],
        keypoints,
        [normal(340 + i, (2, 4, *s)).abs() + 3 for i, s in enumerate(sizes)] if config.box_branch else None,
        normal(350, (2, 17, h, w)) * 1.5 - 3 if refine else None,
        normal(351, (2, 2, h, w)) * 0.3 + 0.5 if offset else None,
    )


def test_decode() -> None:
    c = case("decode")
    sizes = [tuple(s) for s in c.settings["settings"]["image_sizes"]]
    for name, variant in c.settings["variants"].items():
        if "overrides" not in variant:
            continue
        config = gluoncv_config(variant["overrides"])
        if variant["overrides"].get("CENTER_BRANCH") is None:
            config = config.model_copy(update={"centerness_on": "cls"})
        model = DirectPose(config.model_copy(update={"backbone": "resnet18", "anti_alias": False}))
        outputs = decode_inputs(c, config)
        if name == "empty" or variant.get("counts") == [0, 0]:
            outputs = outputs._replace(logits=[m - 100 for m in outputs.logits])
        candidates = model.candidates(outputs, sizes)
        assert [len(x.scores) for x in candidates] == variant["candidates"], name
        for image, found in enumerate(candidates):
            final = final_candidates(model, found)
            assert len(final.scores) == variant["counts"][image], name
            if f"{name}_im{image}_final_scores" in c:
                check_final(c, f"{name}_im{image}_final", final, 1e-3)


def test_decode_rescaled_and_written() -> None:
    """Poses of a decoded view in the original picture's pixels, and the COCO entries of the first ten."""
    c = case("decode")
    config = gluoncv_config({})
    model = DirectPose(config.model_copy(update={"backbone": "resnet18", "anti_alias": False}))
    sizes = [tuple(s) for s in c.settings["settings"]["image_sizes"]]
    poses = model.decode(decode_inputs(c, config), sizes)[1]
    keys = [k for k in c.arrays if k.startswith("rescaled_") and k.endswith("_im1_final_boxes")]
    assert len(keys) == 1
    height, width = (int(v) for v in keys[0].split("_")[1].split("x"))
    final = rescaled(model, poses, sizes[1], (height, width))
    boxes, scores = c[keys[0]], c[keys[0].replace("boxes", "scores")]
    assert len(final) == len(scores)
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(final.scores, scores[order], atol=1e-5)
    np.testing.assert_allclose(final.boxes + 0.5, boxes[order], atol=1e-3)
    keypoints = c[keys[0].replace("boxes", "keypoints")][order]
    np.testing.assert_allclose(final.keypoints + 0.5, keypoints[..., :2], atol=1e-3)
    written = c["coco_json_keypoints_im1"].reshape(-1, 17, 3)
    ours = np.array([e["keypoints"] for e in final.to_coco()]).reshape(-1, 17, 3)
    for entry in written:
        gap = np.abs(ours[..., :2] - entry[None, :, :2]).max(axis=(1, 2))
        assert gap.min() < 2e-3


def rescaled(model: DirectPose, poses: Any, size: tuple[int, int], out: tuple[int, int]) -> Any:
    """What the predictor does with the candidates of one view of a picture of size ``out``."""
    to_input = scaling(size[1] / out[1], size[0] / out[0])
    return model.suppress(mapped_back(poses, invert(to_input), out))


# --------------------------------------------------------------------------------------------------------- whole net


def full_model(c: Case) -> DirectPose:
    model = convert_state(c.state_dict(), "directpose-gluoncv")
    assert isinstance(model, DirectPose)
    config = gluoncv_config(c.settings["settings"].get("directpose", c.settings["settings"]["overrides"]))
    assert model.config.visibility == config.visibility
    assert model.config.centerness_on == config.centerness_on
    return model


def full_input(c: Case, model: DirectPose) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    inputs = c.settings["inputs"]
    if "image" in inputs:
        x = normal(inputs["image"]["seed"], inputs["image"]["shape"])
        return x, [(x.shape[2], x.shape[3])] * len(x)
    return normalised([noise_image(i["seed"], i["shape"]) for i in inputs["images"]], model)


def normalised(images: list[np.ndarray], model: DirectPose) -> tuple[torch.Tensor, list[tuple[int, int]]]:
    """The data room's normalisation and padding."""
    from poise.data.views import collate, whole_view

    views = []
    for image in images:
        spec = model.view.model_copy(update={"long_side": max(image.shape[1:]), "short_side": None})
        views.append(whole_view(image.transpose(1, 2, 0).astype(np.uint8), spec))
    batch = collate(views, 32)
    return batch.images, [v.size for v in views]


def spy(module: torch.nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    module.register_forward_hook(lambda _m, _i, output: seen.append(output))
    return seen


@pytest.mark.parametrize("name", FULL)
def test_full(name: str) -> None:
    c = case(name)
    model = full_model(c)
    images, sizes = full_input(c, model)
    if "net_input" in c:
        c.compare("net_input", images, of_absmax=1e-5)
    align = model.head.align
    assert align is not None
    backbone, pyramid = spy(model.backbone), spy(model.pyramid)
    samplers, locators = spy(align.sampler), spy(align.locator)
    with torch.no_grad():
        outputs = model(images)
        lazy = model.lazy_candidates(images, sizes)
    for i, value in enumerate(backbone[0]):
        if f"c{i + 3}" in c:
            c.compare(f"c{i + 3}", value, of_absmax=1e-5)
    for i in range(len(outputs.logits)):
        level = f"p{i + 3}"
        checks = {
            level: (pyramid[0][i], 0.0, 1e-5), f"sampler_{level}": (samplers[i], 0.0, 1e-4),
            f"locator_{level}": (locators[i], 2e-4, 0.0), f"cls_{level}": (outputs.logits[i], 1e-4, 0.0),
            f"ctr_{level}": (outputs.centerness[i], 1e-4, 0.0), f"kpt_{level}": (outputs.keypoints[i], 2e-4, 0.0),
            f"box_{level}": (None if outputs.boxes is None else outputs.boxes[i], 2e-4, 0.0),
        }  # fmt: skip
        for key, (value, absolute, relative) in checks.items():
            if key in c:
                c.compare(key, value, absolute=absolute, of_absmax=relative)
    if "hm" in c:
        c.compare("hm", outputs.heatmaps, absolute=1e-4)
    if "hm_offset" in c:
        c.compare("hm_offset", outputs.heatmap_offsets, absolute=1e-4)
    for found in (model.candidates(outputs, sizes), lazy):
        check_full_final(c, model, found)
    check_full_rescaled(c, model, outputs, sizes)


def check_full_final(c: Case, model: DirectPose, candidates: list[Candidates]) -> None:
    for image, found in enumerate(candidates):
        prefix = "final" if "final_scores" in c else f"im{image}_final"
        prefix = prefix if f"{prefix}_scores" in c else f"final_im{image}"
        check_final(c, prefix, final_candidates(model, found), 1e-2, scores=3e-5)


def check_full_rescaled(c: Case, model: DirectPose, outputs: DirectPoseOutputs, sizes: list[tuple[int, int]]) -> None:
    if "rescaled_final_scores" not in c:
        return
    out = tuple(c.settings["inputs"]["images"][0]["output_size_hw"])
    final = rescaled(model, model.decode(outputs, sizes)[0], sizes[0], out)
    assert len(final) == len(c["rescaled_final_scores"])
    theirs = c["rescaled_final_keypoints"][..., :2]
    gap = np.abs(final.keypoints[:, None] + 0.5 - theirs[None]).max(axis=(2, 3))
    assert gap.min(axis=1).max() < 2e-2
    assert gap.min(axis=0).max() < 2e-2


def test_train_step() -> None:
    c = case("train_step")
    model = full_model(c).train()
    images, _ = normalised([noise_image(i["seed"], i["shape"]) for i in c.settings["inputs"]["images"]], model)
    truth = []
    for image in range(2):
        keypoints = torch.from_numpy(c[f"gt_keypoints_im{image}"]).clone()
        keypoints[..., :2] -= model.config.pixel_offset
        boxes = torch.from_numpy(c[f"gt_boxes_im{image}"]) - model.config.pixel_offset
        truth.append(Persons(keypoints, boxes, torch.ones(len(boxes)), torch.zeros(0, 4)))
    terms = model.loss(model(images), truth)
    for key, value in c.settings["losses"].items():
        assert terms[TERMS[key]].item() == pytest.approx(value, rel=1e-4), key
    sum(terms.values()).backward()
    body = model.backbone.body
    np.testing.assert_allclose(body.bn1.running_mean.numpy(), c["bn1_running_mean_after"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(body.bn1.running_var.numpy(), c["bn1_running_var_after"], rtol=1e-4, atol=1e-5)
    check_gradient_norms(c, model)


def check_gradient_norms(c: Case, model: DirectPose) -> None:
    """Gradient norms by reference name, found by sending the names through the converter."""
    from poise.converters import directpose as rules

    names = [n for n, *_ in c.settings["state_dict"]]
    marks = {n: torch.tensor(float(i)) for i, n in enumerate(names)}
    body = rules._part(marks, rules._G_BODY)
    head = rules._part(marks, rules._G_HEAD)
    rest = rules._rest(marks, (rules._G_BODY, rules._G_HEAD))
    ours = {
        **rename(body, rules._BODY, drop=(r"\.filt$",)),
        **rename(head, rules.GLUONCV_HEAD),
        **rename(rest, rules._GLUONCV_PYRAMID),
    }
    reference_name = {k: names[int(v)] for k, v in ours.items()}
    checked = 0
    for name, parameter in model.named_parameters():
        expected = c.settings["grad_l2"].get(reference_name[name])
        if expected is None:
            continue
        found = 0.0 if parameter.grad is None else float(parameter.grad.double().norm())
        assert found == pytest.approx(expected, rel=2e-2, abs=1e-5), name
        checked += 1
    assert checked == len([v for v in c.settings["grad_l2"].values() if v is not None])


# ---------------------------------------------------------------------------------------------------------- official


@pytest.mark.parametrize("name", OFFICIAL_HEADS)
def test_official_head(name: str) -> None:
    c = case(name)
    levels = c.settings["settings"]["levels"]
    config = DirectPoseConfig(levels=levels, heatmap=None)
    strides = tuple(c.settings["settings"]["fpn_strides"])
    head = DirectPoseHead(config, COCO17, strides).eval()
    renamed = rename(c.state_dict(), OFFICIAL_HEAD)
    head.load_state_dict({k.removeprefix("head."): v for k, v in renamed.items()})
    features = [normal(i["seed"], i["shape"]) for i in c.settings["inputs"].values()]
    assert head.align is not None
    locators = spy(head.align.locator)
    with torch.no_grad():
        outputs = head(features)
    for i, stride in enumerate(strides):
        level = f"p{i + 3}"
        c.compare(f"cls_{level}", outputs.logits[i], absolute=1e-4)
        c.compare(f"ctr_{level}", outputs.centerness[i], absolute=1e-4)
        c.compare(f"bases_{level}", locators[i], absolute=2e-4)
        pixels = outputs.keypoints[i] * stride
        if level in ("p3", "p4", "p5", "p6", "p7"):
            c.compare(f"kps_{level}", pixels, absolute=1e-3)
        c.compare(f"kps_{level}_train", outputs.keypoints[i][:, :4], absolute=2e-4)


def test_official_heatmap_head() -> None:
    c = case("official_heatmap_head")
    branch = HeatmapBranch(HeatmapConfig(norm="bn"), 256, 17).eval()
    names = {"seg_head.": "tower.", "heatmaps.": "output."}
    state = {}
    for key, value in c.state_dict().items():
        old = next(n for n in names if key.startswith(n))
        state[names[old] + key[len(old) :]] = value
    branch.load_state_dict(state)
    i = c.settings["inputs"]["p3"]
    with torch.no_grad():
        maps, _ = branch(normal(i["seed"], i["shape"]))
    c.compare("hm", maps, absolute=1e-4)


def test_pyramid_has_no_activation() -> None:
    """The pyramid is linear: half the input gives half the bias-free output."""
    pyramid = FPN((8, 8, 8), 8, extra_levels=1)
    features = [normal(i, (1, 8, 16 >> i, 16 >> i)) for i in range(3)]
    with torch.no_grad():
        once, half = pyramid(features), pyramid([f / 2 for f in features])
    torch.testing.assert_close(once[0] / 2, half[0])
