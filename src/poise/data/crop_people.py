"""Training crops of the people of several data sets: who comes when, and pixels that are read once.

Letters: N people, K keypoints.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poise.data.config import AugmentConfig
from poise.data.crop_augment import draw, look_around, training_matrix, upper_mask
from poise.data.crop_config import CropConfig
from poise.data.crop_upright import Turned, torso_masks, upright
from poise.data.crops import box_frame, crop_size, fitted_sides, seen_window, warp_crop
from poise.data.material import Read, Source
from poise.data.records import Record
from poise.data.samples import Sample, Truth, map_truth, record_image
from poise.geometry import affine
from poise.types import FloatArray, ImageArray, ViewSpec

logger = logging.getLogger(__name__)

_ORDER_STREAM, _SOURCE_STREAM = 3, 4

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 of whole pixels; x2 and y2 are excluded."""


@dataclass(frozen=True, slots=True)
class Person:
    """One training sample: a person of a picture.

    Attributes:
        record: the picture.
        number: of the person in it.
        keypoints: (K, 3) float32, image px.
        box: (4,) float32 xyxy, image px.
    """

    record: Record
    number: int
    keypoints: FloatArray
    box: FloatArray


class Cutout(NamedTuple):
    """The part of a picture around one person, and where in the picture its top left pixel is."""

    pixels: ImageArray
    left: int
    top: int


class PersonCrops:
    """Draws training crops; which person, and what is done to the picture, depends on seed, epoch and position alone.

    Every epoch takes from each source its share by weight, in mixed order; within a source everybody comes once before
    anybody comes again.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: CropConfig,
        augment: AugmentConfig,
        spec: ViewSpec,
        seed: int,
        cache_bytes: int = 0,
        read: Read = record_image,
    ) -> None:
        """All sources must have one skeleton.

        Raises:
            ValueError: a source has nobody to train on, ``config`` does not fit the skeleton, or ``spec`` is no crop.
        """
        self._config, self._augment, self._spec, self._seed = config, augment, spec, seed
        self._size = crop_size(spec)
        skeleton = sources[0].dataset.skeleton
        self._flip_index = skeleton.flip_index
        self._upper = upper_mask(config.upper if config.half_body_p else (), skeleton.keypoints)
        if config.half_body_p and (self._upper.all() or not self._upper.any()):
            logger.info(
                "no half bodies in training: the names of the keypoints tell no upper from a lower half; "
                "data.crop.upper can name the upper one"
            )
            self._config = config.model_copy(update={"half_body_p": 0.0})
        self._torso = torso_masks(*config.torso, skeleton.keypoints) if config.upright_p else None
        groups = [people(source.dataset.records, config) for source in sources]
        for source, group in zip(sources, groups, strict=True):
            if not group:
                raise ValueError(
                    f"data set {source.dataset.name!r} has no person with {config.min_keypoints} or more labelled "
                    "keypoints to train on"
                )
        self._groups, self._weights = groups, tuple(source.weight for source in sources)
        self._cutouts = Cutouts(config, spec, cache_bytes, read)

    def __len__(self) -> int:
        """Number of people N."""
        return sum(len(group) for group in self._groups)

    def person(self, epoch: int, position: int, length: int) -> Person:
        """Who comes at that position of an epoch of that length."""
        quotas = shares(self._weights, length)
        labels, ranks = _mixed(self._seed, epoch, quotas)
        source, rank = int(labels[position]), int(ranks[position])
        group = self._groups[source]
        turn, place = divmod(epoch * quotas[source] + rank, len(group))
        return group[int(_order(self._seed, turn, source, len(group))[place])]

    def sample(self, person: Person, rng: np.random.Generator) -> Sample:
        """A random crop of that person, input px; errors as `record_image`.

        The truth is that one person. Keypoints outside the crop keep their visibility: the loss decides.
        """
        drawn = draw(rng, self._config)
        width = person.record.size[1]
        turned = upright(person.keypoints, person.box, self._torso) if drawn.upright and self._torso else None
        turned = turned or Turned(affine.identity(), person.keypoints, person.box)
        matrix = training_matrix(turned.keypoints, turned.box, width, drawn, self._config, self._spec, self._upper)
        matrix = affine.compose(turned.matrix, matrix)
        window = seen_window(matrix, self._size, person.record.size)
        # warped from the window alone, whatever is kept: other offsets would round differently
        pixels = self._cutouts(person, window)
        local = affine.compose(affine.translation(window[0], window[1]), matrix)
        image = warp_crop(pixels, local, self._size)
        image = look_around(image, self._config, self._augment, rng)
        return Sample(image, map_truth(person_truth(person), matrix, self._flip_index))


class Cutouts:
    """Reads the surroundings of people and keeps them, decoded, until a number of bytes is used up.

    A picture is decoded once for all its people. What is kept stays: with people in random order that serves better
    than to make room. A crop that sees more than what was kept is made from the whole picture.
    """

    def __init__(self, config: CropConfig, spec: ViewSpec, budget: int, read: Read = record_image) -> None:
        """``budget`` in bytes; 0 keeps nothing."""
        self._config, self._spec, self._read = config, spec, read
        self._free = budget
        self._kept: dict[tuple[Path, int], Cutout] = {}

    def __call__(self, person: Person, window: Window) -> ImageArray:
        """That part of the person's picture; errors as `record_image`. It must not be written to."""
        found = self._kept.get((person.record.path, person.number))
        if found is None or not _holds(found, window):
            image = self._read(person.record)
            if found is None:
                self._keep(person.record, image)
            found = Cutout(image, 0, 0)
        x1, y1, x2, y2 = window
        return found.pixels[y1 - found.top : y2 - found.top, x1 - found.left : x2 - found.left]

    def _keep(self, record: Record, image: ImageArray) -> None:
        for person in people([record], self._config):
            x1, y1, x2, y2 = reach(person, self._config, self._spec)
            part = image[y1:y2, x1:x2]
            key = record.path, person.number
            if 0 < part.nbytes <= self._free and key not in self._kept:
                self._free -= part.nbytes
                self._kept[key] = Cutout(part.copy(), x1, y1)


