from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from poise.geometry.nms import Suppression
from poise.models import PRESETS, build_model, dense, parse_model_config, preset, smpr_lazy
from poise.models.smpr import SMPR, SMPRConfig, SMPROutputs, preselect, preselect_levels
from poise.models.smpr_loss import judge
from poise.nn.joint import cells_of, joint_plan
from poise.skeletons import COCO17, SKELETONS, Skeleton
from poise.types import Persons, Poses, ViewSpec

SMALL: dict[str, Any] = {
    "backbone": "mobilenetv2_035", "stride_in_1x1": False, "neck": "fpn", "channels": 16, "tower_depth": 1,
    "heatmap_channels": 8, "view": ViewSpec(long_side=128, short_side=None),
}  # fmt: skip
PLAIN: dict[str, Any] = {"align": False, "psm": False, "score": "class", "positives": "all"}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "one offset group": {"offset_groups": 1},
    "without pose scoring": {"psm": False, "score": "class"},
    "pose scoring that does not score": {"score": "class"},
    "without alignment": PLAIN,
    "few candidates a level": {"pre_nms": 15},
    "path aggregation without ReLU": {"neck": "pafpn", "neck_act": False},
    "no poses on P3": {"finest_level": 4},
    "no poses on P3, no P7": {"finest_level": 4, "coarsest_level": 6, "snap": 0.3},
    "hrnet": {"backbone": "hrnet_w18_small", "neck": "hrfpn"},
}


def _model(skeleton: Skeleton = COCO17, seed: int = 0, **switches: Any) -> SMPR:
    torch.manual_seed(seed)
    model = build_model(SMPRConfig.parse({**SMALL, **switches}), skeleton)
    assert isinstance(model, SMPR)
    for convolution in model.head.modules():
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
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return Persons.from_numpy(keypoints, boxes, areas, np.zeros((0, 4)))


# ------------------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(("finest", "coarsest"), [(3, 7), (4, 7), (4, 6), (5, 5)])
def test_some_levels_are_the_same_without_the_others(finest: int, coarsest: int) -> None:
    """Layers are shared; a level's own are two factors, and its convolution if it is coarser than the backbone."""
    whole, part = _model(), _model(finest_level=finest, coarsest_level=coarsest, seed=1)
    some = slice(finest - 3, coarsest - 2)
    tensors = whole.state_dict()
    for name in list(tensors):
        if "_scales." in name:
            tensors[name].fill_(1.0 + int(name.split(".")[2]))
    whole.load_state_dict(tensors)
    for kind in ("initial", "refined"):
        scales = [tensors.pop(f"head.{kind}_scales.{level}.scale") for level in range(5)]
        tensors |= {f"head.{kind}_scales.{i}.scale": s for i, s in enumerate(scales[some])}
    for level in range(coarsest + 1, 8):
        for name in ("weight", "bias"):
            del tensors[f"pyramid.extra.{level - 6}.{name}"]
    part.load_state_dict(tensors)
    with torch.no_grad():
        all_maps, some_maps = whole(_images(1, 3, 96, 128)), part(_images(1, 3, 96, 128))
    torch.testing.assert_close(some_maps.heatmaps, all_maps.heatmaps)
    for field in ("logits", "initial", "refined", "quality"):
        torch.testing.assert_close(getattr(some_maps, field), getattr(all_maps, field)[some])
    assert part.strides == whole.strides[some] == (8, 16, 32, 64, 128)[some]


def test_without_p3_small_people_are_learned_by_p4_and_heatmaps_by_p3() -> None:
    model = _model(finest_level=4, size_ranges=[(-1, 64), (64, 128), (128, 256), (256, 1e8)]).train()
    truth = _truth(96, 1)
    outputs = model(_images(1, 3, 96, 96))
    for maps in (outputs.logits[0], outputs.initial[0], outputs.heatmaps):
        maps.retain_grad()
    terms = model.loss(outputs, [truth])
    sum(terms.values()).backward()
    assert outputs.initial[0].shape[2:] == (6, 6)
    assert outputs.heatmaps.shape[2:] == (12, 12)
    assert terms["initial"] > 0
    cells = torch.nonzero(outputs.heatmaps.grad[0] < 0)[:, [2, 1]]  # what is wanted there is more
    apart = (cells[:, None] * 8 + 4 - truth.keypoints[0, :, :2]).abs().amax(-1)
    assert len(cells) > 5
    assert apart.amin(1).max() <= 8


