"""Poses on pictures: where the colour goes, and that nothing odd breaks it."""

import numpy as np
import pytest

from poise.draw import Palette, draw_poses, edge_side, keypoint_sides
from poise.skeletons import COCO17, LSP14, MPII16, SKELETONS, Skeleton
from poise.types import Poses

LINE = Skeleton("line", ("left_end", "right_end", "end", "left_tip"), ((0, 3), (0, 1)), ((0, 1),), (0.1,) * 4)


def canvas(height=120, width=160, value=128):
    return np.full((height, width, 3), value, np.uint8)


def pose(points, skeleton=LINE, score=1.0, keypoint_scores=None, box=None):
    points = np.asarray(points, np.float32)[None]
    marks = np.full((1, len(skeleton)), score) if keypoint_scores is None else np.asarray([keypoint_scores])
    return Poses(points, marks, np.asarray([box or [10, 10, 100, 100]]), np.asarray([score]), skeleton)


def changed(picture, value=128):
    return (picture.astype(int) - value).astype(bool).any(-1)


NAN = (np.nan, np.nan)
LIMB = [(20, 60), NAN, NAN, (140, 60)]


def test_a_limb_is_where_it_should_be_in_its_colour():
    drawn = draw_poses(canvas(), pose(LIMB))
    assert tuple(drawn[60, 80]) == Palette().left
    rows = np.flatnonzero(changed(drawn)[:, 80])
    assert rows.mean() == pytest.approx(60)
    assert 3 <= len(rows) <= 9
    assert not changed(drawn)[:, :10].any()
    assert not changed(drawn)[:40].any()


def test_positions_are_finer_than_a_pixel():
    def centre(y):
        drawn = draw_poses(canvas(value=0), pose([(20, y), NAN, NAN, (140, y)]), palette=Palette(outline=(0, 0, 0)))
        column = drawn[:, 80].astype(float).sum(-1)
        return (column * np.arange(len(column))).sum() / column.sum()

    for y in (60.0, 60.25, 60.5, 60.75):
        assert centre(y) == pytest.approx(y, abs=0.08)


def test_edges_are_anti_aliased():
    drawn = draw_poses(canvas(value=0), pose([(20, 20), NAN, NAN, (140, 97)]))
    assert len(np.unique(drawn[..., 0])) > 20


def test_the_input_is_left_alone_and_can_be_read_only():
    image = canvas()
    image.setflags(write=False)
    drawn = draw_poses(image, pose(LIMB), show_boxes=True)
    assert drawn is not image
    assert not changed(image).any()
    assert changed(drawn).any()
    part = np.ascontiguousarray(canvas(240, 320))[::2, ::2]
    np.testing.assert_array_equal(draw_poses(part, pose(LIMB)), draw_poses(canvas(), pose(LIMB)))


def test_nobody_changes_nothing():
    drawn = draw_poses(canvas(), Poses.empty(LINE), show_boxes=True)
    np.testing.assert_array_equal(drawn, canvas())


def test_faint_keypoints_fade_and_are_left_out():
    strong = draw_poses(canvas(), pose(LIMB, score=1.0))[60, 80].astype(int)
    weak = draw_poses(canvas(), pose(LIMB, score=0.1))[60, 80].astype(int)
    assert abs(strong - 128).sum() > 1.5 * abs(weak - 128).sum() > 0
    one_faint = pose(LIMB, keypoint_scores=[0.9, 0.9, 0.9, 0.2])
    drawn = draw_poses(canvas(), one_faint, min_keypoint_score=0.5)
    assert changed(drawn)[60, 20]
    assert not changed(drawn)[60, 80]
    assert not changed(drawn)[60, 140]


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9])
def test_keypoints_far_outside(far):
    drawn = draw_poses(canvas(), pose([(80, 60), NAN, NAN, (far, 60)]))
    assert changed(drawn)[60, 85:].all()
    beyond = draw_poses(canvas(), pose([(far, far), NAN, NAN, (2 * far, far)]))
    assert not changed(beyond).any()
    across = draw_poses(canvas(), pose([(-far, 60), NAN, NAN, (far, 60)]))
    assert changed(across)[60].all()


