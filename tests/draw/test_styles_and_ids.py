"""Styles, colours of people, and ids."""

from dataclasses import replace

import numpy as np
import pytest

from poise.draw import STYLES, Palette, Style, draw_poses, person_colour
from poise.skeletons import COCO17, Skeleton
from poise.types import Poses

LINE = Skeleton("line", ("left_end", "left_tip"), ((0, 1),), (), (0.1, 0.1))


def canvas():
    return np.full((120, 200, 3), 128, np.uint8)


def lines(*heights, ids=None):
    points = np.array([[(20, y), (180, y)] for y in heights], float)
    n = len(heights)
    return Poses(points, np.ones((n, 2)), np.tile([20, 0, 180, 119], (n, 1)), np.linspace(0.9, 0.5, n), LINE, ids=ids)


def changed(picture):
    return (picture != 128).any(-1)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_something_of_its_own(style):
    drawn = {name: draw_poses(canvas(), lines(60), style=name).tobytes() for name in STYLES}
    assert changed(draw_poses(canvas(), lines(60), style=style)).any()
    assert len({text for name, text in drawn.items() if name != "people"}) == len(STYLES) - 1


def test_width_points_limbs_and_rim():
    def rows(style, column):
        return np.count_nonzero(changed(draw_poses(canvas(), lines(60), style=style))[:, column])

    assert rows("thin", 100) < rows("sides", 100) < rows("bold", 100)
    assert rows("dots", 100) == 0
    assert rows("dots", 20) > 3
    assert rows("lines", 20) < rows("sides", 20)
    assert rows(Style(outline=False), 100) < rows(Style(), 100)


def test_people_have_colours_by_id_or_by_place():
    drawn = draw_poses(canvas(), lines(30, 90), style="people")
    assert tuple(drawn[30, 100]) == person_colour(0)
    assert tuple(drawn[90, 100]) == person_colour(1)
    followed = draw_poses(canvas(), lines(30, 90, ids=[7, 4]), style="people", show_ids=False)
    assert tuple(followed[30, 100]) == person_colour(7)
    assert tuple(followed[90, 100]) == person_colour(4)
    assert len({person_colour(i) for i in range(300)}) > 290


def test_ids_are_written_above_the_person_and_can_be_left_out():
    plain = draw_poses(canvas(), lines(80))
    for ids, visible in ([5], True), ([-1], False):
        drawn = draw_poses(canvas(), lines(80, ids=ids))
        different = (drawn != plain).any(-1)
        assert different.any() == visible
        assert not different[77:].any()
        np.testing.assert_array_equal(draw_poses(canvas(), lines(80, ids=ids), show_ids=False), plain)
    hidden = replace(lines(80, ids=[5]), keypoints=np.full((1, 2, 2), np.nan))
    assert changed(draw_poses(canvas(), hidden)).any()
    nothing = replace(hidden, boxes=np.full((1, 4), np.nan))
    assert not changed(draw_poses(canvas(), nothing)).any()


def test_a_palette_goes_before_the_style_and_unknown_styles_are_named():
    drawn = draw_poses(canvas(), lines(60), style="bold", palette=Palette(middle=(1, 2, 3)))
    assert tuple(drawn[60, 100]) == (1, 2, 3)
    with pytest.raises(ValueError, match="unknown style 'blod'; did you mean 'bold'"):
        draw_poses(canvas(), Poses.empty(COCO17), style="blod")