# ---------------------------------------------------------------------------------------------------------- laziness


@pytest.mark.parametrize("name", VARIANTS)
def test_lazy_equals_dense(name: str) -> None:
    """The same candidates, in double precision, with thresholds in the upper part of the class probabilities."""
    model = _model(**VARIANTS[name]).double()
    images = _images(2, 3, 96, 128).double()
    sizes = [(96, 128), (90, 100)]
    with torch.no_grad():
        outputs = model(images)
        high = torch.cat([m.flatten() for m in outputs.logits]).sigmoid().quantile(0.8).item()
    model.config = model.config.model_copy(update={"score_threshold": high})
    found, lazy = model.candidates(outputs, sizes), model.lazy_candidates(images, sizes)
    assert sum(len(c.scores) for c in found) > 20
    for a, b in zip(found, lazy, strict=True):
        assert a.levels.tolist() == b.levels.tolist()
        for field in ("scores", "keypoints", "keypoint_scores", "boxes", "points"):
            torch.testing.assert_close(getattr(a, field), getattr(b, field), atol=1e-5, rtol=1e-5)
    for a, b in zip(model.decode(outputs, sizes), model.detect(images, sizes), strict=True):
        np.testing.assert_allclose(model.suppress(a).scores, model.suppress(b).scores, atol=1e-5)


def _with_candidates(model: SMPR, images: torch.Tensor, count: int) -> SMPR:
    """The model with a threshold that so many locations pass."""
    with torch.no_grad():
        scores = torch.cat([m.flatten() for m in model(images).logits]).sigmoid().sort(descending=True).values
    threshold = (scores[count - 1] + scores[count]).item() / 2
    model.config = model.config.model_copy(update={"score_threshold": threshold})
    return model


