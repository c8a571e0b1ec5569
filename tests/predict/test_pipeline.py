"""``poise.pipeline`` and what ``poise.load`` makes of a top-down model."""

import json

import numpy as np
import pytest

import poise
from crops import ENDS, CropModel, box_of, ends_of, row_of_people, row_picture
from dots import DotModel
from poise.checkpoints import LoadedCheckpoint
from poise.predict import loading
from poise.predict.boxes import read_boxes
from poise.predict.people import PEOPLE_MIN_SCORE
from poise.predict.topdown import TopDownPredictor


@pytest.fixture(autouse=True)
def named_models(monkeypatch):
    """Two single-stage models and two top-down models."""
    asked = []

    def load_model(name, weights=None):
        asked.append((str(name), weights))
        if str(name) in ("default", "dots"):
            return LoadedCheckpoint(DotModel(long_side=240), {"min_score": 0.3})
        if str(name) in ("crops", "crops2"):
            return LoadedCheckpoint(CropModel(), {"min_score": 0.25} if str(name) == "crops2" else {})
        raise ValueError(f"unknown model {name}")

    monkeypatch.setattr(loading, "load_model", load_model)
    return asked


def test_two_models_make_one_predictor(named_models):
    predictor = poise.pipeline("dots", "crops", device="cpu")
    [found] = predictor.predict(row_picture(3))
    assert np.abs(found.keypoints - ends_of(row_of_people(3))).max() < 0.5
    assert found.skeleton == ENDS
    assert predictor.people.description == "people found by dots"
    assert predictor.min_score == pytest.approx(0.2)
    assert [name for name, _ in named_models] == ["crops", "dots"]
    assert len(list(predictor.predict_iter([row_picture(1)] * 2))) == 2


def test_an_ensemble():
    predictor = poise.pipeline("dots", ["crops2", "crops"], device="cpu")
    assert len(predictor.models) == 2
    assert predictor.min_score == 0.25
    assert len(predictor.predict(row_picture(2), flip=True)[0]) == 2


def test_boxes_from_a_file(tmp_path):
    path = tmp_path / "boxes.json"
    x1, y1, x2, y2 = box_of(row_of_people(1)[0])
    path.write_text(json.dumps([{"image_id": "a", "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.75}]))
    for people in (path, str(path), read_boxes(path)):
        predictor = poise.pipeline(people, "crops", device="cpu")
        [found] = predictor.predict(poise.predict.sources.Named(row_picture(1), "a.png"))
        assert np.abs(found.keypoints - ends_of(row_of_people(1))).max() < 0.5
    assert predictor.min_score == 0.3


def test_a_predictor_as_source_and_its_threshold():
    finder = poise.load("dots", device="cpu")
    picture = row_picture(3)
    scores = finder.predict(picture, min_score=0)[0].scores
    for limit, count in ((PEOPLE_MIN_SCORE, 3), (float(scores[1:].mean()), 2), (0.95, 1)):
        predictor = poise.pipeline(finder, "crops", device="cpu", people_min_score=limit)
        assert len(predictor.predict(picture, min_score=0)[0]) == count


def test_loading_a_top_down_model_brings_the_default_people():
    predictor = poise.load("crops", device="cpu")
    assert isinstance(predictor, TopDownPredictor)
    assert predictor.people.description == f"people found by {poise.zoo.DEFAULT}"
    assert len(predictor.predict(row_picture(2))[0]) == 2


def test_weights_reach_the_model(named_models):
    poise.pipeline("dots", "crops", device="cpu", weights="w.safetensors")
    assert named_models[0] == ("crops", "w.safetensors")


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("dots", "dots"), {}, "'dots' looks at whole pictures and finds people itself"),
        (("crops", "crops"), {}, "'crops' looks at one person at a time and cannot find people"),
        (("dots", []), {}, "pose names no model"),
        (("dots", ["crops", "crops2"]), {"weights": "w"}, "weights go with one preset"),
        (("dots", "nobody"), {}, "unknown model nobody"),
        (("dots", "crops"), {"people_min_score": 2.0}, "people_min_score 2.0 must lie in"),
        (("dots", "crops"), {"people_nms": -1.0}, "people_nms -1.0 must lie above 0"),
    ],
    ids=str,
)
def test_what_does_not_go_together(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        poise.pipeline(*arguments, device="cpu", **options)


def test_no_such_box_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"box file .*none.json does not exist"):
        poise.pipeline(tmp_path / "none.json", "crops", device="cpu")
