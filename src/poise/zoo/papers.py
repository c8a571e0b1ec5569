"""What the papers report: the numbers that ours stand beside. Nothing here was measured with Poise.

Metrics are named as in `poise.evaluate.coco.METRICS` (``PCKh`` on MPII) and are percent, as printed. Where a paper's
network is not that of its public code, results stand with the preset that fits best; the papers' pages tell more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MINIVAL = "COCO minival"
TEST_DEV = "COCO test-dev"
VAL = "COCO val2017"
MPII_VAL = "MPII val"
Source = Literal["paper", "code", "mmpose"]
"""The paper, the authors' repository where that says something else, or mmpose."""
_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR")


@dataclass(frozen=True, slots=True)
class Result:
    """Published accuracy of one network.

    Attributes:
        preset: the network here.
        data: what it was measured on.
        metrics: percent, by name.
        setting: how it was measured, where that is not at one scale with the scores of the network.
        source: who reports it.
        where: table of the paper.
    """

    preset: str
    data: str
    metrics: Mapping[str, float]
    setting: str = ""
    source: Source = "paper"
    where: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """Published or counted size of the authors' network.

    Attributes:
        preset: the network here.
        size: (height, width) of the input.
        parameters: millions; None if not told.
        macs: multiply-adds of one input, 10^9.
        source: ``paper``: as printed. ``code``: counted on the network that the authors' code builds.
    """

    preset: str
    size: tuple[int, int]
    parameters: float | None
    macs: float
    source: Source


def _row(
    preset: str, data: str, *percent: float, setting: str = "", source: Source = "paper", where: str = ""
) -> Result:
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
    _row("rsn18", VAL, 73.6, 90.5, 80.9, 67.8, 79.1, 78.8),
    _row("rsn18", VAL, 70.4, 88.8, 77.7, 67.2, 76.7, 76.5, source="code"),
    Result("rsn18", VAL, {"AP": 70.4, "AP50": 88.7, "AP75": 78.1, "AR": 77.3}, source="mmpose"),
    Result("rsn18", TEST_DEV, {"AP": 71.6, "AP50": 92.6, "AP75": 80.3}),
    Result("rsn50", VAL, {"AP": 72.4, "AP50": 89.4, "AP75": 79.9, "AR": 79.0}, source="mmpose"),
    _row("rsn50_paper", VAL, 74.7, 91.4, 81.5, 71.0, 80.2, 80.0),
    Result("rsn50_paper", TEST_DEV, {"AP": 72.5, "AP50": 93.0, "AP75": 81.3}),
    _row("rsn101", VAL, 75.8, 92.4, 83.0, 72.1, 81.2, 81.1),
    _row("rsn50x2", VAL, 77.2, 92.3, 84.0, 73.8, 82.5, 82.2),
    Result("rsn50x2", VAL, {"AP": 74.8, "AP50": 90.0, "AP75": 82.1, "AR": 81.0}, source="mmpose"),
    Result("rsn50x2", TEST_DEV, {"AP": 75.5, "AP50": 93.6, "AP75": 84.0}),
    _row("rsn50x3", VAL, 78.2, 92.3, 85.1, 74.7, 83.7, 83.1),
    Result("rsn50x3", VAL, {"AP": 75.0, "AP50": 90.0, "AP75": 82.4, "AR": 81.4}, source="mmpose"),
    _row("rsn50x4_paper", VAL, 79.0, 92.5, 85.7, 75.2, 84.5, 83.7),
    Result("rsn50x4_paper", TEST_DEV, {"AP": 78.0, "AP50": 94.2, "AP75": 86.5, "AR": 83.4}),
    _row("rsn50x4_paper_384x288", VAL, 79.6, 92.5, 85.8, 75.5, 85.2, 84.2),
    _row("rsn50x4_paper_384x288", TEST_DEV, 78.6, 94.3, 86.6, 75.5, 83.3, 83.8),
    Result("rsn50x4_paper_mpii", MPII_VAL, {"PCKh": 91.6}),
)
"""Paper by paper; the papers' pages have the same numbers with their context."""

PICTURE = (480, 640)
"""Input at which networks that see whole pictures are counted."""
_CROP = (256, 192)
COSTS: tuple[Cost, ...] = (
    Cost("smpr_r50", PICTURE, 36.265649, 71.0, "code"),
    Cost("smpr_r50_fpn", PICTURE, 33.905329, 69.0, "code"),
    Cost("smpr_hrnet_w32", PICTURE, 38.907697, 95.0, "code"),
    Cost("smpr_hrnet_w48", PICTURE, 74.988721, 148.0, "code"),
    Cost("rsn18", _CROP, 9.145, 2.25, "code"),
    Cost("rsn18", _CROP, None, 2.5, "paper"),
    Cost("rsn18x4", _CROP, 38.39, 9.22, "code"),
    Cost("rsn50", _CROP, 19.33, 4.07, "code"),
    Cost("rsn50_paper", _CROP, None, 6.4, "paper"),
    Cost("rsn101", _CROP, 39.56, 7.94, "code"),
    Cost("rsn101", _CROP, None, 11.5, "paper"),
    Cost("rsn50x2", _CROP, 39.26, 8.22, "code"),
    Cost("rsn50x2", _CROP, None, 13.9, "paper"),
    Cost("rsn50x3", _CROP, 59.20, 12.36, "code"),
    Cost("rsn50x3", _CROP, None, 20.7, "paper"),
    Cost("rsn50x4", _CROP, 79.13, 16.51, "code"),
    Cost("rsn50x4_paper", _CROP, None, 29.3, "paper"),
    Cost("rsn50x4_paper_384x288", (384, 288), None, 65.9, "paper"),
)
"""The papers on DirectPose and SMPR print none; RSN's prints what it calls GFLOPs."""


def published(preset: str, data: str, setting: str = "") -> Mapping[str, float]:
    """The paper's metrics of a preset, percent by name; empty if it has none."""
    for result in RESULTS:
        if (result.preset, result.data, result.setting, result.source) == (preset, data, setting, "paper"):
            return result.metrics
    return {}


def reported() -> list[str]:
    """Presets that have published results or costs, paper by paper."""
    return list(dict.fromkeys([r.preset for r in RESULTS] + [c.preset for c in COSTS]))


def cost(preset: str, source: Source) -> Cost | None:
    """What that source tells of the size of a preset's network."""
    return next((c for c in COSTS if (c.preset, c.source) == (preset, source)), None)
