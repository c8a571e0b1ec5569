"""The course of a run as one picture: losses and metrics over epochs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from poise.files import replacing

SHOWN = ("AP", "AP50", "AP75", "AR")
"""Metrics that are drawn, if they were measured; of others the first few."""
_FEW = 4
Curve = list[tuple[float, float]]
"""(epochs, value)."""


def read_curves(log: Path, steps_per_epoch: float) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Loss terms and metrics of a ``metrics.jsonl`` over epochs; lines that a crash cut off are left out.

    Args:
        log: the file.
        steps_per_epoch: updates in an epoch.
    """
    losses: dict[str, Curve] = {}
    metrics: dict[str, Curve] = {}
    for entry in _entries(log):
        epoch = entry["step"] / steps_per_epoch
        for curves, values in ((losses, entry.get("losses")), (metrics, entry.get("metrics"))):
            for name, value in (values or {}).items():
                if isinstance(value, int | float):
                    curves.setdefault(name, []).append((epoch, float(value)))
    return losses, metrics


def draw_curves(log: Path, steps_per_epoch: float, path: Path) -> None:
    """Write the picture: loss terms on the left, metrics on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses, metrics = read_curves(log, steps_per_epoch)
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _fill(left, losses, "loss (weighted terms)", "no losses were logged")
    _fill(right, _chosen(metrics), "validation", "the model was not evaluated")
    if losses and min(value for curve in losses.values() for _, value in curve) > 0:
        left.set_yscale("log")
    right.set_ylim(bottom=0)
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _fill(axes: Any, curves: Mapping[str, Curve], title: str, nothing: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    for name, curve in curves.items():
        bold = name in ("total", "AP")
        marker = "o" if len(curve) < 30 else ""
        axes.plot(*zip(*curve, strict=True), label=name, lw=2.2 if bold else 1.2, marker=marker, ms=3)
    if curves:
        axes.legend()
    else:
        axes.text(0.5, 0.5, nothing, ha="center", va="center", transform=axes.transAxes)


def _chosen(metrics: Mapping[str, Curve]) -> dict[str, Curve]:
    shown = [name for name in SHOWN if name in metrics] or list(metrics)[:_FEW]
    return {name: metrics[name] for name in shown}


def _entries(log: Path) -> Iterable[dict[str, Any]]:
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            yield entry
