"""The traceable function of a model finds what the model finds, without any file in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import DIRECTPOSE, LONG_SIDE, RSN, SMPR, Eager, noise, small_model
from torch import nn

from poise.export import graph, suppression
from poise.export.description import canvas_of, describe, fixed_canvas, looks_once
from poise.export.graph import pose_graph, with_direct_pyramids, with_spread_norms
from poise.export.parity import Photograph, by_torch, compare
from poise.geometry.affine import fit
from poise.models import PoseModel
from poise.nn.pyramids import FPN, DirectFPN
from poise.predict.boxes import PersonBoxes
from poise.runtime import ExportedModel
from poise.skeletons import COCO17, LSP14, MPII16, Skeleton
from poise.types import Poses

NOBODY = PersonBoxes.of([], [])
VARIANTS: dict[str, tuple[dict[str, Any], Skeleton, dict[str, Any]]] = {
    "directpose": (DIRECTPOSE, COCO17, {}),
    "directpose, fourteen keypoints": (DIRECTPOSE, LSP14, {"visibility": True, "scales": True}),
    "directpose, boxes": (DIRECTPOSE, COCO17, {"box_branch": True, "centerness_on": "box", "score": "product"}),
    "directpose, naive head": (DIRECTPOSE, COCO17, {"head": "naive", "score": "cls", "nms_iou": 0.0}),
    "directpose, shared features": (DIRECTPOSE, COCO17, {"head": "kpalign", "pre_nms": 20, "max_poses": 5}),
    "directpose, consensus": (DIRECTPOSE, COCO17, {"consensus": True, "threshold_with_centerness": True}),
    "directpose, refined": (
        DIRECTPOSE, MPII16, {"refine_keypoints": True, "heatmap": {"channels": 8, "norm": "gn", "offset": True}},
    ),
    "directpose, snapped": (DIRECTPOSE, COCO17, {"snap": 0.1, "heatmap": {"channels": 8, "norm": "gn"}}),
    "directpose, nobody": (DIRECTPOSE, COCO17, {"score_threshold": 1.0}),
    "smpr": (SMPR, COCO17, {}),
    "smpr, fourteen keypoints": (SMPR, LSP14, {"pixel_offset": 0.5, "neck": "pafpn"}),
    "smpr, gaussian": (SMPR, COCO17, {"suppression": {"method": "gaussian"}, "pre_nms": 30}),
    "smpr, hard, by pose": (SMPR, COCO17, {"suppression": {"method": "hard"}, "suppress_on": "oks"}),
    "smpr, not refined": (
        SMPR, COCO17, {"align": False, "psm": False, "score": "class", "positives": "all", "max_poses": 3},
    ),
    "smpr, snapped": (SMPR, COCO17, {"snap": 0.1}),
    "smpr, no poses on P3": (SMPR, COCO17, {"snap": 0.1, "finest_level": 4}),
    "smpr, snapped, consensus": (SMPR, COCO17, {"snap": 0.1, "consensus": True}),
    "smpr, by class": (SMPR, COCO17, {"score": "class", "pre_nms": 30}),
    "smpr, nobody": (SMPR, COCO17, {"score_threshold": 1.0}),
    "rsn": (RSN, COCO17, {}),
    "rsn, fourteen keypoints": (RSN, LSP14, {"objective": "place", "stages": 2}),
    "rsn, mmpose": (RSN, MPII16, {"decoding": "mmpose", "min_keypoint_score": 0.2}),
    "rsn, squared": (RSN, COCO17, {"score_power": 2.0, "min_keypoint_score": 0.2}),
    "rsn, suppressed": (RSN, COCO17, {"oks_nms": "soft", "max_poses": 2}),
    "rsn, suppressed by sure keypoints": (RSN, COCO17, {"oks_nms": "soft", "oks_min_score": 0.2}),
    "rsn, suppressed hard": (RSN, COCO17, {"oks_nms": "hard", "oks_threshold": 0.3}),
}  # fmt: skip


LIMITS = {"long_side": LONG_SIDE, "short_side": 96}


def found_by(exported: ExportedModel, picture: Photograph, model: PoseModel) -> Poses:
    people = picture.boxes if exported.looks_at_people else (None, None)
    return Poses(*exported.find(picture.image, *people), skeleton=model.skeleton)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_finds_what_the_model_finds(variant: str) -> None:
    config, skeleton, switches = VARIANTS[variant]
    model = small_model(config, skeleton, **switches)
    canvases = [None] if model.view.kind == "crop" else [None, (LONG_SIDE, LONG_SIDE + 32)]
    boxes = PersonBoxes.of([[10, 5, 90, 70], [12, 8, 88, 73], [-9, 30, 40, 130]], [1, 0.9, 0.5])
    for canvas in canvases:
        exported = Eager(model, canvas)
        for number, size in enumerate([(100, 140), (300, 200)]):
            picture = Photograph("noise", noise(*size, seed=number), boxes)
            reference = by_torch(model, [picture], exported.description)[0]
            found = found_by(exported, picture, model)
            parity = compare(reference, found, "noise")
            assert len(found) == len(reference)
            assert (parity.poses > 0) == ("nobody" not in variant)
            assert parity.boxes < 0.01


@pytest.mark.parametrize("variant", ["smpr", "smpr, gaussian", "smpr, nobody"])
def test_many_locations_are_suppressed_one_after_the_other(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As few are, all at once."""
    config, skeleton, switches = VARIANTS[variant]
    exported = Eager(model := small_model(config, skeleton, **switches), None)
    picture = Photograph("noise", noise(100, 140), NOBODY)
    at_once = found_by(exported, picture, model)
    monkeypatch.setattr(graph, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(suppression, "_soft_at_once", None)
    one_by_one = found_by(exported, picture, model)
    assert (len(one_by_one) > 0) == ("nobody" not in variant)
    np.testing.assert_allclose(one_by_one.scores, at_once.scores, rtol=1e-5)
    np.testing.assert_array_equal(one_by_one.keypoints, at_once.keypoints)


@pytest.mark.parametrize("shape", [(2, 12, 5, 7), (1, 12, 1, 2)], ids=str)
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_spread_norms_are_norms(shape: tuple[int, ...], groups: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.GroupNorm(groups, 12))
    nn.init.normal_(plain[0].weight)
    nn.init.normal_(plain[0].bias)
    spread = with_spread_norms(plain)
    assert type(plain[0]) is nn.GroupNorm
    x = 2 * torch.randn(shape) + 50 * torch.rand(12, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(spread(x), plain.double()(x.double()).float(), atol=1e-4, rtol=1e-4)


def test_direct_pyramids_find_the_same() -> None:
    plain = pose_graph(small_model({**SMPR, "channels": 128}))
    direct = with_direct_pyramids(plain)
    assert [type(part.model.pyramid) for part in (plain, direct)] == [FPN, DirectFPN]  # type: ignore[union-attr]
    arguments = torch.from_numpy(noise(96, 160)[None]), torch.tensor([96, 160]), torch.eye(3)[:2]
    with torch.no_grad():
        expected, found = plain(*arguments), direct(*arguments)
    assert int(expected.people) > 0
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (31, 33)], ids=str)
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    model = small_model(DIRECTPOSE)
    for canvas in (None, (LONG_SIDE, LONG_SIDE)):
        exported = Eager(model, canvas)
        found = found_by(exported, Photograph("noise", noise(*size), NOBODY), model)
        assert np.isfinite(found.keypoints).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30], ids=str)
