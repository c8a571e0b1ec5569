"""The map of a person's box into a crop, and the crop as a view."""

import cv2
import numpy as np
import pytest
import torch
from marked import figures, nearest_colour

from poise.data.config import CropConfig
from poise.data.crop_people import people, person_truth
from poise.data.crops import box_frame, crop_matrix, crop_view, fitted_sides, seen_window, warp_crop
from poise.data.records import Record
from poise.geometry.affine import apply, compose, mirror, translation
from poise.types import ViewSpec

SPEC = ViewSpec(kind="crop", size=(128, 96), extension=(1.25, 1.25), half_pixel=False)


def test_the_centre_of_the_box_is_the_centre_of_the_crop() -> None:
    for box in ((10, 20, 50, 100), (-30, 5, 90, 25), (7.5, 7.5, 7.5, 7.5)):
        matrix = crop_matrix(box, SPEC)
        centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2
        assert apply(matrix, centre) == pytest.approx([48, 64])
        assert matrix[0, 0] == pytest.approx(matrix[1, 1])
        assert matrix[0, 1] == matrix[1, 0] == 0


@pytest.mark.parametrize(
    ("box", "factor"), [((0, 0, 60, 80), 96 / 75), ((0, 0, 60, 20), 96 / 75), ((0, 0, 9, 80), 1.28)]
)
def test_the_shorter_side_takes_the_shape_of_the_crop(box: tuple[int, ...], factor: float) -> None:
    assert crop_matrix(box, SPEC)[0, 0] == pytest.approx(factor)


def test_sides_are_only_enlarged() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        sides, size = rng.uniform(1, 300, 2), (int(rng.integers(32, 400)), int(rng.integers(32, 400)))
        fitted = fitted_sides(sides, size)
        assert (fitted >= sides - 1e-9).all()
        assert min(fitted - sides) == pytest.approx(0, abs=1e-9)
        assert fitted[0] / fitted[1] == pytest.approx(size[1] / size[0])


def test_rotation_turns_the_picture_counter_clockwise() -> None:
    straight, turned = crop_matrix((0, 0, 60, 80), SPEC), crop_matrix((0, 0, 60, 80), SPEC, 90)
    right_of_centre = np.array([40.0, 40.0])
    assert apply(straight, right_of_centre)[0] > 48
    assert apply(turned, right_of_centre) == pytest.approx([48, 64 - 1.28 * 10])


