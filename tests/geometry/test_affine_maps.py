import numpy as np
import pytest

from poise.geometry import affine
from poise.types import ViewSpec


def test_scaling_keeps_the_outer_edge() -> None:
    """A picture of 10 px becomes 25 px: edges -0.5 and 9.5 go to -0.5 and 24.5."""
    matrix = affine.scaling(2.5, 2.5)
    np.testing.assert_allclose(affine.apply(matrix, np.array([[-0.5, 9.5]])), [[-0.5, 24.5]])


def test_plain_scaling_keeps_the_origin() -> None:
    matrix = affine.scaling(3.0, 2.0, half_pixel=False)
    np.testing.assert_allclose(affine.apply(matrix, np.array([[0.0, 0.0], [1, 1]])), [[0, 0], [3, 2]])


def test_mirror_swaps_the_outer_pixels() -> None:
    np.testing.assert_allclose(affine.apply(affine.mirror(7), np.array([[0.0, 3], [6, 3]])), [[6, 3], [0, 3]])


def test_rotation_is_counter_clockwise_on_the_screen() -> None:
    turned = affine.apply(affine.rotation(90, (5.0, 5.0)), np.array([[7.0, 5.0]]))
    np.testing.assert_allclose(turned, [[5.0, 3.0]], atol=1e-12)


def test_compose_and_invert() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 3, 2)) * 50
    a, b = affine.rotation(33, (4, 9)), affine.scaling(0.3, 0.7)
    both = affine.compose(a, b, affine.translation(3, -2))
    expected = affine.apply(b, affine.apply(a, points)) + np.array([3, -2])
    np.testing.assert_allclose(affine.apply(both, points), expected)
    np.testing.assert_allclose(affine.apply(affine.invert(both), expected), points, atol=1e-9)
    np.testing.assert_allclose(affine.area_factor(both), 0.21)


def test_no_inverse() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        affine.invert(affine.scaling(0.0, 1.0))


def test_box_hull() -> None:
    hull = affine.apply_to_boxes(affine.rotation(45, (0, 0)), np.array([[-1.0, -1, 1, 1]]))
    np.testing.assert_allclose(hull, [[-(2**0.5), -(2**0.5), 2**0.5, 2**0.5]])
    assert affine.apply_to_boxes(affine.identity(), np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((200, 1000), (267, 1333)), ((1000, 1000), (800, 800))],
)
def test_fit_follows_short_and_long_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    matrix, new = affine.fit(size, ViewSpec())
    assert new == expected
    corner = affine.apply(matrix, np.array([[size[1] - 0.5, size[0] - 0.5]]))
    np.testing.assert_allclose(corner, [[new[1] - 0.5, new[0] - 0.5]])


def test_fit_of_a_sliver_keeps_a_pixel() -> None:
    assert affine.fit((1, 5000), ViewSpec(long_side=64, short_side=None))[1] == (1, 64)


def test_fit_refuses_empty_pictures() -> None:
    with pytest.raises(ValueError, match="empty"):
        affine.fit((0, 10), ViewSpec())
