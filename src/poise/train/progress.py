"""How a run looks while it goes: a bar on a terminal, plain lines elsewhere; all of it on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from poise.models.base import PoseModel
from poise.train.meter import Meter, Summary
from poise.train.watching import StepReport

NOBODY = 20
"""After so many steps in a row without a labelled person there is a warning."""


class ProgressDisplay:
    """Shows losses, learning rate, images per second, memory and the time left; a `poise.train.watching.Watcher`.

    Args:
        total: steps of the whole run.
        start: steps already done.
        log_every: steps between two lines; on a terminal the bar is refreshed at every step.
        console: where to; None: stderr.
    """

    def __init__(self, total: int, start: int = 0, log_every: int = 20, console: Console | None = None) -> None:
        self.console = console if console is not None else Console(stderr=True, highlight=False)
        self._total = total
        self._log_every = log_every if not self.console.is_terminal else 1
        self._meter = Meter()
        self._nobody = 0
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self.console,
            )
            self._task = self._bar.add_task("starting", total=total, completed=start)
            self._bar.start()

    def stepped(self, report: StepReport) -> None:
        """Show the newest numbers."""
        self._meter.add(report)
        self._nobody = 0 if report.people else self._nobody + 1
        if self._nobody == NOBODY:
            self.console.print(
                f"warning: no labelled person in {NOBODY} steps: nothing but the absence of people is learned; "
                "look at the annotations, and at min_visible, min_size and the scales of data.augment",
                soft_wrap=True,
            )
        if report.step % self._log_every and report.step != self._total:
            return
        summary = self._meter.summarise()
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, description=describe(summary))
            return
        left = timedelta(seconds=round((self._total - report.step) * summary.seconds_per_step))
        self.console.print(f"step {report.step}/{self._total}  {describe(summary)}  {left} left", soft_wrap=True)

    def evaluated(self, step: int, metrics: Mapping[str, float], model: PoseModel) -> None:
        """Show the metrics."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.console.print(f"evaluated after {step} steps: {values}", soft_wrap=True)

    def saved(self, step: int, model: PoseModel) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


def describe(summary: Summary) -> str:
    """One line of numbers: total loss, its terms, learning rate, gradient norm, speed, memory."""
    terms = " ".join(f"{name} {value:.4g}" for name, value in summary.losses.items() if name != "total")
    waiting = f", {summary.waiting:.0%} waiting for data" if summary.waiting >= 0.1 else ""
    return (
        f"loss {summary.losses.get('total', 0.0):.4g} ({terms})  lr {summary.lr:.3g}  "
        f"gradient {summary.grad_norm:.3g}  {summary.images_per_second:.1f} images/s  "
        f"{summary.memory / 1e9:.1f} GB{waiting}"
    )
