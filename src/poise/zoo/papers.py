"""What the papers report: the numbers that ours stand beside. Nothing here was measured with Poise.

Metrics are named as in `poise.evaluate.coco.METRICS` and are percent, as printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MINIVAL = "COCO minival"
TEST_DEV = "COCO test-dev"
_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR")


@dataclass(frozen=True, slots=True)
class Result:
    """Published accuracy of one network.

    Attributes:
        preset: the network here.
        data: what it was measured on.
        metrics: percent, by name.
        setting: how it was measured, where that is not at one scale with the scores of the network.
        source: the paper, or the authors' repository where that says something else.
        where: table of the paper.
    """

    preset: str
    data: str
    metrics: Mapping[str, float]
    setting: str = ""
    source: Literal["paper", "code"] = "paper"
    where: str = ""


def _row(preset: str, data: str, *percent: float, setting: str = "", source: Literal["paper", "code"] = "paper",
         where: str = "") -> Result:  # fmt: skip
    """A line of a table whose columns are AP, AP50, AP75, APM, APL and, if there is one more, AR."""
    return Result(preset, data, dict(zip(_METRICS, percent, strict=False)), setting, source, where)


SEVERAL_SCALES = "several scales"
TRUTH_SCORES = "scores from the truth"

RESULTS: tuple[Result, ...] = (
    _row("directpose_r50", TEST_DEV, 62.2, 86.4, 68.2, 56.7, 69.8),
    _row("directpose_r50", TEST_DEV, 63.0, setting=SEVERAL_SCALES),
    _row("directpose_r101", TEST_DEV, 63.3, 86.7, 69.4, 57.8, 71.2),
    _row("directpose_r101", TEST_DEV, 64.8, 87.8, 71.1, 60.4, 71.5, setting=SEVERAL_SCALES),
    _row("smpr_r50", TEST_DEV, 64.7, 87.3, 71.2, 59.1, 72.7, where="Table III"),
    _row("smpr_r50", TEST_DEV, 67.1, 88.5, 74.2, 62.0, 74.7, setting=SEVERAL_SCALES, where="Table III"),
    _row("smpr_r50", TEST_DEV, 62.6, 85.9, 68.6, 56.1, 71.7, source="code"),
    _row("smpr_r50", TEST_DEV, 65.3, 87.9, 72.1, 59.8, 73.3, setting=SEVERAL_SCALES, source="code"),
    _row("smpr_hrnet_w32", TEST_DEV, 68.2, 88.7, 75.3, 63.3, 75.4, where="Table III"),
    _row("smpr_hrnet_w32", TEST_DEV, 70.2, 89.7, 77.5, 65.9, 77.2, setting=SEVERAL_SCALES, where="Table III"),
    _row("smpr_baseline", MINIVAL, 43.3, 72.7, 45.8, 38.6, 51.0, 54.7, where="Table I"),
    _row("smpr_baseline_star", MINIVAL, 49.5, 78.3, 53.9, 44.3, 57.3, 59.2, where="Table I"),
    _row("smpr_refine", MINIVAL, 54.2, 80.6, 59.4, 48.3, 62.9, 63.2, where="Table I"),
    _row("smpr_refine_star", MINIVAL, 57.0, 83.0, 62.6, 50.8, 65.8, 64.1, where="Table I"),
    _row("smpr_psm", MINIVAL, 58.5, 82.9, 64.3, 52.3, 67.1, 64.8, where="Table I"),
    _row("smpr_psm", MINIVAL, 68.8, 87.9, 75.7, 64.5, 75.4, setting=TRUTH_SCORES, where="Table II"),
    _row("smpr_heatmap", MINIVAL, 60.8, 84.5, 67.3, 54.4, 69.9, 67.0, where="Table I"),
    _row("smpr_pafpn", MINIVAL, 61.6, 85.0, 67.1, 55.6, 70.2, 67.7, where="Table I"),
)
"""Paper by paper; the papers' pages have the same numbers with their context."""


def published(preset: str, data: str, setting: str = "") -> Mapping[str, float]:
    """The paper's metrics of a preset, percent by name; empty if it has none."""
    for result in RESULTS:
        if (result.preset, result.data, result.setting, result.source) == (preset, data, setting, "paper"):
            return result.metrics
    return {}
