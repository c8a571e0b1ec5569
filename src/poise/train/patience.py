"""When to give up: a run that has stopped getting better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


class Patience:
    """Counts evaluations without a better metric.

    Args:
        evaluations: so many in a row without a better one exhaust it; None never does.
        metric: its name; larger is better. A value that is no number is no better.

    Attributes:
        best: the best value so far; None before the first.
        since: evaluations since then.
    """

    def __init__(self, evaluations: int | None, metric: str) -> None:
        self._evaluations = evaluations
        self._metric = metric
        self.best: float | None = None
        self.since = 0

    @property
    def exhausted(self) -> bool:
        """Whether the run should end."""
        return self._evaluations is not None and self.since >= self._evaluations

    def update(self, metrics: Mapping[str, float]) -> None:
        """Count one more evaluation.

        Raises:
            ValueError: it does not report the metric, so that its count would mean nothing.
        """
        if self._evaluations is not None and self._metric not in metrics:
            raise unknown_metric(self._metric, metrics)
        value = metrics.get(self._metric, math.nan)
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best, self.since = value, 0
        else:
            self.since += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read what `state_dict` wrote."""
        self.best, self.since = state["best"], int(state["since"])


def unknown_metric(metric: str, known: Iterable[str]) -> ValueError:
    """The error for a ``train.best_by`` that no evaluation reports."""
    return ValueError(
        f"train.best_by {metric!r} is none of the metrics that the evaluation reports ({', '.join(known) or 'none'}): "
        "choose one of them with --set train.best_by=NAME"
    )
