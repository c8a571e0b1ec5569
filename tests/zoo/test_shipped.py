"""The models that come with the package: files, cards and numbers belong together, and they find people."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import poise
from poise.checkpoints import read_header
from poise.zoo import DEFAULT, ShippedModel, shipped

MODELS = list(shipped().values())
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_there_are_models_and_one_is_the_default() -> None:
    assert DEFAULT in shipped()
    assert {read_header(m.path).model["system"] for m in MODELS} == {"directpose", "smpr", "rsn"}
    assert sum(m.path.stat().st_size for m in MODELS) < 25e6


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_numbers_are_those_of_the_file(model: ShippedModel) -> None:
    numbers = model.metrics
    assert numbers["sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert numbers["bytes"] == model.path.stat().st_size
    for name in ("AP", "AP50"):
        low, high = numbers["intervals_95"][name]
        assert 0 < low < numbers[name] < high < 1
    assert numbers["AP"] < numbers["AP50"]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_cards_say_what_the_numbers_say(model: ShippedModel) -> None:
    card = model.card.read_text(encoding="utf-8")
    assert model.title.startswith(model.name)
    for heading in ("## Measured", "## Data and their terms", "## Recipe", "## Where it fails"):
        assert heading in card
    assert model.metrics["sha256"] in card
    for name in ("AP", "AP50"):
        assert f"| {100 * model.metrics[name]:.1f} |" in card
        assert " to ".join(f"{100 * v:.1f}" for v in model.metrics["intervals_95"][name]) in card


def test_the_single_stage_models_find_three_people_and_rsn_looks_at_each() -> None:
    photo = EXAMPLES / "three_people.jpg"
    found = {m.name: poise.load(m.name, device="cpu").predict([photo])[0] for m in MODELS}
    for name, poses in found.items():
        assert len(poses) >= 2, name
        assert poses.keypoints.shape[1:] == (17, 2)


@pytest.mark.parametrize("name", [m.name for m in MODELS])
def test_the_same_people_in_bfloat16_on_a_processor(name: str) -> None:
    """Three digits: a place may be some pixels off, and a keypoint drawn to another of two peaks."""
    photo = EXAMPLES / "three_people.jpg"
    [whole] = poise.load(name, device="cpu").predict([photo])
    [short] = poise.load(name, device="cpu", half="bfloat16").predict([photo])
    assert len(short) == len(whole)
    np.testing.assert_allclose(short.scores, whole.scores, atol=0.05)
    away = np.linalg.norm(short.keypoints - whole.keypoints, axis=2)
    assert np.median(away) < 3
    assert away.any()
