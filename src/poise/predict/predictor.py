"""From pictures to poses: the door most users come through.

Letters: N poses, K keypoints, H W picture. Frames: image px, input px.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import nn

from poise.data.views import collate
from poise.geometry.affine import invert
from poise.models.base import PoseModel
from poise.nn.compiled import compile_parts
from poise.nn.fold import fold_batch_norm
from poise.nn.fused import fuse_activations
from poise.nn.pyramids import make_direct
from poise.predict.batches import run_in_batches
from poise.predict.devices import Half, Running, running
from poise.predict.mapping import clips_first, mapped_back
from poise.predict.sources import each_picture, source_name, to_image
from poise.predict.tiles import Tiling, merge_tiles, parse_tiling, tiled_views
from poise.predict.views import Scale, ViewSource, whole_views
from poise.skeletons import Skeleton
from poise.types import FloatArray, Poses, View

if TYPE_CHECKING:
    from poise.predict.sources import Picture, Pictures
    from poise.predict.topdown import TopDownPredictor

Rescore = Callable[[int, Poses], Poses]
"""From the number of a picture and its candidates (all views, image px) to the same with other scores."""

MIN_SCORE = 0.3
"""Poses below this score are left out where the checkpoint's metadata recommends no other ``min_score``."""


class _Seen(NamedTuple):
    """What is kept of a picture while its views run: (height, width), name, and what part each view shows."""

    size: tuple[int, int]
    name: str | None
    tiles: list[FloatArray | None]


class Predictor:
    """Finds the poses in pictures with one model on one device.

    The model it is given is not changed: it works on a copy in eval mode, with batch norms folded into convolutions
    and channels last in memory.

    Args:
        model: an ``nn.Module`` with the interface of `PoseModel`.
        device: ``auto`` (a CUDA device if there is one, else the CPU), or a device as torch names it.
        metadata: of the checkpoint; ``min_score`` in it is the default threshold of `predict`, ``scales`` the sizes at
            which it looks at a picture unless told others.
        half: compute in float16 (True, on a GPU), or in ``bfloat16``.
        compile: compile the network with ``torch.compile``: a minute at the first picture, then quicker.

    Attributes:
        running: where and how the model really runs, as text or in parts.

    Raises:
        ValueError: there is no such device, it has no half precision, nothing can be compiled on this machine, or the
            model looks at one person at a time.
    """

    def __init__(
        self,
        model: PoseModel,
        device: str | torch.device = "auto",
        metadata: Mapping[str, Any] | None = None,
        *,
        half: Half = False,
        compile: bool = False,
    ) -> None:
        if model.view.kind != "whole":
            raise ValueError(
                "this model looks at one person at a time and needs to be told where people are: "
                "poise.pipeline, or --people or --boxes on the command line"
            )
        self.running = running(device, half=half, compiled=compile)
        self.metadata = dict(metadata or {})
        self.min_score = float(self.metadata.get("min_score", MIN_SCORE))
        self.scales = _recommended_scales(self.metadata)
        self.model = prepared(model, self.running)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.running.device

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints are."""
        return self.model.skeleton

    def predict(
        self,
        images: Pictures,
        *,
        min_score: float | None = None,
        batch: int | None = None,
        scales: Sequence[Scale] | None = None,
        flip: bool = False,
        tiles: Tiling | str | None = None,
    ) -> list[Poses]:
        """The poses in one picture or several: one `Poses` a picture, in order, in pixels of the picture.

        Args:
            images: a picture or a sequence of pictures: path, array, Pillow image, encoded bytes (see
                `poise.data.images.read_image`), or tensor (3, H, W) of uint8 or of floats in 0..1.
            min_score: leave out poses with a lower score; None is what the model's checkpoint recommends (the
                attribute ``min_score``), 0 keeps all.
            batch: views that run together; None is 8 on a GPU and 1 on the CPU.
            scales: sizes (input px) at which to look at each picture: short sides (long sides for a model whose views
                have no short side, as those that come with Poise), or pairs of limits (long side, short side); None is
                what the model's checkpoint recommends, else the model's own.
            flip: also look at each picture mirrored.
            tiles: look at each picture in tiles, too, for small and far people: ``3x2`` (columns x rows), ``640``
                (side of a tile, px) or a `Tiling`; the whole picture is looked at as ever; goes with no ``scales``.

        Returns:
            `Poses` with ``image_size`` and, for paths, ``source`` set; the best pose first; empty where nobody is.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something is not a picture, or an argument is out of bounds.
        """
        return list(self.predict_iter(images, min_score=min_score, batch=batch, scales=scales, flip=flip, tiles=tiles))

    def predict_iter(
        self,
        images: Pictures,
        *,
        min_score: float | None = None,
        batch: int | None = None,
        scales: Sequence[Scale] | None = None,
        flip: bool = False,
        tiles: Tiling | str | None = None,
        views: ViewSource | None = None,
        rescore: Rescore | None = None,
    ) -> Iterator[Poses]:
        """As `predict`, one after the other: any number of pictures in little memory.

        Args:
            images: as `predict`; any iterable, read as needed.
            min_score: as `predict`.
            batch: as `predict`.
            scales: as `predict`.
            flip: as `predict`.
            tiles: as `predict`.
            views: which views of a picture to look at, instead of those of ``scales`` and ``flip``.
            rescore: gives the candidates of each picture other scores before they are suppressed.
        """
        if tiles is not None and (scales is not None or views is not None or rescore is not None):
            raise ValueError("tiles do not go with scales, views or rescore")
        tiling = parse_tiling(tiles) if isinstance(tiles, str) else tiles
        if tiling is not None:
            views = tiled_views(self.model.view, tiling, flip, self.scales)
        source = views or whole_views(self.model.view, self.scales if scales is None else scales, flip)
        batch = self._batch(batch)
        threshold = self.min_score if min_score is None else min_score
        if not 0 <= threshold <= 1:
            raise ValueError(f"min_score {min_score!r} must lie in 0..1")
        return self._stream(each_picture(images), source, batch, threshold, rescore, tiling)

    def predict_views(self, views: Sequence[View]) -> list[Poses]:
        """Candidate poses of each view, mapped to image px, before suppression.

        Args:
            views: at least one, of whatever pictures; they run as one batch.
        """
        images = collate(views, self.model.view.stride).images.to(self.device)
        with torch.inference_mode(), self.running.context():
            found = self.model.detect(images, [view.size for view in views])
        clip = clips_first(self.model)
        return [mapped_back(f, invert(v.to_input), v.image_size, clip) for f, v in zip(found, views, strict=True)]

    def _stream(
        self,
        images: Iterator[Picture],
        source: ViewSource,
        batch: int,
        min_score: float,
        rescore: Rescore | None,
        tiling: Tiling | None,
    ) -> Iterator[Poses]:
        seen: deque[_Seen] = deque()

        def pictures() -> Iterator[list[View]]:
            for number, picture in enumerate(images):
                image = to_image(picture)
                views = source(image, number)
                seen.append(_Seen(image.shape[:2], source_name(picture), [view.box for view in views]))
                yield views

        found = run_in_batches(pictures(), self.predict_views, batch, self.model.view.stride)
        for number, parts in enumerate(found):
            picture = seen.popleft()
            poses = Poses.empty(self.skeleton)
            if parts and tiling is not None:
                poses = merge_tiles(parts, picture.tiles, picture.size, self.model.suppress, tiling)
            elif parts:
                candidates = Poses.concatenate(parts)
                poses = self.model.suppress(candidates if rescore is None else rescore(number, candidates))
            order = np.argsort(-poses.scores, kind="stable")
            yield replace(poses[order], image_size=picture.size, source=picture.name).filter(min_score)

    def _batch(self, batch: int | None) -> int:
        if batch is None:
            return 1 if self.device.type == "cpu" else 8
        if batch < 1:
            raise ValueError(f"batch {batch!r} must be at least 1")
        return batch


_Model = TypeVar("_Model", bound=PoseModel)


def prepared(model: _Model, how: Running | torch.device) -> _Model:
    """A copy for inference: eval mode, batch norms and activations in convolutions, channels last, without gradients.

    A model may do more for the CPU in a method ``pack``.
    """
    how = how if isinstance(how, Running) else Running(how)
    module = cast(nn.Module, model)
    if any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        side = 2 * model.view.stride
        example = torch.randn(1, 3, *(model.view.size or (side, side)), generator=torch.Generator().manual_seed(0))
        module = fold_batch_norm(module, example.to(next(module.parameters()).device))
    else:
        module = copy.deepcopy(module).eval()
    if how.device.type == "cpu" and not how.half:
        make_direct(module)
    module.requires_grad_(False).to(how.device).to(memory_format=torch.channels_last)
    if how.compiled:
        compile_parts(module)
    elif how.device.type == "cpu":
        if hasattr(module, "pack") and not how.half:
            cast(Any, module).pack()
        fuse_activations(module)
    return cast(_Model, module)


def _recommended_scales(metadata: Mapping[str, Any]) -> list[Scale] | None:
    """Those of a checkpoint's metadata; ``ValueError`` if they are none."""
    told = metadata.get("scales")
    if told is None:
        return None
    try:
        if isinstance(told, str):
            raise TypeError
        return [side if isinstance(side, int) else (int(side[0]), int(side[1])) for side in told]
    except (TypeError, ValueError, IndexError):
        raise ValueError(
            f"the checkpoint's metadata has scales {told!r}, which are neither short sides nor pairs of limits; "
            "save it without them"
        ) from None


