"""Filters take jitter away and are no later than they promise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import savgol_filter

from poise.predict.smoothing import OneEuro, OneEuroConfig, SavitzkyGolay, SavitzkyGolayConfig
from poise.skeletons import Skeleton
from poise.types import Poses

ONE = Skeleton("one", ("a", "b"), ((0, 1),), (), (0.1, 0.1))
HEIGHT = 200.0
RATE = 25.0


def video(points, ids=(1,), rate=RATE):
    """Frames of one person with keypoint a at points (T, 2), keypoint b 10 px beside it."""
    frames = []
    for number, point in enumerate(np.asarray(points, float)):
        keypoints = np.array([[point, np.add(point, (10, 0))]] * len(ids)).reshape(-1, 2, 2)
        boxes = np.tile([0, 0, 80, HEIGHT], (len(ids), 1))
        frames.append(
            Poses(
                keypoints, np.ones((len(ids), 2)), boxes, np.ones(len(ids)), ONE, ids=np.array(ids), frame=number,
                time=number / rate,
            )
        )  # fmt: skip
    return frames


def path(found):
    return np.array([poses.keypoints[0, 0] for poses in found], float)


def jitter(points):
    """Root mean square of the second difference: what an eye sees as trembling."""
    return np.sqrt((np.diff(points, 2, axis=0) ** 2).mean())


def still(count=120, noise=2.0, seed=0):
    return 100 + np.random.default_rng(seed).normal(0, noise, (count, 2))


@pytest.mark.parametrize(("smoother", "factor"), [(OneEuro(), 3.0), (SavitzkyGolay(), 5.0)], ids=["euro", "savgol"])
def test_jitter_is_reduced(smoother, factor):
    points = still()
    smooth = path(smoother(video(points)))
    assert jitter(smooth) < jitter(points) / factor
    assert np.abs(smooth.mean(0) - points.mean(0)).max() < 0.5
    assert (smooth[20:].std(0) < 0.75 * points[20:].std(0)).all()


@pytest.mark.parametrize("speed", [0.2, 1.0, 5.0])
def test_one_euro_is_late_by_what_it_says(speed):
    """Speed in heights a second, from a stroll to the hand of a boxer."""
    config = OneEuroConfig()
    pace = speed * HEIGHT / RATE
    points = np.column_stack([np.arange(200) * pace, np.zeros(200)])
    behind = points[-1, 0] - path(OneEuro()(video(points)))[-1, 0]
    seconds = behind / (speed * HEIGHT)
    assert seconds == pytest.approx(1 / (2 * np.pi * (config.min_cutoff + config.beta * speed)), rel=1e-3)
    assert behind < HEIGHT / (2 * np.pi * config.beta)


def test_one_euro_keeps_up_with_a_walk_better_than_a_fixed_filter_of_equal_smoothness():
    rng = np.random.default_rng(1)
    truth = np.column_stack([1.5 * np.arange(200), 60 * np.sin(np.arange(200) / 6)])
    noisy = truth + rng.normal(0, 2, truth.shape)
    smooth = path(OneEuro()(video(noisy)))
    fixed = path(OneEuro(OneEuroConfig(beta=1e-6, min_cutoff=1.0))(video(noisy)))
    assert np.abs(smooth - truth)[20:].mean() < np.abs(fixed - truth)[20:].mean() / 3
    assert jitter(smooth) < jitter(noisy)


def test_one_euro_takes_time_not_frames():
    points = still(40)
    whole = path(OneEuro()(video(points, rate=25)))
    slow = path(OneEuro()(video(points, rate=5)))
    assert jitter(slow) > jitter(whole)
    without = [replace(poses, time=None) for poses in video(points, rate=25)]
    np.testing.assert_allclose(path(OneEuro()(without)), whole, atol=1e-3)


@pytest.mark.parametrize(("window", "order"), [(5, 1), (9, 2), (11, 3)])
def test_savitzky_golay_equals_scipy(window, order):
    points = still(40)
    smooth = path(SavitzkyGolay(SavitzkyGolayConfig(window=window, order=order))(video(points)))
    half = window // 2
    expected = savgol_filter(points, window, order, axis=0)
    np.testing.assert_allclose(smooth[half:-half], expected[half:-half], atol=1e-3)


def test_savitzky_golay_is_not_late_and_keeps_what_its_order_can_hold():
    frames = np.arange(50.0)
    points = np.column_stack([3 * frames + 0.2 * frames**2, 100 - frames])
    np.testing.assert_allclose(path(SavitzkyGolay()(video(points))), points, atol=2e-3)
    short = video(points[:2])
    np.testing.assert_allclose(path(SavitzkyGolay()(short)), points[:2], atol=1e-3)


def test_savitzky_golay_fits_around_gaps():
    frames = np.arange(40.0)
    points = np.column_stack([2 * frames + 0.1 * frames**2, frames])
    clip = video(points)
    for hole in (10, 11, 25):
        clip[hole] = clip[hole][:0]
    found = list(SavitzkyGolay()(clip))
    assert [len(f) for f in found] == [0 if i in (10, 11, 25) else 1 for i in range(40)]
    for i, poses in enumerate(found):
        if len(poses):
            np.testing.assert_allclose(poses.keypoints[0, 0], points[i], atol=2e-3)


@pytest.mark.parametrize("smoother", [OneEuro, SavitzkyGolay])
def test_people_are_filtered_apart(smoother):
    both = video(still(30), ids=(1, 2))
    for poses in both:
        poses.keypoints[1] += 500
    swapped = [poses[[1, 0]] if i % 2 else poses for i, poses in enumerate(both)]
    alone = path(smoother()(video(still(30))))
    for i, poses in enumerate(smoother()(swapped)):
        np.testing.assert_allclose(poses[poses.ids == 1].keypoints[0, 0], alone[i], atol=1e-3)
        np.testing.assert_allclose(poses[poses.ids == 2].keypoints[0, 0], alone[i] + 500, atol=1e-3)


@pytest.mark.parametrize("smoother", [OneEuro, SavitzkyGolay])
def test_what_is_not_followed_or_not_known_stays(smoother):
    clip = video(still(20), ids=(1, -1))
    clip[10].keypoints[0, 1] = np.nan
    found = list(smoother()(clip))
    for before, after in zip(clip, found, strict=True):
        np.testing.assert_array_equal(before.keypoints[1], after.keypoints[1])
        assert (before.frame, before.time) == (after.frame, after.time)
    assert np.isnan(found[10].keypoints[0, 1]).all()
    assert all(np.isfinite(poses.keypoints[0, 0]).all() for poses in found)
    assert all(np.isfinite(poses.keypoints[0, 1]).all() for i, poses in enumerate(found) if i != 10)
    assert clip[5].keypoints[0, 0].tolist() != found[5].keypoints[0, 0].tolist()


def test_who_comes_back_after_a_long_time_starts_anew():
    clip = video([(0, 0)] * 10 + [(0, 0)] * 40 + [(300, 300)] * 3)
    clip[10:50] = [poses[:0] for poses in clip[10:50]]
    np.testing.assert_allclose(list(OneEuro()(clip))[50].keypoints[0, 0], (300, 300))


@pytest.mark.parametrize("smoother", [OneEuro, SavitzkyGolay])
def test_nobody_and_no_ids(smoother):
    assert list(smoother()([])) == []
    empty = video([(0, 0)], ids=())
    assert [len(p) for p in smoother()(empty * 3)] == [0, 0, 0]
    with pytest.raises(ValueError, match="follow people with a Tracker"):
        list(smoother()([replace(p, ids=None) for p in video([(0, 0)])]))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="window 4 must be odd"):
        SavitzkyGolayConfig.parse({"window": 4})
    with pytest.raises(ValueError, match="order 5 must be less than window 5"):
        SavitzkyGolayConfig.parse({"window": 5, "order": 5})
