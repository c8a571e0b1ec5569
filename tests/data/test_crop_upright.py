"""People are turned upright before they are cropped, with the box around what is then seen."""

import numpy as np
import pytest

from poise.data.crop_upright import torso_masks, upright
from poise.geometry import affine
from poise.skeletons import COCO17

TORSO = torso_masks(("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"), COCO17.keypoints)


def standing() -> np.ndarray:
    """Somebody who stands straight: head at y = 20, feet at y = 180, 60 px wide."""
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(70, 130, 17), np.linspace(20, 180, 17)], axis=1)
    for (left, right), y in (((5, 6), 50.0), ((11, 12), 110.0)):
        points[left], points[right] = (115.0, y), (85.0, y)
    points[1, 0], points[2, 0] = 70.0, 130.0
    return np.concatenate([points, np.full((17, 1), 2.0)], axis=1).astype(np.float32)


def extent(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])


@pytest.mark.parametrize("degrees", [0.0, 35.0, 90.0, 180.0, -120.0])
def test_whoever_was_turned_stands_again(degrees: float) -> None:
    person = standing()
    lying = person.copy()
    lying[:, :2] = affine.apply(affine.rotation(degrees, (100.0, 100.0)), person[:, :2])
    turned = upright(lying, extent(lying), TORSO)
    assert turned is not None
    # the same figure up to a shift: the centre of the box is not the centre of the first turn
    np.testing.assert_allclose(
        turned.keypoints[:, :2] - turned.keypoints[0, :2], person[:, :2] - person[0, :2], atol=1e-3
    )
    np.testing.assert_allclose(affine.apply(turned.matrix, lying[:, :2]), turned.keypoints[:, :2], atol=1e-3)


def test_the_box_keeps_its_margin() -> None:
    person = standing()
    box = extent(person) + np.array([-6.0, -16.0, 6.0, 16.0])  # 20 % on each side length
    turned = upright(person, box, TORSO)
    assert turned is not None
    np.testing.assert_allclose(turned.box, box, atol=1e-3)


def test_a_torso_that_is_not_labelled_says_nothing() -> None:
    person = standing()
    person[[11, 12], 2] = 0
    assert upright(person, extent(person), TORSO) is None


def test_a_torso_without_length_says_nothing() -> None:
    person = standing()
    person[[5, 6, 11, 12], :2] = 100.0
    assert upright(person, extent(person), TORSO) is None


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ValueError, match="'tail', which is no keypoint"):
        torso_masks(("tail",), ("left_shoulder",), COCO17.keypoints)
