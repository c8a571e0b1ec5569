"""``poise ablation``: a paper's table of rows, trained and measured with one command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.errors import INTERRUPTED, complain
from poise.cli.options import Device, Json

if TYPE_CHECKING:
    from poise.train.ablation_table import Table
    from poise.train.config import RunConfig
    from poise.train.engine import Trainer


WIDTH = 120
"""Of the table where it does not go to a terminal."""


def ablation(
    name: Annotated[str, typer.Argument(help="Whose ablation: smpr, or augmentation.")],
    rows: Annotated[
        str | None, typer.Option(help="Rows with commas, for example baseline,refine,psm [default: all].")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="A recipe or YAML file that gives everything but the rows' switches [default: the paper's]."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of each row's training.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of all rows: KEY=VALUE.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that relative data paths start from [default: $POISE_DATA, ./data].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the runs and tables [default: runs/ablation-NAME].")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train and measure the rows of a paper's ablation, all alike, beside the paper's numbers.

    "augmentation" measures what training does to pictures: without any change, with each one alone, as --like says.
    Every row is trained with the same data, seed and length in a folder of its own. The table is printed and written
    to table.md, table.json and table.csv. After Ctrl-C the same command goes on: finished rows are not repeated.
    """
    from poise.train.ablation import Stopped, run_ablation
    from poise.train.ablation_augment import plan_ablation

    chosen = [row.strip() for row in rows.split(",")] if rows else []
    base = _settings(like) if like is not None else None
    plan = plan_ablation(name, chosen, like=base, changes=settings or [], steps=steps, data_root=data)
    folder = out if out is not None else Path("runs") / f"ablation-{name}"
    try:
        table = run_ablation(plan, folder, device=device, watch=_shown)
    except Stopped as stop:
        complain(f"stopped in {stop} and saved; the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(table.to_dict()))
    else:
        _print(table)


def _settings(like: str) -> RunConfig:
    from poise.train.config import RunConfig
    from poise.train.recipes import recipe

    return RunConfig.from_yaml(like) if like.endswith((".yaml", ".yml")) else recipe(like)


@contextmanager
def _shown(preset: str, trainer: Trainer) -> Iterator[None]:
    """The progress of a row on stderr."""
    from poise.train.progress import ProgressDisplay

    display = ProgressDisplay(trainer.total, trainer.position.step, trainer.config.log_every)
    display.console.print(f"{preset}: {trainer.position.step} of {trainer.total} steps done")
    trainer.watch(display)
    try:
        yield
    finally:
        display.close()


def _print(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for line in (*table.heading, table.note):
        console.print(line, markup=False, soft_wrap=True)
    grid = Grid(box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        grid.add_column(column, justify="right" if number else "left")
    for cells in table.cells():
        grid.add_row(*cells)
    console.print(grid)
