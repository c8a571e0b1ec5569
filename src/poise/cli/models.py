"""``poise models``: what can be named after ``--model``."""

from __future__ import annotations

import json

import typer

from poise.cli.options import Json


def models(as_json: Json = False) -> None:
    """List the shipped models, and the presets."""
    from poise.models import PRESETS
    from poise.zoo import DEFAULT, shipped

    found = shipped()
    if as_json:
        listed = [{"name": m.name, "title": m.title, "path": str(m.path), "metrics": m.metrics} for m in found.values()]
        typer.echo(
            json.dumps({"default": DEFAULT if DEFAULT in found else None, "models": listed, "presets": [*PRESETS]})
        )
        return
    typer.echo("Models that come with Poise (poise predict --model NAME):")
    for model in found.values():
        mark = " (default)" if model.name == DEFAULT else ""
        typer.echo(f"  {model.name}{mark}: {model.title or 'no card'}")
    if not found:
        typer.echo("  none: this copy was built without weights")
    typer.echo("Presets without weights (poise train NAME, or --model NAME --weights FILE):")
    for name in PRESETS:
        typer.echo(f"  {name}")
