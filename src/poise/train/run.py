"""The folder of a training run.

::

    RUN/config.yaml                     the settings, complete
    RUN/metrics.jsonl                   one JSON object a line: losses every few steps, metrics of every evaluation
    RUN/checkpoints/last.safetensors    the newest model (the moving average if there is one)
    RUN/checkpoints/best.safetensors    the model with the best AP (``train.best_by``)
    RUN/checkpoints/step_*.safetensors  the newest ``keep`` numbered ones
    RUN/state.pt                        what ``--resume`` goes on from
    RUN/tensorboard/                    the same numbers as metrics.jsonl, if tensorboard is installed
    RUN/start.txt                       what was taken from the weights to start from, if there were any
    RUN/results.png                     losses and metrics over epochs, after the last step
    RUN/samples/*.jpg                   truth and predictions side by side, likewise
    RUN/commands.txt                    how to resume the run, measure the model and use it
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from poise.checkpoints import read_header, save_checkpoint
from poise.files import remove_leftovers, write_text
from poise.models.base import PoseModel
from poise.train.config import RunConfig
from poise.train.meter import Meter
from poise.train.trackers import Trackers
from poise.train.watching import StepReport


class RunFolder:
    """Writes a run's files; a `poise.train.watching.Watcher`.

    Attributes:
        path: the folder.
        settings: the run's settings.
        state: the file to resume from.
        last: the newest model.
        best: the model with the best metric so far (``train.best_by``); absent until an evaluation reported it.
        log: the numbers of the run.
        start: what was taken from the weights to start from.
        results: losses and metrics over epochs.
        samples: folder of pictures with truth and predictions.
        commands: how to go on.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = self.path / "state.pt"
        self.last = self.path / "checkpoints" / "last.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"
        self.settings = self.path / "config.yaml"
        self.log = self.path / "metrics.jsonl"
        self.start = self.path / "start.txt"
        self.results = self.path / "results.png"
        self.samples = self.path / "samples"
        self.commands = self.path / "commands.txt"
        self._log_every = 1
        self._keep = 0
        self._best_by = "AP"
        self._recipe: dict[str, Any] = {}
        self._saved_step: int | None = None
        self._best_value: float | None = None
        self._meter = Meter()
        self._evaluated: tuple[int, Mapping[str, float]] | None = None
        self._trackers: Trackers | None = None

    @property
    def result(self) -> Path:
        """The model that a user of the run gets: the best one, or the newest if none was measured."""
        return self.best if self.best.exists() else self.last

    @property
    def never_saved(self) -> bool:
        """Whether the run here stopped before its first save, so that nothing is lost if it starts again."""
        return self.settings.exists() and not any(file.exists() for file in (self.state, self.last, self.commands))

    def refuse_existing(self) -> None:
        """``FileExistsError`` if the folder already holds a run."""
        if not self.settings.exists():
            return
        if self.state.exists():
            found = "already holds a run: add --resume to go on with it"
        elif self.never_saved:
            found = "holds a run that has saved nothing: add --resume to start it again with its settings"
        else:
            found = f"holds a run whose {self.state.name} is gone: put that back and add --resume to go on with it"
        raise FileExistsError(f"{self.path} {found}, or choose another --run")

    def forget_unsaved(self) -> None:
        """Make room for a new start if the run here was never saved; a saved run stays."""
        if not self.state.exists():
            self.settings.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)

    def create(self, config: RunConfig) -> None:
        """Start a new run here; errors as `refuse_existing`."""
        self.refuse_existing()
        self._open(config)

    def reopen(self, config: RunConfig, step: int, *, measured: bool = True) -> None:
        """Go on with the run that is here, which was saved after ``step`` steps; what it logged later is dropped.

        So are the metrics of that step if it is going to be measured once more (``measured`` is False).
        """
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        kept = [line for line in lines if _is_up_to(line, step, measured)]
        write_text(self.log, "".join(line + "\n" for line in kept))
        if self.best.exists():
            self._best_value = read_header(self.best).metadata.get("metrics", {}).get(config.train.best_by)
        for file in (self.state, self.last, self.best, self.settings, self.log):
            remove_leftovers(file)
        self._open(config)

    def stepped(self, report: StepReport) -> None:
        """Log the means of every ``log_every`` steps."""
        self._meter.add(report)
        if report.step % self._log_every == 0:
            self._write(asdict(self._meter.summarise()))

    def evaluated(self, step: int, metrics: Mapping[str, float], model: PoseModel) -> None:
        """Log the metrics; keep the model if it is the best so far; note them in ``last`` if that is this model."""
        self._write({"step": step, "metrics": dict(metrics)})
        self._evaluated = (step, metrics)
        if step == self._saved_step:
            self._save_model(self.last, step, model, metrics)
        value = metrics.get(self._best_by, math.nan)
        if math.isfinite(value) and (self._best_value is None or value > self._best_value):
            self._best_value = value
            self._save_model(self.best, step, model, metrics)

    def saved(self, step: int, model: PoseModel) -> None:
        """Write ``last`` and, if wanted, a numbered checkpoint; drop the oldest numbered ones."""
        self._saved_step = step
        metrics = self._evaluated[1] if self._evaluated is not None and self._evaluated[0] == step else None
        self._save_model(self.last, step, model, metrics)
        if self._keep:
            self._save_model(self.last.with_name(f"step_{step:08d}.safetensors"), step, model, metrics)
            for old in sorted(self.last.parent.glob("step_*.safetensors"))[: -self._keep]:
                old.unlink()

    def close(self) -> None:
        """Close the log."""
        if self._trackers is not None:
            self._trackers.close()
            self._trackers = None

    def _open(self, config: RunConfig) -> None:
        train = config.train
        self._recipe = portable_recipe(config)
        self._trackers = Trackers(train.trackers, self.path, dict(_flat(self._recipe)))
        write_text(self.settings, config.to_yaml())
        self._log_every, self._keep, self._best_by = train.log_every, train.keep, train.best_by

    def _save_model(self, path: Path, step: int, model: PoseModel, metrics: Mapping[str, float] | None = None) -> None:
        metadata = {"step": step, "recipe": self._recipe, "metrics": _finite(metrics or {})}
        save_checkpoint(path, model, metadata=metadata)

    def _write(self, entry: dict[str, Any]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(entry)) + "\n")
        if self._trackers is not None:
            self._trackers.log(dict(_flat(entry)), step=entry["step"])


