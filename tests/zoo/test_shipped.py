"""The models that come with the package: files, cards and numbers belong together, and they find people."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import poise
from poise.checkpoints import read_header
from poise.models import parse_model_config, preset
from poise.train.config import RunConfig
from poise.zoo import DEFAULT, ShippedModel, larger, shipped

ROOT = Path(__file__).parents[2]
MODELS = list(shipped().values())
LARGER = [replace(model, path=ROOT / model.path) for model in larger().values() if (ROOT / model.path).is_file()]
EXAMPLES = ROOT / "examples"
RUNS = ROOT / "docs/model_runs"


def test_there_are_models_and_one_is_the_default() -> None:
    assert DEFAULT in shipped()
    assert {read_header(m.path).model["system"] for m in MODELS} == {"directpose", "smpr", "rsn"}
    assert sum(m.path.stat().st_size for m in MODELS) < 25e6
    assert sum(m.path.stat().st_size for m in LARGER) < 60e6


@pytest.mark.parametrize("model", MODELS + LARGER, ids=lambda m: m.name)
def test_numbers_are_those_of_the_file(model: ShippedModel) -> None:
    numbers = model.metrics
    assert numbers["sha256"] == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert numbers["bytes"] == model.path.stat().st_size
    for name in ("AP", "AP50"):
        low, high = numbers["intervals_95"][name]
        assert 0 < low < numbers[name] < high < 1
    assert numbers["AP"] < numbers["AP50"]


@pytest.mark.parametrize("model", MODELS + LARGER, ids=lambda m: m.name)
def test_presets_are_the_models(model: ShippedModel) -> None:
    """What the recipe of a model trains is measured and used as the model is; boxes are of the training alone."""
    settings = [
        c.model_dump(mode="json") for c in (preset(model.name), parse_model_config(read_header(model.path).model))
    ]
    for each in settings:
        del each["view"]["person_box"]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("model", MODELS + LARGER, ids=lambda m: m.name)
def test_the_runs_that_made_it_lead_to_it(model: ShippedModel) -> None:
    """Each begins with what the one before left; the last is of the model as it is shipped."""
    files = sorted((RUNS / model.name).glob("*.yaml"))
    runs = [RunConfig.from_yaml(file) for file in files]
    assert [file.stem for file in files] == [f"{number:02d}" for number in range(1, len(runs) + 1)]
    assert runs[-1].model == parse_model_config(read_header(model.path).model)
    table = re.findall(r"^\| (\d+) \| ", model.card.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number in table] == list(range(1, len(runs) + 1))
    for number, run in enumerate(runs[1:], 1):
        made = {
            f"runs/{model.name}_{number}/checkpoints/last.safetensors",
            f"runs/{model.name}_{number}_from_p4_to_p6.safetensors",
            f"runs/{model.name}_mean_of_{number - 1}_and_{number}.safetensors",
        }
        assert run.init in made


@pytest.mark.parametrize("model", MODELS + LARGER, ids=lambda m: m.name)
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
    """Three digits: a place may be some pixels off, above all a guessed one, and a keypoint drawn to another peak."""
    photo = EXAMPLES / "three_people.jpg"
    found = (poise.load(name, device="cpu", half=half).predict([photo])[0] for half in (False, "bfloat16"))
    # from left to right: who is best may change
    whole, short = (poses[np.argsort(poses.keypoints[..., 0].mean(1))] for poses in found)
    assert len(short) == len(whole)
    np.testing.assert_allclose(short.scores, whole.scores, atol=0.05)
    away = np.linalg.norm(short.keypoints - whole.keypoints, axis=2)
    sure = whole.keypoint_scores > 0.3
    assert sure.sum() > 20
    assert np.median(away[sure]) < 3
    assert away.any()


@pytest.mark.parametrize("model", LARGER, ids=lambda m: m.name)
def test_larger_models_are_found_by_their_path_and_find_people(model: ShippedModel) -> None:
    photo = EXAMPLES / "three_people.jpg"
    boxes = shipped()[DEFAULT].name
    poses = poise.pipeline(boxes, model.path, device="cpu").predict([photo])[0]
    assert len(poses) >= 3
    with pytest.raises(ValueError, match="with the repository.*models/" + model.name):
        poise.load(model.name)