def test_aligned_features_are_computed_around_candidates_only(monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(1, 3, 128, 128)
    model = _with_candidates(_model(), images, 3)
    cells: list[int] = []
    real = smpr_lazy.joint_deform_conv2d_at

    def counted(table: Any, weight: Any, plan: Any, image: int, index: torch.Tensor) -> torch.Tensor:
        cells.append(len(index))
        return real(table, weight, plan, image, index)

    monkeypatch.setattr(smpr_lazy, "joint_deform_conv2d_at", counted)
    assert sum(len(p) for p in model.detect(images, [(128, 128)])) == 3
    assert 0 < sum(cells) <= 27


def _aligned(precision: torch.dtype, wanted: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Features at cells of two levels of the second of two images, and those that the dense head computes."""
    align = _model().head.align
    assert align is not None
    sizes = [(6, 7), (3, 4)]
    towers = [_images(2, 16, *size) for size in sizes]
    initial = [3 * _images(2, 34, *size) for size in sizes]
    with torch.no_grad():
        dense = [align(t, t, i)[0][1].flatten(1).T for t, i in zip(towers, initial, strict=True)]
        plan = joint_plan([align.offset(i) for i in initial], cells_of(sizes, torch.device("cpu")))
        cast = [t[1:].to(precision) for t in towers]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != torch.float32):
            found = smpr_lazy.AlignedCells(cast, align.pose.weight, plan, 1).at(wanted)
    return found, dense


def test_aligned_features_at_cells_equal_the_dense_ones() -> None:
    """Of several levels at once; the row behind them is what lies outside."""
    wanted = torch.tensor([[0, 25], [41, 42], [53, 54]])
    found, dense = _aligned(torch.float32, wanted)
    torch.testing.assert_close(found[wanted.flatten()[:-1]], torch.cat(dense)[wanted.flatten()[:-1]])
    assert found[54].abs().max() == 0
    assert found[1].abs().max() == 0  # nobody asked for it


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_aligned_features_in_mixed_precision(precision: torch.dtype) -> None:
    """Towers end in float32 on CUDA, where autocast normalises so, and in bfloat16 on a CPU."""
    wanted = torch.arange(54)
    mixed, dense = _aligned(precision, wanted)
    assert mixed.dtype == precision
    torch.testing.assert_close(mixed[:54].float(), torch.cat(dense), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["default", "hrnet"])
def test_poses_are_found_in_mixed_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With norms in float32 and plans without taps, as on CUDA."""
    model, images = _model(**VARIANTS[name], snap=0.3), _images(1, 3, 64, 64)
    model = _with_candidates(model, images, 20)
    norm = torch.nn.GroupNorm.forward
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", lambda self, x: norm(self, x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        found = model.detect(images, [(64, 64)])[0]
    assert len(found) > 5
    assert np.isfinite(found.keypoints).all()


def test_nothing_above_the_threshold_evaluates_no_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(score_threshold=0.9999, snap=0.3)
    monkeypatch.setattr(smpr_lazy, "AlignedCells", lambda *_: pytest.fail("aligned features of poses were computed"))
    assert model.head.heatmap is not None
    model.head.heatmap.register_forward_hook(lambda *_: pytest.fail("the heatmap subnet ran"))
    poses = model.detect(_images(2, 3, 64, 64), [(64, 64), (64, 60)])
    assert [len(p) for p in poses] == [0, 0]
    assert len(model.suppress(poses[0])) == 0


@pytest.mark.parametrize("limit", [0, 3, 10, 40, 1000])
def test_preselect_equals_ranking_everything(limit: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    probability = torch.rand(60, generator=generator)
    quality = torch.rand(60, generator=generator)
    asked: set[int] = set()

    def score(index: torch.Tensor) -> torch.Tensor:
        asked.update(index.tolist())
        return probability[index] * quality[index]

    index, scores = preselect(probability, score, 0.5, limit)
    product = probability * quality
    best = set(product.argsort(descending=True)[: limit or None].tolist())
    expected = [i for i in range(60) if i in best and probability[i] > 0.5]
    assert index.tolist() == expected
    torch.testing.assert_close(scores, product[expected])
    worst = product[probability > 0.5].min()
    assert all(probability[i] > worst for i in asked)


@pytest.mark.parametrize("limit", [0, 5, 12, 100])
def test_preselect_of_levels_equals_that_of_each(limit: int) -> None:
    generator = torch.Generator().manual_seed(limit)
    counts = [40, 12, 6, 2]
    probability, quality = torch.rand(2, sum(counts), generator=generator)

    def score(index: torch.Tensor) -> torch.Tensor:
        return probability[index] * quality[index]

    index, scores = preselect_levels(probability, score, 0.5, limit, counts)
    expected, start = [], 0
    for count in counts:
        own, _ = preselect(
            probability[start : start + count], lambda i, start=start: score(i + start), 0.5, limit
        )  # fmt: skip
        expected += [int(i) + start for i in own]
        start += count
    assert index.tolist() == expected
    torch.testing.assert_close(scores, score(index))


def test_preselect_with_nobody() -> None:
    index, scores = preselect(torch.tensor([0.1, 0.2]), lambda _: pytest.fail("nothing to score"), 0.5, 10)
    assert index.tolist() == scores.tolist() == []


# ---------------------------------------------------------------------------------------------------------- decoding


def _silent(model: SMPR, size: tuple[int, int]) -> SMPROutputs:
    """Outputs that say nobody is there, of an image of ``size``."""
    outputs = model(_images(1, 3, *size))
    return outputs._replace(
        logits=[torch.full_like(m, -10.0) for m in outputs.logits],
        refined=[torch.zeros_like(m) for m in outputs.initial],
        quality=[torch.full_like(m, 10.0) for m in outputs.logits],
    )


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_decoded_poses_are_in_pixels(offset: float) -> None:
    model = _model(pixel_offset=offset)
    outputs = _silent(model, (64, 64))
    outputs.logits[0][0, 0, 1, 2] = 10.0
    pose = model.decode(outputs, [(64, 64)])[0]
    assert len(pose) == 1
    np.testing.assert_allclose(pose.keypoints[0], np.broadcast_to([2 * 8 + 4 - offset, 8 + 4 - offset], (17, 2)))
    assert pose.scores[0] == pytest.approx(1 / (1 + np.exp(-10)) ** 2, abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_poses_stay_on_the_unpadded_picture(offset: float) -> None:
    model = _model(pixel_offset=offset)
    outputs = _silent(model, (64, 64))
    outputs.logits[0][0, 0, 1, 2] = 10.0
    assert outputs.refined is not None
    outputs.refined[0][0, 0::2] = 100.0
    outputs.refined[0][0, 1::2] = -100.0
    pose = model.decode(outputs, [(50, 40)])[0]
    np.testing.assert_allclose(pose.keypoints[0], np.broadcast_to([39.0, 0.0], (17, 2)))


def test_the_threshold_is_on_the_class_alone() -> None:
    model = _model(score_threshold=0.05)
    outputs = _silent(model, (64, 64))
    assert outputs.quality is not None
    outputs.logits[0][0, 0, 1, 2] = 0.0
    outputs.quality[0][0, 0, 1, 2] = -5.0
    pose = model.decode(outputs, [(64, 64)])[0]
    assert len(pose) == 1
    assert pose.scores[0] < 0.05


def _poses(keypoints: Any, scores: Any) -> Poses:
    points = np.asarray(keypoints, np.float32)
    marks = np.broadcast_to(np.asarray(scores, np.float32)[:, None], points.shape[:2])
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return Poses(points, marks, boxes, scores, COCO17, (100, 100))


@pytest.mark.parametrize("on", ["box", "oks"])
@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
def test_suppression_lowers_duplicates(on: str, method: str) -> None:
    model = _model(suppress_on=on, suppression=Suppression(method=method), max_poses=2)
    rng = np.random.default_rng(1)
    one = rng.uniform(10, 60, (17, 2))
    other = one + 300
    final = model.suppress(_poses([one, one + 0.5, other], [0.9, 0.8, 0.3]))
    assert final.scores.tolist() == pytest.approx([0.9, 0.3])
    np.testing.assert_allclose(final.keypoints[1], other.astype(np.float32))
    everybody = _model(suppress_on=on, suppression=Suppression(method=method)).suppress(
        _poses([one, one + 0.5, other], [0.9, 0.8, 0.3])
    )
    assert len(everybody) == (2 if method == "hard" else 3)
    assert sorted(everybody.scores.tolist(), reverse=True) == everybody.scores.tolist()


# ------------------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
@pytest.mark.parametrize("switches", [{}, PLAIN, {"oks_pose": "refined", "l1_weight": "none"}], ids=str)
def test_any_skeleton_trains(skeleton: Skeleton, switches: dict[str, Any]) -> None:
    model = _model(skeleton, **switches).train()
    outputs = model(_images(2, 3, 96, 96))
    assert outputs.initial[0].shape[1] == 2 * len(skeleton)
    terms = model.loss(outputs, [_truth(96, 2, skeleton), Persons.empty(len(skeleton))])
    expected = {"classification", "initial", "heatmap"}
    assert set(terms) == (expected if switches == PLAIN else expected | {"refined", "quality"})
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_loss_without_anybody_is_finite_and_trains_the_classifier() -> None:
    model = _model().train()
    terms = model.loss(model(_images(2, 3, 64, 64)), [Persons.empty(17)] * 2)
    assert {k for k, v in terms.items() if v.item() == 0} == {"initial", "refined", "quality"}
    sum(terms.values()).backward()
    assert model.head.logits.weight.grad.abs().sum() > 0


def test_poses_so_bad_that_every_weight_underflows_give_zero_not_nan() -> None:
    model = _model()
    outputs = model(_images(1, 3, 96, 96))
    wild = outputs._replace(initial=[m + 1e4 for m in outputs.initial])
    terms = model.loss(wild, [_truth(96, 2)])
    assert terms["initial"].item() == 0
    assert all(torch.isfinite(t) for t in terms.values())


def _gradients(model: SMPR, term: str) -> dict[str, bool]:
    """Which parts of the head a term's gradient reaches."""
    model.zero_grad()
    model.loss(model(_images(2, 3, 96, 96)), [_truth(96, 3), _truth(96, 2, seed=4)])[term].backward()
    return {
        name: any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())
        for name, part in model.head.named_children()
    }


def test_what_each_loss_trains() -> None:
    """SMPR spec 3: losses behind the refinement do not reach the initial poses, but both towers."""
    model = _model(positives="all").train()
    initial, refined, classes = (_gradients(model, t) for t in ("initial", "refined", "classification"))
    assert {k for k, v in initial.items() if v} == {"pose_tower", "initial", "initial_scales"}
    assert {k for k, v in refined.items() if v} == {"pose_tower", "align", "refined", "refined_scales"}
    assert {k for k, v in classes.items() if v} == {"person_tower", "align", "logits"}
    assert {k for k, v in _gradients(model, "quality").items() if v} == {"pose_tower", "align", "quality"}
    assert {k for k, v in _gradients(model, "heatmap").items() if v} == {"heatmap"}


def _grid_and_target(model: SMPR, outputs: SMPROutputs, truth: Persons) -> tuple[dense.Grid, torch.Tensor]:
    """The grid, and perfect offsets (P, 2 K) to the first person."""
    grid = dense.make_grid([(m.shape[-2], m.shape[-1]) for m in outputs.logits], model.strides, torch.device("cpu"))
    points = truth.keypoints[0, :, :2]
    return grid, ((points[None] - grid.points[:, None]) / grid.strides[:, None, None]).flatten(1)


def _as_maps(flat: torch.Tensor, grid: dense.Grid) -> list[torch.Tensor]:
    parts = flat.split([h * w for h, w in grid.sizes])
    return [p.T.reshape(1, -1, h, w) for p, (h, w) in zip(parts, grid.sizes, strict=True)]


def test_perfect_poses_have_no_regression_loss() -> None:
    model, truth = _model(), _truth(96, 1)
    outputs = model(_images(1, 3, 96, 96))
    grid, flat = _grid_and_target(model, outputs, truth)
    maps = _as_maps(flat, grid)
    terms = model.loss(outputs._replace(initial=maps, refined=maps), [truth])
    assert terms["initial"].item() == pytest.approx(0, abs=1e-6)
    assert terms["refined"].item() == pytest.approx(0, abs=1e-6)
    judged = judge(model.config, grid, flat[None], [truth], COCO17.sigmas)
    assert judged.quality.min() > 0.999
    assert judged.good.all()


def test_the_l1_weight_is_the_quality() -> None:
    """One location perfect, one far off: weighted by OKS the mean is that of the good one, unweighted of both."""
    truth = _truth(96, 1)
    found = {}
    for weight in ("oks", "none"):
        model = _model(l1_weight=weight, positives="all")
        outputs = model(_images(1, 3, 96, 96))
        grid, flat = _grid_and_target(model, outputs, truth)
        owner = dense.assign(grid, truth.boxes, inclusive_area=True)
        _, *others = torch.nonzero(owner >= 0)[:, 0].tolist()
        assert others
        flat[others] += 1000.0
        terms = model.loss(outputs._replace(initial=_as_maps(flat, grid)), [truth])
        found[weight] = terms["initial"].item() / model.config.initial_loss
        count = len(others)
    assert found["oks"] == pytest.approx(0, abs=1e-3)
    assert found["none"] == pytest.approx(1000.0 * 34 * count / (count + 1), rel=1e-4)


def test_a_person_without_labelled_keypoints_forces_no_positive() -> None:
    model, truth = _model(), _truth(96, 1)
    truth.keypoints[..., 2] = 0
    outputs = model(_images(1, 3, 96, 96))
    grid, flat = _grid_and_target(model, outputs, truth)
    judged = judge(model.config, grid, flat[None], [truth], COCO17.sigmas)
    assert not judged.good.any()
    terms = model.loss(outputs, [truth])
    assert all(torch.isfinite(t) for t in terms.values())
    assert terms["initial"].item() == terms["refined"].item() == 0


@pytest.mark.parametrize("switches", [{}, {"ignore_regions": False}], ids=str)
def test_no_gradient_in_ignore_regions_unless_so_wanted(switches: dict[str, Any]) -> None:
    truth = Persons.from_numpy(np.zeros((0, 17, 3)), np.zeros((0, 4)), np.zeros(0), [[0, 0, 32, 64]])
    model = _model(**switches).train()
    outputs = model(_images(1, 3, 64, 64))
    maps = {"classification": outputs.logits[0], "heatmap": outputs.heatmaps}
    for m in maps.values():
        m.retain_grad()
    terms = model.loss(outputs, [truth])
    for term, m in maps.items():
        terms[term].backward(retain_graph=True)
        assert bool((m.grad[..., :4] == 0).all()) == (not switches)
        assert (m.grad[..., 4:] != 0).all()


def test_labelled_keypoints_in_ignore_regions_are_learned() -> None:
    model, truth = _model().train(), _truth(96, 1)
    outputs = model(_images(1, 3, 96, 96))
    outputs.heatmaps.retain_grad()
    model.loss(outputs, [replace(truth, ignore=torch.tensor([[0.0, 0.0, 96.0, 96.0]]))])["heatmap"].backward()
    gradient = outputs.heatmaps.grad
    assert (gradient != 0).sum() == (gradient < 0).sum() > 0


def test_presets_take_no_loss_in_ignore_regions() -> None:
    assert all(preset(name).ignore_regions for name in PRESETS if name.startswith("smpr"))


def test_masked_heatmaps_leave_unlabelled_keypoints_alone() -> None:
    model, truth = _model(mask_unlabelled=True).train(), _truth(96, 1)
    truth.keypoints[0, 0] = 0
    outputs = model(_images(1, 3, 96, 96))
    outputs.heatmaps.retain_grad()
    model.loss(outputs, [truth])["heatmap"].backward()
    x1, y1, x2, y2 = ((truth.boxes[0] / 8).round().int() + torch.tensor([1, 1, -1, -1])).tolist()
    gradient = outputs.heatmaps.grad[0]
    assert gradient[0, y1:y2, x1:x2].abs().sum() == 0
    assert gradient[5, y1:y2, x1:x2].abs().sum() > 0


# ---------------------------------------------------------------------------------------------------------- settings


def test_every_loss_has_its_factor() -> None:
    truth, images = [_truth(96, 2)], _images(1, 3, 96, 96)
    names = {
        "class_loss": "classification", "heatmap_loss": "heatmap", "initial_loss": "initial",
        "refined_loss": "refined", "quality_loss": "quality",
    }  # fmt: skip
    usual = _model(positives="all")
    doubled = _model(positives="all", **{field: 2 * getattr(usual.config, field) for field in names})
    one, two = usual.loss(usual(images), truth), doubled.loss(doubled(images), truth)
    for term in names.values():
        assert two[term].item() == pytest.approx(2 * one[term].item(), rel=1e-5)
        assert one[term].item() > 0


@pytest.mark.parametrize(
    ("name", "radius", "align", "positives", "psm", "score", "heatmap", "neck"),
    [
        ("smpr_baseline", None, False, "all", False, "class", False, "fpn"),
        ("smpr_baseline_star", 1.5, False, "all", False, "class", False, "fpn"),
        ("smpr_refine", 1.5, True, "all", False, "class", False, "fpn"),
        ("smpr_refine_star", 1.5, True, "oks", False, "class", False, "fpn"),
        ("smpr_psm", 1.5, True, "oks", True, "product", False, "fpn"),
        ("smpr_heatmap", 1.5, True, "oks", True, "product", True, "fpn"),
        ("smpr_pafpn", 1.5, True, "oks", True, "product", True, "pafpn"),
    ],
)
def test_ablation_rows(
    name: str, radius: Any, align: bool, positives: str, psm: bool, score: str, heatmap: bool, neck: str
) -> None:
    """SMPR spec 12, and nothing else differs from the official settings."""
    config = preset(name)
    row = {"radius": radius, "align": align, "positives": positives, "psm": psm, "score": score}
    assert config == SMPRConfig.parse({**row, "heatmap": heatmap, "neck": neck})


def test_ablation_presets_end_at_the_official_model() -> None:
    assert preset("smpr_pafpn") == preset("smpr_r50")
    assert preset("smpr_heatmap") == preset("smpr_r50_fpn")


@pytest.mark.parametrize("name", [n for n in PRESETS if n.startswith("smpr")])
def test_presets_survive_a_round_trip(name: str) -> None:
    config = preset(name)
    assert parse_model_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"align": False}, "psm needs align"),
        ({"psm": False}, "score = 'product' needs psm"),
        ({**PLAIN, "oks_pose": "refined"}, "oks_pose = 'refined' needs align"),
        ({"channels": 18}, "multiple of offset_groups"),
        ({"size_ranges": ((0.0, 1.0),)}, "size_ranges"),
        ({"neck": "fpm"}, "neck = 'fpm'"),
        ({"psn": True}, "did you mean 'psm'"),
        ({"suppression": {"thresh": 1}}, "did you mean 'threshold'"),
    ],
)
def test_bad_settings_name_the_way_out(switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMPRConfig.parse({**SMPRConfig().model_dump(), **switches})
