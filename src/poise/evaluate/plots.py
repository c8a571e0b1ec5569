"""The plots of a report, as SVG text.

Letters: K keypoints, R recalls, T thresholds.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poise.evaluate.analysis import KEYPOINT_KINDS, STEPS, Analysis
from poise.evaluate.breakdown import PROPERTIES, Calibration, Group
from poise.evaluate.evaluation import Evaluation
from poise.evaluate.precision import RECALLS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "good": "#4c9f70", "miss": "#d1495b", "swap": "#8d6fb8", "inversion": "#edae49", "jitter": "#7fb7d6",
    "score": "#30638e", "false positive": "#9a5b3c", "missed person": "#5c6670", "imprecision": "#bcd9c6",
}  # fmt: skip
"""Of the kinds of errors, everywhere in a report."""
LINES = ("#30638e", "#d1495b", "#3c8d5a", "#c98a1b", "#6d5ba8", "#7a4b2e", "#3aa0a8", "#b0457f")
_INK, _FAINT = "#23272e", "#dfe3e8"
_SHOWN = ((0, "OKS 0.5"), (5, "OKS 0.75"), (8, "OKS 0.9"))


def precision_recall(evaluations: Sequence[Evaluation]) -> str:
    """Precision over recall: of one evaluation at several similarities, of several ones in the mean over all."""
    figure, (axes,) = _figure(6.2, 4.4)
    if len(evaluations) == 1:
        lines = evaluations[0].curves.precision[0]
        for (t, label), colour in zip(_SHOWN, LINES, strict=False):
            axes.plot(RECALLS, lines[t], color=colour, lw=2, label=f"{label}: {100 * np.mean(lines[t]):.1f}")
        axes.plot(RECALLS, lines.mean(0), color=_INK, lw=2, ls="--", label=f"mean: {100 * np.mean(lines):.1f}")
    for evaluation, colour in zip(evaluations if len(evaluations) > 1 else (), _cycle(evaluations), strict=True):
        line = evaluation.curves.precision[0].mean(0)
        axes.plot(RECALLS, line, color=colour, lw=2, label=f"{short(evaluation.name)}: {100 * np.mean(line):.1f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    axes.legend(frameon=False, fontsize=9, loc="best")
    return _svg(figure)


def calibration_plot(bins: Calibration) -> str:
    """Share of right poses over score, and how many poses there are."""
    figure, (axes, counts) = _figure(6.2, 4.4, rows=2, height_ratios=(3, 1))
    low, high = bins.edges[[0, -1]].tolist()
    width = 0.92 * (high - low) / len(bins.counts)
    centres = 0.5 * (bins.edges[1:] + bins.edges[:-1])
    axes.bar(centres, np.nan_to_num(bins.right), width, color=COLOURS["jitter"])
    axes.plot([0, 1], [0, 1], color=_INK, lw=1, ls="--")
    filled = bins.counts > 0
    axes.plot(bins.scores[filled], bins.right[filled], "o-", color=COLOURS["score"], ms=4)
    error = "" if np.isnan(bins.error) else f" (expected calibration error {bins.error:.3f})"
    axes.set(ylabel="share of right poses (OKS 0.5)", ylim=(0, 1.02), title=f"What a score is worth{error}")
    counts.bar(centres, bins.counts, width, color=COLOURS["missed person"])
    counts.set(xlabel="score", ylabel="poses")
    for part in (axes, counts):
        part.set_xlim(low, high)
    return _svg(figure)


def loss_plot(analysis: Analysis) -> str:
    """What every kind of error costs: alone, and one after the other up to everything."""
    figure, (steps, alone) = _figure(11, 3.9, columns=2)
    names = ["as it is", *STEPS, "imprecision"]
    starts = [0.0, analysis.precision.ap, *(loss.step.ap for loss in analysis.losses)]
    widths = [analysis.precision.ap, *(loss.lost for loss in analysis.losses), analysis.imprecision]
    colours = [COLOURS["good"], *(COLOURS[name] for name in names[1:])]
    rows = np.arange(len(names))
    steps.barh(rows, 100 * np.array(widths), left=100 * np.array(starts), color=colours, height=0.72)
    for row, start, width in zip(rows.tolist(), starts, widths, strict=True):
        end = 100 * (start + max(width, 0))
        left = end > 88
        text = f"{100 * width:.1f} " if row == 0 else f"{100 * width:+.1f} "
        steps.text(100 * start if left else end + 1, row, text, va="center", ha="right" if left else "left", fontsize=9)
    steps.set(title="Corrected one after the other: AP adds up to 100", xlim=(0, 100), xlabel="AP")
    _rows(steps, names)
    gains = [100 * (loss.alone.ap - analysis.precision.ap) for loss in analysis.losses]
    alone.barh(np.arange(len(gains)), gains, color=[COLOURS[name] for name in STEPS], height=0.72)
    for row, gain in enumerate(gains):
        alone.text(max(gain, 0), row, f" {gain:+.1f}", va="center", fontsize=9)
    alone.set(title="Only this corrected: AP gained", xlabel="AP", xlim=(min(0, *gains), 1.18 * max(1.0, *gains)))
    _rows(alone, list(STEPS))
    return _svg(figure)


def keypoint_plot(analysis: Analysis, keypoints: Sequence[str]) -> str:
    """Shares of good and wrong keypoints, of the poses that are somebody."""
    figure, (axes,) = _figure(11, 0.24 * len(keypoints) + 1.6)
    counts = {name: np.array(values, np.float64) for name, values in analysis.table.items()}
    total = np.maximum(sum(counts.values()), 1)
    left = np.zeros(len(keypoints))
    for name in ("good", *KEYPOINT_KINDS):
        share = 100 * counts[name] / total
        axes.barh(np.arange(len(keypoints)), share, left=left, color=COLOURS[name], height=0.8, label=name)
        left = left + share
    axes.set(xlabel="% of the labelled keypoints", xlim=(0, 100))
    axes.legend(ncols=5, frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _rows(axes, list(keypoints))
    return _svg(figure)


def group_plot(groups: Sequence[Group]) -> str:
    """AP and AR of groups of people, a panel a property."""
    panels = [p for p in PROPERTIES if any(group.property == p for group in groups)]
    members = [[group for group in groups if group.property == name] for name in panels]
    figure, parts = _figure(11, 3.2, columns=max(1, len(panels)), width_ratios=[1 + len(m) for m in members] or [1])
    for axes, name, chosen in zip(parts, panels, members, strict=False):
        rows = np.arange(len(chosen))
        axes.bar(rows - 0.2, [100 * g.ap for g in chosen], 0.38, color=COLOURS["score"], label="AP")
        axes.bar(rows + 0.2, [100 * g.ar for g in chosen], 0.38, color=COLOURS["jitter"], label="AR")
        axes.set_xticks(rows, [g.name.replace(" ", "\n") + f"\n({g.people})" for g in chosen], fontsize=7.5)
        axes.set(title=PROPERTIES[name], ylim=(0, 105))
        axes.title.set_fontsize(10)
    if panels:
        parts[0].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    return _svg(figure)


def short(name: str, most: int = 34) -> str:
    """The end of a long name."""
    return name if len(name) <= most else "…" + name[1 - most :]


def _cycle(evaluations: Sequence[Evaluation]) -> list[str]:
    return [LINES[i % len(LINES)] for i in range(len(evaluations) if len(evaluations) > 1 else 0)]


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    parts = figure.subplots(rows, columns, squeeze=False, gridspec_kw=more).ravel().tolist()
    for axes in parts:
        axes.grid(color=_FAINT, lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, parts


def _rows(axes: Any, names: list[str]) -> None:
    """Names of horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _svg(figure: Figure) -> str:
    """The figure as an SVG element; the same figure gives the same text."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "poise"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)