def load(
    name_or_path: str | Path = "default",
    *,
    device: str = "auto",
    weights: str | Path | None = None,
    half: Half = False,
    compile: bool = False,
    turns: bool = False,
) -> Predictor | TopDownPredictor:
    """A predictor by the name of a model that comes with Poise, or from a checkpoint.

    For a model that looks at one person at a time, the default model finds the people; `poise.pipeline` lets choose.

    Args:
        name_or_path: ``default``, the name of a shipped model, the path of a checkpoint, or, with ``weights``, the
            name of a preset.
        device: as `Predictor`.
        weights: a safetensors file whose tensors fit the preset; a Poise checkpoint also brings its skeleton.
        half: as `Predictor`.
        compile: as `Predictor`.
        turns: as `poise.predict.topdown.TopDownPredictor`, for a model that looks at one person at a time.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such model (the message lists what there is), or the file or an argument does not fit.
    """
    from poise.predict.loading import load_model

    loaded = load_model(name_or_path, weights)
    if loaded.model.view.kind == "whole":
        if turns:
            raise ValueError(
                f"turns are for models that look at one person at a time; {str(name_or_path)!r} looks at whole pictures"
            )
        return Predictor(loaded.model, device, loaded.metadata, half=half, compile=compile)
    from poise.predict.pipeline import find_people
    from poise.predict.topdown import TopDownPredictor

    people = find_people("default", device=device, half=half, compile=compile)
    return TopDownPredictor(loaded.model, people, device, loaded.metadata, half=half, compile=compile, turns=turns)
