from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from poise.geometry.affine import identity
from poise.models import PRESETS, build_model, directpose, parameter_count, parse_model_config, preset
from poise.models.directpose import DirectPose, DirectPoseConfig, HeatmapConfig, KeypointBranch, keypoint_groups
from poise.nn.sampling import sample_bilinear
from poise.predict.mapping import clips_first, mapped_back
from poise.skeletons import COCO17, CROWDPOSE14, LSP14, MPII16, SKELETONS, Skeleton
from poise.types import Persons, Poses, ViewSpec

SMALL: dict[str, Any] = {
    "backbone": "mobilenetv2_035", "anti_alias": False, "channels": 16, "group_channels": 4, "cls_depth": 1,
    "keypoint_depth": 2, "box_depth": 1, "heatmap": None, "view": ViewSpec(long_side=128, short_side=None),
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "separate": {},
    "separate, visibility, centerness on keypoints": {"visibility": True, "centerness_on": "keypoint"},
    "separate, head group finer": {"head_group_level": "finer"},
    "separate, same level": {"sample_level": "same"},
    "separate, all from p3": {"sample_level": "p3"},
    "separate, shared tower, scales, boxes": {
        "share_depth": 1, "scales": True, "box_branch": True, "centerness_on": "box",
    },
    "grouped": {"head": "grouped"},
    "kpalign": {"head": "kpalign", "sample_level": "same"},
    "kpalign, visibility": {"head": "kpalign", "visibility": True},
    "naive": {"head": "naive"},
    "naive, centerness on keypoints, scales": {"head": "naive", "centerness_on": "keypoint", "scales": True},
    "three levels": {"levels": 3},
    "threshold with centerness": {"threshold_with_centerness": True, "pre_nms": 20, "score": "product"},
    "refined": {"heatmap": HeatmapConfig(channels=8), "refine_keypoints": True},
    "snapped": {"heatmap": HeatmapConfig(channels=8), "snap": 0.3},
    "refined with offsets": {"heatmap": HeatmapConfig(channels=8, norm="gn", offset=True), "refine_keypoints": True},
}  # fmt: skip


