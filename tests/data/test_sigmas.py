import os
from pathlib import Path

import numpy as np
import pytest

from poise.data.coco import read_coco
from poise.data.sigmas import MIN_PEOPLE, RANGE, SPACING, TYPICAL, estimate_sigmas, published_sigma, sigmas_from_repeats
from poise.skeletons import COCO17, CROWDPOSE14

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")
NAMES = ("snout", "left_horn", "right_horn", "left_wrist")


def people(count=MIN_PEOPLE, size=100.0):
    """Snout and left horn are 0.2 apart, left and right horn 0.25, in units of the root of the area."""
    points = np.zeros((count, 4, 3))
    points[:, :, 2] = 2
    points[:, 1, 0], points[:, 2, 0], points[:, 3, 0] = 0.2 * size, 0.45 * size, 5 * size
    return points, np.full(count, size**2)


def test_names_win_then_distances():
    found = estimate_sigmas(NAMES, *people())
    assert found.sigmas == pytest.approx([0.2 * SPACING, 0.2 * SPACING, 0.25 * SPACING, 0.062], abs=1e-4)
    assert found.origins == ("spacing", "spacing", "spacing", "coco17 left_wrist")
    assert "snout 0.054 (spacing), left_horn" in str(found)
    pairs = estimate_sigmas(NAMES, *people(), flip_pairs=((1, 2),))
    assert pairs.sigmas[1] == pairs.sigmas[2] == pytest.approx(np.sqrt(0.2 * 0.25) * SPACING, abs=1e-4)


def test_the_size_of_people_does_not_matter():
    assert estimate_sigmas(NAMES, *people()) == estimate_sigmas(NAMES, *people(size=7.0))


@pytest.mark.parametrize("count", [0, MIN_PEOPLE - 1])
def test_too_few_people(count):
    found = estimate_sigmas(NAMES, *people(count))
    assert found.sigmas == (TYPICAL, TYPICAL, TYPICAL, 0.062)
    assert found.origins[:3] == ("typical",) * 3


def test_keypoints_that_are_not_labelled_do_not_count():
    points, areas = people()
    points[0, 2, 2] = 0
    assert estimate_sigmas(NAMES, points, areas).origins == ("spacing", "spacing", "typical", "coco17 left_wrist")
    assert estimate_sigmas(NAMES, points, np.zeros(len(areas))).origins[0] == "typical"


def test_estimates_stay_in_the_range_of_published_ones():
    points, areas = people()
    assert estimate_sigmas(NAMES, points * [1e3, 1, 1], areas).sigmas[0] == RANGE[1]
    assert estimate_sigmas(NAMES, points * [1e-3, 1, 1], areas).sigmas[0] == RANGE[0]
    with pytest.raises(ValueError, match=r"\(10, 3, 3\)"):
        estimate_sigmas(NAMES[:3], points, areas)


@pytest.mark.parametrize("skeleton", [COCO17, CROWDPOSE14], ids=lambda s: s.name)
def test_published_skeletons_are_found_by_name(skeleton):
    assert tuple(published_sigma(n)[0] for n in skeleton.keypoints) == skeleton.sigmas


@pytest.mark.parametrize("name", ["wrist", "l_wrist", "R-Wrist", "wrist_left", "Left Wrist", "wrist_r"])
def test_sides_and_spelling_do_not_matter(name):
    assert published_sigma(name) == (0.062, "coco17 left_wrist")
    assert published_sigma("watch on " + name) is None


def test_measured_from_two_annotations():
    rng = np.random.default_rng(0)
    sigmas, areas = np.array([0.02, 0.1, 0.05]), rng.uniform(50, 400, 4000) ** 2
    truth = rng.uniform(0, 1000, (4000, 3, 2))

    def annotated():
        # sigma^2 is the mean of the squared distance, so each axis has half of it
        noise = rng.standard_normal((4000, 3, 2)) * sigmas[:, None] * np.sqrt(areas / 2)[:, None, None]
        return np.concatenate([truth + noise, np.full((4000, 3, 1), 2)], 2)

    first, second = annotated(), annotated()
    assert sigmas_from_repeats(first, second, areas) == pytest.approx(sigmas, rel=0.05)
    second[:, 1, 2] = 0
    assert np.isnan(sigmas_from_repeats(first, second, areas)).tolist() == [False, True, False]
    assert np.isnan(sigmas_from_repeats(first[:0], second[:0], areas[:0])).all()
    with pytest.raises(ValueError, match="repeated annotations"):
        sigmas_from_repeats(first, second[:5], areas)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real pictures in {DATA}")
@pytest.mark.parametrize("part", ["train", "val"])
def test_spacing_gives_the_sigmas_of_coco(part):
    dataset = read_coco(DATA / f"coco/annotations/{part}.json", DATA / f"coco/{part}")
    points = np.concatenate([r.keypoints for r in dataset])
    areas = np.concatenate([r.areas for r in dataset])
    nameless = [f"point {i}" for i in range(len(COCO17))]
    found = estimate_sigmas(nameless, points, areas, COCO17.flip_pairs)
    factors = np.abs(np.log(np.array(found.sigmas) / COCO17.sigmas))
    assert np.exp(factors.max()) < 1.5
    assert np.exp(np.sqrt((factors**2).mean())) < 1.25
