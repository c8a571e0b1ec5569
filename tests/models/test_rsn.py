"""RSN: settings, cost, network, losses, decoding, suppression; equality with the references is in tests/golden."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poise.checkpoints import load_checkpoint, save_checkpoint
from poise.models import PoseModel, build_model, parameter_count, parse_model_config, preset
from poise.models.rsn import PRESETS, RSN, RSNConfig, RSNOutputs
from poise.models.rsn_blocks import ConvNorm
from poise.models.rsn_loss import draw, read_truth
from poise.nn.fold import fold_batch_norm
from poise.skeletons import COCO17, MPII16, Skeleton
from poise.types import Persons, Poses, ViewSpec

TINY: dict[str, Any] = {
    "stem": 8, "planes": (8, 16, 32, 64), "branch_ratio": (1, 2), "unit_channels": 16,
    "view": ViewSpec(kind="crop", size=(64, 96), half_pixel=False),
}  # fmt: skip


def tiny(**settings: Any) -> RSN:
    torch.manual_seed(0)
    model = RSN(RSNConfig.model_validate({**TINY, **settings}))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return model


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def person(visible: float | list[float] = 2.0, seed: int = 2) -> Persons:
    """Somebody inside a view of 64 x 96."""
    places = np.random.default_rng(seed).uniform(12, 52, (1, 17, 2))
    marks = np.broadcast_to(np.asarray(visible, np.float64), (1, 17))[..., None]
    return Persons.from_numpy(np.concatenate([places, marks], 2), np.zeros((1, 4)), [1.0], np.zeros((0, 4)))


# -------------------------------------------------------------------------------------------------------------- cost


def multiply_adds(model: RSN, size: tuple[int, int], final_only: bool = False) -> int:
    """Of convolutions, for one picture; nothing is computed, and the model is of no use afterwards."""
    counts: list[int] = []

    def count(part: nn.Module, _inputs: Any, output: Tensor) -> None:
        assert isinstance(part, nn.Conv2d)
        counts.append(part.weight.numel() * output.shape[-2] * output.shape[-1])

    for part in list(model.modules()):
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
        if isinstance(part, ConvNorm):
            part.norm = nn.Identity()  # slow on the meta device
    picture = torch.empty(1, 3, *size, device="meta")
    with torch.no_grad():
        _ = model.eval().heatmaps(picture) if final_only else model.train()(picture)
    return sum(counts)


def on_meta(config: RSNConfig, skeleton: Skeleton = COCO17) -> RSN:
    with torch.device("meta"):
        return RSN(config, skeleton)


@pytest.mark.parametrize(
    ("name", "settings", "millions", "giga"),
    [
        ("rsn18_mmpose", {}, 9.145, 2.25),
        ("rsn18", {"conv_bias": True}, 9.159, 2.25),
        ("rsn50", {}, 19.33, 4.07),
        ("rsn101", {}, 39.56, 7.94),
        ("rsn50x2", {}, 39.26, 8.22),
        ("rsn50x3", {}, 59.20, 12.36),
        ("rsn50x4", {}, 79.13, 16.51),
        ("rsn50x4_384x288", {}, 79.13, 37.15),
        ("rsn18x4", {}, 38.39, 9.22),
        ("rsn18x4", {"conv_bias": True}, 38.46, 9.22),
        ("rsn18_mpii", {}, 9.136, 2.98),
        ("rsn18_mpii", {"conv_bias": True}, 9.150, 2.98),
    ],
)
def test_cost_of_the_released_networks(name: str, settings: dict[str, Any], millions: float, giga: float) -> None:
    config = preset(name).model_copy(update=settings)
    model = on_meta(config, MPII16 if "mpii" in name else COCO17)
    assert config.view.size is not None
    assert parameter_count(model) / 1e6 == pytest.approx(millions, abs=0.0051 if millions > 10 else 0.00051)
    assert multiply_adds(model, config.view.size) / 1e9 == pytest.approx(giga, abs=0.0051)


@pytest.mark.parametrize(
    ("settings", "published", "estimate"),
    [
        ({"depth": 18, "expansion": 1}, 2.5, 2.53),
        ({"depth": 101}, 11.5, 12.0),
        ({"depth": 50, "stages": 2}, 13.9, 14.0),
        ({"depth": 50, "stages": 3}, 20.7, 21.5),
        ({"depth": 50, "stages": 4}, 29.3, 29.05),
    ],
)
def test_cost_of_the_paper_size(settings: dict[str, Any], published: float, estimate: float) -> None:
    """In units of 2^30, as the published numbers seem to be."""
    config = preset("rsn50_paper").model_copy(update=settings)
    count = multiply_adds(on_meta(config), (256, 192)) / 2**30
    assert count == pytest.approx(estimate, rel=0.004)
    assert count == pytest.approx(published, rel=0.05)


def test_the_paper_presets() -> None:
    single = preset("rsn50_paper")
    assert multiply_adds(on_meta(single), (256, 192)) == pytest.approx(6.48 * 2**30, rel=0.002)
    assert preset("rsn50x4_paper") == single.model_copy(update={"stages": 4})


def test_cost_of_refine_machines() -> None:
    plain = on_meta(preset("rsn18_mmpose"))
    refined = on_meta(preset("rsn18_mmpose").model_copy(update={"prm": "mmpose", "prm_at": "all"}))
    assert (parameter_count(refined) - parameter_count(plain)) / 1e6 == pytest.approx(0.02, abs=0.005)
    extra = multiply_adds(refined, (256, 192)) - multiply_adds(plain, (256, 192))
    assert extra / 1e9 == pytest.approx(0.05, abs=0.005)


def test_the_small_network_is_cheap() -> None:
    config = preset("rsn_small")
    model = on_meta(config)
    assert config.view.size == (256, 192)
    assert multiply_adds(model, (256, 192), final_only=True) < 0.6e9
    widths = {len(p) for n, p in model.named_parameters() if ".steps." in n and n.endswith("conv.weight")}
    assert widths == {16, 32, 64}


def test_every_preset_is_sound() -> None:
    assert len(PRESETS) == 38
    for name in PRESETS:
        config = preset(name)
        assert isinstance(config, RSNConfig)
        assert parse_model_config(config.model_dump(mode="json")) == config
        assert (config.view.size == (384, 288)) == name.endswith("_384x288")
        assert (config.decoding == "mmpose") == name.endswith("_mmpose")
        assert config.view.half_pixel is False


# ----------------------------------------------------------------------------------------------------------- network


def test_outputs_and_interface() -> None:
    model = tiny(stages=2).eval()
    assert isinstance(model, PoseModel)
    with torch.no_grad():
        outputs = model(images())
    assert len(outputs.heatmaps) == 8
    assert all(m.shape == (2, 17, 16, 24) for m in outputs.heatmaps)
    assert type(build_model(model.config)) is RSN


def test_the_final_heatmaps_cost_no_other_head() -> None:
    model = tiny(stages=3, prm="official", prm_at="all").eval()
    calls: list[nn.Module] = []
    for part in model.modules():
        part.register_forward_hook(lambda module, _inputs, _output: calls.append(module))
    with torch.no_grad():
        final = model.heatmaps(images())
        units = [unit for stage in model._stages() for unit in stage.decoder()]
        assert [u.output in calls for u in units] == [False] * 11 + [True]
        assert [u.prm in calls for u in units] == [False] * 11 + [True]
        torch.testing.assert_close(final, model(images()).heatmaps[-1], rtol=0, atol=0)


def test_resizing_after_the_convolution_changes_nothing() -> None:
    """In eval mode the decoder convolves before it enlarges, which is cheaper; in training it does as the paper."""
    unit = tiny().eval()._stages()[0].decoder()[2]
    x, coarser = torch.randn(2, 16, 8, 12), torch.randn(2, 16, 4, 6)
    with torch.no_grad():
        cheap = unit(x, coarser)
        unit.training = True  # batch norms below keep their statistics
        torch.testing.assert_close(cheap, unit(x, coarser), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"branches": 3}, {"expansion": 4}, {"branch_from": "planes"}, {"conv_bias": True}]
)
def test_variants_run_and_learn(settings: dict[str, Any]) -> None:
    model = tiny(**settings)
    torch.stack(list(model.loss(model(images()), [person(), person()]).values())).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("form", ["official", "mmpose"])
@pytest.mark.parametrize("where", ["last", "all"])
def test_refine_machines(form: str, where: str) -> None:
    model = tiny(stages=2, prm=form, prm_at=where)
    count = sum(unit.prm is not None for stage in model._stages() for unit in stage.decoder())
    assert count == (1 if where == "last" else 8)
    assert model._stages()[-1].decoder()[-1].prm is not None
    with torch.no_grad():
        assert float(model.eval().heatmaps(images()).min()) >= 0


@pytest.mark.parametrize("settings", [{}, {"stages": 2, "prm": "mmpose", "prm_at": "all"}, {"conv_bias": True}])
def test_all_batch_norms_fold(settings: dict[str, Any]) -> None:
    model = tiny(**settings).eval()
    folded = fold_batch_norm(model, images(1))
    assert isinstance(folded, RSN)
    assert not [m for m in folded.modules() if type(m) is nn.BatchNorm2d]
    channels_last = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        expected = model.heatmaps(images())
        found = channels_last.heatmaps(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("which", ["encoder", "all"])
def test_initial_weights(which: str) -> None:
    torch.manual_seed(0)
    model = RSN(RSNConfig.model_validate({**TINY, "stem": 64, "unit_channels": 64, "kaiming": which, "output_gain": 3}))
    unit, stage = model._stages()[0].decoder()[0], model._stages()[0]
    fan_out = math.sqrt(2 / stage.layers[3][0].exit.conv.out_channels)
    assert float(stage.layers[3][0].exit.conv.weight.detach().std()) == pytest.approx(fan_out, rel=0.05)
    stem = math.sqrt(2 / (64 * 49)) if which == "all" else 1 / math.sqrt(3 * 49 * 3)
    assert float(model.stem.conv.weight.detach().std()) == pytest.approx(stem, rel=0.05)
    assert set(unit.output.norm.weight.tolist()) == {3.0}
    assert set(unit.hidden.norm.weight.tolist()) == {1.0}
    lateral = math.sqrt(2 / 64) if which == "all" else 1 / math.sqrt(3 * 64)
    assert float(unit.lateral.conv.weight.detach().std()) == pytest.approx(lateral, rel=0.05)


def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny()(torch.zeros(1, 3, 64, 90))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"view": ViewSpec()}, "crop"),
        ({"view": ViewSpec(kind="crop", size=(100, 96))}, "multiples of 32"),
        ({"view": ViewSpec(kind="crop", size=(32, 32)), "kernels": (17, 11, 9, 7, 5)}, "too large"),
        ({"branch_ratio": (1, 1000)}, "branch_ratio"),
        ({"kernels": (15, 11, 9, 7, 4)}, "odd"),
        ({"blur": 6}, "odd"),
        ({"stages": 0}, "stages"),
        ({"prm": "both"}, "prm"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        RSNConfig.parse(settings)


def test_there_is_nothing_pretrained() -> None:
    with pytest.raises(ValueError, match="from scratch"):
        RSN(RSNConfig.model_validate(TINY), pretrained=True)


def test_a_checkpoint_brings_it_back(tmp_path: Any) -> None:
    model = tiny(stages=2, prm="official").eval()
    save_checkpoint(tmp_path / "rsn.safetensors", model)
    found = load_checkpoint(tmp_path / "rsn.safetensors").model
    assert isinstance(found, RSN)
    assert found.config == model.config
    with torch.no_grad():
        torch.testing.assert_close(found.heatmaps(images()), model.heatmaps(images()), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------------ losses


def flat(value: float, count: int = 1, stages: int = 1) -> RSNOutputs:
    return RSNOutputs(tuple(torch.full((count, 17, 16, 24), value, requires_grad=True) for _ in range(4 * stages)))


def labels_as_outputs(model: RSN, truth: Persons) -> RSNOutputs:
    maps = [torch.zeros(1, 17, 16, 24)] * 4
    drawn = draw(model.config, read_truth(model.config, [truth], maps[0]), maps)
    return RSNOutputs(tuple(drawn[k] for k in (11, 9, 7, 5)))


@pytest.mark.parametrize("name", ["rsn18", "rsn18_mmpose", "rsn50_paper"])
def test_perfect_maps_have_no_loss(name: str) -> None:
    config = preset(name)
    model = tiny(**{k: v for k, v in config.model_dump().items() if k not in TINY})
    terms = model.loss(labels_as_outputs(model, person()), [person()])
    assert {k: float(v) for k, v in terms.items()} == {"stage1_plain": 0.0, "stage1_hardest": 0.0}


def test_terms_of_flat_maps() -> None:
    """Nobody is labelled: three plain levels of weight 1/4 with error 2^2, and nothing in the finest."""
    terms = tiny().loss(flat(2.0, stages=2), [person(0.0)])
    assert {k: float(v.detach()) for k, v in terms.items()} == {
        "stage1_plain": 3.0, "stage1_hardest": 0.0, "stage2_plain": 3.0, "stage2_hardest": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "plain", "hardest"),
    [
        ({}, {0: "zero", 1: "zero", 2: "label"}, {0: None, 1: "label", 2: "label"}),
        ({"unlabelled": "ignore"}, {0: None, 1: "zero", 2: "label"}, {0: None, 1: "label", 2: "label"}),
        ({"occluded_in_plain_loss": True}, {0: "zero", 1: "label", 2: "label"}, {0: None, 1: "label", 2: "label"}),
        (
            {"occluded_in_plain_loss": True, "unlabelled": "ignore"},
            {0: None, 1: "label", 2: "label"},
            {0: None, 1: "label", 2: "label"},
        ),
    ],
)
def test_what_each_visibility_is_trained_to(
    settings: dict[str, Any], plain: dict[int, str | None], hardest: dict[int, str | None]
) -> None:
    """Seen in the gradient of flat maps: None has none; towards zero and towards a label differ at the peak."""
    model = tiny(**settings, hardest=17)
    visible = [float(k % 3) for k in range(17)]
    outputs = flat(2.0)
    torch.stack(list(model.loss(outputs, [person(visible)]).values())).sum().backward()
    for level, wanted in ((0, plain), (1, plain), (2, plain), (3, hardest)):
        gradient = outputs.heatmaps[level].grad
        assert gradient is not None
        for k in range(17):
            least, most = float(gradient[0, k].min()), float(gradient[0, k].max())
            found = None if most == 0 == least else "zero" if least > 0 else "label"
            assert found == wanted[k % 3], (level, k)


def test_only_the_hardest_keypoints_count() -> None:
    model = tiny(hardest=3)
    outputs = flat(1.0)
    model.loss(outputs, [person()])["stage1_hardest"].backward()
    gradient = outputs.heatmaps[3].grad
    assert gradient is not None
    assert int((gradient.abs().sum((2, 3)) > 0).sum()) == 3


def test_keypoints_outside_the_view_are_not_labelled() -> None:
    keypoints = torch.full((1, 17, 3), 2.0)
    keypoints[0, :, 0] = 95.5
    outside = Persons(keypoints, torch.zeros(1, 4), torch.ones(1), torch.zeros(0, 4))
    assert float(tiny().loss(flat(1.0), [outside])["stage1_hardest"].detach()) == 0
    kept = tiny(label_bounds="cell").loss(flat(1.0), [outside])["stage1_hardest"]
    assert float(kept.detach()) > 0


def test_views_without_anybody_take_no_part() -> None:
    model, maps = tiny(), tiny().eval()(images(3)).heatmaps
    nobody = Persons.empty(17)
    among = model.loss(RSNOutputs(maps), [nobody, person(), nobody])
    alone = model.loss(RSNOutputs(tuple(m[1:2] for m in maps)), [person()])
    assert {k: float(v.detach()) for k, v in among.items()} == {k: float(v.detach()) for k, v in alone.items()}


def test_a_batch_without_anybody_costs_nothing() -> None:
    model = tiny()
    terms = model.loss(model(images()), [Persons.empty(17), Persons.empty(17)])
    total = torch.stack(list(terms.values())).sum()
    assert float(total.detach()) == 0
    total.backward()
    assert all(p.grad is None or float(p.grad.abs().sum()) == 0 for p in model.parameters())


def test_two_people_in_a_view_are_refused() -> None:
    two = Persons(torch.ones(2, 17, 3), torch.zeros(2, 4), torch.ones(2), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="one person each, but one of them has 2"):
        tiny().loss(flat(0.0), [two])


def test_losses_in_half_precision_are_taken_in_float32() -> None:
    maps = tuple(m.detach().to(torch.bfloat16) for m in flat(3.0).heatmaps)
    terms = tiny().loss(RSNOutputs(maps), [person()])
    assert {v.dtype for v in terms.values()} == {torch.float32}


def test_two_views_are_learned_by_heart() -> None:
    torch.manual_seed(0)
    model = RSN(RSNConfig.model_validate({**TINY, "output_gain": 20}))
    truth = [person(seed=3), person(seed=4)]
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        total = torch.stack(list(model.loss(model(images()), truth).values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    for poses, wanted in zip(model.decode(model(images()), [(64, 96)] * 2), truth, strict=True):
        distance = np.linalg.norm(poses.keypoints[0] - wanted.keypoints[0, :, :2].numpy(), axis=-1)
        assert np.median(distance) < 3, distance
        assert float(poses.scores[0]) > 0.7


# ---------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("decoding", ["official", "mmpose"])
def test_labels_decode_to_the_keypoints(decoding: str) -> None:
    model = tiny(decoding=decoding)
    (poses,) = model.decode(labels_as_outputs(model, person()), [(64, 96)])
    assert poses.keypoints.shape == (1, 17, 2)
    assert np.abs(poses.keypoints[0] - person().keypoints[0, :, :2].numpy()).max() <= 3.0
    np.testing.assert_allclose(poses.keypoint_scores, 1.5, atol=1e-4)
    np.testing.assert_array_equal(poses.boxes, [[0, 0, 95, 63]])
    assert poses.image_size == (64, 96)


def test_detect_is_decode_of_forward() -> None:
    model = tiny(stages=2).eval()
    with torch.no_grad():
        slow = model.decode(model(images()), [(64, 96)] * 2)
    for a, b in zip(model.detect(images(), [(64, 96)] * 2), slow, strict=True):
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_no_views_no_poses() -> None:
    assert tiny().decode(RSNOutputs((torch.zeros(0, 17, 16, 24),) * 4), []) == []


def test_scores() -> None:
    marks = np.array([[0.1, 0.3, 0.5], [0.1, 0.1, 0.2]], np.float32)
    np.testing.assert_allclose(tiny().pose_scores(marks), [0.3, 0.4 / 3], rtol=1e-6)
    np.testing.assert_allclose(tiny(min_keypoint_score=0.2).pose_scores(marks), [0.4, 0.0], rtol=1e-6)
    squares = tiny(score_power=2.0).pose_scores(marks)
    np.testing.assert_allclose(squares, np.square(marks).mean(1), rtol=1e-6)
    assert tiny(score_power=2.0).pose_scores(np.array([[-0.5, 0.1]]))[0] == pytest.approx(0.005)
    _, plain = tiny(score_offset=0.0).decode_heatmaps(torch.zeros(1, 17, 16, 24))
    assert float(np.abs(plain).max()) == 0


# ------------------------------------------------------------------------------------------------------- suppression


def rivals() -> Poses:
    """The second and third pose lie on the first."""
    places = np.random.default_rng(0).uniform(0, 100, (17, 2))
    points = np.stack([places, places + 0.5, places + 1.0, places + 300])
    boxes = np.array([[0, 0, 100, 100]] * 3 + [[300, 300, 400, 400]])
    return Poses(points, np.ones((4, 17)), boxes, np.array([0.5, 0.9, 0.7, 0.6]))


def test_without_suppression_poses_are_only_sorted() -> None:
    np.testing.assert_allclose(tiny().suppress(rivals()).scores, [0.9, 0.7, 0.6, 0.5], rtol=1e-6)


def test_hard_suppression_drops_duplicates() -> None:
    kept = tiny(oks_nms="hard").suppress(rivals())
    np.testing.assert_allclose(kept.scores, [0.9, 0.6], rtol=1e-6)
    np.testing.assert_allclose(kept.keypoints[1], rivals().keypoints[3])


def test_hard_suppression_keeps_who_resembles_nobody_whatever_the_score() -> None:
    apart = np.arange(3)[:, None, None] * 1000 + rivals().keypoints[:1]
    boxes = np.arange(3)[:, None] * 1000 + rivals().boxes[:1]
    faint = Poses(apart, np.ones((3, apart.shape[1])), boxes, np.array([0.9, 9e-4, 5e-4]), rivals().skeleton)
    assert tiny(oks_nms="hard").suppress(faint).scores.tolist() == faint.scores.tolist()
    twins = Poses(apart[[0, 0]], np.ones((2, apart.shape[1])), boxes[[0, 0]], np.array([0.9, 0.8]), rivals().skeleton)
    assert [len(tiny(oks_nms="hard", oks_threshold=t).suppress(twins)) for t in (0.99, 1.0)] == [1, 2]


def test_soft_suppression_lowers_duplicates() -> None:
    kept = tiny(oks_nms="soft").suppress(rivals())
    np.testing.assert_allclose(kept.scores[:2], [0.9, 0.6], rtol=1e-6)
    assert (kept.scores[2:] < 0.7 * math.exp(-0.8)).all()
    assert len(tiny(oks_nms="soft", max_poses=2).suppress(rivals())) == 2


@pytest.mark.parametrize("rule", ["none", "hard", "soft"])
def test_nobody_to_suppress(rule: str) -> None:
    assert len(tiny(oks_nms=rule).suppress(Poses.empty())) == 0