def portable_recipe(config: RunConfig) -> dict[str, Any]:
    """The settings as a checkpoint carries them: without the model's (it has them) and without folders of a machine."""
    recipe = config.model_dump(mode="json", exclude={"model", "data_root"})
    if recipe["init"] is not None:
        recipe["init"] = Path(recipe["init"]).name
    if recipe["train"]["teacher"] is not None:
        recipe["train"]["teacher"] = Path(recipe["train"]["teacher"]).name
    for source in (*recipe["data"]["sources"], recipe["data"]["val"] or {}):
        source |= {key: _relative(source[key]) for key in ("annotations", "images") if key in source}
    recipe["data"]["negatives"] = [_relative(folder) for folder in recipe["data"]["negatives"]]
    return recipe


def _relative(path: str) -> str:
    """A relative path as it is, the last two parts of an absolute one."""
    return str(Path(*Path(path).parts[-2:])) if Path(path).is_absolute() else path


def _is_up_to(line: str, step: int, measured: bool) -> bool:
    """Whether a line was logged by that step, and if it is not ``measured`` before its metrics."""
    try:
        entry = json.loads(line)
        return int(entry["step"]) < step + (measured or "metrics" not in entry)
    except (ValueError, KeyError, TypeError):  # the line that a crash cut off
        return False


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without infinities and NaN, which JSON does not have: they become null."""
    clean: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            clean[key] = _finite(value)
        else:
            clean[key] = None if isinstance(value, float) and not math.isfinite(value) else value
    return clean


def _flat(entry: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Numbers of a nested entry with names such as ``losses/total``; the step is left out."""
    pairs: list[tuple[str, float]] = []
    for key, value in entry.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{key}/")
        elif key != "step" and isinstance(value, int | float):
            pairs.append((prefix + key, value))
    return pairs
