"""``poise convert``: checkpoints of other codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from poise.cli.options import Json


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The other code's file: .pth or .safetensors.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Whose file it is: directpose, smpr, rsn (the authors'), directpose-gluoncv, mmpose-rsn."
        ),
    ],
    output: Annotated[Path | None, typer.Argument(help="The Poise checkpoint to write, usually *.safetensors.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The same as OUTPUT.")] = None,
    as_json: Json = False,
) -> None:
    """Turn a checkpoint of another code into a Poise checkpoint."""
    target = output or out
    if target is None or (output and out):
        raise typer.BadParameter("name the file to write once, as OUTPUT or with --out")
    from poise.converters import SOURCES, convert_file
    from poise.settings import nearest

    if source not in SOURCES:
        raise ValueError(f"--from {source!r} is not known{nearest(source, SOURCES)}")
    written = convert_file(checkpoint, source, target)
    typer.echo(json.dumps({"model": str(written)}) if as_json else written)
