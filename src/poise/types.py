"""The three values that travel through Poise: truth (`Persons`), network input (`View`) and predictions (`Poses`).

Letters: N persons or poses, K keypoints, R regions, H W network input size.
Frames: *image px* are pixels of the original picture, *input px* pixels of a network input.
Pixel centres are integers: the top left pixel covers [-0.5, 0.5). Boxes are (x1, y1, x2, y2).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from poise.heatmaps import Heatmaps
from poise.settings import Settings, nearest
from poise.skeletons import COCO17, Skeleton

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Affine = npt.NDArray[np.float64]
"""(2, 3) matrix that maps points (x, y, 1)."""
ImageArray = npt.NDArray[np.uint8]
"""(H, W, 3) RGB picture, 0..255."""


class PersonBoxRule(Settings):
    """How the box that target assignment works with follows from a person's truth.

    ``keypoints``: extent of the labelled keypoints, its low corner moved by ``-pad_low``, its high corner by
    ``+pad_high``, then clipped, then ``grow`` added to the high corner. DirectPose: 1, 1, 0; its GluonCV port: 1, 1, 1
    with ``clip_high``; SMPR: 0, 0, -1. ``annotation``: the data set's box.
    """

    source: Literal["keypoints", "annotation"] = "keypoints"
    pad_low: float = 1.0
    pad_high: float = 1.0
    grow: float = 0.0
    clip_high: bool = False
    """Clip the high corner to the picture (GluonCV); the low corner is always clipped at 0."""


class ViewSpec(Settings):
    """What a model wants to see; published by the model and stored in its checkpoint.

    A ``whole`` view is the picture scaled to fit ``long_side`` and, if given, ``short_side``, then padded with zeros
    (after normalisation) at the right and bottom to a multiple of ``stride``. A ``crop`` view is one person box
    warped to exactly ``size``.
    """

    kind: Literal["whole", "crop"] = "whole"
    long_side: int = Field(default=1333, ge=32, le=8192)
    short_side: int | None = Field(default=800, ge=32, le=8192)
    size: tuple[int, int] | None = None
    """(height, width) of a crop view, input px."""
    extension: tuple[float, float] = (1.25, 1.25)
    """Factors on width and height of a person's box before a crop view takes the shape of ``size`` around it."""
    stride: int = Field(default=32, ge=1)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Mean and standard deviation in the order of ``channels``, after the division by ``value_range``."""
    value_range: float = 255.0
    """Pixels 0..255 are divided by this before the mean is subtracted (1 leaves them)."""
    channels: Literal["rgb", "bgr"] = "rgb"
    half_pixel: bool = True
    """True: resizing keeps pixel centres (x' = f (x + 1/2) - 1/2). False: x' = f x, as in the references of SMPR."""
    person_box: PersonBoxRule = PersonBoxRule()

    @model_validator(mode="after")
    def _consistent(self) -> ViewSpec:
        if self.kind == "crop" and self.size is None:
            raise ValueError("a crop view needs size = (height, width)")
        if min(self.std) <= 0 or self.value_range <= 0:
            raise ValueError("std and value_range must be positive")
        if min(self.extension) <= 0:
            raise ValueError("extension must be positive")
        return self


@dataclass(frozen=True, slots=True)
class Persons:
    """Truth of one view: N persons and R ignore regions, all in the same frame (input px in a loss).

    Attributes:
        keypoints: (N, K, 3) float32: x, y, visibility (0 not labelled, 1 occluded, 2 visible).
        boxes: (N, 4) float32 xyxy: the box of target assignment (see `PersonBoxRule`).
        areas: (N,) float32: segment area, for OKS.
        ignore: (R, 4) float32 xyxy: regions with people that are not labelled; no loss is taken there.
    """

    keypoints: Tensor
    boxes: Tensor
    areas: Tensor
    ignore: Tensor

    def __post_init__(self) -> None:
        """Check shapes; ``ValueError`` names the field."""
        n = self.keypoints.shape[0]
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 3:
            raise ValueError(f"Persons.keypoints must have shape (N, K, 3), not {tuple(self.keypoints.shape)}")
        if tuple(self.boxes.shape) != (n, 4) or tuple(self.areas.shape) != (n,):
            raise ValueError(
                f"Persons: {n} persons but boxes {tuple(self.boxes.shape)} and areas {tuple(self.areas.shape)}"
            )
        if self.ignore.ndim != 2 or self.ignore.shape[1] != 4:
            raise ValueError(f"Persons.ignore must have shape (R, 4), not {tuple(self.ignore.shape)}")

    def __len__(self) -> int:
        """Number of persons N."""
        return int(self.keypoints.shape[0])

    def to(self, device: Any) -> Persons:
        """The same truth on another device."""
        return Persons(
            self.keypoints.to(device, non_blocking=True),
            self.boxes.to(device, non_blocking=True),
            self.areas.to(device, non_blocking=True),
            self.ignore.to(device, non_blocking=True),
        )

    @staticmethod
    def from_numpy(
        keypoints: npt.ArrayLike, boxes: npt.ArrayLike, areas: npt.ArrayLike, ignore: npt.ArrayLike
    ) -> Persons:
        """Build from arrays of the shapes above (anything ``numpy.asarray`` takes)."""
        import torch

        def tensor(values: npt.ArrayLike) -> Tensor:
            return torch.from_numpy(np.array(values, dtype=np.float32))

        return Persons(tensor(keypoints), tensor(boxes), tensor(areas), tensor(ignore))

    @staticmethod
    def empty(keypoint_count: int) -> Persons:
        """Truth of a picture without people."""
        return Persons.from_numpy(np.zeros((0, keypoint_count, 3)), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4)))


@dataclass(frozen=True, slots=True)
class View:
    """A picture, or a part of it, through one affine map: what a network sees.

    Attributes:
        image: (3, H, W) float32, normalised, channels as the model's `ViewSpec` says.
        to_input: (2, 3) float64 affine, image px -> input px.
        size: (height, width) of the part of ``image`` that shows the picture, input px; the rest is padding.
        image_size: (height, width) of the original picture.
        image_id: the data set's id of the picture, or its position in the input.
        persons: truth in input px, or None.
        box: (4,) xyxy person box in image px that a crop view shows; None for a whole view.
        box_score: score of that box.
    """

    image: Tensor
    to_input: Affine
    size: tuple[int, int]
    image_size: tuple[int, int]
    image_id: int | str = 0
    persons: Persons | None = None
    box: FloatArray | None = None
    box_score: float = 1.0


_OPTIONAL = ("visibility", "ids")
"""Arrays of `Poses` that may be missing; their values are whole numbers."""


@dataclass(frozen=True, slots=True)
class Poses:
    """Predicted poses of one picture (image px), or of one view (input px): N poses of K keypoints.

    Attributes:
        keypoints: (N, K, 2) float32: x, y. Keypoints may lie outside the picture; one that is not known is NaN.
        keypoint_scores: (N, K) float32 in 0..1 (heatmap networks may exceed 1).
        boxes: (N, 4) float32 xyxy.
        scores: (N,) float32, instance scores.
        skeleton: what the K keypoints are.
        image_size: (height, width) of the picture, or None if unknown.
        source: file name or other label of where the picture came from.
        visibility: (N, K) int64: 0 not there, 1 occluded, 2 visible; None where nothing was said about it.
        ids: (N,) int64: who it is, the same number in all frames of a video; -1 for somebody not followed (yet).
            None if nobody is followed.
        frame: number of the frame in its video, counted from 0; None for a picture.
        time: seconds since the start of the video; None for a picture.
        heatmaps: what the network saw of the N people, if it was asked for it; None: not known.
    """

    keypoints: FloatArray
    keypoint_scores: FloatArray
    boxes: FloatArray
    scores: FloatArray
    skeleton: Skeleton = COCO17
    image_size: tuple[int, int] | None = None
    source: str | None = None
    visibility: IntArray | None = None
    ids: IntArray | None = None
    frame: int | None = None
    time: float | None = None
    heatmaps: Heatmaps | None = None

    def __post_init__(self) -> None:
        """Cast to float32 and int64 and check; ``ValueError`` names the field."""
        n, k = len(self.scores), len(self.skeleton)
        shapes = {
            "keypoints": (n, k, 2), "keypoint_scores": (n, k), "boxes": (n, 4), "scores": (n,), "visibility": (n, k),
            "ids": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            given = getattr(self, name)
            if given is None and name in _OPTIONAL:
                continue
            values = np.asarray(given, dtype=np.int64 if name in _OPTIONAL else np.float32)
            if values.shape != shape:
                raise ValueError(f"Poses.{name} must have shape {shape}, not {values.shape}")
            object.__setattr__(self, name, values)
        if self.heatmaps is not None and self.heatmaps.maps.shape[:2] != (n, k):
            raise ValueError(f"Poses.heatmaps are of {self.heatmaps.maps.shape[:2]} people and keypoints, not {(n, k)}")
        for name, low, high in (("visibility", 0, 2), ("ids", -1, np.iinfo(np.int64).max)):
            values = getattr(self, name)
            if values is not None and values.size and not (values.min() >= low and values.max() <= high):
                raise ValueError(f"Poses.{name} runs {values.min()}..{values.max()}; expected {low}..{high}")

    def __len__(self) -> int:
        """Number of poses N."""
        return len(self.scores)

    def __getitem__(self, index: Any) -> Poses:
        """Poses picked by an integer, slice, list, index array or boolean mask; always a `Poses`."""
        if isinstance(index, int | np.integer):
            index = [int(index)]
        return replace(
            self,
            keypoints=self.keypoints[index],
            keypoint_scores=self.keypoint_scores[index],
            boxes=self.boxes[index],
            scores=self.scores[index],
            visibility=None if self.visibility is None else self.visibility[index],
            ids=None if self.ids is None else self.ids[index],
            heatmaps=None if self.heatmaps is None else self.heatmaps[index],
        )

    def __iter__(self) -> Iterator[Poses]:
        """One-pose `Poses`, best order preserved."""
        return (self[i] for i in range(len(self)))

    @staticmethod
    def empty(skeleton: Skeleton = COCO17, image_size: tuple[int, int] | None = None) -> Poses:
        """No pose at all."""
        k = len(skeleton)
        return Poses(
            np.zeros((0, k, 2), np.float32),
            np.zeros((0, k), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            skeleton,
            image_size,
        )

    @staticmethod
    def concatenate(parts: Sequence[Poses]) -> Poses:
        """All poses of several `Poses` of one skeleton (at least one part); the rest is taken from the first.

        Visibility, ids and heatmaps are kept if all parts have them.
        """
        if not parts:
            raise ValueError("Poses.concatenate needs at least one part")
        first = parts[0]
        if any(p.skeleton != first.skeleton for p in parts):
            raise ValueError(f"Poses.concatenate: skeletons differ: {sorted({p.skeleton.name for p in parts})}")
        return replace(
            first,
            keypoints=np.concatenate([p.keypoints for p in parts]),
            keypoint_scores=np.concatenate([p.keypoint_scores for p in parts]),
            boxes=np.concatenate([p.boxes for p in parts]),
            scores=np.concatenate([p.scores for p in parts]),
            visibility=_joined([p.visibility for p in parts]),
            ids=_joined([p.ids for p in parts]),
            heatmaps=Heatmaps.joined([p.heatmaps for p in parts]),
        )

    def filter(self, min_score: float = 0.0, *, min_height: float = 0.0, ids: Collection[int] | None = None) -> Poses:
        """Only the poses with at least this instance score and box height (px), and, if given, with one of these ids.

        Raises:
            ValueError: ``ids`` are asked for, but nobody of those who are here is followed.
        """
        keep = self.scores >= min_score
        if min_height > 0:
            keep &= self.boxes[:, 3] - self.boxes[:, 1] >= min_height
        if ids is not None and len(self):
            if self.ids is None:
                raise ValueError("these poses have no ids; follow people with a Tracker (--track) first")
            keep &= np.isin(self.ids, list(ids))
        return self[keep]

    def points(self, name: str) -> FloatArray:
        """One keypoint of everybody: (N, 3) x, y, score.

        Raises:
            ValueError: the skeleton has no keypoint of this name.
        """
        if name not in self.skeleton.keypoints:
            known = nearest(name, self.skeleton.keypoints)
            raise ValueError(f"skeleton {self.skeleton.name!r} has no keypoint {name!r}{known}")
        return self.to_numpy()[:, self.skeleton.keypoints.index(name)]

    def to_numpy(self) -> FloatArray:
        """(N, K, 3) float32: x, y, score."""
        return np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)

    def to_torch(self, device: Any = "cpu") -> Tensor:
        """(N, K, 3) float32 tensor on a device: x, y, score."""
        import torch

        return torch.from_numpy(self.to_numpy()).to(device)

    def draw(self, image: ImageArray, **style: Any) -> ImageArray:
        """A copy of the RGB picture (H, W, 3) with the poses drawn on it; ``style`` as in `poise.draw.draw_poses`."""
        from poise.draw import draw_poses

        return draw_poses(image, self, **style)

    def to_coco(self, image_id: int | str = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO keypoint results: one dict a pose with keypoints (x, y, score), bbox (x, y, w, h) and score.

        What is not a finite number becomes 0. Ids are added as ``track_id``, visibility as ``visibility``.
        """
        triples = self.to_numpy()
        triples = np.where(np.isfinite(triples).all(2, keepdims=True), triples, np.float32(0))
        boxes = np.where(np.isfinite(self.boxes).all(1, keepdims=True), self.boxes, np.float32(0)).astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        results = []
        for i in range(len(self)):
            entry = {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": [round(v, 4) for v in triples[i].reshape(-1).tolist()],
                "bbox": [round(v, 4) for v in boxes[i].tolist()],
                "score": float(np.nan_to_num(self.scores[i])),
            }
            if self.visibility is not None:
                entry["visibility"] = self.visibility[i].tolist()
            if self.ids is not None:
                entry["track_id"] = int(self.ids[i])
            results.append(entry)
        return results

    def save_json(self, path: str | Path, image_id: int | str = 0) -> None:
        """Write `to_coco` to a file (through a temporary file, then a rename)."""
        from poise.files import write_text

        write_text(path, json.dumps(self.to_coco(image_id)))


def _joined(parts: list[IntArray | None]) -> IntArray | None:
    """The arrays of all parts, or None if one is missing."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None