@pytest.mark.parametrize("box", [(5, 5, 4, 9), (0, 9, 3, 2), (0, 0, np.nan, 3), (0, 0, np.inf, 3), (1, 2, 3)])
def test_what_is_no_box(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a person's box must be"):
        crop_matrix(box, SPEC)


def test_a_whole_view_is_no_crop() -> None:
    with pytest.raises(ValueError, match="needs a spec of kind 'crop'"):
        crop_matrix((0, 0, 9, 9), ViewSpec())


def test_pixels_are_bilinear_and_black_outside() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(1, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(warp_crop(image, translation(0, 0), (40, 50)), image)
    moved = warp_crop(image, translation(10, -5), (40, 50))
    assert np.array_equal(moved[:35, 10:], image[5:, :40])
    assert not moved[:, :10].any()
    assert not moved[35:].any()
    half = warp_crop(image, translation(-0.5, 0), (40, 49)).astype(int)
    assert np.abs(half - (image[:, :-1].astype(float) + image[:, 1:]) / 2).max() <= 0.51


@pytest.mark.parametrize("name", ["plain", "turned", "mirrored"])
def test_the_seen_window_is_all_that_a_crop_depends_on(name: str) -> None:
    image = np.random.default_rng(2).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    matrix = crop_matrix((30, 40, 50, 60), SPEC, 30 if name == "turned" else 0)
    if name == "mirrored":
        matrix = compose(mirror(120), matrix)
    x1, y1, x2, y2 = seen_window(matrix, (128, 96), (90, 120))
    assert (x2 - x1) * (y2 - y1) < 0.5 * 90 * 120
    changed = 255 - image
    changed[y1:y2, x1:x2] = image[y1:y2, x1:x2]
    assert np.array_equal(warp_crop(image, matrix, (128, 96)), warp_crop(changed, matrix, (128, 96)))


def test_a_window_beside_the_picture_holds_a_pixel() -> None:
    for box in ((500, 500, 520, 540), (-90, 10, -80, 20), (10, 900, 20, 920)):
        x1, y1, x2, y2 = seen_window(crop_matrix(box, SPEC), (128, 96), (90, 120))
        assert 0 <= x1 < x2 <= 120
        assert 0 <= y1 < y2 <= 90


def test_a_picture_longer_than_opencv_can_warp() -> None:
    image = np.zeros((4, 40_000, 3), np.uint8)
    image[1:3, 39_000:39_010] = 255
    crop = warp_crop(image, crop_matrix((39_000, 0, 39_010, 3), SPEC), (128, 96))
    assert crop[64, 48].tolist() == [255] * 3


def test_a_view_holds_what_a_network_needs() -> None:
    sample = figures((120, 160), [(40, 20, 64)])
    spec = SPEC.model_copy(update={"channels": "bgr", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)})
    box = sample.truth.boxes[0]
    view = crop_view(sample.image, box, spec, image_id=7, box_score=0.25, truth=sample.truth)
    assert (view.image_id, view.box_score, view.size, view.image_size) == (7, 0.25, (128, 96), (120, 160))
    assert view.image.shape == (3, 128, 96)
    assert view.image.dtype == torch.float32
    assert view.box is not None
    np.testing.assert_array_equal(view.box, box)
    np.testing.assert_array_equal(view.to_input, crop_matrix(box, spec))
    pixels = view.image.permute(1, 2, 0).numpy() * np.array(spec.std) + np.array(spec.mean)
    rgb = np.ascontiguousarray(np.rint(pixels[..., ::-1] * 255).clip(0, 255).astype(np.uint8))
    np.testing.assert_array_equal(rgb, warp_crop(sample.image, view.to_input, (128, 96)))
    assert view.persons is not None
    points = view.persons.keypoints.numpy()
    assert nearest_colour(rgb, points).all()
    assert (points[..., 2] == 2).all()
    assert float(view.persons.areas[0]) == pytest.approx(sample.truth.areas[0] * view.to_input[0, 0] ** 2)
    assert crop_view(sample.image, box, spec).persons is None


def test_extension_reaches_beyond_the_box() -> None:
    frame = box_frame((10, 10, 30, 50), (1.5, 2.0))
    assert frame.centre.tolist() == [20, 30]
    assert frame.sides.tolist() == [30, 80]


def test_who_makes_a_training_sample() -> None:
    keypoints = np.zeros((5, 3, 3), np.float32)
    keypoints[:, :, :2] = 5
    keypoints[1:, 0, 2] = (1, 2, 2, 2)
    keypoints[2, 1, 2] = 1
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [-4, -2, 30, 9], [3, 3, 3, 9], [25, 1, 30, 8]])
    record = Record(__file__, 0, (20, 24), keypoints, boxes, np.arange(5), np.zeros((0, 4)))  # type: ignore[arg-type]
    assert [p.number for p in people([record], CropConfig())] == [1, 2, 4]
    assert [p.number for p in people([record], CropConfig(min_keypoints=2))] == [2]
    clipped = people([record], CropConfig(clip_boxes=True, binary_visibility=True))
    assert [p.number for p in clipped] == [1, 2]  # the last one lies beside the picture
    assert clipped[1].box.tolist() == [0, 0, 23, 9]
    assert clipped[1].keypoints[:, 2].tolist() == [1, 1, 0]
    assert record.keypoints[2, 0, 2] == 2
    truth = person_truth(clipped[1])
    assert len(truth) == 1
    assert truth.areas.tolist() == [2]
    assert people([], CropConfig()) == []


def test_opencv_maps_points_as_pixels() -> None:
    """A bright pixel lands where its coordinates are mapped to."""
    image = np.zeros((60, 60, 3), np.uint8)
    cv2.circle(image, (21, 34), 2, (255, 255, 255), -1)
    matrix = crop_matrix((10, 10, 40, 50), SPEC, 25)
    crop = warp_crop(image, matrix, (128, 96))[..., 0].astype(float)
    y, x = np.mgrid[:128, :96]
    found = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    assert found == pytest.approx(apply(matrix, np.array([21.0, 34.0])), abs=0.2)
