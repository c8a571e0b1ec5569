"""What a benchmark found, in rows. Times are milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of some stages: medians over the rounds, milliseconds."""

    wall: float
    processor: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model in one runtime at one batch.

    Attributes:
        name: of the model.
        trained: False: random weights.
        runtime: ``torch``, ``onnx`` or ``openvino``.
        batch: pictures, or people of a model that sees one at a time.
        inputs: (height, width) of what the network sees, each time it looks at a picture.
        parameters: all of them; None of an exported file.
        macs: multiply-adds of a turn, every location of every map computed; None of an exported file.
        stages: times of `poise.benchmark.tasks.STAGES`.
        work: preprocessing, network and decoding together.
        per_second: pictures (people) per second of that work, by the wall clock.
        peak_share: multiply-adds over the time of the network, as a share of what the matrix product reached just
            before; None where the network's time is not known.
        peak_share_with_decode: the same over network and decoding.
        found: people.
        memory: see `poise.benchmark.memory.peak_memory`; None: not measured.
        versus_torch: by how much the work is quicker than in torch, at the same batch.
    """

    name: str
    trained: bool
    runtime: str
    batch: int
    inputs: tuple[Size, ...]
    parameters: int | None
    macs: int | None
    stages: Mapping[str, Latency]
    work: Latency
    per_second: float
    peak_share: float | None
    peak_share_with_decode: float | None
    found: int
    memory: Mapping[str, float] | None = None
    versus_torch: float | None = None


@dataclass(frozen=True, slots=True)
class PeopleRow:
    """Time of one model by the number of people in the picture.

    Attributes:
        name: of the model.
        people: how many there are.
        candidates: locations that passed the threshold; None for a model that sees one person at a time.
        forced: random weights: so many candidates were forced by the bias of the class.
        found: poses above the threshold of the model (of forced candidates: all that were kept).
        network: time.
        decode: time; None of an exported file, where the network's time has it in it.
        work: preprocessing, network and decoding together.
        growth: of the work, against one person, as a factor.
    """

    name: str
    people: int
    candidates: int | None
    forced: bool
    found: int
    network: Latency
    decode: Latency | None
    work: Latency
    growth: float | None


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Time of one model by the size of its input; nanoseconds a pixel are of the network."""

    name: str
    inputs: tuple[Size, ...]
    macs: int
    network: Latency
    work: Latency
    ns_per_pixel: float


@dataclass(frozen=True, slots=True)
class ContestRow:
    """A contender at 480x640 with so many people; ``slower`` is its work over that of the first model."""

    name: str
    people: int
    macs: int
    work: Latency
    slower: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything.

    Attributes:
        machine: see `poise.benchmark.machine.describe`.
        clock: ``processor`` or ``wall``: what shares, growth and ratios are computed from.
        rounds: that were counted.
        product: matrix product: ``side``, ``gmacs_per_second`` by both clocks.
        models: rows by model, runtime and batch.
        people: rows by model and people.
        sizes: rows by model and size.
        contest: beside torchvision's Keypoint R-CNN.
        left_out: what was not measured, and why.
    """

    machine: Mapping[str, Any]
    clock: str
    rounds: int
    product: Mapping[str, float]
    models: list[ModelRow] = field(default_factory=list)
    people: list[PeopleRow] = field(default_factory=list)
    sizes: list[SizeRow] = field(default_factory=list)
    contest: list[ContestRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