def test_keypoints_of_a_network_gone_wild():
    wild = 3e38
    drawn = draw_poses(canvas(), pose([(-wild, 60), (wild, wild), (60, -wild), (wild, 60)]), show_boxes=True)
    assert drawn.shape == canvas().shape


def test_not_a_number_anywhere():
    points = np.full((4, 2), np.nan)
    drawn = draw_poses(canvas(), pose(points, score=np.nan, box=[np.nan, 0, 1, 1]), show_boxes=True)
    assert not changed(drawn).any()
    infinite = pose([(20, 60), (np.inf, 0), (-np.inf, np.nan), (140, 60)], keypoint_scores=[np.nan, 1, 1, np.inf])
    assert changed(draw_poses(canvas(), infinite, show_boxes=True))[60, 80]


def test_the_best_pose_is_on_top():
    a = pose(LIMB, score=0.7, keypoint_scores=[1, 1, 1, 1])
    b = pose([(20, 60), (140, 60), NAN, NAN], score=0.9)
    for order in ([a, b], [b, a]):
        drawn = draw_poses(canvas(), Poses.concatenate(order))
        assert tuple(drawn[60, 80]) == Palette().middle


def test_boxes_and_scores():
    drawn = draw_poses(canvas(), pose([NAN] * 4, score=0.5, box=[30, 40, 120, 100]), show_boxes=True)
    for y, x in ((40, 100), (100, 80), (70, 30), (70, 120)):
        assert changed(drawn)[y, x]
    assert not changed(drawn)[70, 75]
    assert changed(drawn)[25:38, 30:50].mean() > 0.5
    assert not changed(draw_poses(canvas(), pose([NAN] * 4))).any()
    at_the_top = draw_poses(canvas(), pose([NAN] * 4, box=[150, -5, 500, 60]), show_boxes=True)
    assert changed(at_the_top)[:12, 130:].mean() > 0.5


def test_lines_follow_the_size_of_the_person_and_the_scale():
    def thickness(length, scale=None):
        drawn = draw_poses(canvas(900, 1000), pose([(20, 60), NAN, NAN, (20 + length, 60)]), scale=scale)
        return np.count_nonzero(changed(drawn)[:, 20 + length // 2])

    assert thickness(60) < thickness(400) < thickness(400, scale=3.0)


def test_tiny_pictures():
    for size in ((1, 1), (1, 50), (3, 2)):
        drawn = draw_poses(canvas(*size), pose([(0, 0), (1, 1), (5, 5), (0, 3)], box=[0, 0, 1, 1]), show_boxes=True)
        assert drawn.shape == (*size, 3)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_skeleton(skeleton):
    points = np.random.default_rng(0).uniform(10, 110, (len(skeleton), 2))
    drawn = draw_poses(canvas(), pose(points, skeleton))
    assert changed(drawn)[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    sides = keypoint_sides(skeleton)
    for name, side in zip(skeleton.keypoints, sides, strict=True):
        expected = name.split("_")[0] if name.startswith(("left_", "right_")) else "middle"
        assert side == expected


def test_sides_without_telling_names_come_from_the_pairs():
    nameless = Skeleton("nameless", ("a", "b", "c"), (), ((2, 0),), (0.1,) * 3)
    assert keypoint_sides(nameless) == ("right", "middle", "left")


def test_edge_sides():
    assert edge_side("left", "left") == edge_side("middle", "left") == edge_side("left", "middle") == "left"
    assert edge_side("left", "right") == edge_side("middle", "middle") == "middle"
    assert len({COCO17, LSP14, MPII16}) == 3


def test_errors():
    with pytest.raises(ValueError, match=r"not \(120, 160\) of uint8"):
        draw_poses(canvas()[..., 0], pose(LIMB))
    with pytest.raises(ValueError, match="of float64"):
        draw_poses(canvas() / 255, pose(LIMB))
    for scale in (0, -1, np.nan):
        with pytest.raises(ValueError, match="scale"):
            draw_poses(canvas(), pose(LIMB), scale=scale)


def test_the_method_of_poses_draws_the_same():
    np.testing.assert_array_equal(
        pose(LIMB).draw(canvas(), show_boxes=True), draw_poses(canvas(), pose(LIMB), show_boxes=True)
    )
