"""What ``poise benchmark`` prints for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poise.benchmark.data import DataReport
    from poise.benchmark.report import Latency, ModelRow, Report
    from poise.benchmark.training import TrainingReport

WIDTH = 140
"""Of tables that do not go to a terminal."""
STAGES = ("load", "preprocess", "network", "decode", "draw")


def print_report(report: Report) -> None:
    """Tables of models, people, sizes and contenders."""
    console, clock = _console(), report.clock
    machine, product = report.machine, report.product
    console.print(
        f"{machine.get('gpu', machine['processor'])}, {machine['threads']} of {machine['cores']} threads, load "
        f"{machine['load']}, torch {machine['torch']}; product of matrices {product['side']:.0f}^2: "
        f"{product['gmacs_per_second']:.1f} GMAC/s ({product['gmacs_per_processor_second']:.1f} by processor time)",
        soft_wrap=True,
    )
    console.print(
        f"Times in ms of {clock} time, medians of {report.rounds} rounds; pictures a second by the wall clock.",
        soft_wrap=True,
    )
    _print_models(console, report)
    if report.people:
        table = _table("by people", "model", "people", "found", "candidates", "network", "decode", "together", "growth")
        for row in report.people:
            candidates = "" if row.candidates is None else f"{row.candidates}{' forced' if row.forced else ''}"
            table.add_row(
                row.name, str(row.people), str(row.found), candidates, _ms(row.network, clock), _ms(row.decode, clock),
                _ms(row.work, clock), "" if row.growth is None else f"{100 * (row.growth - 1):+.1f} %",
            )  # fmt: skip
        console.print(table)
    if report.sizes:
        table = _table("by size", "model", "input", "GMAC", "network", "together", "ns/pixel")
        for size in report.sizes:
            table.add_row(
                size.name, _sides(size.inputs), _giga(size.macs), _ms(size.network, clock),
                _ms(size.work, clock), f"{size.ns_per_pixel:.0f}",
            )  # fmt: skip
        console.print(table)
    if report.contest:
        table = _table("at 480x640", "contender", "people", "GMAC", "together", "times the first")
        for rival in report.contest:
            table.add_row(
                rival.name, str(rival.people), _giga(rival.macs), _ms(rival.work, clock), f"{rival.slower:.2f}"
            )
        console.print(table)
    for line in report.left_out:
        console.print(f"Not measured: {line}", soft_wrap=True)
    if any(not row.trained for row in report.models):
        console.print(
            "Random weights find nobody: candidates are forced, 40 for each person, by the bias of the class.",
            soft_wrap=True,
        )


def _print_models(console: Console, report: Report) -> None:
    clock = report.clock
    counts, results = ("batch", "input", "Mparam.", "GMAC"), ("per s", "of peak", "peak MB", "vs torch")
    table = _table(None, "model", "runtime", *counts, *STAGES, *results)
    for row in report.models:
        table.add_row(
            row.name + ("" if row.trained else " (random)"), row.runtime, str(row.batch),
            _sides(row.inputs), "" if row.parameters is None else f"{row.parameters / 1e6:.1f}",
            _giga(row.macs), *(_ms(row.stages.get(name), clock) for name in STAGES), f"{row.per_second:.2f}",
            _share(row), "" if row.memory is None else f"{row.memory['peak']:.0f}",
            "" if row.versus_torch is None else f"{row.versus_torch:.2f}x",
        )  # fmt: skip
    console.print(table)


def print_data(report: DataReport) -> None:
    """Throughput by workers, and where the time goes."""
    console = _console()
    table = _table(None, "pipeline", "batch", "workers", "pictures/s")
    for row in report.workers:
        table.add_row(report.pipeline, str(report.batch), str(row.workers), f"{row.images_per_second:.1f}")
    console.print(table)
    shares = report.shares
    console.print(
        f"One training picture takes {shares.processor:.1f} ms of processor time: decoding {shares.files:.1f} files "
        f"{shares.decode:.1f} ms ({100 * shares.decode_share:.0f} %), augmentation {shares.augment:.1f} ms "
        f"({100 * shares.augment_share:.0f} %), tensor {shares.tensor:.1f} ms; {shares.pictures} pictures, no cache.",
        soft_wrap=True,
    )


def print_training(report: TrainingReport) -> None:
    """Steps by recipe and way, and the operators that take the time."""
    console, clock = _console(), report.clock
    console.print(
        f"Times in ms of {clock} time, {report.machine['threads']} threads, medians of {report.rounds} rounds.",
        soft_wrap=True,
    )
    table = _table(None, "recipe", "way", "batch", "input", "forward", "losses", "backward", "pictures/s", "faster")
    for row in report.steps:
        table.add_row(
            row.recipe, row.way, str(row.batch), f"{row.size[0]}x{row.size[1]}",
            *(_ms(part, clock) for part in row.parts.values()), f"{row.images_per_second:.2f}",
            "" if row.faster is None else f"{row.faster:.2f}x",
        )  # fmt: skip
    console.print(table)
    if report.profile:
        table = _table("operators of a step, by themselves", "recipe", "operator", "share", "calls")
        for operator in report.profile:
            table.add_row(operator.recipe, operator.name, f"{100 * operator.share:.1f} %", str(operator.calls))
        console.print(table)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def _table(title: str | None, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _ms(latency: Latency | None, clock: str) -> str:
    return "" if latency is None else f"{getattr(latency, clock):.1f}"


def _sides(sizes: Sequence[tuple[int, int]]) -> str:
    return "+".join(f"{height}x{width}" for height, width in sizes)


def _giga(macs: int | None) -> str:
    return "" if macs is None else f"{macs / 1e9:.2f}"


def _share(row: ModelRow) -> str:
    return "" if row.peak_share is None else f"{100 * row.peak_share:.0f} %"
