"""What a run leaves behind when it is over: curves, sample pictures, and the commands to go on with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from poise.files import write_text
from poise.train.commands import as_script, next_commands
from poise.train.config import RunConfig
from poise.train.curves import draw_curves
from poise.train.engine import Trainer
from poise.train.run import RunFolder
from poise.train.samples import draw_samples

_log = logging.getLogger(__name__)


def finish_run(config: RunConfig, trainer: Trainer, folder: RunFolder, device: str = "auto") -> dict[str, str]:
    """Write ``results.png``, ``samples/*.jpg`` and ``commands.txt`` into the run's folder; to be called after training.

    What cannot be drawn is left out with a warning: the model is there in any case.

    Returns:
        The commands to go on with, by what they do.
    """
    data = config.located_data()
    steps_per_epoch = trainer.batches.steps_per_epoch / config.train.accumulate
    _tried("results.png", lambda: draw_curves(folder.log, steps_per_epoch, folder.results))
    if config.train.samples:
        source = data.val if data.val is not None else data.sources[0]
        place = trainer.accelerator.device
        _tried(
            "samples",
            lambda: draw_samples(trainer.best_model, place, source, config.train.samples, folder.samples),
        )
    crops = trainer.model.view.kind == "crop"
    commands = next_commands(folder.path, folder.result, data.val, device, true_boxes=crops)
    write_text(folder.commands, as_script(commands))
    return commands


def _tried(what: str, work: Callable[[], list[Path] | None]) -> None:
    try:
        work()
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        _log.warning("%s of the run cannot be drawn: %s", what, error)
