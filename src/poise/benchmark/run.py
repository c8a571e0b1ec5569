"""The benchmark of models: everything in turns, in one process, and a report of it."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

from poise.benchmark.clock import Series, Spent, Task, take_turns
from poise.benchmark.machine import MatrixProduct, describe
from poise.benchmark.memory import Job, peak_memory
from poise.benchmark.models import Bench, FileBench, Size, picture_file
from poise.benchmark.rcnn import NAME as RCNN
from poise.benchmark.rcnn import SIZE as CONTEST_SIZE
from poise.benchmark.rcnn import KeypointRCNN, RCNNTask, picture_tensor
from poise.benchmark.report import ContestRow, Latency, ModelRow, PeopleRow, Report, SizeRow
from poise.benchmark.subjects import Subject, find_subject
from poise.benchmark.tasks import STAGES, WORK
from poise.data.images import read_image
from poise.models import parameter_count
from poise.predict.devices import Half, Running, running
from poise.predict.exported import is_exported
from poise.settings import nearest

RUNTIMES = ("torch", "onnx", "openvino")
PEOPLE = (0, 1, 5, 20, 50)
SCALES = (0.5, 0.75, 1.0, 1.25)
"""Factors of the sides of an input."""
CONTEST_PEOPLE = (1, 20)

_Key = TypeVar("_Key")

Advance = Callable[[int, int], None]
"""Told how many turns of how many are done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how.

    Attributes:
        models: names, at least one.
        runtimes: of `RUNTIMES`.
        size: (height, width) of pictures and input; None: the model's own for pictures of 480x640.
        batches: pictures, or people of a model that sees one at a time.
        people: numbers of people; empty: growth is not measured.
        scales: factors of the input's sides; empty: not measured.
        contest: measure Keypoint R-CNN, too.
        memory: measure memory, too, in processes of their own.
        rounds: that count.
        threads: of the processor; None leaves torch's.
        device: as torch names it.
        half: networks in half precision, as `poise.predict.devices.running`.
        compiled: networks by ``torch.compile``.
    """

    models: tuple[str, ...]
    runtimes: tuple[str, ...] = ("torch",)
    size: Size | None = None
    batches: tuple[int, ...] = (1,)
    people: tuple[int, ...] = PEOPLE
    scales: tuple[float, ...] = SCALES
    contest: bool = True
    memory: bool = True
    rounds: int = 5
    threads: int | None = None
    device: str = "auto"
    half: Half = False
    compiled: bool = False

    def check(self) -> None:
        """``ValueError`` if a number or name is out of bounds."""
        if not self.models:
            raise ValueError("name at least one model")
        for runtime in self.runtimes:
            if runtime not in RUNTIMES:
                raise ValueError(f"runtime {runtime!r} is not known{nearest(runtime, RUNTIMES)}")
        if min((*self.batches, self.rounds)) < 1 or min((0, *self.people)) < 0 or min((1.0, *self.scales)) <= 0:
            raise ValueError("batches, rounds and scales must be positive, people not negative")


def benchmark(plan: Plan, advance: Advance = lambda done, total: None) -> Report:
    """Measure models.

    Every turn of every task follows a large matrix product, so that shares of what the machine can do hold even where
    other programs use it, too.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: there is no such model, runtime or device, or the plan does not fit the model.
    """
    plan.check()
    how = running(plan.device, half=plan.half, compiled=plan.compiled)
    with tempfile.TemporaryDirectory(prefix="poise-benchmark-") as folder, _threads(plan.threads):
        return _Measuring(plan, how, Path(folder), advance).report()


class _Measuring:
    """One benchmark while it goes on."""

    def __init__(self, plan: Plan, how: Running, folder: Path, advance: Advance) -> None:
        self._plan, self._how, self._folder, self._advance = plan, how, folder, advance
        names = list(dict.fromkeys(plan.models))
        # an exported file looks once, and what it is compared with does likewise
        self._once = any(map(is_exported, names)) or set(plan.runtimes) != {"torch"}
        self._benches = [self._bench(find_subject(n), plan.size) for n in names if not is_exported(n)]
        kind, threads = how.device.type, torch.get_num_threads()
        self._files = [FileBench(n, kind, threads, folder, plan.size) for n in names if is_exported(n)]
        self._product = MatrixProduct(how.device, how.precision)
        alone = how.device.type == "cpu" and torch.get_num_threads() == 1
        # processor time is not lengthened by other programs, but threads that wait for each other count in it
        self._clock = "processor" if alone else "wall"
        self._done, self._products, self._left_out = 0, list[Spent](), list[str]()
        if self._files:
            self._left_out.append("files: peak memory, time by size, the comparison with Keypoint R-CNN")
        if len(plan.runtimes) > 1 or "torch" not in plan.runtimes:
            self._left_out.append(
                "runtimes other than torch: peak memory, time by size and people (name a file for the latter)"
            )

    def report(self) -> Report:
        """Measure everything."""
        models = self._models()
        people, sizes, contest = self._people(), self._sizes(), self._contest()
        wall, processor = (
            self._product.macs / 1e9 / max(statistics.median(p[i] for p in self._products), 1e-9) for i in (0, 1)
        )
        product = {
            "side": self._product.side,
            "gmacs_per_second": round(wall, 2),
            "gmacs_per_processor_second": round(processor, 2),
        }
        machine = describe(self._how.device)
        return Report(machine, self._clock, self._plan.rounds, product, models, people, sizes, contest, self._left_out)

    # ---------------------------------------------------------------------------------------------------- parts

    def _models(self) -> list[ModelRow]:
        """Stages, throughput and shares."""
        plan, tasks = self._plan, dict[tuple[int, str, int], Task]()
        for number, bench in enumerate(self._benches):
            for runtime in plan.runtimes:
                for batch in plan.batches:
                    made = bench.task(batch) if runtime == "torch" else self._exported(bench, runtime, batch)
                    tasks[number, runtime, batch] = made
        rows: list[ModelRow] = []
        for (number, runtime, batch), series in self._run(tasks).items():
            row = self._model_row(self._benches[number], runtime, batch, series)
            torch_row = next((r for r in rows if (r.name, r.runtime, r.batch) == (row.name, "torch", batch)), None)
            if runtime != "torch" and torch_row is not None:
                row = replace(row, versus_torch=_of(torch_row.work, self._clock) / _of(row.work, self._clock))
            rows.append(row)
        rows = [self._with_memory(row) for row in rows] if plan.memory else rows
        files = {(n, batch): file.task(batch) for n, file in enumerate(self._files) for batch in plan.batches}
        return rows + [_file_row(self._files[n], batch, series) for (n, batch), series in self._run(files).items()]

    def _model_row(self, bench: Bench, runtime: str, batch: int, series: Series) -> ModelRow:
        macs = bench.macs(batch)
        ratio = macs / self._product.macs
        parts = bool(series.spent("preprocess").wall)
        return ModelRow(
            name=bench.subject.name,
            trained=bench.subject.trained,
            runtime=runtime,
            batch=batch,
            inputs=bench.input_sizes(),
            parameters=parameter_count(cast(nn.Module, bench.subject.model)),
            macs=macs,
            stages={name: _latency(series.spent(name)) for name in STAGES if name in series.names},
            work=_latency(series.spent(*WORK)),
            per_second=batch / max(series.spent(*WORK).wall, 1e-9),
            peak_share=ratio / series.of_product(("network",), self._clock) if parts else None,
            peak_share_with_decode=ratio / series.of_product(("network", "decode"), self._clock),
            found=round(series.count("found") or 0),
        )

    def _with_memory(self, row: ModelRow) -> ModelRow:
        if row.runtime != "torch":
            return row
        subject = next(bench.subject for bench in self._benches if bench.subject.name == row.name)
        size = None if subject.sees_people else self._plan.size
        job = Job(row.name, size, row.batch, str(self._how.device), torch.get_num_threads(), self._how.half, self._once)
        return replace(row, memory=peak_memory(job))

    def _people(self) -> list[PeopleRow]:
        """Time by the number of people."""
        tasks: dict[tuple[int, int], Task] = {}
        for number, bench in enumerate(self._benches):
            for people in self._plan.people:
                crops = bench.subject.sees_people
                tasks[number, people] = bench.task(people) if crops else bench.task(1, people)
        for number, file in enumerate(self._files, len(self._benches)):
            for people in self._plan.people:
                tasks[number, people] = file.task(people) if file.sees_people else file.task(1, people)
        rows = []
        measured = self._run(tasks)
        names = [*(b.subject.name for b in self._benches), *(f.name for f in self._files)]
        for (number, people), series in measured.items():
            one = measured.get((number, 1))
            growth = None
            if one is not None:
                growth = series.of_product(WORK, self._clock) / one.of_product(WORK, self._clock)
            candidates, exported = series.count("candidates"), number >= len(self._benches)
            subject = None if exported else self._benches[number].subject
            row = PeopleRow(
                names[number],
                people,
                None if candidates is None else round(candidates),
                subject is not None and not (subject.trained or subject.sees_people),
                round(series.count("found") or 0),
                _latency(series.spent("network")),
                None if exported else _latency(series.spent("decode")),
                _latency(series.spent(*WORK)),
                growth,
            )
            rows.append(row)
        return rows

    def _sizes(self) -> list[SizeRow]:
        """Time by the size of the input."""
        tasks: dict[tuple[int, float], Task] = {}
        for number, bench in enumerate(self._benches):
            if bench.subject.sees_people:
                self._left_out.append(f"{bench.subject.name} by size: it looks at crops of one size")
                continue
            for scale in self._plan.scales:
                tasks[number, scale] = bench.task(1, scale=scale)
        rows = []
        for (number, scale), series in self._run(tasks).items():
            bench, network = self._benches[number], series.spent("network")
            inputs = bench.input_sizes(scale)
            nanoseconds = 1e9 * getattr(network, self._clock) / sum(height * width for height, width in inputs)
            work = _latency(series.spent(*WORK))
            macs = bench.macs(1, scale)
            rows.append(SizeRow(bench.subject.name, inputs, macs, _latency(network), work, nanoseconds))
        return rows

    def _contest(self) -> list[ContestRow]:
        """The models beside Keypoint R-CNN, all of them at one size."""
        if not self._plan.contest or not self._benches:
            return []
        benches = [b if b.subject.sees_people else self._bench(b.subject, CONTEST_SIZE) for b in self._benches]
        network = KeypointRCNN(self._how)
        tasks: dict[tuple[str, int], Task] = {}
        macs: dict[tuple[str, int], int] = {}
        for people in CONTEST_PEOPLE:
            file = picture_file(self._folder, people, CONTEST_SIZE)
            for bench in benches:
                copies = people if bench.subject.sees_people else 1
                tasks[bench.subject.name, people] = bench.task(copies, people)
                macs[bench.subject.name, people] = bench.macs(copies)
            tasks[RCNN, people] = RCNNTask(network, file, people)
            macs[RCNN, people] = network.macs(picture_tensor(read_image(file), self._how.device), people)
        measured = self._run(tasks)
        rows = []
        for (name, people), series in measured.items():
            first = measured[benches[0].subject.name, people]
            slower = series.of_product(WORK, self._clock) / first.of_product(WORK, self._clock)
            rows.append(ContestRow(name, people, macs[name, people], _latency(series.spent(*WORK)), slower))
        return rows

    # ---------------------------------------------------------------------------------------------------- tools

    def _bench(self, subject: Subject, size: Size | None) -> Bench:
        return Bench(subject, self._how, self._folder, None if subject.sees_people else size, once=self._once)

    def _exported(self, bench: Bench, runtime: str, batch: int) -> Task:
        return bench.exported(runtime, batch, torch.get_num_threads())

    def _run(self, tasks: Mapping[_Key, Task]) -> dict[_Key, Series]:
        """`take_turns` of tasks with any keys."""
        names = {str(number): key for number, key in enumerate(tasks)}
        total = self._done + len(tasks) * (self._plan.rounds + 1)

        def step() -> None:
            self._done += 1
            self._advance(self._done, total)

        by_name: dict[str, Task] = dict(zip(names, tasks.values(), strict=True))
        measured = take_turns(by_name, self._product, self._plan.rounds, self._how.device, step)
        self._products += [turn.product for series in measured.values() for turn in series.turns]
        return {names[name]: series for name, series in measured.items()}


def _file_row(file: FileBench, batch: int, series: Series) -> ModelRow:
    return ModelRow(
        name=file.name,
        trained=True,
        runtime=file.runtime,
        batch=batch,
        inputs=file.input_sizes(),
        parameters=None,
        macs=None,
        stages={name: _latency(series.spent(name)) for name in STAGES if name in series.names},
        work=_latency(series.spent(*WORK)),
        per_second=batch / max(series.spent(*WORK).wall, 1e-9),
        peak_share=None,
        peak_share_with_decode=None,
        found=round(series.count("found") or 0),
    )


def _latency(spent: Spent) -> Latency:
    return Latency(round(1e3 * spent.wall, 3), round(1e3 * spent.processor, 3))


def _of(latency: Latency, clock: str) -> float:
    value: float = getattr(latency, clock)
    return max(value, 1e-6)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
