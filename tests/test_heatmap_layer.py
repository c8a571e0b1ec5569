"""Heatmaps go with the poses that they are of."""

import numpy as np
import pytest

from poise.heatmaps import Heatmaps
from poise.skeletons import COCO17
from poise.types import Poses


def seen(count=3, size=(4, 3)):
    maps = np.arange(count * 17)[:, None, None].repeat(size[0], 1).repeat(size[1], 2).reshape(count, 17, *size)
    return Heatmaps(maps, np.arange(count * 6).reshape(count, 2, 3))


def poses(count=3, **more):
    zeros = np.zeros((count, 17, 2))
    return Poses(zeros, zeros[..., 0], np.zeros((count, 4)), np.linspace(0.9, 0.1, count), COCO17, **more)


def first_values(found):
    return found.heatmaps.maps[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("index", "values"), [(2, [34]), (-1, [34]), (slice(1, None), [17, 34]), ([2, 0], [34, 0]), ([], [])]
)
def test_picked_with_the_poses(index, values):
    assert first_values(poses(heatmaps=seen())[index]) == values


def test_filtered_and_walked_over_with_the_poses():
    whole = poses(heatmaps=seen())
    assert first_values(whole.filter(0.5)) == [0, 17]
    assert [first_values(one) for one in whole] == [[0], [17], [34]]
    assert poses()[1:].heatmaps is None


def test_concatenated_if_all_have_them():
    assert first_values(Poses.concatenate([poses(heatmaps=seen()), poses(1, heatmaps=seen(1))])) == [0, 17, 34, 0]
    assert Poses.concatenate([poses(heatmaps=seen()), poses(1)]).heatmaps is None
    assert Poses.concatenate([poses(heatmaps=seen()), poses(1, heatmaps=seen(1, (8, 8)))]).heatmaps is None


def test_types_and_shapes():
    assert (seen().maps.dtype, seen().to_image.dtype, len(seen())) == (np.float32, np.float64, 3)
    with pytest.raises(ValueError, match=r"Heatmaps.maps must have shape \(N, K, h, w\), not \(3, 4\)"):
        Heatmaps(np.zeros((3, 4)), np.zeros((3, 2, 3)))
    with pytest.raises(ValueError, match=r"Heatmaps.to_image must have shape \(3, 2, 3\), not \(2, 2, 3\)"):
        Heatmaps(np.zeros((3, 17, 4, 4)), np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"Poses.heatmaps are of \(2, 17\) people and keypoints, not \(3, 17\)"):
        poses(heatmaps=seen(2))
