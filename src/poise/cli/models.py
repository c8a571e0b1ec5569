"""``poise models``: what can be named after ``--model``, and what the papers report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.options import Json, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poise.zoo import ShippedModel
    from poise.zoo.counting import Count
    from poise.zoo.papers import Result

NOTES = (
    "Published numbers, in percent; none of them was measured with Poise. Parameters in millions, multiply-adds (MAC)",
    "in 10^9: counted on our networks, counted on those of the authors' code, and as the paper prints them (RSN's fit",
    "2^30). Where RSN's paper and code differ in size, results are those of the paper's networks; ours need fewer MAC",
    "than the code's because their decoders convolve before they enlarge.",
)
WIDTH = 140
"""Of the table where it does not go to a terminal."""


def models(
    as_json: Json = False,
    papers: Annotated[
        bool, typer.Option("--papers", help="Print what the papers report, beside the size of our networks.")
    ] = False,
) -> None:
    """List the shipped models, and the presets."""
    if papers:
        _papers(as_json)
        return
    from poise.models import PRESETS
    from poise.zoo import DEFAULT, LARGER, larger, shipped

    found, others = shipped(), larger()
    if as_json:
        listed, more = (
            [{"name": m.name, "title": m.title, "path": str(m.path), "metrics": m.metrics} for m in part.values()]
            for part in (found, others)
        )
        default = DEFAULT if DEFAULT in found else None
        typer.echo(json.dumps({"default": default, "models": listed, "larger": more, "presets": [*PRESETS]}))
        return
    typer.echo("Models that come with Poise (poise predict --model NAME):")
    if found:
        _print_shipped(list(found.values()), DEFAULT)
    else:
        typer.echo("  none: this copy was built without weights")
    if others:
        typer.echo(f"Larger models, in the repository (poise predict --model {LARGER}/NAME.safetensors):")
        _print_shipped(list(others.values()), DEFAULT)
    typer.echo("Presets without weights (poise train NAME, or --model NAME --weights FILE):")
    for name in PRESETS:
        typer.echo(f"  {name}")


def _print_shipped(models: list[ShippedModel], default: str) -> None:
    """A table of measured numbers, then where the cards are."""
    from rich.console import Console
    from rich.table import Table

    from poise.predict.people import PEOPLE_MIN_SCORE, PEOPLE_MIN_SCORE_MEASURED

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False)
    table.add_column("  model")
    for column in ("input", "param.", "file", "AP", "AP50", "time"):
        table.add_column(column, justify="right")
    table.add_column("measured on")
    for model in models:
        mark = " (default)" if model.name == default else ""
        table.add_row(f"  {model.name}{mark}", *_measured(model))
        for finder, metrics in _with_finders(model):
            row = _numbers({"protocol": "the same pictures, end to end", **metrics})
            table.add_row(f"    on people of {finder}", "", "", "", *row)
    console.print(table)
    timed = dict.fromkeys(m.metrics["milliseconds_of"] for m in models if "milliseconds_of" in m.metrics)
    for what in timed:
        console.print(f"  Time: {what}", soft_wrap=True)
    if any(_with_finders(model) for model in models):
        measured, shown = PEOPLE_MIN_SCORE_MEASURED, PEOPLE_MIN_SCORE
        console.print(f"  On people of: AP looks at those found with {measured} or more, time at those with {shown}")
    console.print("  Cards, with data, terms, intervals and failures: " + str(models[0].card.parent), soft_wrap=True)


def _measured(model: ShippedModel) -> list[str]:
    """Columns of a shipped model; what nobody measured stays empty.

    Of a model that looks at people, the time is told where somebody finds them.
    """
    m = model.metrics
    numbers = {k: v for k, v in m.items() if k != "milliseconds"} if _with_finders(model) else m
    sides = m.get("input", "")
    return [
        "x".join(map(str, sides)) if isinstance(sides, list) else f"{sides} px" if sides else "",
        f"{m['parameters'] / 1e6:.2f} M" if "parameters" in m else "",
        f"{_bytes(model) / 1e6:.1f} MB",
        *_numbers(numbers),
    ]


def _bytes(model: ShippedModel) -> int:
    """Size of the weights; those of a larger model need not be here."""
    return model.path.stat().st_size if model.path.is_file() else int(model.metrics.get("bytes", 0))


def _numbers(metrics: Mapping[str, Any]) -> list[str]:
    """The columns from AP on."""
    return [
        *(f"{100 * metrics[name]:.1f}" if name in metrics else "" for name in ("AP", "AP50")),
        f"{metrics['milliseconds']:.0f} ms" if "milliseconds" in metrics else "",
        ", ".join(str(metrics[name]) for name in ("data", "protocol") if name in metrics),
    ]


def _with_finders(model: ShippedModel) -> list[tuple[str, Mapping[str, Any]]]:
    """Of a model that looks at people: who found them, and what was measured then."""
    m = model.metrics
    found = [(key.removeprefix("with_"), value) for key, value in m.items() if key.startswith("with_")]
    return [
        (finder.removesuffix("_flip") + ", with flip", numbers)
        if finder.endswith("_flip")
        else (finder, {"milliseconds": m["milliseconds"], **numbers} if "milliseconds" in m else numbers)
        for finder, numbers in found
    ]


def _papers(as_json: bool) -> None:
    from poise.zoo.counting import count
    from poise.zoo.papers import reported

    names = reported()
    counts: dict[str, Count] = {}
    with progress_bar("counting", quiet=as_json) as advance:
        for done, name in enumerate(names, 1):
            counts[name] = count(name)
            advance(done, len(names))
    if as_json:
        typer.echo(json.dumps([_record(name, counted) for name, counted in counts.items()]))
    else:
        _print(counts)


def _record(name: str, counted: Count) -> dict[str, Any]:
    """Everything about a preset, JSON-ready."""
    from poise.zoo.papers import COSTS, RESULTS

    def own(entries: Any) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(e).items() if k != "preset"} for e in entries if e.preset == name]

    return {"preset": name, "counted": asdict(counted), "costs": own(COSTS), "results": own(RESULTS)}


def _print(counts: dict[str, Count]) -> None:
    from rich.console import Console
    from rich.table import Table

    from poise.zoo.papers import RESULTS

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for line in NOTES:
        console.print(line, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("preset")
    for column in ("input", "param.", "code's", "MAC", "code's", "paper's"):
        table.add_column(column, justify="right")
    table.add_column("AP", justify="right")
    for column in ("measured on", "by"):
        table.add_column(column)
    for name, counted in counts.items():
        size = _sizes(name, counted)
        results = [_result(r) for r in RESULTS if r.preset == name] or [("", "", "")]
        for number, result in enumerate(results):
            table.add_row(*(size if number == 0 else [""] * len(size)), *result)
    console.print(table)


def _sizes(name: str, counted: Count) -> list[str]:
    """The columns that are about a network itself."""
    from poise.zoo.papers import cost

    code, paper = cost(name, "code"), cost(name, "paper")
    return [
        name,
        f"{counted.size[0]}x{counted.size[1]}",
        f"{counted.parameters / 1e6:.2f}",
        f"{code.parameters:.2f}" if code and code.parameters is not None else "",
        f"{counted.macs / 1e9:.2f}",
        f"{code.macs:g}" if code else "",
        f"{paper.macs:g}" if paper else "",
    ]


def _result(result: Result) -> tuple[str, str, str]:
    """The columns that are about a result."""
    name, value = next(iter(result.metrics.items()))
    by = {"code": "authors' code"}.get(result.source, result.source)
    return (
        f"{value:.1f}" if name == "AP" else f"{value:.1f} {name}",
        f"{result.data}, {result.setting}" if result.setting else result.data,
        f"{by} ({result.where})" if result.where else by,
    )
