"""The command ``poise``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import poise
from poise.cli import data as data_verbs
from poise.cli.ablation import ablation
from poise.cli.benchmark import benchmark
from poise.cli.convert import convert
from poise.cli.errors import INTERRUPTED, guarded
from poise.cli.evaluate import evaluate
from poise.cli.examples import epilog
from poise.cli.export import export
from poise.cli.models import models
from poise.cli.predict import predict
from poise.cli.train import train
from poise.memory import keep_freed_memory

VERBS: dict[str, Callable[..., None]] = {
    "predict": predict,
    "evaluate": evaluate,
    "train": train,
    "ablation": ablation,
    "convert": convert,
    "export": export,
    "benchmark": benchmark,
    "models": models,
}

app = typer.Typer(
    epilog=epilog(""),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Find the poses of all people in pictures and videos.

    Results go to stdout, progress and messages to stderr. The exit code is 0 if all went well, 1 if something you
    named does not exist or cannot be used, 2 if the command line is wrong, 130 after Ctrl-C. POISE_DEBUG=1 in the
    environment shows where an error came from.
    """
    if version:
        typer.echo(f"poise {poise.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif context.invoked_subcommand in VERBS:
        keep_freed_memory()  # must come before torch is loaded


for name, verb in VERBS.items():
    app.command(name, epilog=epilog(name))(guarded(verb))
for command in data_verbs.app.registered_commands:
    command.epilog = epilog(f"data {command.name}")
app.add_typer(data_verbs.app, name="data")


def run() -> None:
    """The entry point of the command ``poise``."""
    try:
        app(prog_name="poise")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
