"""Training batches that depend on (seed, epoch, index) alone: not on the number of workers, nor on where a run began.

Letters: B pictures a batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from poise.data.coco import read_folder
from poise.data.compose import compose
from poise.data.config import DataConfig, SourceConfig
from poise.data.crop_people import PersonCrops
from poise.data.formats import AUTO, read_dataset, recognise
from poise.data.material import ImageCache, Material, Source
from poise.data.paper import resize_flip_crop
from poise.data.paper_smpr import resize_flip_clip
from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, Size, Truth
from poise.data.transforms import Colour
from poise.data.views import Batch, collate, sample_to_view
from poise.geometry import affine
from poise.skeletons import Skeleton
from poise.types import View, ViewSpec

logger = logging.getLogger(__name__)

_SIZE_STREAM, _ORDER_STREAM = 1, 2
_ATTEMPTS = 50
"""How many pictures SMPR's pipeline tries before it takes one without people."""


class Key(NamedTuple):
    """What one training picture depends on, besides the seed."""

    epoch: int
    position: int
    """Index within the epoch."""
    size: int
    """Side of the canvas; used by the ``compose`` pipeline only."""


class Drawn(NamedTuple):
    """A training picture, in input px, and its number within the epoch."""

    sample: Sample
    image_id: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in a worker, carried to the training process as what it is."""

    error: Exception


class DataWorkerError(RuntimeError):
    """A process that prepares batches ended unexpectedly."""


class TrainDataset(Dataset[Drawn | Failure]):
    """Training pictures; item `Key` is drawn by a generator seeded with (seed, epoch, position).

    Attributes:
        spec: what the model wants to see.
    """

    def __init__(
        self, config: DataConfig, sources: Sequence[Source], negatives: Sequence[Record], spec: ViewSpec, seed: int
    ) -> None:
        """Errors as `Material` and, for the ``crop`` pipeline, `PersonCrops`."""
        self._config = config
        self._seed = seed
        self.spec = spec
        self._records = [record for source in sources for record in source.dataset]
        self._oriented = [
            np.flatnonzero([(r.size[1] > r.size[0]) == wide for r in self._records]) for wide in (False, True)
        ]
        cache_bytes = config.cache_mb * 1_000_000
        self._cache = ImageCache(cache_bytes)
        self._material = Material(sources, negatives, spec.person_box, fill_colour(spec), self._cache)
        self._crops: PersonCrops | None = None
        if config.pipeline == "crop":
            self._crops = PersonCrops(sources, config.crop, config.augment, spec, seed, cache_bytes)

    def __len__(self) -> int:
        """Pictures (``crop``: people) an epoch."""
        return self._config.samples_per_epoch or len(self._records if self._crops is None else self._crops)

    def sample(self, key: Key) -> Sample:
        """One training picture with its truth, in input px; errors as `record_image`."""
        rng = np.random.default_rng((self._seed, key.epoch, key.position))
        if self._crops is not None:
            return self._crops.sample(self._crops.person(key.epoch, key.position, len(self)), rng)
        if self._config.pipeline == "compose":
            return compose(self._material, self._config.augment, (key.size, key.size), rng)
        # the papers go through all pictures, in a new order each time
        turn, position = divmod(key.epoch * len(self) + key.position, len(self._records))
        record = self._records[_order(self._seed, turn, len(self._records))[position]]
        if self._config.pipeline == "paper":
            return resize_flip_crop(self._material.sample(record), self._config.paper, self._material.flip_index, rng)
        return self._with_people(record, rng)

    def files(self, key: Key) -> list[Path]:
        """The pictures that one training picture is made of; it is drawn once more to see."""
        if self._crops is not None:
            return [self._crops.person(key.epoch, key.position, len(self)).record.path]
        asked: list[Path] = []
        self._cache.asked = asked
        try:
            self.sample(key)
        except (ValueError, OSError):
            pass  # the last one asked for is the unusable one
        finally:
            self._cache.asked = None
        return list(dict.fromkeys(asked))

    def _with_people(self, record: Record, rng: np.random.Generator) -> Sample:
        """SMPR's pipeline: another picture of the same orientation is taken where a crop has left nobody."""
        wide = record.size[1] > record.size[0]
        for _ in range(_ATTEMPTS):
            sample = resize_flip_clip(self._material.sample(record), self._config.paper, self._material.flip_index, rng)
            if len(sample.truth):
                break
            record = self._records[self._oriented[wide][rng.integers(len(self._oriented[wide]))]]
        return sample

    def __getitem__(self, key: Key) -> Drawn | Failure:
        """`sample` with its number; an unusable picture becomes a `Failure`."""
        try:
            return Drawn(self.sample(key), key.position)
        except (ValueError, OSError) as error:
            return Failure(error)


