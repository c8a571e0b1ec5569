import numpy as np
import pytest
from marked import FIGURE, figures, nearest_colour

from poise.data.config import PaperConfig
from poise.data.paper import random_resize, random_window, resize_flip_crop
from poise.data.samples import Truth
from poise.geometry import affine


def test_resize_draws_every_short_side_and_limits_the_long_one() -> None:
    rng = np.random.default_rng(0)
    shorts = set()
    for _ in range(200):
        matrix, (height, width) = random_resize((100, 150), (60, 65), 10_000, rng)
        shorts.add(height)
        assert width == int(150 * height / 100 + 0.5)
        corner = affine.apply(matrix, np.array([149.5, 99.5]))
        assert corner == pytest.approx((width - 0.5, height - 0.5))
    assert shorts == set(range(60, 66))
    _, size = random_resize((100, 1000), (60, 65), 300, rng)
    assert size == (30, 300)


def test_window_holds_the_centre_of_somebody() -> None:
    truth = figures((300, 500), [(400, 200, 60)]).truth
    centre = (truth.person_boxes[0, :2] + truth.person_boxes[0, 2:]) / 2
    lefts, tops = set(), set()
    for seed in range(300):
        left, top, size = random_window(truth, (300, 500), 100, np.random.default_rng(seed))
        assert size == (100, 100)
        assert 0 <= left <= 400
        assert 0 <= top <= 200
        assert left <= centre[0] <= left + 100
        assert top <= centre[1] <= top + 100
        lefts.add(left)
        tops.add(top)
    assert min(lefts) < 325
    assert max(lefts) > 390
    assert max(tops) == 200


def test_window_without_people_or_room() -> None:
    nobody = Truth.empty(5)
    lefts = {random_window(nobody, (80, 300), 100, np.random.default_rng(s))[0] for s in range(200)}
    assert min(lefts) < 10
    assert max(lefts) > 190
    assert random_window(nobody, (80, 300), 100, np.random.default_rng(0))[1:] == (0, (80, 100))
    truth = figures((50, 60), [(10, 10, 30)]).truth
    assert random_window(truth, (50, 60), 100, np.random.default_rng(0)) == (0, 0, (50, 60))


@pytest.mark.parametrize("flip_p", [0.0, 1.0])
def test_truth_lies_on_its_pixels(flip_p: float) -> None:
    sample = figures((240, 400), [(30, 30, 120), (200, 60, 150), (330, 20, 90)])
    config = PaperConfig(short_sides=(150, 500), long_side=700, crop=160, flip_p=flip_p)
    people = 0
    for seed in range(40):
        result = resize_flip_crop(sample, config, FIGURE.flip_index, np.random.default_rng(seed))
        assert max(result.size) <= 160
        seen = result.truth.keypoints[..., 2] > 0
        assert nearest_colour(result.image, result.truth.keypoints)[seen].all()
        assert len(result.truth) >= 1
        people += len(result.truth)
        boxes = result.truth.person_boxes
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= [result.size[1], result.size[0]]).all()
        left, right = result.truth.keypoints[:, 1, 0], result.truth.keypoints[:, 2, 0]
        assert (left < right).all()  # mirrored or not, as the names change places
    assert people > 40


def test_boxes_are_clipped_not_computed_anew() -> None:
    sample = figures((200, 200), [(60, 40, 120)])
    config = PaperConfig(short_sides=(200, 200), crop=60, flip_p=0)
    clipped = 0
    for seed in range(30):
        result = resize_flip_crop(sample, config, FIGURE.flip_index, np.random.default_rng(seed))
        x1, y1, x2, y2 = result.truth.person_boxes[0]
        clipped += sum([x1 == 0, y1 == 0, x2 == 60, y2 == 60])
        seen = result.truth.keypoints[0, result.truth.keypoints[0, :, 2] > 0, :2]
        if len(seen):
            assert (seen >= [x1, y1]).all()
            assert (seen <= [x2, y2]).all()
    assert clipped > 60


def test_nobody_and_bad_settings() -> None:
    result = resize_flip_crop(
        figures((90, 70), []), PaperConfig(short_sides=(32, 32)), FIGURE.flip_index, np.random.default_rng(0)
    )
    assert result.size == (41, 32)
    assert len(result.truth) == 0
    with pytest.raises(ValueError, match="short_sides"):
        PaperConfig.parse({"short_sides": [5, 3]})
