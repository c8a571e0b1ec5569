"""Random training crops: what is drawn, and what the drawn numbers do."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from poise.data.config import AugmentConfig, CropConfig, DataConfig
from poise.data.crop_augment import (
    CropDraw,
    draw,
    half_body,
    look_around,
    training_frame,
    training_matrix,
    upper_mask,
)
from poise.data.crop_config import crop_mmpose, crop_official, crop_official_mpii
from poise.data.crops import crop_matrix
from poise.data.damage import erase
from poise.geometry.affine import apply
from poise.skeletons import COCO17, MPII16
from poise.types import ViewSpec

SPEC = ViewSpec(kind="crop", size=(128, 96), extension=(1.25, 1.25))
UPPER = upper_mask(CropConfig().upper, COCO17.keypoints)
BOX = (20.0, 10.0, 80.0, 90.0)
PLAIN = CropConfig(extension_jitter=(0.6, 0.8), half_body_jitter=(0.0, 0.0), half_body_extension=(1.0, 1.0))


def person(labelled: int | list[int]) -> np.ndarray:
    """(K, 3) keypoints on a diagonal: x = 20 + 3 k, y = 10 + 4 k."""
    index = np.arange(len(COCO17))
    seen = index < labelled if isinstance(labelled, int) else np.isin(index, labelled)
    return np.stack([20 + 3 * index, 10 + 4 * index, 2 * seen], 1).astype(np.float32)


def frame(drawn: CropDraw, config: CropConfig = PLAIN, keypoints: np.ndarray | None = None) -> tuple[Any, Any]:
    found = training_frame(person(17) if keypoints is None else keypoints, BOX, 200, drawn, config, SPEC, UPPER)
    return found.centre.tolist(), found.sides.tolist()


def test_without_a_draw_a_training_crop_is_the_crop_of_the_view() -> None:
    matrix = training_matrix(person(17), BOX, 200, CropDraw(), PLAIN, SPEC, UPPER)
    np.testing.assert_allclose(matrix, crop_matrix(BOX, SPEC))


def test_each_number_does_its_part() -> None:
    assert frame(CropDraw()) == ([50, 50], [75, 100])
    assert frame(CropDraw(extension=(0.5, 0.25))) == ([50, 50], pytest.approx([75 * 1.3, 100 * 1.2]))
    assert frame(CropDraw(), PLAIN.model_copy(update={"extension": (1.0, 2.0)})) == ([50, 50], [60, 160])
    assert frame(CropDraw(scale=1.2)) == ([50, 50], pytest.approx([90, 120]))
    assert frame(CropDraw(scale=1.2), PLAIN.model_copy(update={"scale_base": 0.5}))[1] == pytest.approx([45, 60])
    assert frame(CropDraw(shift=(0.1, -0.2), scale=2.0))[0] == pytest.approx([57.5, 30])
    assert frame(CropDraw(flip=True)) == ([149, 50], [75, 100])
    assert frame(CropDraw(flip=True, shift=(0.1, 0)))[0] == pytest.approx([156.5, 50])


def test_a_mirrored_crop_is_the_mirror_of_the_crop() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (9, 2))
    plain, mirrored = (
        apply(training_matrix(person(17), BOX, 200, CropDraw(flip=flip), PLAIN, SPEC, UPPER), points)
        for flip in (False, True)
    )
    np.testing.assert_allclose(mirrored, np.stack([96 - plain[:, 0], plain[:, 1]], 1))


def test_half_a_body() -> None:
    upper, lower = CropDraw(half_body=True), CropDraw(half_body=True, upper=False)
    count = sum(UPPER)
    assert frame(upper) == ([20 + 1.5 * (count - 1), 10 + 2 * (count - 1)], [3 * (count - 1), 4 * (count - 1)])
    assert frame(lower)[1] == [15, 20]
    assert frame(upper, keypoints=person(7)) == frame(CropDraw())  # too few keypoints
    assert frame(upper, keypoints=person([0, 1, *range(11, 17)]))[1] == [15, 20]  # the upper half has too few
    assert frame(lower, keypoints=person(11))[1] == [30, 40]
    wide = PLAIN.model_copy(update={"half_body_extension": (2.0, 1.0), "half_body_jitter": (0.0, 1.0)})
    assert frame(lower._replace(half_body_extension=(0.9, 0.5)), wide)[1] == [30, 30]
    mean = PLAIN.model_copy(update={"half_body_centre": "mean"})
    points = person(17)
    points[16, :2] = 100
    expected = points[11:, :2].mean(0).tolist()
    assert frame(lower, mean, points)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("indices", "expected"), [([0, 1, 2, 13], [0, 1, 2]), ([0, 1, 13, 14], None)])
def test_the_official_fallback(indices: list[int], expected: list[int] | None) -> None:
    """Four keypoints, neither half has four: the upper one is taken from three on."""
    config, keypoints = crop_official(), person(indices)
    found = half_body(keypoints, upper_mask(config.upper, COCO17.keypoints), CropDraw(half_body=True), config)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.centre.tolist() == [23, 14]
    assert half_body(keypoints, UPPER, CropDraw(half_body=True), crop_mmpose()) is None


def test_half_a_body_of_one_point_has_an_extent() -> None:
    config = PLAIN.model_copy(update={"half_body_keypoints": 1, "upper_keypoints": 1})
    found = half_body(person(1), UPPER, CropDraw(half_body=True), config)
    assert found is not None
    assert found.sides.tolist() == [1, 1]


def draws(config: CropConfig, count: int = 4000) -> list[CropDraw]:
    rng = np.random.default_rng(9)
    return [draw(rng, config) for _ in range(count)]


def test_drawn_numbers_keep_their_ranges_and_frequencies() -> None:
    config = CropConfig(scale=(0.6, 1.2), shift=0.1, shift_p=0.25, rotation=30, rotation_p=0.4, flip_p=0.7, upper_p=0.2)
    found = draws(config)
    scales = np.array([d.scale for d in found])
    assert (scales.min(), scales.max()) == pytest.approx((0.6, 1.2), abs=0.01)
    assert scales.mean() == pytest.approx(0.9, abs=0.01)
    degrees = np.array([d.degrees for d in found])
    assert np.abs(degrees).max() == pytest.approx(30, abs=0.1)
    assert abs(degrees.mean()) < 1
    rates = {
        "flip": (np.mean([d.flip for d in found]), 0.7),
        "rotation": ((degrees != 0).mean(), 0.4),
        "shift": (np.mean([d.shift != (0, 0) for d in found]), 0.25),
        "half": (np.mean([d.half_body for d in found]), 0.3),
        "upper": (np.mean([d.upper for d in found]), 0.2),
    }
    for name, (rate, expected) in rates.items():
        assert rate == pytest.approx(expected, abs=0.03), name
    assert max(abs(s) for d in found for s in d.shift) <= 0.1


def test_normal_numbers_are_cut_off_and_dense_in_the_middle() -> None:
    config = CropConfig(scale=(0.5, 1.5), rotation=80, rotation_p=1.0, spread="normal")
    t = np.array([d.scale - 1 for d in draws(config)]) * 2
    assert np.abs(t).max() <= 1
    assert np.abs(t).max() > 0.99
    assert t.std() == pytest.approx(0.5396, abs=0.015)  # of a standard normal number between -1 and 1
    assert np.mean(np.abs(t) < 0.5) == pytest.approx(0.3829 / 0.6827, abs=0.03)


def test_switched_off_means_off() -> None:
    still = {"half_body_p": 0, "shift_p": 0, "rotation_p": 0, "flip_p": 0, "scale": (1, 1)}
    config = CropConfig.parse(still)
    kinds = Counter((d.half_body, d.shift, d.degrees, d.flip, d.scale) for d in draws(config, 100))
    assert list(kinds) == [(False, (0, 0), 0, False, 1)]


def test_profiles_hold_the_numbers_of_the_references() -> None:
    """RSN spec 10, the table."""
    coco, mpii, mmpose = crop_official(), crop_official_mpii(), crop_mmpose()
    rows = {
        "extension": ((1.05, 1.05), (1.25, 1.25), (1.25, 1.25)),
        "extension_jitter": ((0.6, 0.8), (0, 0), (0, 0)),
        "half_body_p": (0.3, 0.5, 0.3),
        "half_body_keypoints": (4, 9, 9),
        "half_body_jitter": ((0.6, 0.8), (0.6, 0.6), (0, 0)),
        "half_body_extension": ((1, 1), (1, 1), (1.5, 1.5)),
        "half_body_centre": ("extent", "extent", "mean"),
        "upper_keypoints": (4, 4, 2),
        "lower_keypoints": (4, 4, 3),
        "scale": ((0.75, 1.25), (0.75, 1.25), (0.5, 1.5)),
        "scale_base": (0.8, 1.0, 1.0),
        "shift_p": (0, 0, 0.3),
        "rotation_p": (0.5, 0.5, 0.6),
        "rotation": (45, 60, 80),
        "flip_p": (0.5, 0.5, 0.5),
        "clip_boxes": (False, False, True),
        "recolour_p": (0, 0, 0),
        "erase_p": (0, 0, 0),
    }
    for name, values in rows.items():
        assert tuple(getattr(c, name) for c in (coco, mpii, mmpose)) == values, name
    assert (coco.upper_p, mpii.upper_p, mmpose.upper_p) == pytest.approx((0.69146, 0.69146, 0.7), abs=1e-5)
    masks = [upper_mask(c.upper, s.keypoints) for c, s in ((coco, COCO17), (mpii, MPII16), (mmpose, COCO17))]
    assert [np.flatnonzero(m).tolist() for m in masks] == [list(range(13)), list(range(7, 16)), list(range(11))]


def test_patches_cover_what_they_say() -> None:
    image = np.full((100, 80, 3), 7, np.uint8)
    shares = []
    for seed in range(60):
        found, painted = erase(image, (1, 1), (0.2, 0.4), np.random.default_rng(seed))
        changed = (found != 7).any(2)
        assert (changed == painted).all()
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert len(rows) <= 40
        assert len(columns) <= 32
        shares.append(changed.mean())
    assert (image == 7).all()
    assert np.mean(shares) == pytest.approx(0.3**2 * 0.85**2, abs=0.02)


def test_looks_change_as_often_as_they_should() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    for settings, rate in (({}, 0), ({"recolour_p": 1.0}, 1), ({"erase_p": 1.0}, 1), ({"erase_p": 0.5}, 0.5)):
        config = CropConfig.parse(settings)
        changed = [(look_around(image, config, AugmentConfig(), rng) != image).any() for _ in range(100)]
        assert np.mean(changed) == pytest.approx(rate, abs=0.2 if rate == 0.5 else 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (1.2, 0.8)}, r"scale = \(1.2, 0.8\) must be"),
        ({"scale": (0, 1)}, "scale"),
        ({"erase_patches": (0, 2)}, "erase_patches"),
        ({"extension": (0, 1)}, r"extension = \(0.0, 1.0\) must be positive"),
        ({"extension_jitter": (-0.1, 0)}, "must not be negative"),
        ({"rotation": 181}, "rotation"),
        ({"min_keypoints": 0}, "min_keypoints"),
        ({"rotate": 3}, "rotate"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CropConfig.parse(settings)


def test_settings_survive_a_file() -> None:
    sources = [{"annotations": "a", "images": "b"}]
    for crop in (CropConfig(), crop_official(), crop_official_mpii(), crop_mmpose()):
        config = DataConfig.parse({"sources": sources, "pipeline": "crop", "crop": crop.model_dump(mode="json")})
        assert config.crop == crop
