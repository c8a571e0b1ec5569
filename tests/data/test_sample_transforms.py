import colorsys

import numpy as np
import pytest
from marked import FIGURE, figures, nearest_colour

from poise.data import transforms
from poise.data.samples import Sample, Truth
from poise.geometry import affine

FLIP = FIGURE.flip_index


def bright_point(size: tuple[int, int], x: int, y: int) -> Sample:
    """A soft spot whose centre of mass is (x, y), labelled there."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    image = np.repeat(np.rint(spot).astype(np.uint8)[..., None], 3, 2)
    keypoints = np.zeros((1, 5, 3), np.float32)
    keypoints[0, 0] = x, y, 2
    box = np.array([[x - 9, y - 9, x + 9, y + 9]], np.float32)
    return Sample(image, Truth(keypoints, box, np.ones(1, np.float32), np.zeros((0, 4), np.float32), box))


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    weight = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_stay_on_their_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = bright_point((121, 160), 70, 55)
    factor, degrees = float(rng.uniform(0.15, 2.5)), float(rng.uniform(-180, 180))
    matrix = transforms.similarity((70, 55), (100.3, 90.6), factor, degrees, bool(rng.random() < 0.5))
    moved = transforms.warp(sample, matrix, (200, 220), FLIP)
    assert moved.size == (200, 220)
    point = moved.truth.keypoints[0, 0]
    assert point[:2] == pytest.approx((100.3, 90.6), abs=1e-3)
    assert centre_of_mass(moved.image) == pytest.approx(tuple(point[:2]), abs=0.15 if factor > 0.5 else 0.3)


def test_identity_changes_nothing() -> None:
    sample = figures((60, 80), [(10, 10, 30)])
    same = transforms.warp(sample, affine.identity(), (60, 80), FLIP)
    assert np.array_equal(same.image, sample.image)
    assert np.array_equal(same.truth.keypoints, sample.truth.keypoints)
    assert np.array_equal(same.truth.boxes, sample.truth.boxes)


def test_warp_is_area_true_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255  # a bilinear sample at a quarter of the size would show all of them or none
    matrix = affine.scaling(0.25, 0.25)
    small = transforms.warp_image(stripes, matrix, (16, 16), border=None)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 64).max() <= 2


def test_shrinking_pictures_of_odd_size_keeps_its_frame() -> None:
    sample = bright_point((101, 77), 40, 60)
    matrix = affine.scaling(0.2, 0.2)
    moved = transforms.warp(sample, matrix, (20, 15), FLIP)
    assert centre_of_mass(moved.image) == pytest.approx(tuple(moved.truth.keypoints[0, 0, :2]), abs=0.15)
    assert transforms.warp_image(np.zeros((1, 1, 3), np.uint8), matrix, (3, 3)).shape == (3, 3, 3)


def test_border() -> None:
    image = np.full((4, 4, 3), 9, np.uint8)
    matrix = affine.translation(4, 0)
    assert transforms.warp_image(image, matrix, (4, 8), (1, 2, 3))[0, 0].tolist() == [1, 2, 3]
    assert transforms.warp_image(image, matrix, (4, 8), None)[0, 0].tolist() == [9, 9, 9]


def test_warp_cuts_and_drops() -> None:
    sample = figures((100, 200), [(10, 10, 60), (150, 10, 60)])
    moved = transforms.warp(sample, affine.identity(), (100, 40), FLIP)
    assert len(moved.truth) == 1
    assert moved.truth.person_boxes[0, 2] == 40
    assert moved.truth.keypoints[0, :, 2].tolist() == [2, 2, 0, 2, 2]


def test_flip_is_exact_and_its_own_inverse() -> None:
    sample = figures((70, 91), [(10, 10, 40), (50, 15, 48)])
    flipped = transforms.flip(sample, FLIP)
    assert np.array_equal(flipped.image, sample.image[:, ::-1])
    assert nearest_colour(flipped.image, flipped.truth.keypoints).all()
    left, right = (sample.truth.keypoints[:, k, 0] for k in (1, 2))
    assert (left < right).all()
    assert np.array_equal(flipped.truth.keypoints[:, 1, 0], 90 - right)
    twice = transforms.flip(flipped, FLIP)
    assert np.array_equal(twice.image, sample.image)
    for name in ("keypoints", "boxes", "areas", "ignore", "person_boxes"):
        assert np.array_equal(getattr(twice.truth, name), getattr(sample.truth, name))


def test_crop() -> None:
    sample = figures((100, 120), [(30, 20, 60)])
    window = transforms.crop(sample, 20, 10, (80, 50))
    assert np.array_equal(window.image, sample.image[10:90, 20:70])
    assert np.array_equal(window.truth.keypoints[..., :2], sample.truth.keypoints[..., :2] - [20, 10])
    assert nearest_colour(window.image, window.truth.keypoints).all()
    assert len(transforms.crop(sample, 0, 0, (15, 15)).truth) == 0
    for left, top, size in ((-1, 0, (5, 5)), (0, 0, (101, 5)), (100, 0, (5, 30)), (0, 0, (0, 5))):
        with pytest.raises(ValueError, match="is not inside 120x100"):
            transforms.crop(sample, left, top, size)


def test_similarity() -> None:
    matrix = transforms.similarity((3, 4), (10, 20), 2.0, 90.0, mirrored=True)
    assert affine.apply(matrix, np.array([3.0, 4.0])) == pytest.approx((10, 20))
    # one to the right is mirrored to the left, doubled, and turned counter-clockwise: from left to below
    assert affine.apply(matrix, np.array([4.0, 4.0])) == pytest.approx((10, 22))
    assert affine.area_factor(matrix) == pytest.approx(4)


def recoloured(pixel: tuple[int, int, int], **changes: float) -> tuple[int, ...]:
    image = np.array([[pixel]], np.uint8)
    return tuple(transforms.recolour(image, transforms.colour_matrix(**changes))[0, 0].tolist())


def test_colours() -> None:
    pixel = 200, 100, 40
    assert recoloured(pixel) == pixel
    assert recoloured(pixel, brightness=0.5) == (100, 50, 20)
    assert recoloured(pixel, brightness=2) == (255, 200, 80)
    assert recoloured(pixel, contrast=0.5, grey=100) == (150, 100, 70)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 40)
    assert recoloured(pixel, saturation=0) == (luma, luma, luma)
    assert recoloured((90, 90, 90), hue=0.3) == (90, 90, 90)
    assert recoloured(pixel, hue=1) == pixel
    turned = recoloured((150, 100, 100), hue=1 / 3)
    before, after = (colorsys.rgb_to_hsv(*(v / 255 for v in p))[0] for p in ((150, 100, 100), turned))
    assert min((after - before) % 1, (before - after) % 1) == pytest.approx(1 / 3, abs=0.08)


def test_blur_keeps_the_mean_and_lowers_the_peak() -> None:
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    blurred = transforms.blur(image, 1.0)
    assert blurred.max() == pytest.approx(255 / (2 * np.pi), abs=2)
    assert int(blurred[..., 0].sum()) == pytest.approx(255, abs=12)
