"""``poise train``: from a recipe or a YAML file to a trained model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.errors import INTERRUPTED, complain
from poise.cli.options import Device, Json

if TYPE_CHECKING:
    from poise.train.config import RunConfig
    from poise.train.run import RunFolder


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe, or a YAML file of settings; not needed with --resume.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: KEY=VALUE, for example train.steps=1000.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run [default: runs/NAME].")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder that relative data paths start from [default: $POISE_DATA, ./data].")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a model.

    The run's folder gets the settings, a log, curves, sample pictures and the models; the best one is
    checkpoints/best.safetensors. Ctrl-C stops after the current step and saves; --resume goes on as if nothing had
    happened. Started by "torchrun --nproc_per_node=N --no-python -- poise train ...", N processes train one model.
    """
    folder = _folder(recipe, run)
    config = _settings(recipe, folder, settings or [], resume)
    if data is not None:
        config = config.model_copy(update={"data_root": str(data)})
    _train(config, folder, resume, device, as_json)


def _folder(recipe: str | None, run: Path | None) -> Path:
    if run is not None:
        return run
    if recipe is None:
        raise ValueError("name a recipe or a YAML file, or the run to resume with --run FOLDER --resume")
    return Path("runs") / Path(recipe).stem


def _settings(recipe: str | None, folder: Path, changes: list[str], resume: bool) -> RunConfig:
    from poise.train.config import RunConfig
    from poise.train.recipes import RECIPES
    from poise.train.recipes import recipe as named_recipe

    if resume:
        saved = folder / "config.yaml"
        if not saved.is_file():
            raise FileNotFoundError(f"{folder} holds no run to resume: there is no {saved}")
        return RunConfig.from_yaml(saved).override(changes)
    if recipe is None:
        raise ValueError(f"name a recipe ({', '.join(RECIPES)}) or a YAML file")
    is_file = recipe.endswith((".yaml", ".yml"))
    return (RunConfig.from_yaml(recipe) if is_file else named_recipe(recipe)).override(changes)


def _train(config: RunConfig, path: Path, resume: bool, device: str, as_json: bool) -> None:
    from poise.train.failures import explain
    from poise.train.run import RunFolder

    folder = RunFolder(path)
    try:
        finished = _run(config, folder, resume, device, as_json)
    except Exception as error:
        reason = explain(error, config)
        if reason is None or os.environ.get("POISE_DEBUG", "0") not in ("", "0"):
            raise
        complain(reason + _how_to_go_on(folder, device))
        raise typer.Exit(1) from None
    finally:
        folder.close()
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _run(config: RunConfig, folder: RunFolder, resume: bool, device: str, as_json: bool) -> bool:
    """Prepare, train and tell; True if the run is over, False if it was asked to stop."""
    from poise.train.finish import finish_run
    from poise.train.launch import prepare_run
    from poise.train.progress import ProgressDisplay

    trainer = prepare_run(config, folder, resume=resume, device=device, tell=_say)
    if not trainer.accelerator.is_main_process:
        return trainer.run().finished
    start = trainer.position.step
    display = ProgressDisplay(trainer.total, start, config.train.log_every)
    trainer.watch(display)
    try:
        outcome = trainer.run()
    finally:
        display.close()
    if not outcome.finished:
        _say(f"stopped after step {outcome.step} of {trainer.total} and saved{_how_to_go_on(folder, device)}")
        return False
    if outcome.early:
        _say(
            f"ended after step {outcome.step} of {trainer.total}: {config.train.patience} evaluations without a better "
            f"{config.train.best_by}; raise train.patience to go on"
        )
    elif start >= trainer.total and not outcome.metrics:
        _say(f"nothing to do: {start} of {trainer.total} steps are done; raise train.steps to go on")
    for what, command in finish_run(config, trainer, folder, device).items():
        _say(f"{what + ':':9} {command}")
    typer.echo(json.dumps({"run": str(folder.path), "model": str(folder.result)}) if as_json else folder.result)
    return True


def _say(message: str) -> None:
    """One line on stderr."""
    typer.echo(message, err=True)


def _how_to_go_on(folder: RunFolder, device: str) -> str:
    """The end of a message: the command that resumes the run, or starts it again if nothing was saved."""
    if not (folder.state.exists() or folder.never_saved):
        return ""
    from poise.train.commands import resume_command

    what = "go on with" if folder.state.exists() else "nothing was saved yet; start again with"
    return f"; {what}: {resume_command(folder.path, device)}"
