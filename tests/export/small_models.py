"""Small models of all systems whose outputs are lively enough that somebody is found in noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from poise.checkpoints import LoadedCheckpoint
from poise.export.description import describe
from poise.export.graph import pose_graph, with_operator, with_spread_norms
from poise.models import PoseModel, build_model, parse_model_config
from poise.runtime import ExportedModel
from poise.skeletons import COCO17, LSP14, Skeleton
from poise.types import ImageArray

LONG_SIDE = 160
DIRECTPOSE: dict[str, Any] = {
    "system": "directpose", "backbone": "test_resnet", "anti_alias": False, "channels": 32, "group_channels": 4,
    "cls_depth": 1, "keypoint_depth": 1, "box_depth": 1, "heatmap": None, "score_threshold": 0.5,
    "view": {"long_side": LONG_SIDE, "short_side": None},
}  # fmt: skip
SMPR: dict[str, Any] = {
    "system": "smpr", "backbone": "test_resnet", "stride_in_1x1": False, "neck": "fpn", "channels": 16,
    "tower_depth": 1, "heatmap_channels": 8, "score_threshold": 0.5,
    "view": {"long_side": LONG_SIDE, "short_side": None},
}  # fmt: skip
RSN: dict[str, Any] = {
    "system": "rsn", "stem": 8, "planes": (8, 16, 32, 64), "branch_ratio": (1, 2), "unit_channels": 16,
    "view": {"kind": "crop", "size": (64, 96), "half_pixel": False},
}  # fmt: skip
SYSTEMS = {"directpose": (DIRECTPOSE, COCO17), "smpr": (SMPR, LSP14), "rsn": (RSN, LSP14)}


def small_model(config: dict[str, Any], skeleton: Skeleton = COCO17, **switches: Any) -> PoseModel:
    """The same weights every time; scores of dense heads spread around one half."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_model(parse_model_config({**config, **switches}), skeleton)
        for name, part in model.named_modules():  # type: ignore[attr-defined]
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.2)  # type: ignore[union-attr, operator]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
            elif isinstance(part, nn.Conv2d) and name.startswith("head"):
                nn.init.normal_(part.weight, std=0.6 / part.weight[0].numel() ** 0.5)
        for name, bias in model.named_parameters():  # type: ignore[attr-defined]
            if name.endswith("logits.bias"):
                nn.init.constant_(bias, 1.0)
    return model.eval()  # type: ignore[attr-defined, no-any-return]


def loaded(system: str, **metadata: Any) -> LoadedCheckpoint:
    """The small model of a system as if it came from a checkpoint."""
    return LoadedCheckpoint(small_model(*SYSTEMS[system]), metadata)


class Eager(ExportedModel):
    """The runtime around a graph that has not been written.

    With an input of one size by the deformable operator, else with norms as OpenVINO likes them.
    """

    def __init__(self, model: PoseModel, canvas: tuple[int, int] | None) -> None:
        self.path, self.running = Path("a graph"), "torch"
        self.description = describe(model, {}, canvas, "float32")
        graph = (with_spread_norms if canvas is None else with_operator)(pose_graph(model))

        def run(feeds: Any) -> Any:
            with torch.no_grad():
                return [output.numpy() for output in graph(*(torch.from_numpy(v) for v in feeds.values()))]

        self._run = run


def noise(height: int, width: int, seed: int = 0) -> ImageArray:
    """A coarse coloured pattern."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width])


def three_photos(folder: Path) -> Path:
    """The folder, with a lying, an upright and a square picture of noise in it."""
    for number, size in enumerate([(150, 200), (210, 130), (160, 160)]):
        Image.fromarray(noise(*size, seed=number)).save(folder / f"{number}.png")
    return folder
