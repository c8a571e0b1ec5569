"""From pictures to network input: resizing, normalising, padding, batches.

Letters: B views, H W input size. Frames: image px, input px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from poise.data.records import PoseDataset
from poise.data.samples import Sample, Truth, map_truth, read_sample
from poise.geometry import affine
from poise.types import FloatArray, ImageArray, Persons, View, ViewSpec


class Batch(NamedTuple):
    """Views of one batch.

    Attributes:
        images: (B, 3, H, W) float32, channels last in memory; zeros at the right and bottom of smaller views.
        persons: truth of each view, input px; nobody where a view carries no truth.
        views: the views; their images are parts of ``images``.
    """

    images: Tensor
    persons: list[Persons]
    views: list[View]


def whole_view(image: ImageArray, spec: ViewSpec, image_id: int | str = 0, truth: Truth | None = None) -> View:
    """The whole picture at the size that the network wants, normalised, not yet padded (`collate` does that).

    Resampling is bilinear; a picture that shrinks to less than half is averaged over pixel areas instead.

    Args:
        image: (H, W, 3) RGB.
        spec: of the model; a ``whole`` view.
        image_id: kept in the view.
        truth: in image px, or None.

    Raises:
        ValueError: ``spec`` describes a crop.
    """
    if spec.kind != "whole":
        raise ValueError("whole_view needs a spec of kind 'whole', not 'crop'")
    image_size = image.shape[0], image.shape[1]
    to_input, size = affine.fit(image_size, spec)
    if size != image_size:
        method = cv2.INTER_AREA if max(size) < 0.5 * max(image_size) else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method))
    persons = None if truth is None else map_truth(truth, to_input, ()).persons()
    return View(
        image=image_tensor(normalise(image, spec)),
        to_input=to_input,
        size=size,
        image_size=image_size,
        image_id=image_id,
        persons=persons,
    )


def sample_to_view(sample: Sample, spec: ViewSpec, image_id: int | str = 0) -> View:
    """A view of a sample that has the network's size already: image px and input px are the same."""
    return View(
        image=image_tensor(normalise(sample.image, spec)),
        to_input=affine.identity(),
        size=sample.size,
        image_size=sample.size,
        image_id=image_id,
        persons=sample.truth.persons(),
    )


def eval_views(dataset: PoseDataset, spec: ViewSpec) -> Iterator[View]:
    """The whole views of all pictures in order, with their truth in input px; errors as `read_sample`."""
    for record in dataset:
        sample = read_sample(record, spec.person_box)
        yield whole_view(sample.image, spec, record.image_id, sample.truth)


def normalise(image: ImageArray, spec: ViewSpec) -> FloatArray:
    """(H, W, 3) float32 in the order of ``spec.channels``: (value / value_range - mean) / std."""
    if spec.channels == "bgr":
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    table = _table(spec.value_range, spec.mean, spec.std)
    result: FloatArray = cv2.LUT(image, table)
    return result


def collate(views: Sequence[View], stride: int = 32) -> Batch:
    """Views of any sizes as one batch, padded with zeros to a common multiple of ``stride``.

    Raises:
        ValueError: there is no view.
    """
    if not views:
        raise ValueError("a batch needs at least one view")
    height, width = (max(v.image.shape[axis] for v in views) for axis in (1, 2))
    height, width = (-(-side // stride) * stride for side in (height, width))
    filled = all(v.image.shape[1:] == (height, width) for v in views)
    images = (torch.empty if filled else torch.zeros)((len(views), height, width, 3)).permute(0, 3, 1, 2)
    kept, persons = [], []
    for i, view in enumerate(views):
        part = images[i, :, : view.image.shape[1], : view.image.shape[2]]
        part.copy_(view.image)
        kept.append(replace(view, image=part))
        persons.append(view.persons if view.persons is not None else Persons.empty(0))
    return Batch(images, persons, kept)


@lru_cache(maxsize=16)
def _table(value_range: float, mean: tuple[float, ...], std: tuple[float, ...]) -> FloatArray:
    """(1, 256, 3) float32: the normalised value of each grey level."""
    levels = np.arange(256, dtype=np.float64)[:, None] / value_range
    table: FloatArray = ((levels - np.array(mean)) / np.array(std)).astype(np.float32)[None]
    return table


def image_tensor(image: FloatArray) -> Tensor:
    """(3, H, W) over the memory of (H, W, 3)."""
    return torch.from_numpy(image).permute(2, 0, 1)
