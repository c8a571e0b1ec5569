"""Everything an evaluation found out, as values that go into JSON; what is no number is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from poise.evaluate.analysis import Analysis, analyse
from poise.evaluate.bootstrap import Difference, Interval
from poise.evaluate.breakdown import PCK, calibration, group_scores, keypoint_scores, operating_point
from poise.evaluate.evaluation import Evaluation
from poise.evaluate.pck import box_pck


def details(evaluation: Evaluation, samples: int = 0, seed: int = 0) -> dict[str, Any]:
    """Losses, groups of people, keypoints, PCK of everybody, calibration and the best threshold, by these names.

    Args:
        evaluation: whose.
        samples: resampled sets of pictures for the intervals of PCK; 0 for none.
        seed: of the samples.

    Raises:
        ValueError: one sample is asked for, which gives no interval.
    """
    best = operating_point(evaluation)
    bins = calibration(evaluation)
    return {
        "losses": loss_table(analyse(evaluation)),
        "groups": [
            {"by": g.property, "group": g.name, "people": g.people, "AP": g.ap, "AP50": g.ap50, "AR": g.ar}
            for g in group_scores(evaluation)
        ],
        "keypoints": [
            {"name": k.name, "labelled": k.labelled, "found": k.found, "OKS": k.oks}
            | {f"PCK{limit:g}": value for limit, value in zip(PCK, k.pck, strict=True)}
            for k in keypoint_scores(evaluation)
        ],
        "pck": pck_table(evaluation, samples, seed),
        "calibration": {
            "error": _number(bins.error),
            "edges": bins.edges.tolist(),
            "poses": bins.counts.tolist(),
            "score": [_number(value) for value in bins.scores.tolist()],
            "right": [_number(value) for value in bins.right.tolist()],
        },
        "threshold": None
        if best is None
        else {"score": best.score, "precision": best.precision, "recall": best.recall, "f1": best.f1},
    }


def pck_table(evaluation: Evaluation, samples: int = 0, seed: int = 0) -> dict[str, Any]:
    """PCK of all people, given their poses by their boxes (see `box_pck`); with ``intervals`` if samples are drawn."""
    pck = box_pck(evaluation)
    table: dict[str, Any] = {**pck.numbers, "people": pck.people, "found": pck.found}
    return table | ({"intervals": interval_table(pck.intervals(samples, seed))} if samples else {})


def loss_table(analysis: Analysis) -> list[dict[str, Any]]:
    """What every kind of error costs: AP that is gained alone, and in turn; the last entry is imprecision."""
    rows: list[dict[str, Any]] = [
        {
            "error": loss.kind,
            "count": loss.count,
            "alone": {
                "AP": loss.alone.ap - analysis.precision.ap,
                "AP50": loss.alone.ap50 - analysis.precision.ap50,
                "AP75": loss.alone.ap75 - analysis.precision.ap75,
            },
            "in_turn": loss.lost,
        }
        for loss in analysis.losses
    ]
    return [*rows, {"error": "imprecision", "count": None, "alone": None, "in_turn": analysis.imprecision}]


def interval_table(intervals: Mapping[str, Interval]) -> dict[str, list[float]]:
    """Lower and upper end of every number."""
    return {name: [interval.low, interval.high] for name, interval in intervals.items()}


def difference_tables(
    names: Sequence[str], differences: Sequence[Mapping[str, Difference]]
) -> list[dict[str, str | dict[str, float]]]:
    """For each but the first of the compared results what it is better by, and how sure that is."""
    return [
        {"model": name, "against": names[0]}
        | {
            number: {
                "difference": d.interval.value,
                "low": d.interval.low,
                "high": d.interval.high,
                "better": d.better,
            }
            for number, d in table.items()
        }
        for name, table in zip(names[1:], differences, strict=True)
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