def _model(skeleton: Skeleton = COCO17, seed: int = 0, **switches: Any) -> DirectPose:
    torch.manual_seed(seed)
    model = build_model(DirectPoseConfig(**{**SMALL, **switches}), skeleton)
    for part in (model.head.align, model.head):
        for convolution in part.modules() if part is not None else ():
            if isinstance(convolution, torch.nn.Conv2d):
                torch.nn.init.normal_(convolution.weight, std=0.15)
    return model.eval()


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def _truth(size: int, people: int, skeleton: Skeleton = COCO17, seed: int = 0) -> Persons:
    rng = np.random.default_rng(seed)
    k = len(skeleton)
    centre = rng.uniform(size * 0.25, size * 0.75, (people, 1, 2))
    points = centre + rng.uniform(-1, 1, (people, k, 2)) * size * rng.uniform(0.1, 0.25, (people, 1, 1))
    keypoints = np.concatenate([points, np.full((people, k, 1), 2)], 2)
    boxes = np.concatenate([points.min(1) - 1, points.max(1) + 1], 1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return Persons.from_numpy(keypoints, boxes, areas, np.zeros((0, 4)))


@pytest.mark.parametrize("name", VARIANTS)
def test_lazy_equals_dense(name: str) -> None:
    """Exact laziness: the same candidates, whatever the head; thresholds in the middle of the scores.

    In double precision, because 1e-5 is below the resolution of a float32 pixel coordinate.
    """
    model = _model(**VARIANTS[name]).double()
    images = _images(2, 3, 96, 128).double()
    sizes = [(96, 128), (90, 100)]
    with torch.no_grad():
        outputs = model(images)
        middle = torch.cat([m.flatten() for m in outputs.logits]).sigmoid().quantile(0.7).item()
    model.config = model.config.model_copy(update={"score_threshold": middle})
    dense, lazy = model.candidates(outputs, sizes), model.lazy_candidates(images, sizes)
    assert sum(len(c.scores) for c in dense) > 20
    for a, b in zip(dense, lazy, strict=True):
        assert a.levels.tolist() == b.levels.tolist()
        for field in ("scores", "keypoints", "keypoint_scores", "boxes", "points"):
            torch.testing.assert_close(getattr(a, field), getattr(b, field), atol=1e-5, rtol=1e-5)


def test_lazy_with_candidates_on_one_coarse_level_only() -> None:
    """Only the head group of P3 and the neighbouring finer level are needed then."""
    model = _model()
    images = _images(1, 3, 128, 128)
    with torch.no_grad():
        outputs = model(images)
    tops = [m.sigmoid().max().item() for m in outputs.logits]
    level = int(np.argmax(tops))
    threshold = sorted(tops)[-2]
    model.config = model.config.model_copy(update={"score_threshold": threshold})
    ran: list[tuple[int, ...]] = []
    assert model.head.align is not None
    model.head.align.tower.register_forward_hook(lambda _m, _i, out: ran.append(tuple(out.shape[-2:])))
    dense, lazy = model.candidates(outputs, [(128, 128)])[0], model.lazy_candidates(images, [(128, 128)])[0]
    assert set(dense.levels.tolist()) == {level}
    torch.testing.assert_close(dense.keypoints, lazy.keypoints, atol=1e-5, rtol=1e-5)
    assert len(ran) < len(outputs.logits)


def test_nothing_above_the_threshold_evaluates_no_keypoints() -> None:
    model = _model()
    model.config = model.config.model_copy(update={"score_threshold": 0.9999})
    assert model.head.align is not None
    model.head.align.tower.register_forward_hook(lambda *_: pytest.fail("the keypoint tower ran"))
    poses = model.detect(_images(2, 3, 64, 64), [(64, 64), (64, 60)])
    assert [len(p) for p in poses] == [0, 0]
    assert len(model.suppress(poses[0])) == 0


def test_decoded_poses_are_in_pixels_with_integer_centres() -> None:
    """A network that says "keypoint at the location" yields location - 1/2: references count from the corner."""
    model = _model(head="naive")
    outputs = model(_images(1, 3, 64, 64))
    zero = outputs._replace(
        keypoints=[torch.zeros_like(m) for m in outputs.keypoints],
        logits=[torch.full_like(m, -10.0) for m in outputs.logits],
    )
    zero.logits[0][0, 0, 1, 2] = 10.0
    pose = model.decode(zero, [(64, 64)])[0]
    assert len(pose) == 1
    np.testing.assert_allclose(pose.keypoints[0], np.broadcast_to([2 * 8 + 4 - 0.5, 8 + 4 - 0.5], (17, 2)))


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
@pytest.mark.parametrize("head", ["naive", "kpalign", "grouped", "separate"])
def test_any_skeleton_trains(skeleton: Skeleton, head: str) -> None:
    model = _model(skeleton, head=head, heatmap=HeatmapConfig(channels=8)).train()
    outputs = model(_images(2, 3, 96, 96))
    assert outputs.keypoints[0].shape[1] == 2 * len(skeleton)
    terms = model.loss(outputs, [_truth(96, 2, skeleton), Persons.empty(len(skeleton))])
    assert set(terms) == {"classification", "centerness", "keypoints", "heatmap"}
    total = sum(terms.values())
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_loss_without_anybody_is_finite_and_trains_the_classifier() -> None:
    model = _model(heatmap=HeatmapConfig(channels=8), box_branch=True, visibility=True).train()
    terms = model.loss(model(_images(2, 3, 64, 64)), [Persons.empty(17)] * 2)
    assert {k for k, v in terms.items() if v.item() == 0} == {"centerness", "keypoints", "visibility", "box"}
    sum(terms.values()).backward()
    assert model.head.cls_logits.weight.grad.abs().sum() > 0


def test_positive_without_visible_keypoints_gives_zero_not_nan() -> None:
    for profile in ("official", "gluoncv"):
        model = _model(keypoint_loss=profile).train()
        truth = _truth(96, 1)
        truth.keypoints[..., 2] = 0
        terms = model.loss(model(_images(1, 3, 96, 96)), [truth])
        assert terms["keypoints"].item() == 0
        assert terms["centerness"].item() > 0


def test_no_classification_gradient_in_ignore_regions() -> None:
    model = _model().train()
    outputs = model(_images(1, 3, 64, 64))
    for m in outputs.logits:
        m.retain_grad()
    truth = Persons.from_numpy(np.zeros((0, 17, 3)), np.zeros((0, 4)), np.zeros(0), [[0, 0, 32, 64]])
    model.loss(outputs, [truth])["classification"].backward()
    gradient = outputs.logits[0].grad[0, 0]
    assert gradient[:, :4].abs().max() == 0
    assert (gradient[:, 4:] != 0).all()


@pytest.mark.parametrize("heatmap", [{"loss": "focal"}, {"target": "single"}, {"target": "gaussian", "loss": "mse"}])
def test_no_heatmap_gradient_in_ignore_regions(heatmap: dict[str, Any]) -> None:
    model = _model(heatmap=HeatmapConfig(channels=8, norm="gn", **heatmap)).train()
    outputs = model(_images(1, 3, 64, 64))
    outputs.heatmaps.retain_grad()
    truth = Persons.from_numpy(np.zeros((0, 17, 3)), np.zeros((0, 4)), np.zeros(0), [[0, 0, 32, 64]])
    model.loss(outputs, [truth])["heatmap"].backward()
    gradient = outputs.heatmaps.grad[0]
    assert gradient[:, :, :4].abs().max() == 0
    assert (gradient[:, :, 4:] != 0).all()


@pytest.mark.parametrize("target", ["binary", "single"])
def test_labelled_keypoints_in_ignore_regions_are_learned(target: str) -> None:
    model, truth = _model(heatmap=HeatmapConfig(channels=8, norm="gn", target=target)).train(), _truth(96, 1)
    truth = replace(truth, ignore=torch.tensor([[0.0, 0.0, 96.0, 96.0]]))
    outputs = model(_images(1, 3, 96, 96))
    outputs.heatmaps.retain_grad()
    model.loss(outputs, [truth])["heatmap"].backward()
    gradient = outputs.heatmaps.grad[0]
    assert (gradient != 0).sum() == (gradient < 0).sum() > 0


@pytest.mark.parametrize("head", ["separate", "grouped", "kpalign"])
def test_mixed_precision_keeps_exact_coordinates(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """KPAlign adds the number of a column, in the hundreds, to fractions of a cell: never in bfloat16."""
    model = _model(head=head, levels=3)
    assert model.head.align is not None
    read = []

    def noted(features: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        read.append((x, y))
        return sample_bilinear(features, x, y)

    monkeypatch.setattr(directpose, "sample_bilinear", noted)
    towers = [model.head.keypoint_tower(_images(1, 16, 4 // s, 400 // s)) for s in (1, 2, 4)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.head.align(towers)
        base = [model.head.align.locator(t).float() for t in towers]
    assert {part.dtype for place in read for part in place} == {torch.float32}
    assert all(torch.isfinite(maps).all() for maps in found)
    x = read[0][0].flatten()
    expected = (base[0][:, ::2] + torch.arange(400)).flatten()
    assert set(x.tolist()) <= set(expected.tolist())


def test_perfect_predictions_have_no_keypoint_loss() -> None:
    model = _model(head="naive")
    truth = _truth(96, 2)
    outputs = model(_images(1, 3, 96, 96))
    from poise.models import dense

    sizes = [(m.shape[-2], m.shape[-1]) for m in outputs.logits]
    grid = dense.make_grid(sizes, model.strides, torch.device("cpu"))
    owner = dense.match(grid, [dense.shifted(truth, 0.5, torch.device("cpu"))], inclusive_area=True).owner[0]
    target = (truth.keypoints[owner.clamp(min=0), :, :2] + 0.5 - grid.points[:, None]) / grid.strides[:, None, None]
    flat = target.flatten(1).T
    maps, start = [], 0
    for h, w in sizes:
        maps.append(flat[:, start : start + h * w].reshape(1, -1, h, w))
        start += h * w
    terms = model.loss(outputs._replace(keypoints=maps), [truth])
    assert terms["keypoints"].item() == pytest.approx(0, abs=1e-6)
    assert (owner >= 0).sum() > 0


def _every_group(skeleton: Skeleton) -> Iterator[str]:
    for group in keypoint_groups(skeleton):
        yield "+".join(skeleton.keypoints[k] for k in group)


def test_groups_follow_the_names() -> None:
    assert keypoint_groups(COCO17) == (
        (0, 1, 2, 3, 4), (5,), (7, 9), (6,), (8, 10), (11,), (13, 15), (12,), (14, 16),
    )  # fmt: skip
    assert next(_every_group(LSP14)) == "neck+head_top"
    assert "pelvis" in list(_every_group(MPII16))
    for skeleton in (COCO17, LSP14, MPII16, CROWDPOSE14):
        assert sorted(k for g in keypoint_groups(skeleton) for k in g) == list(range(len(skeleton)))
    odd = Skeleton("odd", ("tip", "beard", "tail"), (), (), (0.1, 0.1, 0.1))
    assert keypoint_groups(odd) == ((0,), (1,), (2,))


def test_groups_can_be_set_and_are_checked() -> None:
    groups = ((0, 1, 2, 3, 4), tuple(range(5, 17)))
    assert _model(groups=groups).head.align.groups == groups
    with pytest.raises(ValueError, match="exactly once"):
        _model(groups=((0, 1), (1, 2)))


@pytest.mark.parametrize(
    ("sample", "head", "expected"),
    [("finer", "p3", (0, 1)), ("finer", "finer", (1, 1)), ("same", "p3", (0, 2)), ("p3", "finer", (1, 0))],
)
def test_source_levels(sample: str, head: str, expected: tuple[int, int]) -> None:
    config = DirectPoseConfig(**{**SMALL, "sample_level": sample, "head_group_level": head})
    branch = KeypointBranch(config, COCO17, (8, 16, 32))
    assert (branch.source_level(2, 0), branch.source_level(2, 3)) == expected


def test_published_parameter_counts() -> None:
    """Spec 3: GluonCV's R-50 32.42 M (backbone 23.51, FPN 3.87, head 5.05), heatmap branch 0.46 M."""
    model = build_model(preset("directpose_r50_gluoncv"))
    assert model.head.heatmap is not None
    heat = parameter_count(model.head.heatmap)
    assert parameter_count(model) - heat == pytest.approx(32.42e6, abs=0.01e6)
    assert parameter_count(model.backbone) == pytest.approx(23.51e6, abs=0.01e6)
    assert parameter_count(model.pyramid) == pytest.approx(3.87e6, abs=0.01e6)
    assert heat == pytest.approx(0.46e6, abs=0.005e6)
    official = build_model(preset("directpose_r50").model_copy(update={"heatmap": None}))
    assert parameter_count(official.head) == 5_042_422


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name: str) -> None:
    config = preset(name)
    assert parse_model_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"centerness_on": "box"}, "needs box_branch"),
        ({"refine_keypoints": True, "heatmap": None}, "needs the heatmap branch"),
        ({"snap": 0.3, "heatmap": None}, "needs the heatmap branch"),
        ({"visibility": True, "head": "naive"}, "needs a KPAlign head"),
        ({"group_channels": 6}, "multiple of 4"),
        ({"size_ranges": ((0.0, 1.0),)}, "size_ranges"),
        ({"heads": "naive"}, "did you mean 'head'"),
    ],
)
def test_bad_settings_name_the_way_out(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DirectPoseConfig.parse({**DirectPoseConfig().model_dump(), **switches})


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'directpose_r50'"):
        preset("directpose_r5")
    with pytest.raises(ValueError, match="unknown system 'nothing'"):
        parse_model_config({"system": "nothing"})


@pytest.mark.parametrize("norm", ["bn", "gn"])
@pytest.mark.parametrize("target", ["binary", "single", "gaussian"])
def test_masked_heatmaps_leave_unlabelled_keypoints_alone(norm: str, target: str) -> None:
    """With mask_unlabelled, cells on a person whose nose is not labelled get no gradient in the nose channel."""
    heatmap = HeatmapConfig(channels=8, norm=norm, target=target, mask_unlabelled=True)
    model = _model(heatmap=heatmap).train()
    truth = _truth(96, 1)
    truth.keypoints[0, 0] = 0
    outputs = model(_images(1, 3, 96, 96))
    outputs.heatmaps.retain_grad()
    model.loss(outputs, [truth])["heatmap"].backward()
    x1, y1, x2, y2 = ((truth.boxes[0] / 8).round().int() + torch.tensor([1, 1, -1, -1])).tolist()
    gradient = outputs.heatmaps.grad[0]
    assert gradient[0, y1:y2, x1:x2].abs().sum() == 0
    assert gradient[5, y1:y2, x1:x2].abs().sum() > 0


def test_boxes_of_a_box_branch_are_clipped_after_the_suppression() -> None:
    """Clipped before, these two would overlap by 0.7 (DirectPose spec 9)."""
    boxes = np.array([[-100, 0, 100, 100], [30, 0, 100, 100]], np.float32)
    points = np.random.default_rng(0).uniform(0, 100, (2, 17, 2))
    found = Poses(points, np.ones((2, 17)), boxes, np.array([0.9, 0.8]), image_size=(100, 100))
    with_branch, without = _model(box_branch=True, nms_iou=0.6), _model(nms_iou=0.6)
    kept = with_branch.suppress(mapped_back(found, identity(), (100, 100), clips_first(with_branch)))
    assert kept.boxes.tolist() == [[-0.5, 0, 99.5, 99.5], [30, 0, 99.5, 99.5]]
    assert len(without.suppress(mapped_back(found, identity(), (100, 100), clips_first(without)))) == 1
    gone = replace(found, boxes=boxes + np.float32(200))
    assert len(with_branch.suppress(gone)) == 0
