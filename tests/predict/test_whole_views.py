import numpy as np
import pytest

from poise.predict.views import scaled, whole_views
from poise.types import ViewSpec

SPEC = ViewSpec(long_side=1333, short_side=800, half_pixel=False)
MULTI_SCALE = ((1333, 800), (1666, 1000), (1999, 1200), (1333, 400), (1333, 600))
"""The published test of SMPR (SMPR spec 7)."""


def test_a_short_side_takes_the_limit_of_the_long_side_along() -> None:
    assert (scaled(SPEC, 400).long_side, scaled(SPEC, 400).short_side) == (666, 400)
    assert scaled(SPEC.model_copy(update={"short_side": None}), 400).long_side == 400


@pytest.mark.parametrize(("long_side", "short_side"), MULTI_SCALE)
def test_a_pair_replaces_both_limits(long_side: int, short_side: int) -> None:
    picture = np.zeros((36, 64, 3), np.uint8)
    (view,) = whole_views(SPEC, [(long_side, short_side)])(picture, 0)
    factor = min(long_side / 64, short_side / 36)
    assert view.size == (int(36 * factor + 0.5), int(64 * factor + 0.5))
    assert view.to_input[0, 0] == pytest.approx(factor)


def test_every_scale_is_shown_upright_and_mirrored() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    views = whole_views(SPEC, [(64, 32), (80, 40)], flip=True)(picture, 3)
    assert [v.size for v in views] == [(32, 57), (32, 57), (40, 71), (40, 71)]
    assert [bool(np.linalg.det(v.to_input[:, :2]) < 0) for v in views] == [False, True, False, True]
    np.testing.assert_array_equal(views[1].image.numpy(), views[0].image.numpy()[:, :, ::-1])
    assert {v.image_id for v in views} == {3}


def test_a_pair_out_of_bounds_is_named() -> None:
    with pytest.raises(ValueError, match=r"scale \(1333, 7\): short_side = 7"):
        scaled(SPEC, (1333, 7))
