"""``poise train``: from a recipe or a YAML file to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from poise.train.config import RunConfig

INTERRUPTED = 130
"""Exit code of a run that was stopped by Ctrl-C."""


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
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
) -> None:
    """Train a model.

    The run's folder gets the settings, a log and the models; the best one is checkpoints/best.safetensors.
    Ctrl-C stops after the current step and saves; --resume goes on as if nothing had happened.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"--device {device!r}: auto or cpu (choose a GPU with CUDA_VISIBLE_DEVICES)")
    folder = _folder(recipe, run)
    config = _settings(recipe, folder, settings or [], resume)
    if data is not None:
        config = config.model_copy(update={"data_root": str(data)})
    _train(config, folder, resume, device)


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


def _train(config: RunConfig, path: Path, resume: bool, device: str) -> None:
    from poise.train.launch import prepare_run
    from poise.train.progress import ProgressDisplay
    from poise.train.run import RunFolder

    folder = RunFolder(path)
    trainer = prepare_run(config, folder, resume=resume, device=device)
    start = trainer.position.step
    display = ProgressDisplay(trainer.total, start, config.train.log_every)
    if start >= trainer.total:
        display.console.print(f"nothing to do: {start} of {trainer.total} steps are done; raise train.steps to go on")
    trainer.watch(display)
    try:
        outcome = trainer.run()
    finally:
        display.close()
        folder.close()
    if not outcome.finished:
        how = f"go on with: poise train --resume --run {path}"
        display.console.print(f"stopped after step {outcome.step} of {trainer.total} and saved; {how}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(folder.best if folder.best.exists() else folder.last)
