"""How fast training pictures are made: with several numbers of workers, and what of it is decoding.

A training run waits for its data if they come slower than it takes them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from poise.benchmark.clock import NOTHING, Spent, between, now
from poise.data.config import DataConfig
from poise.data.images import read_image
from poise.data.loader import BatchPlan, TrainDataset, TrainLoader, build_train_loader
from poise.data.views import collate, sample_to_view
from poise.skeletons import Skeleton
from poise.types import ViewSpec

SEED = 0
_CPU = torch.device("cpu")

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """Throughput of the loader with some workers: ``images_per_second`` by the wall clock, after they have started."""

    workers: int
    batches: int
    images: int
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Where the time of one training picture goes, in one process without cached pictures; milliseconds.

    Attributes:
        pictures: training pictures that were made.
        files: pictures that were decoded for each, on average.
        decode: reading and decoding them.
        augment: drawing, warping, composing, colours.
        tensor: normalising, and putting into the batch.
        processor: all of it by the processor clock.
        decode_share: of the three together.
        augment_share: likewise.
    """

    pictures: int
    files: float
    decode: float
    augment: float
    tensor: float
    processor: float
    decode_share: float
    augment_share: float


@dataclass(frozen=True, slots=True)
class DataReport:
    """What a data benchmark found.

    Attributes:
        pipeline: as in the settings.
        batch: pictures a batch.
        workers: rows by number of workers.
        shares: see `Shares`.
    """

    pipeline: str
    batch: int
    workers: list[WorkerRow]
    shares: Shares

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def benchmark_data(
    config: DataConfig,
    spec: ViewSpec,
    skeleton: Skeleton,
    workers: Sequence[int] = (0, 1, 2),
    batches: int = 20,
    pictures: int = 40,
    advance: Advance = lambda done, total: None,
) -> DataReport:
    """Measure a training loader.

    Args:
        config: with paths as they are to be opened (`RunConfig.located_data`).
        spec: what the model wants to see.
        skeleton: of the model.
        workers: numbers of workers; 0 prepares batches in this process.
        batches: that count, for each number of workers; as many as there are workers, and one more, come before.
        pictures: training pictures whose time is divided.
        advance: is told how far it is.

    Raises:
        FileNotFoundError: annotations or pictures are missing.
        ValueError: they do not fit, or a number is out of bounds.
    """
    if not workers or min(workers) < 0 or batches < 1 or pictures < 1:
        raise ValueError("workers must not be negative, batches and pictures at least 1")
    total, done = len(workers) * batches + pictures, 0

    def step() -> None:
        nonlocal done
        done += 1
        advance(done, total)

    dataset = build_train_loader(config, spec, skeleton, SEED).dataset
    rows = [_throughput(dataset, config, count, batches, step) for count in workers]
    plain = config.model_copy(update={"cache_mb": 0})
    shares = _shares(build_train_loader(plain, spec, skeleton, SEED).dataset, plain, pictures, step)
    return DataReport(config.pipeline, config.batch, rows, shares)


def _throughput(
    dataset: TrainDataset, config: DataConfig, workers: int, batches: int, step: Callable[[], None]
) -> WorkerRow:
    stream = iter(TrainLoader(dataset, BatchPlan(config, len(dataset), SEED), workers))
    for _ in itertools.islice(stream, 1 + workers):  # the workers start, and fill their queues
        pass
    images, start = 0, time.perf_counter()
    for batch in itertools.islice(stream, batches):
        images += len(batch.views)
        step()
    seconds = time.perf_counter() - start
    del stream
    return WorkerRow(workers, batches, images, images / max(seconds, 1e-9))


def _shares(dataset: TrainDataset, config: DataConfig, pictures: int, step: Callable[[], None]) -> Shares:
    """Time of the same pictures: their files decoded alone, and made as a whole."""
    plan, spec = BatchPlan(config, len(dataset), SEED), dataset.spec
    decode, whole, tensor, files = NOTHING, NOTHING, NOTHING, 0
    for number in range(pictures):
        epoch, batch = divmod(number // config.batch, plan.steps_per_epoch)
        key = plan.keys(epoch, batch)[number % config.batch]
        paths = dataset.files(key)
        files += len(paths)
        start = now(_CPU)
        for path in paths:
            read_image(path)
        decoded = now(_CPU)
        sample = dataset.sample(key)
        made = now(_CPU)
        collate([sample_to_view(sample, spec)], spec.stride)
        decode, whole = decode + between(start, decoded), whole + between(decoded, made)
        tensor += between(made, now(_CPU))
        step()
    return _divided(pictures, files, decode, whole, tensor)


def _divided(pictures: int, files: int, decode: Spent, whole: Spent, tensor: Spent) -> Shares:
    augment = max(whole.processor - decode.processor, 0.0)
    total = max(decode.processor + augment + tensor.processor, 1e-9)
    each = 1e3 / pictures
    return Shares(
        pictures=pictures,
        files=files / pictures,
        decode=decode.processor * each,
        augment=augment * each,
        tensor=tensor.processor * each,
        processor=total * each,
        decode_share=decode.processor / total,
        augment_share=augment / total,
    )