class BatchPlan(Sampler[list[Key]]):
    """Endless batches of keys from a given (epoch, batch) on."""

    def __init__(self, config: DataConfig, samples: int, seed: int, rank: int = 0, world: int = 1) -> None:
        """Plan for process ``rank`` of ``world``: each takes its own part of every global batch.

        Raises:
            ValueError: an epoch is smaller than one global batch.
        """
        self.steps_per_epoch = samples // (config.batch * world)
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"an epoch of {samples} pictures is smaller than a batch of {config.batch} on {world} process(es); "
                "lower batch or set samples_per_epoch"
            )
        self._config, self._seed, self._rank, self._world = config, seed, rank, world
        self.epoch, self.batch = 0, 0

    def keys(self, epoch: int, batch: int) -> list[Key]:
        """The keys of one batch."""
        first = (batch * self._world + self._rank) * self._config.batch
        size = self._size(epoch, batch)
        return [Key(epoch, first + i, size) for i in range(self._config.batch)]

    def key(self, epoch: int, position: int) -> Key:
        """The key of the training picture with that number within the epoch, in whichever process."""
        return Key(epoch, position, self._size(epoch, position // (self._config.batch * self._world)))

    def _size(self, epoch: int, batch: int) -> int:
        sizes = self._config.sizes
        return sizes[int(np.random.default_rng((self._seed, epoch, batch, _SIZE_STREAM)).integers(len(sizes)))]

    def __iter__(self) -> Iterator[list[Key]]:
        """Batches from (`epoch`, `batch`) on, for ever."""
        epoch, batch = self.epoch, self.batch
        while True:
            yield self.keys(epoch, batch)
            epoch, batch = _next(epoch, batch, self.steps_per_epoch)


class TrainLoader:
    """Endless training batches, resumable anywhere.

    Attributes:
        steps_per_epoch: batches an epoch.
        dataset: where the pictures come from.
    """

    def __init__(self, dataset: TrainDataset, plan: BatchPlan, workers: int) -> None:
        """Workers start at the first iteration."""
        self.dataset = dataset
        self.steps_per_epoch = plan.steps_per_epoch
        self._plan, self._workers = plan, workers
        self._epoch, self._batch = 0, 0

    @property
    def state(self) -> tuple[int, int]:
        """(epoch, batch) of the batch that comes next."""
        return self._epoch, self._batch

    def set_state(self, epoch: int, batch: int = 0) -> None:
        """Go on with that batch; takes effect at the next ``iter``.

        Raises:
            ValueError: there is no such batch.
        """
        if epoch < 0 or not 0 <= batch < self.steps_per_epoch:
            raise ValueError(f"no batch {batch} in epoch {epoch}; an epoch has {self.steps_per_epoch} batches")
        self._epoch, self._batch = epoch, batch

    def names(self, epoch: int, image_ids: Sequence[int | str]) -> list[str]:
        """The files that training pictures of an epoch were made of, in any process, each once."""
        keys = [self._plan.key(epoch, int(number)) for number in image_ids]
        return list(dict.fromkeys(str(path) for key in keys for path in self.dataset.files(key)))

    def __iter__(self) -> Iterator[Batch]:
        """Batches from `state` on, across epochs, without end; workers live as long as the iterator.

        Raises:
            ValueError: a picture is unusable (`ImageError`), or settings do not fit the data.
            OSError: a picture cannot be read.
            DataWorkerError: a worker process died.
        """
        self._plan.epoch, self._plan.batch = self._epoch, self._batch
        batches = iter(self._data_loader())
        while True:
            try:
                batch = next(batches)
            except (RuntimeError, ConnectionError, EOFError) as error:
                if isinstance(error, RuntimeError) and "worker" not in str(error).lower():
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0]
                if not isinstance(error, RuntimeError):
                    _await_notice()
                raise DataWorkerError(
                    f"a data worker died before batch {self._batch} of epoch {self._epoch}, often for lack of memory; "
                    f"use fewer workers (now {self._workers}), less batch or cache_mb: {reason}"
                ) from error
            if isinstance(batch, Failure):
                raise batch.error
            self._epoch, self._batch = _next(self._epoch, self._batch, self.steps_per_epoch)
            yield _unpack(batch)

    def _data_loader(self) -> DataLoader[Any]:
        return DataLoader(
            self.dataset,
            batch_sampler=self._plan,
            num_workers=self._workers,
            collate_fn=_Pack(self.dataset.spec),
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # a loader draws seeds for its workers, by default from the global generator
        )


def _await_notice() -> None:
    """After a connection to a worker broke, wait for torch's own notice that it died: an error, raised by a signal.

    It would come a moment later, in the middle of whatever runs then.
    """
    with suppress(RuntimeError):
        time.sleep(1)


class _Packed(NamedTuple):
    """A batch on its way out of a worker: one tensor, the rest numpy, since every tensor sent holds a file open."""

    images: Tensor
    truths: list[Truth]
    sizes: list[Size]
    image_ids: list[int]


@dataclass(frozen=True, slots=True)
class _Pack:
    spec: ViewSpec

    def __call__(self, items: list[Drawn | Failure]) -> _Packed | Failure:
        drawn = [item for item in items if isinstance(item, Drawn)]
        failures = [item for item in items if isinstance(item, Failure)]
        if failures:
            return failures[0]
        batch = collate([sample_to_view(d.sample, self.spec) for d in drawn], self.spec.stride)
        return _Packed(
            batch.images, [d.sample.truth for d in drawn], [d.sample.size for d in drawn], [d.image_id for d in drawn]
        )


def _unpack(packed: _Packed) -> Batch:
    persons = [truth.persons() for truth in packed.truths]
    views = [
        View(image[:, : size[0], : size[1]], affine.identity(), size, size, image_id, who)
        for image, size, image_id, who in zip(packed.images, packed.sizes, packed.image_ids, persons, strict=True)
    ]
    return Batch(packed.images, persons, views)


def build_train_loader(
    config: DataConfig, spec: ViewSpec, skeleton: Skeleton, seed: int, rank: int = 0, world: int = 1
) -> TrainLoader:
    """Read the sources and make the loader of one process.

    Args:
        config: what to train on.
        spec: what the model wants to see.
        skeleton: of the model; every source must have its keypoints.
        seed: decides everything that is random, with epoch and index.
        rank: number of this process.
        world: number of processes.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit, or the pipeline does not fit what the model wants to see.
    """
    if (config.pipeline == "crop") != (spec.kind == "crop"):
        raise ValueError(
            f"data.pipeline is {config.pipeline!r}, but the model wants to see {spec.kind!r} views; "
            f"models of single persons are trained with pipeline 'crop', all others without"
        )
    sources = [Source(read_source(s, skeleton), s.weight, s.ways) for s in config.sources]
    negatives = [record for folder in config.negatives for record in read_folder(folder, skeleton)]
    logger.info(
        "training on %d pictures with %d people and %d pictures without",
        sum(len(s.dataset) for s in sources),
        sum(s.dataset.person_count for s in sources),
        len(negatives),
    )
    if len(skeleton) > 1 and not skeleton.flip_pairs and config.flips:
        logger.warning(
            "skeleton %r has no flip pairs, but training mirrors pictures: if it has a left and a right, give "
            "flip_pairs, or mirror nothing with --set data.%s=0",
            skeleton.name,
            config.flips,
        )
    dataset = TrainDataset(config, sources, negatives, spec, seed)
    if not any(s.dataset.person_count for s in sources):
        names = ", ".join(str(s.annotations) for s in config.sources)
        raise ValueError(
            f"nobody in {names} has a labelled keypoint (visibility 1 or 2): there is nothing to learn; look at the "
            "keypoints, num_keypoints and iscrowd of the annotations"
        )
    return TrainLoader(dataset, BatchPlan(config, len(dataset), seed, rank, world), config.workers)


def read_source(config: SourceConfig, skeleton: Skeleton | None = None) -> PoseDataset:
    """The data set that a `SourceConfig` names; errors as `read_dataset`, or ``split`` is not for its format."""
    if config.split is not None and config.kind == AUTO and recognise(config.annotations) != "mpii":
        raise ValueError(f"{config.annotations} is no MPII file, which split = {config.split!r} is for; leave it out")
    return read_dataset(
        config.annotations,
        config.images,
        config.kind,
        skeleton,
        split=config.split,
        unlabelled=config.unlabelled,
        min_keypoints=config.min_keypoints,
        name=config.name or None,
    )


def fill_colour(spec: ViewSpec) -> Colour:
    """The RGB colour that normalises to about zero, as padding does."""
    values = [min(255, max(0, round(m * spec.value_range))) for m in spec.mean]
    red, green, blue = values if spec.channels == "rgb" else values[::-1]
    return red, green, blue


def _next(epoch: int, batch: int, steps: int) -> tuple[int, int]:
    return (epoch, batch + 1) if batch + 1 < steps else (epoch + 1, 0)


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng((seed, turn, 0, _ORDER_STREAM)).permutation(count)


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
