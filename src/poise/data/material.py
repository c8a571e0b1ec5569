"""What training canvases are made of: weighted sources of pictures, drawn by an explicit generator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poise.data.config import Way
from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, record_image, record_truth
from poise.data.transforms import Colour
from poise.types import ImageArray, PersonBoxRule

Read = Callable[[Record], ImageArray]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set with its relative weight and the ways of composing that it takes part in."""

    dataset: PoseDataset
    weight: float = 1.0
    ways: tuple[Way, ...] = ("single", "mosaic", "paste")


class ImageCache:
    """Reads pictures and keeps the latest, decoded, up to a number of bytes. Its arrays must not be written to.

    Attributes:
        asked: gets the path of every picture that is asked for, if it is a list.
    """

    def __init__(self, budget: int) -> None:
        """``budget`` in bytes; 0 keeps nothing."""
        self.asked: list[Path] | None = None
        self._budget = budget
        self._used = 0
        self._kept: OrderedDict[Path, ImageArray] = OrderedDict()

    def __call__(self, record: Record) -> ImageArray:
        """The pixels of a record; errors as `record_image`."""
        if self.asked is not None:
            self.asked.append(record.path)
        image = self._kept.get(record.path)
        if image is not None:
            self._kept.move_to_end(record.path)
            return image
        image = record_image(record)
        if image.nbytes <= self._budget:
            self._kept[record.path] = image
            self._used += image.nbytes
        while self._used > self._budget:
            self._used -= self._kept.popitem(last=False)[1].nbytes
        return image


class Material:
    """The pictures that `poise.data.compose` draws from.

    Attributes:
        flip_index: of the skeleton.
        keypoint_count: K.
        fill: colour of what no picture covers.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        negatives: Sequence[Record] = (),
        rule: PersonBoxRule | None = None,
        fill: Colour = (124, 116, 104),
        read: Read = record_image,
    ) -> None:
        """All sources must have one skeleton and one picture at least.

        Raises:
            ValueError: they do not.
        """
        if not sources:
            raise ValueError("training needs at least one source of pictures")
        skeleton = sources[0].dataset.skeleton
        for source in sources:
            if not len(source.dataset):
                raise ValueError(f"data set {source.dataset.name!r} has no picture to train on")
            if source.dataset.skeleton.keypoints != skeleton.keypoints:
                names = f"{skeleton.name!r} and {source.dataset.skeleton.name!r}"
                raise ValueError(f"the sources have different skeletons, {names}; one run trains one skeleton")
        self.flip_index = skeleton.flip_index
        self.keypoint_count = len(skeleton)
        self.fill = fill
        self._sources = tuple(sources)
        self._negatives = tuple(negatives)
        self._rule = rule or PersonBoxRule()
        self._read = read
        self._peopled = [np.flatnonzero([len(record) > 0 for record in s.dataset]) for s in sources]

    def sample(self, record: Record) -> Sample:
        """Pixels and truth of a record."""
        return Sample(self._read(record), record_truth(record, self._rule))

    def offers(self, way: Way) -> bool:
        """Whether a source takes part in that way; pasting needs one with people."""
        return any(
            way in s.ways and (way != "paste" or len(p)) for s, p in zip(self._sources, self._peopled, strict=True)
        )

    def picture(self, way: Way, negative_p: float, rng: np.random.Generator) -> Sample:
        """Any picture of a source that takes part in ``way``, or with probability ``negative_p`` one without people."""
        if self._negatives and rng.random() < negative_p:
            return self.sample(self._negatives[rng.integers(len(self._negatives))])
        dataset = self._sources[self._draw(way, False, rng)].dataset
        return self.sample(dataset[int(rng.integers(len(dataset)))])

    def people(self, way: Way, rng: np.random.Generator) -> Sample:
        """A picture with at least one labelled person."""
        index = self._draw(way, True, rng)
        chosen = self._peopled[index][rng.integers(len(self._peopled[index]))]
        return self.sample(self._sources[index].dataset[int(chosen)])

    @property
    def has_negatives(self) -> bool:
        """Whether there are pictures without people."""
        return bool(self._negatives)

    def negative(self, rng: np.random.Generator) -> ImageArray | None:
        """A picture without people, if there is one."""
        if not self._negatives:
            return None
        return self._read(self._negatives[rng.integers(len(self._negatives))])

    def _draw(self, way: Way, peopled: bool, rng: np.random.Generator) -> int:
        weights = np.array(
            [
                s.weight if way in s.ways and (len(p) or not peopled) else 0.0
                for s, p in zip(self._sources, self._peopled, strict=True)
            ]
        )
        return int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right"))
