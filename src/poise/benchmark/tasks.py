"""What one turn of a model does: from files to drawn poses, stage by stage.

Frames: image px, input px.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from poise.benchmark.clock import NOTHING, Spent, Stopwatch, between, now
from poise.benchmark.pictures import Crowd
from poise.benchmark.subjects import set_class_bias
from poise.data.crops import crop_view
from poise.data.images import read_image
from poise.data.views import whole_view
from poise.draw import draw_poses
from poise.models.base import PoseModel
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor
from poise.runtime import ExportedModel
from poise.skeletons import Skeleton
from poise.types import Poses, View, ViewSpec

STAGES = ("load", "preprocess", "network", "decode", "draw")
"""``network``: from the first layer to the last. ``decode``: what follows: candidates, the outputs that are computed
for them alone, suppression, the way back to the picture."""
WORK = ("preprocess", "network", "decode")
"""From pixels in memory to poses: what throughput counts."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is looked at.

    Attributes:
        file: a picture.
        crowd: the same in memory, and where people are.
        copies: pictures a turn; for a model that sees one person at a time, the batch is the crowd.
    """

    file: Path
    crowd: Crowd
    copies: int = 1


class WholeTask:
    """A single-stage model on whole pictures.

    Args:
        predictor: how it runs.
        scene: what it is shown.
        specs: how large it sees it, each time it looks.
        bias: of the class, which decides how many candidates a random network has; None leaves it.
    """

    def __init__(
        self, predictor: Predictor, scene: Scene, specs: Sequence[ViewSpec], bias: float | None = None
    ) -> None:
        self._predictor, self._scene, self._specs, self._bias = predictor, scene, specs, bias

    def __call__(self, watch: Stopwatch) -> None:
        """One turn."""
        set_class_bias(self._predictor.model, self._bias)
        with watch.stage("load"):
            images = [read_image(self._scene.file) for _ in range(self._scene.copies)]
        seen = []
        for spec in self._specs:
            with watch.stage("preprocess"):
                views = [whole_view(image, spec) for image in images]
            seen.append(_timed(self._predictor.predict_views, self._predictor.model, views, watch))
        with watch.stage("decode"):
            candidates = [Poses.concatenate(parts) for parts in zip(*seen, strict=True)]
            found = [self._predictor.model.suppress(poses) for poses in candidates]
        watch.counts["candidates"] = len(candidates[0])
        watch.counts["kept"] = len(found[0])
        shown = found[0].filter(0.0 if self._bias is not None else self._predictor.min_score)
        watch.counts["found"] = len(shown)
        with watch.stage("draw"):
            draw_poses(images[0], shown)


class CropTask:
    """A top-down model on the people of one picture, whose boxes are known.

    Args:
        predictor: how it runs.
        scene: the people.
    """

    def __init__(self, predictor: TopDownPredictor, scene: Scene) -> None:
        self._predictor, self._scene = predictor, scene

    def __call__(self, watch: Stopwatch) -> None:
        """One turn."""
        with watch.stage("load"):
            image = read_image(self._scene.file)
        model = self._predictor.model
        with watch.stage("preprocess"):
            views = [crop_view(image, box, model.view) for box in self._scene.crowd.boxes]
        parts = _timed(self._predictor.predict_views, model, views, watch) if views else []
        with watch.stage("decode"):
            size = image.shape[0], image.shape[1]
            found = model.suppress(Poses.concatenate(parts)) if parts else Poses.empty(model.skeleton, size)
        watch.counts["found"] = len(found)
        with watch.stage("draw"):
            draw_poses(image, found)


class ExportedTask:
    """An exported model; preprocessing, network and decoding are one stage, ``network``.

    Args:
        exported: the opened file.
        scene: as of the other tasks.
        skeleton: of the model.
        min_score: of poses that are drawn.
    """

    def __init__(self, exported: ExportedModel, scene: Scene, skeleton: Skeleton, min_score: float) -> None:
        self._exported, self._scene, self._skeleton, self._least = exported, scene, skeleton, min_score

    def __call__(self, watch: Stopwatch) -> None:
        """One turn."""
        crops = self._exported.looks_at_people
        with watch.stage("load"):
            images = [read_image(self._scene.file) for _ in range(1 if crops else self._scene.copies)]
        boxes = self._scene.crowd.boxes if crops else None
        with watch.stage("network"):
            found = [self._exported.find(image, boxes) for image in images]
        size = images[0].shape[0], images[0].shape[1]
        poses = Poses(*found[0], skeleton=self._skeleton, image_size=size).filter(self._least)
        watch.counts["found"] = len(poses)
        with watch.stage("draw"):
            draw_poses(images[0], poses)


def _timed(
    predict: Callable[[Sequence[View]], list[Poses]], model: PoseModel, views: Sequence[View], watch: Stopwatch
) -> list[Poses]:
    """What ``predict`` finds; its time is divided at the first and after the last layer of the network.

    A network that is compiled, or has no layers, cannot be looked into: all of its time counts as ``network``.
    """
    start = now(watch.device)
    with _layers(cast(nn.Module, model), watch.device) as marks:
        found = predict(views)
    end = now(watch.device)
    first = marks.first or start
    network = marks.network() if marks.first is not None else between(start, end)
    watch.add("preprocess", between(start, first))
    watch.add("network", network)
    watch.add("decode", between(network, between(first, end)))
    return found


class _Marks:
    """When the first layer of a network began, and when its latest one ended."""

    def __init__(self, device: torch.device) -> None:
        self.first: Spent | None = None
        self._device, self._last = device, NOTHING
        events = device.type == "cuda"
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if events else []

    def began(self, *_: Any) -> None:
        """Before a layer."""
        if self.first is None:
            self.first = now(self._device)
            for event in self._events:
                event.record()

    def ended(self, *_: Any) -> None:
        """After a layer; a GPU, which is behind, notes it in passing."""
        self._last = now(torch.device("cpu"))
        for event in self._events[1:]:
            event.record()

    def network(self) -> Spent:
        """From the first to the last; once the device has done all."""
        assert self.first is not None
        spent = between(self.first, self._last)
        if not self._events:
            return spent
        first, last = self._events
        return Spent(first.elapsed_time(last) / 1e3, spent.processor)


@contextmanager
def _layers(module: nn.Module, device: torch.device) -> Iterator[_Marks]:
    """Within the block, the layers of a network tell when they begin and end."""
    marks = _Marks(device)
    layers = [] if _is_compiled(module) else [part for part in module.modules() if part is not module]
    handles = [part.register_forward_pre_hook(marks.began) for part in layers]
    handles += [part.register_forward_hook(marks.ended) for part in layers]
    try:
        yield marks
    finally:
        for handle in handles:
            handle.remove()


def _is_compiled(module: nn.Module) -> bool:
    return any(part._compiled_call_impl is not None for part in module.modules())