def test_offsets_that_are_no_number_are_no_address(value: float) -> None:
    """Weights that give such are refused; pictures that do so later must read no memory but that of the features."""
    recorded = graph.pose_graph(small_model(SMPR))
    weight = recorded.model.head.align.offset.weight  # type: ignore[union-attr]
    nn.init.constant_(weight, value)  # type: ignore[arg-type]
    image = torch.from_numpy(noise(96, 160)[None])
    found = recorded(image, torch.tensor([96, 160]), torch.eye(3)[:2])
    assert (int(found.people) > 0) == (value == 1e30)


def test_no_boxes_no_poses() -> None:
    model = small_model(RSN)
    assert len(found_by(Eager(model, None), Photograph("noise", noise(40, 60), NOBODY), model)) == 0


def test_the_size_of_the_input() -> None:
    view = small_model(DIRECTPOSE).view
    assert fixed_canvas(view) == (LONG_SIDE, LONG_SIDE)
    assert fixed_canvas(view, (96, LONG_SIDE)) == (96, LONG_SIDE)
    assert fixed_canvas(small_model(RSN).view) is None
    for size in ((100, 160), (0, 160), (-32, 160)):
        with pytest.raises(ValueError, match="multiples of 32"):
            fixed_canvas(view, size)
    with pytest.raises(ValueError, match="cannot be changed"):
        fixed_canvas(small_model(RSN).view, (64, 64))


