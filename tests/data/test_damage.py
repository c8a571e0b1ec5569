"""Noise, patches and pictures laid on one another: pixels against closed forms, truth against pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marked import FIGURE, RULE, figures

from poise.data.compose import compose, paste, single
from poise.data.config import AugmentConfig
from poise.data.damage import add_noise, erase, hide_truth, mix
from poise.data.material import Material, Source
from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, Truth

CALM: dict[str, Any] = {
    "mosaic": 0, "paste": 0, "single_scale": (1, 1), "rotation_p": 0, "flip_p": 0, "brightness": 0, "contrast": 0,
    "saturation": 0, "hue": 0, "grey_p": 0, "blur_p": 0, "translation": 0,
}  # fmt: skip


def material(samples: list[Sample], grounds: int = 0) -> Material:
    pictures = [*samples, *(figures((60, 60), []) for _ in range(grounds))]
    records, images = [], {}
    for i, sample in enumerate(pictures):
        path, truth = Path(str(i)), sample.truth
        records.append(Record(path, i, sample.size, truth.keypoints, truth.boxes, truth.areas, truth.ignore))
        images[path] = sample.image
    source = Source(PoseDataset("some", FIGURE, tuple(records[: len(samples)])))
    return Material([source], records[len(samples) :], RULE, (9, 9, 9), read=lambda record: images[record.path])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_noise_has_the_deviation_asked_for_and_stays_within_bytes() -> None:
    grey = np.full((100, 100, 3), 128, np.uint8)
    noisy = add_noise(grey, 12.0, rng())
    assert noisy.dtype == np.uint8
    assert noisy.astype(float).std() == pytest.approx(12.0, rel=0.02)
    assert noisy.astype(float).mean() == pytest.approx(128, abs=0.3)
    white = add_noise(np.full((50, 50, 3), 255, np.uint8), 30.0, rng(1))
    assert (white.min(), white.max()) > (100, 254)
    assert (add_noise(grey, 0.0, rng()) == grey).all()


def test_hidden_keypoints_are_occluded_and_hidden_people_ignored() -> None:
    sample = figures((120, 200), [(10, 10, 80), (110, 10, 80)])
    covered = np.zeros(sample.size, np.bool_)
    covered[:20] = True  # both heads
    assert hide_truth(sample.truth, covered, 3).keypoints[..., 2].tolist() == 2 * [[1, 2, 2, 2, 2]]
    covered[:, :100] = True  # all of the first
    found = hide_truth(sample.truth, covered, 3)
    assert found.keypoints[..., 2].tolist() == [[1, 2, 2, 2, 2]]
    assert np.array_equal(found.boxes, sample.truth.boxes[1:])
    assert np.array_equal(found.ignore, sample.truth.boxes[:1])
    assert sample.truth.keypoints[..., 2].min() == 2


def test_hiding_nothing_and_nobody() -> None:
    sample, nobody = figures((60, 60), [(10, 5, 40)]), Truth.empty(5)
    nothing = np.zeros((60, 60), np.bool_)
    assert np.array_equal(hide_truth(sample.truth, nothing, 3).keypoints, sample.truth.keypoints)
    assert len(hide_truth(nobody, ~nothing, 3)) == 0
    few = sample.truth.keypoints.copy()
    few[:, 1:, 2] = 0  # labelled at one keypoint, which stays in sight
    kept = hide_truth(Truth(few, *_others(sample.truth)), nothing, 3)
    assert (len(kept), len(kept.ignore)) == (1, 0)


def _others(truth: Truth) -> tuple[Any, ...]:
    return truth.boxes, truth.areas, truth.ignore, truth.person_boxes


def test_a_mix_is_the_mean_with_the_people_of_both() -> None:
    first, second = figures((80, 90), [(10, 10, 60)]), figures((80, 90), [(50, 12, 60), (5, 5, 20)])
    mixed = mix(first, second, 0.25)
    exact = 0.25 * first.image.astype(float) + 0.75 * second.image
    assert np.abs(mixed.image - exact).max() <= 0.51
    assert np.array_equal(mixed.truth.boxes, np.concatenate([first.truth.boxes, second.truth.boxes]))
    assert len(mix(figures((80, 90), []), figures((80, 90), []), 0.5).truth) == 0


@pytest.mark.parametrize("field", ["noise_p", "erase_p", "mixup_p"])
def test_canvases_have_it_as_often_as_asked_and_not_by_default(field: str) -> None:
    pictures = material([figures((96, 96), [(20, 10, 70)]), figures((96, 96), [(40, 12, 70)])])

    def drawn(p: float, seed: int) -> Sample:
        return compose(pictures, AugmentConfig.parse(CALM | {field: p}), (96, 96), rng(seed))

    changed = []
    for seed in range(30):
        plain = single(pictures, AugmentConfig.parse(CALM), (96, 96), _after_the_way(seed))
        assert np.array_equal(drawn(0.0, seed).image, plain.image)
        changed.append(not np.array_equal(drawn(0.5, seed).image, plain.image))
        always = drawn(1.0, seed)
        assert field == "mixup_p" or not np.array_equal(always.image, plain.image)
        assert field != "mixup_p" or len(always.truth) == 2
    low = 1 if field == "mixup_p" else 5  # half of all mixtures are of a picture with itself
    assert low < sum(changed) < 25


def _after_the_way(seed: int) -> np.random.Generator:
    """The generator as it is when the way has been drawn."""
    generator = rng(seed)
    generator.random()
    return generator


def test_translation_is_how_far_pictures_stray() -> None:
    pictures = material([figures((50, 50), [(10, 5, 40)])])

    def spread(translation: float) -> tuple[float, float]:
        config = AugmentConfig.parse(CALM | {"single_scale": (0.5, 0.5), "translation": translation})
        left = [single(pictures, config, (100, 100), rng(seed)).truth.boxes[0, 0] for seed in range(80)]
        return float(np.min(left)), float(np.max(left))

    none, half, whole = spread(0.0), spread(0.5), spread(1.0)
    assert none[0] == none[1]
    middle = none[0]
    assert half == (pytest.approx(middle - 12.5, abs=1), pytest.approx(middle + 12.5, abs=1))
    assert whole == (pytest.approx(middle - 25, abs=2), pytest.approx(middle + 25, abs=2))


def test_people_are_pasted_on_people_where_there_is_no_other_ground() -> None:
    config = AugmentConfig.parse(CALM | {"pasted": (2, 2), "person_size": (0.2, 0.3), "feather_p": 0})
    samples = [figures((120, 120), [(30, 10, 70)])]
    on_people = [paste(material(samples), config, (160, 160), rng(s)) for s in range(10)]
    assert max(len(s.truth) for s in on_people) == 3
    on_grounds = [paste(material(samples, grounds=2), config, (160, 160), rng(s)) for s in range(10)]
    assert max(len(s.truth) for s in on_grounds) == 2


def test_patches_reach_over_the_edge_and_are_told() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    touched = np.zeros((40, 60), np.bool_)
    for seed in range(200):
        found, painted = erase(image, (1, 3), (0.1, 0.3), rng(seed))
        assert not found[~painted].any()
        touched |= painted
    assert touched.all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"mixup_share": (0.5, 1.0)}, r"mixup_share = \(0.5, 1.0\) must lie below 1"),
        ({"noise_sigma": (3, 2)}, "noise_sigma"),
        ({"erase_patches": (0, 2)}, "erase_patches"),
        ({"translation": 1.5}, "translation"),
    ],
)
def test_bad_numbers_are_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig.parse(bad)
