"""Tiles: everything is seen completely by one of them, mapped back exactly, and found once."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from dots import DotModel, dot_picture, keypoints_of
from poise.predict.predictor import Predictor
from poise.predict.tiles import Tiling, merge_tiles, oks_nms, parse_tiling, tile_boxes, tiled_views, without_cut
from poise.skeletons import COCO17
from poise.types import Poses, ViewSpec


@pytest.mark.parametrize(
    ("size", "tiling"),
    [
        ((480, 640), Tiling(2, 2)),
        ((480, 640), Tiling(3, 1, overlap=0.5)),
        ((97, 131), Tiling(4, 3, overlap=0.1)),
        ((1080, 1920), Tiling(size=640)),
        ((500, 300), Tiling(size=640)),
        ((641, 640), Tiling(size=640, overlap=0.0)),
        ((1, 1), Tiling(3, 3)),
        ((100, 100), Tiling(2, 2, overlap=0.0)),
    ],
    ids=str,
)
def test_tiles_cover_the_picture_and_overlap(size, tiling):
    boxes = tile_boxes(size, tiling)
    seen = np.zeros(size, int)
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= size[1]
        assert 0 <= y1 < y2 <= size[0]
        seen[y1:y2, x1:x2] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        spans = sorted({(int(b[axis]), int(b[axis + 2])) for b in boxes})
        for (a1, a2), (b1, _) in pairwise(spans):
            assert a2 - b1 >= tiling.overlap * (a2 - a1) - 3
    if tiling.size is not None:
        assert max(x2 - x1 for x1, _, x2, _ in boxes) <= tiling.size + 1
    elif min(size) > 1:
        assert len(boxes) == tiling.columns * tiling.rows


def test_views_know_their_place():
    spec = ViewSpec(long_side=64, short_side=None, mean=(0, 0, 0), std=(1, 1, 1))
    picture = dot_picture((90, 120), [((100.0, 70.0), (10.0, 10.0), 1.0)])
    views = tiled_views(spec, Tiling(2, 2))(picture, 5)
    assert len(views) == 5
    assert views[0].box is None
    for view in views[1:]:
        assert view.image_size == (90, 120)
        assert view.image_id == 5
        x1, y1, x2, y2 = view.box
        corner = view.to_input @ (x1 - 0.5, y1 - 0.5, 1)
        np.testing.assert_allclose(corner, -0.5, atol=1e-6)
        far = view.to_input @ (x2 - 0.5, y2 - 0.5, 1)
        np.testing.assert_allclose(far, (view.size[1] - 0.5, view.size[0] - 0.5), atol=0.6)
    assert len(tiled_views(spec, Tiling(2, 2), flip=True)(picture, 0)) == 10
    assert len(tiled_views(spec, Tiling(2, 1, whole=False))(picture, 0)) == 2
    assert len(tiled_views(spec, Tiling(1, 1, whole=False))(picture, 0)) == 1


FAR = [((340.0, 60.0), (310.0, 66.0), 1.0), ((60.0, 200.0), (28.0, 206.0), 0.9), ((215.0, 120.0), (185.0, 118.0), 0.8)]
"""Small people: in one corner, in another, and across the middle, where tiles meet."""


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("tiles", ["3x2", "180", Tiling(3, 3, overlap=0.3)], ids=str)
def test_small_people_are_found_once_and_where_they_are(tiles, flip):
    picture = dot_picture((240, 400), FAR, sigma=2.0)
    model = Predictor(DotModel(long_side=96), "cpu")
    assert len(model.predict(picture, min_score=0.66)[0]) == 0
    found = model.predict(picture, tiles=tiles, flip=flip, min_score=0.66)[0]
    assert len(found) == 3
    assert np.abs(found.keypoints - keypoints_of(FAR)).max() < 0.3
    assert found.image_size == (240, 400)


def test_large_people_are_left_to_the_whole_picture():
    large = [((380.0, 30.0), (20.0, 210.0), 1.0)]
    picture = dot_picture((240, 400), large, sigma=8.0)
    found = Predictor(DotModel(long_side=200), "cpu").predict(picture, tiles="3x3")[0]
    assert len(found) == 1
    assert np.abs(found.keypoints - keypoints_of(large)).max() < 1.5


def one(box, score=0.5):
    return Poses(np.zeros((1, 17, 2)), np.ones((1, 17)), [box], [score], COCO17)


def test_cut_people_are_dropped_at_inner_borders_only():
    size = (200, 300)
    tile = [100, 0, 200, 100]
    for box, kept in (
        ([120, 10, 180, 90], True),
        ([120, -0.5, 180, 90], True),
        ([100.2, 10, 180, 90], False),
        ([120, 10, 199.5, 90], False),
        ([120, 10, 180, 98.5], False),
    ):
        assert len(without_cut(one(box), tile, size)) == kept, box
    assert len(without_cut(one([200, 100, 299.5, 199.5]), [200, 100, 300, 200], size)) == 0
    assert len(without_cut(one([210, 110, 299.5, 199.5]), [200, 100, 300, 200], size)) == 1
    assert len(without_cut(one([0, 0, 300, 200]), None, size)) == 1
    assert len(without_cut(Poses.empty(), tile, size)) == 0


@pytest.mark.parametrize("flip", [False, True])
def test_every_tile_comes_to_its_own_conclusion(flip):
    """A model whose scores count its candidates judges the same people in a tile as in a picture of their own."""
    seen = []

    class Counting(DotModel):
        def suppress(self, poses):
            seen.append(len(poses))
            return super().suppress(replace(poses, scores=poses.scores * len(poses) / 10))

    picture = dot_picture((240, 400), FAR, sigma=2.0)
    model = Predictor(Counting(long_side=96), "cpu")
    tiling = Tiling(2, 1, overlap=0.3, whole=False)
    (a, b) = tile_boxes((240, 400), tiling)
    alone = [
        model.predict(np.ascontiguousarray(picture[:, x1:x2]), flip=flip, min_score=0)[0] for x1, _, x2, _ in (a, b)
    ]
    seen.clear()
    found = model.predict(picture, tiles=tiling, flip=flip, min_score=0)[0]
    assert len(seen) == 2
    best = sorted((p.scores[0] for p in alone if len(p)), reverse=True)
    assert found.scores[0] == pytest.approx(best[0], rel=1e-4)


def test_of_equals_the_best_one_stays():
    near = one([100, 50, 140, 150], 0.9)
    far = Poses(np.full((1, 17, 2), 500.0), np.ones((1, 17)), [[102, 52, 141, 155]], [0.6], COCO17)
    other = Poses(np.full((1, 17, 2), 900.0), np.ones((1, 17)), [[160, 50, 200, 150]], [0.5], COCO17)
    everybody = Poses.concatenate([far, other, near])
    kept = merge_tiles([everybody], [None], (400, 400), lambda poses: poses, Tiling())
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
    both = merge_tiles([everybody], [None], (400, 400), lambda poses: poses, Tiling(max_iou=1.0))
    assert both.scores.tolist() == pytest.approx([0.9, 0.6, 0.5])


def test_oks_nms_equals_the_loop():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 300, (12, 1, 2))
    shape = rng.uniform(-40, 40, (1, 17, 2))
    points = (centres[rng.integers(0, 12, 40)] + shape) + rng.normal(0, 4, (40, 17, 2))
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    poses = Poses(points, np.ones((40, 17)), boxes, rng.random(40), COCO17)

    def alike(a, b):
        area = 0.53 * (boxes[b, 2] - boxes[b, 0]) * (boxes[b, 3] - boxes[b, 1])
        squares = ((points[a] - points[b]) ** 2).sum(-1)
        return np.exp(-squares / (2 * area * (2 * np.array(COCO17.sigmas)) ** 2)).mean()

    kept = []
    for i in np.argsort(-poses.scores):
        if all(alike(i, j) <= 0.5 for j in kept):
            kept.append(int(i))
    assert oks_nms(poses, 0.5).tolist() == kept
    assert 8 <= len(kept) <= 20
    assert oks_nms(Poses.empty(), 0.5).tolist() == []


def test_texts():
    assert parse_tiling("3x2") == Tiling(3, 2)
    assert parse_tiling(" 640 ") == Tiling(size=640)
    for text, words in (
        ("", "write columns x rows"),
        ("3x", "write columns x rows"),
        ("-2x2", "write columns x rows"),
        ("0x2", "tiles 0x2: expected 1x1"),
        ("99x99", "expected 1x1 to 400 tiles"),
        ("8", "tiles of 8 px are too small"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_tiling(text)
    with pytest.raises(ValueError, match="overlap"):
        Tiling(overlap=0.95)
    with pytest.raises(ValueError, match="max_oks"):
        Tiling(max_oks=0)
    with pytest.raises(ValueError, match="max_iou"):
        Tiling(max_iou=1.5)


def test_mistakes():
    model = Predictor(DotModel(long_side=96), "cpu")
    picture = dot_picture((64, 64), [])
    with pytest.raises(ValueError, match="do not go with scales"):
        model.predict(picture, tiles="2x2", scales=[64])
    with pytest.raises(ValueError, match="one person at a time"):
        tiled_views(ViewSpec(kind="crop", size=(64, 64)), Tiling())
    with pytest.raises(ValueError, match=r"picture of 9000x9000 has \d+ tiles of 32 px"):
        tile_boxes((9000, 9000), Tiling(size=32))
    assert len(model.predict(picture, tiles="2x2")[0]) == 0


def test_the_whole_picture_is_looked_at_in_all_recommended_sizes():
    """Large people are seen at a size other than the model's own only, and tiles do not take it away."""
    shown = []

    class Seeing(DotModel):
        def detect(self, images, sizes):
            shown.extend(sizes)
            return super().detect(images, sizes)

    picture = dot_picture((240, 400), [((380.0, 30.0), (20.0, 210.0), 1.0)], sigma=8.0)
    plain = Predictor(Seeing(long_side=32), "cpu", metadata={"scales": [[32, 32], [200, 200]]})
    alone = plain.predict(picture)[0]
    shown.clear()
    tiled = plain.predict(picture, tiles="2x2")[0]
    assert shown.count((120, 200)) == 1
    assert len(shown) == 2 + 4
    assert len(alone) == len(tiled) == 1
    np.testing.assert_allclose(tiled.keypoints, alone.keypoints)
    shown.clear()
    assert len(plain.predict(picture, tiles=Tiling(2, 2, whole=False), flip=True)[0]) == 0
    assert len(shown) == 8


def test_views_of_the_whole_picture_come_first_and_mirrored():
    spec = ViewSpec(long_side=64, short_side=None, mean=(0, 0, 0), std=(1, 1, 1))
    views = tiled_views(spec, Tiling(2, 1), True, [64, 32])(dot_picture((90, 120), []), 0)
    assert [view.size[1] for view in views[:4]] == [64, 64, 32, 32]
    assert [view.box is None for view in views] == [True] * 4 + [False] * 4
    with pytest.raises(ValueError, match="scales is empty"):
        tiled_views(spec, Tiling(), scales=[])