@pytest.mark.parametrize("config", [DIRECTPOSE, SMPR], ids=["directpose", "smpr"])
def test_limits_of_both_sides_leave_the_sides_free(config: dict[str, Any]) -> None:
    """Upright or lying, a picture is seen as large as the model wants it."""
    model = small_model(config, view=LIMITS)
    canvas = canvas_of(model.view)
    assert canvas is None
    exported = Eager(model, canvas)
    for number, size in enumerate([(100, 140), (300, 200)]):
        picture = Photograph("noise", noise(*size, seed=number), NOBODY)
        assert tuple(exported.whole_feeds(picture.image)["size"]) == fit(size, model.view)[1]
        found = found_by(exported, picture, model)
        assert compare(by_torch(model, [picture], exported.description)[0], found, "noise").poses > 0


def test_sides_that_are_free_and_sides_that_are_not() -> None:
    square, limited = small_model(DIRECTPOSE).view, small_model(DIRECTPOSE, view=LIMITS).view
    assert canvas_of(square) == (LONG_SIDE, LONG_SIDE)
    assert canvas_of(square, dynamic=True) is None
    assert canvas_of(limited, (96, LONG_SIDE)) == (96, LONG_SIDE)
    assert canvas_of(small_model(RSN).view) is None
    with pytest.raises(ValueError, match="multiples of 32"):
        canvas_of(limited, (95, LONG_SIDE))
    with pytest.raises(ValueError, match="cannot be changed"):
        canvas_of(small_model(RSN).view, (64, 64))


@pytest.mark.parametrize(
    ("scales", "canvas", "told"),
    [
        (None, (160, 160), None),
        ([160], (160, 160), None),
        ([[160, 160]], None, None),
        ([[160, 160], [96, 96]], (160, 160), "looks once, at 160 px; the model itself looks at 160 and 96 px"),
        ([192, [160, 96], 64], None, "looks once, at 160 px; the model itself looks at 192, 160x96 and 64 px"),
        ([96], (96, 160), "looks once, at 96x160 px; the model itself looks at 96 px"),
    ],
)
def test_a_checkpoint_that_looks_more_than_once(scales: Any, canvas: Any, told: str | None) -> None:
    metadata = {"min_score": 0.2} if scales is None else {"min_score": 0.2, "scales": scales}
    about = describe(small_model(DIRECTPOSE), metadata, canvas, "float32")
    assert looks_once(about) == told
    assert (about["model_scales"] is None) == (told is None)
    assert about["metadata"] == {"min_score": 0.2}, "the runtime follows no scales"


def test_scales_of_models_of_crops_and_scales_that_are_none() -> None:
    assert describe(small_model(RSN), {"scales": [3]}, None, "float32")["model_scales"] is None
    for scales in (["x"], [None], [[160]], [], 7):
        with pytest.raises(ValueError, match="scale"):
            describe(small_model(DIRECTPOSE), {"scales": scales}, None, "float32")
