"""Poses with everything that a file must keep."""

from dataclasses import replace

import numpy as np

from poise.skeletons import COCO17, Skeleton
from poise.types import Poses

CUSTOM = Skeleton("hand", ("left_tip", "right_tip", "root"), ((0, 2), (1, 2)), ((0, 1),), (0.05, 0.05, 0.1))


def some_poses(count=2, seed=0, skeleton=COCO17, **more):
    """``count`` random poses in a picture of 320 x 240; ids and visibility as a tracker would give."""
    rng = np.random.default_rng(seed)
    k = len(skeleton)
    points = rng.uniform((0, 0), (320, 240), (count, k, 2))
    boxes = np.concatenate([points.min(1), points.max(1)], 1) if count else np.zeros((0, 4))
    poses = Poses(points, rng.random((count, k)), boxes, rng.random(count), skeleton, (240, 320), "clip.mp4")
    return replace(poses, **more)


def a_video(skeleton=COCO17):
    """Three frames, in the second of which nobody is; there, too, a tracker gives ids, of shape (0,)."""
    counts = (2, 0, 3)
    return [
        some_poses(
            count, seed, skeleton, frame=10 * seed, time=0.4 * seed,
            ids=np.arange(count) + seed - 1,
            visibility=np.random.default_rng(seed).integers(0, 3, (count, len(skeleton))),
        )
        for seed, count in enumerate(counts)
    ]  # fmt: skip


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.skeleton == b.skeleton
        assert (a.image_size, a.source, a.frame) == (b.image_size, b.source, b.frame)
        assert a.time == b.time or abs(a.time - b.time) < 1e-6
        for name in ("keypoints", "keypoint_scores", "boxes", "scores"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-4, err_msg=name)
        for name in ("ids", "visibility"):
            values = getattr(b, name)
            assert (getattr(a, name) is None) == (values is None), name
            if values is not None:
                np.testing.assert_array_equal(getattr(a, name), values, err_msg=name)
