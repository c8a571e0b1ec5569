"""Published numbers name presets, and our networks have the size of the authors'."""

from __future__ import annotations

import pytest

from poise.models import PRESETS
from poise.zoo.counting import count
from poise.zoo.papers import COSTS, PICTURE, RESULTS, cost, published, reported

QUICK = ("smpr_r50", "rsn18")
ENLARGED_BY_RSN = 256 * 256 * (8 * 6 + 16 * 12 + 32 * 24) * 3 / 1e9
"""Multiply-adds (10^9) that an RSN stage saves by a 1x1 convolution before enlarging each of three maps, not after."""


def test_results_are_percent_of_presets() -> None:
    for result in RESULTS:
        assert result.preset in PRESETS
        assert result.metrics
        assert all(30 < value < 100 for value in result.metrics.values())
    keys = [(r.preset, r.data, r.setting, r.source) for r in RESULTS]
    assert len(set(keys)) == len(keys)


def test_what_is_looked_up() -> None:
    assert published("smpr_psm", "COCO minival")["AP"] == 58.5
    assert published("smpr_psm", "COCO minival", "scores from the truth")["AP"] == 68.8
    assert published("smpr_mobilenetv2", "COCO minival") == {}
    printed = cost("rsn18", "paper")
    assert printed is not None
    assert printed.macs == 2.5
    assert cost("directpose_r50", "paper") is None
    assert set(reported()) == {r.preset for r in RESULTS} | {c.preset for c in COSTS} <= set(PRESETS)
    assert len({(c.preset, c.source) for c in COSTS}) == len(COSTS)


@pytest.mark.parametrize(
    "preset",
    [pytest.param(c.preset, marks=() if c.preset in QUICK else pytest.mark.slow) for c in COSTS if c.source == "code"],
)
def test_networks_have_the_size_of_the_authors(preset: str) -> None:
    """To the digits that are known of theirs; RSN's decoder here saves what an enlarged map would have cost."""
    theirs, ours = cost(preset, "code"), count(preset)
    assert theirs is not None
    assert theirs.parameters is not None
    assert ours.size == theirs.size
    whole = ours.size == PICTURE
    assert ours.parameters / 1e6 == pytest.approx(theirs.parameters, abs=5e-7 if whole else 5e-3)
    stages = 0 if whole else PRESETS[preset]().model_dump()["stages"]
    saved = stages * ENLARGED_BY_RSN
    assert ours.macs / 1e9 + saved == pytest.approx(theirs.macs, abs=0.5 if whole else 0.006)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="unknown preset 'smpr_r5'"):
        count("smpr_r5")
