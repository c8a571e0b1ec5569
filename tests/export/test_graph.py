"""The traceable function of a model finds what the model finds, without any file in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import DIRECTPOSE, LONG_SIDE, RSN, SMPR, noise, small_model

from poise.export.description import describe, fixed_canvas
from poise.export.graph import pose_graph, with_operator
from poise.export.parity import Photograph, by_torch, compare
from poise.models import PoseModel
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
    "smpr, snapped, consensus": (SMPR, COCO17, {"snap": 0.1, "consensus": True}),
    "smpr, nobody": (SMPR, COCO17, {"score_threshold": 1.0}),
    "rsn": (RSN, COCO17, {}),
    "rsn, fourteen keypoints": (RSN, LSP14, {"objective": "place", "stages": 2}),
    "rsn, mmpose": (RSN, MPII16, {"decoding": "mmpose", "min_keypoint_score": 0.2}),
    "rsn, squared": (RSN, COCO17, {"score_power": 2.0, "min_keypoint_score": 0.2}),
    "rsn, suppressed": (RSN, COCO17, {"oks_nms": "soft", "max_poses": 2}),
    "rsn, suppressed hard": (RSN, COCO17, {"oks_nms": "hard", "oks_threshold": 0.3}),
}  # fmt: skip


class Eager(ExportedModel):
    """The runtime around a graph that has not been written; with an input of one size, by the deformable operator."""

    def __init__(self, model: PoseModel, canvas: tuple[int, int] | None) -> None:
        self.path, self.running = "a graph", "torch"
        self.description = describe(model, {}, canvas, "float32")
        graph = pose_graph(model) if canvas is None else with_operator(pose_graph(model))

        def run(feeds: Any) -> Any:
            with torch.no_grad():
                return [output.numpy() for output in graph(*(torch.from_numpy(v) for v in feeds.values()))]

        self._run = run


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
            np.testing.assert_allclose(found.boxes, reference.boxes, atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (31, 33)], ids=str)
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    model = small_model(DIRECTPOSE)
    for canvas in (None, (LONG_SIDE, LONG_SIDE)):
        exported = Eager(model, canvas)
        found = found_by(exported, Photograph("noise", noise(*size), NOBODY), model)
        assert np.isfinite(found.keypoints).all()


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
