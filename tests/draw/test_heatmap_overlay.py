"""Heatmaps over pictures: the light is where the peak is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise.draw import Palette, overlay_heatmaps, overlay_people, person_colour
from poise.heatmaps import Heatmaps
from poise.skeletons import COCO17, Skeleton
from poise.types import Poses

TWO = Skeleton("two", ("left_a", "right_a"), ((0, 1),), ((0, 1),), (0.1, 0.1))


def maps(*peaks, size=(16, 24)):
    rows, columns = np.indices(size)
    return np.array([np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4) for x, y in peaks], np.float32)


def grey(size=(64, 96)):
    return np.full((*size, 3), 100, np.uint8)


def brightest(picture, channel):
    values = picture[..., channel].astype(float) - picture.astype(float).min(-1)
    y, x = np.unravel_index(values.argmax(), values.shape)
    return x, y


def test_the_whole_picture_keeps_pixel_edges():
    """Cell (6, 4) of a map four times smaller covers pixels 24..27: its centre is 25.5."""
    light = overlay_heatmaps(grey(), maps((6, 4)))
    strength = np.abs(light.astype(float) - light[0, 0]).sum(-1)
    rows, columns = np.indices(strength.shape)
    assert (strength * columns).sum() / strength.sum() == pytest.approx(25.5, abs=0.3)
    assert (strength * rows).sum() / strength.sum() == pytest.approx(17.5, abs=0.3)


def test_a_map_takes_it_anywhere():
    there = np.array([[2.0, 0, 10], [0, 2.0, 20]])
    light = overlay_heatmaps(grey(), maps((6, 4)), there)
    assert np.abs(np.array(brightest(light, int(np.argmax(person_colour(0))))) - (22, 28)).max() <= 1


def test_sides_have_their_colours_and_tensors_work():
    heat = torch.from_numpy(maps((4, 8), (18, 8)))
    light = overlay_heatmaps(grey(), heat, skeleton=TWO)
    left, right = light[33, 17].astype(int), light[33, 73].astype(int)
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50
    assert Palette().left[0] > Palette().left[2]


def test_peak_and_opacity():
    weak = overlay_heatmaps(grey(), maps((6, 4)), peak=10.0)
    strong = overlay_heatmaps(grey(), maps((6, 4)))
    assert strong.astype(int).max() > weak.astype(int).max()
    np.testing.assert_array_equal(overlay_heatmaps(grey(), maps((6, 4)), opacity=0.0), grey())


def test_dark_maps_and_mistakes():
    dark = overlay_heatmaps(grey(), np.full((2, 4, 4), -1.0))
    assert (dark == dark[0, 0]).all()
    assert np.isfinite(overlay_heatmaps(grey(), np.full((1, 4, 4), np.nan))).all()
    with pytest.raises(ValueError, match=r"must have shape \(K, h, w\), not \(4, 4\)"):
        overlay_heatmaps(grey(), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="2 heatmaps do not go with the 17 keypoints of 'coco17'"):
        overlay_heatmaps(grey(), maps((1, 1), (2, 2)), skeleton=COCO17)


def pair(*peaks):
    """One person a peak, with a map for each of two keypoints of which only the first sees something."""
    seen = np.stack([np.stack([m, np.zeros_like(m)]) for m in maps(*peaks)]) if peaks else np.zeros((0, 2, 16, 24))
    n = len(seen)
    to_image = np.tile([[2.0, 0, 10], [0, 2.0, 20]], (n, 1, 1))
    points = np.zeros((n, 2, 2))
    return Poses(points, np.ones((n, 2)), np.zeros((n, 4)), np.ones(n), TWO, heatmaps=Heatmaps(seen, to_image))


def test_people_shine_where_they_are():
    light = overlay_people(grey(), pair((6, 4), (15, 10)))
    warm = light[..., 0].astype(int) - light[..., 2]
    assert warm[28, 22] > 80
    assert warm[40, 40] > 80
    assert warm[20, 80] == 0
    alone = overlay_people(grey(), pair((6, 4)))
    one = alone[..., 0].astype(int) - alone[..., 2]
    assert one[40, 40] == 0
    assert one[28, 22] == warm[28, 22]


def test_people_equal_the_overlay_of_one():
    poses = pair((6, 4))
    assert poses.heatmaps is not None
    one = overlay_heatmaps(grey(), poses.heatmaps.maps[0], poses.heatmaps.to_image[0], skeleton=TWO, peak=0.5)
    np.testing.assert_array_equal(overlay_people(grey(), poses), one)


def test_people_partly_or_wholly_outside_and_nobody():
    poses = pair((6, 4))
    far = Heatmaps(poses.heatmaps.maps, poses.heatmaps.to_image + np.array([[0, 0, 1e4], [0, 0, 0]]))
    dark = overlay_people(grey(), pair())
    np.testing.assert_array_equal(overlay_people(grey(), replace(poses, heatmaps=far)), dark)
    edge = Heatmaps(poses.heatmaps.maps, poses.heatmaps.to_image - np.array([[0, 0, 20], [0, 0, 26]]))
    light = overlay_people(grey(), replace(poses, heatmaps=edge))
    assert light[2, 2, 0] > dark[2, 2, 0] + 50
    with pytest.raises(ValueError, match="these poses have no heatmaps"):
        overlay_people(grey(), replace(poses, heatmaps=None))
    np.testing.assert_array_equal(overlay_people(grey(), replace(pair(), heatmaps=None)), dark)