def people(records: Sequence[Record], config: CropConfig) -> list[Person]:
    """Everybody who makes a training sample: enough labelled keypoints and a box with an area."""
    found = []
    for record in records:
        boxes = record.boxes
        if config.clip_boxes:
            limit = np.array([record.size[1] - 1, record.size[0] - 1] * 2, np.float32)
            boxes = np.clip(boxes, 0, limit)
        for number, (keypoints, box) in enumerate(zip(record.keypoints, boxes, strict=True)):
            if (keypoints[:, 2] > 0).sum() < config.min_keypoints or not (box[2:] > box[:2]).all():
                continue
            if config.binary_visibility:
                keypoints = np.minimum(keypoints, np.array([np.inf, np.inf, 1], np.float32))  # noqa: PLW2901
            found.append(Person(record, number, keypoints, box))
    return found


def person_truth(person: Person) -> Truth:
    """The truth of one person alone, image px; the boxes are both the annotated one."""
    box = person.box[None]
    areas = person.record.areas[person.number : person.number + 1]
    return Truth(person.keypoints[None], box, areas, np.zeros((0, 4), np.float32), box)


def reach(person: Person, config: CropConfig, spec: ViewSpec) -> Window:
    """The part of the picture that crops of the person's whole box may see; half bodies may see more."""
    frame = box_frame(person.box, config.extension or spec.extension)
    sides = fitted_sides(frame.sides * (1 + np.array(config.extension_jitter)), crop_size(spec))
    half = sides * (0.5 * config.scale_base * config.scale[1])
    if config.rotation_p and config.rotation:
        half = np.full(2, np.hypot(*half))
    shift = frame.sides * (1 + np.array(config.extension_jitter)) * (config.shift if config.shift_p else 0.0)
    half = half + shift + 4
    limits = np.array([person.record.size[1], person.record.size[0]])
    low = np.clip(np.floor(frame.centre - half), 0, limits)
    high = np.clip(np.ceil(frame.centre + half), low, limits)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def shares(weights: tuple[float, ...], length: int) -> tuple[int, ...]:
    """``length`` samples divided by weight; what rounding leaves goes to the largest remainders."""
    exact = np.array(weights) / sum(weights) * length
    counts = np.floor(exact).astype(int)
    for i in np.argsort(counts - exact, kind="stable")[: length - int(counts.sum())]:
        counts[i] += 1
    return tuple(int(c) for c in counts)


def _holds(cutout: Cutout, window: Window) -> bool:
    height, width = cutout.pixels.shape[:2]
    x1, y1, x2, y2 = window
    return cutout.left <= x1 and cutout.top <= y1 and x2 <= cutout.left + width and y2 <= cutout.top + height


@lru_cache(maxsize=2)
def _mixed(seed: int, epoch: int, quotas: tuple[int, ...]) -> tuple[Numbers, Numbers]:
    """Of each position of an epoch: its source, and how many of that source came before it in the epoch."""
    labels = np.repeat(np.arange(len(quotas)), quotas)
    if len(quotas) > 1:
        labels = np.random.default_rng((seed, epoch, 0, _SOURCE_STREAM)).permutation(labels)
    ranks = np.empty(len(labels), np.int64)
    for source, quota in enumerate(quotas):
        ranks[labels == source] = np.arange(quota)
    return labels, ranks


@lru_cache(maxsize=8)
def _order(seed: int, turn: int, source: int, count: int) -> Numbers:
    return np.random.default_rng((seed, turn, source, _ORDER_STREAM)).permutation(count)
