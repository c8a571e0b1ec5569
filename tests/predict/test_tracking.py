"""Who is who: identities over crossings, gaps, misses and false alarms, with known truth."""

from dataclasses import replace

import numpy as np
import pytest
from walkers import SIZE, Walker, crowd, detected, true_frames

from poise.evaluate.tracking import tracking_scores
from poise.predict.motion import BoxMotion
from poise.predict.tracking import Tracker, TrackerConfig, _Pace, follow
from poise.skeletons import COCO17
from poise.types import Poses


def scores(walkers, count, seed=0, config=None, **detector):
    truth = true_frames(walkers, count)
    return tracking_scores(truth, list(follow(detected(truth, seed, **detector), config)))


CLEAN = {"missed": 0.0, "false": 0.0, "noise": 0.004}
ALONE = Walker((50, 400), (3, 0), 200)


def test_somebody_alone_keeps_the_first_id_in_all_frames():
    found = list(follow(detected(true_frames([ALONE], 60), 0, **CLEAN)))
    assert {int(i) for poses in found for i in poses.ids} == {1}
    result = scores([ALONE], 60, **CLEAN)
    assert (result.mota, result.idf1, result.switches, result.mostly_tracked) == (1, 1, 0, 1)


def test_two_who_cross_and_hide_each_other_keep_their_ids():
    near = Walker((100, 430), (6, 0), 250)
    far = Walker((750, 380), (-6, 0), 220, phase=2.0)
    for seed in range(3):
        result = scores([near, far], 110, seed, missed=0.02, false=0.0, hidden=0.4)
        assert result.switches == 0, seed
        assert result.idf1 > 0.9


def test_crowds_with_misses_and_false_alarms():
    """Seven people on crossing ways; the detector alone, which misses whom others hide, costs 0.2 of MOTA."""
    results = [scores(crowd(seed), 150, seed) for seed in range(3)]
    hits = [1 - r.misses / r.truth for r in results]
    assert np.mean([r.mota for r in results]) > np.mean(hits) - 0.02
    assert np.mean([r.idf1 for r in results]) > 0.75
    assert sum(r.switches for r in results) <= 8
    assert sum(r.false_positives for r in results) <= 5


def test_the_keypoints_and_the_memory_both_help():
    def total(**config):
        results = [scores(crowd(s), 120, s, TrackerConfig(**config)) for s in (0, 3)]
        return np.mean([r.idf1 for r in results])

    both = total()
    assert both > total(keypoint_weight=0.0) + 0.03
    assert both > total(max_gap=0) + 0.05


def test_a_gap_is_bridged_and_too_long_a_gap_is_not():
    def ids(gap, **config):
        video = detected(true_frames([Walker((300, 400), (1, 0), 200)], 80), 0, **CLEAN)
        video[20 : 20 + gap] = [Poses.empty(COCO17, SIZE)] * gap
        return {int(i) for poses in follow(video, TrackerConfig(**config)) for i in poses.ids} - {-1}

    assert ids(25) == {1}
    assert ids(35) == {1, 2}
    assert ids(10, max_gap=5) == {1, 2}


def test_who_is_lost_is_not_found_again_in_somebody_of_another_size():
    large, small = Walker((400, 420), (0, 0), 300, last=30), Walker((400, 390), (0, 0), 130, first=45)
    found = list(follow(detected(true_frames([large, small], 70), 0, **CLEAN)))
    assert [poses.ids.tolist() for poses in (found[30], found[-1])] == [[1], [2]]


@pytest.mark.parametrize("start", [150, 190, 230])
def test_who_passes_where_somebody_was_lost_stays_who_it_is(start):
    """The lost one could be anywhere by now, so that anybody fits; who walks there is known to be there."""
    lost = Walker((400, 420), (0, 0), 220, last=20)
    passing = Walker((start, 420), (5, 0), 220, phase=1.0)
    detector = {"missed": 0.0, "false": 0.0, "noise": 0.02, "hidden": 0.9}
    for seed in range(4):
        found = list(follow(detected(true_frames([lost, passing], 80), seed, **detector)))
        first = found[0].ids[np.argmin(found[0].boxes[:, 0])]
        late = [poses.ids.tolist() for poses in found[25:]]
        assert all(ids == [first] for ids in late), (seed, late)


def test_ghosts_of_one_frame_get_no_id_and_use_up_none():
    video = detected(true_frames([ALONE], 60), 0, **CLEAN)
    ghost = detected(true_frames([Walker((600, 300), (0, 0), 100)], 1), 3, **CLEAN)[0]
    late = detected(true_frames([Walker((500, 420), (0, 0), 180)], 60), 4, **CLEAN)
    for frame in (10, 30):
        video[frame] = Poses.concatenate([ghost, video[frame]])
    video[40:] = [Poses.concatenate(pair) for pair in zip(video[40:], late[40:], strict=True)]
    found = list(follow(video))
    assert found[10].ids.tolist() == [-1, 1]
    assert found[59].ids.tolist() == [1, 2]
    assert found[40].ids.tolist() == [1, 2]  # known from the first frame on, though sure only in the third


def test_online_the_first_frames_of_somebody_new_have_no_id():
    late = detected(true_frames([ALONE], 6), 0, **CLEAN)
    tracker = Tracker()
    tracker.update(Poses.empty(COCO17, SIZE))
    assert [tracker.update(poses).ids.tolist() for poses in late[:4]] == [[-1], [-1], [1], [1]]
    assert tracker.recognised == []
    tracker.reset()
    assert tracker.update(late[0]).ids.tolist() == [1]


def test_unsure_poses_continue_but_do_not_start():
    video = detected(true_frames([ALONE], 30), 0, **CLEAN)
    low = [replace(poses, scores=np.full(len(poses), 0.15)) for poses in video]
    assert all((poses.ids == -1).all() for poses in follow(low))
    mixed = [*video[:10], *low[10:20], *video[20:]]
    assert [poses.ids.tolist() for poses in follow(mixed)] == [[1]] * 30


def test_who_left_the_picture_is_somebody_new():
    away = Walker((700, 400), (8, 0), 200)
    back = Walker((840, 400), (-8, 0), 200)
    empty = [Poses.empty(COCO17, SIZE)] * 15
    first, second = (detected(true_frames([w], 25), 0, **CLEAN) for w in (away, back))
    found = list(follow([*first, *empty, *second], TrackerConfig(max_gap=100)))
    assert set(found[5].ids.tolist()) == {1}
    assert set(found[-1].ids.tolist()) == {2}


def test_frames_that_are_left_out():
    video = detected(true_frames([Walker((50, 430), (5, 0), 250), Walker((800, 380), (-5, 0), 200)], 120), 0, **CLEAN)
    tracker = Tracker(TrackerConfig(min_hits=1))
    seen = [tracker.update(poses, steps=4) for poses in video[::4]]
    assert {int(i) for poses in seen for i in poses.ids} == {1, 2}


def skipped(seed, numbered):
    """IDF1 of a crowd of which a camera that is read too slowly shows every first to sixth frame."""
    truth = true_frames(crowd(seed), 240)
    kept = [int(n) for n in np.cumsum(np.random.default_rng(seed).integers(1, 7, 240)) if n < 240]
    found = [poses if numbered else replace(poses, frame=None) for poses in detected(truth, seed)]
    return tracking_scores([truth[n] for n in kept], list(follow(found[n] for n in kept))).idf1


def test_people_have_moved_on_by_as_much_as_frames_were_skipped():
    numbered, not_numbered = (np.mean([skipped(seed, known) for seed in range(2)]) for known in (True, False))
    assert numbered > not_numbered + 0.04


def test_even_gaps_are_single_steps():
    video = detected(true_frames(crowd(2), 160), 2)[::4]
    plain = follow(replace(poses, frame=None) for poses in video)
    for one, other in zip(follow(video), plain, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)


def test_steps_are_gaps_in_their_usual_size():
    pace = _Pace()
    assert [pace.steps(n) for n in (10, 14, 18, 26, 26, None, 30, 34, 2, 6)] == [1, 1, 1, 2, 1, 1, 1, 1, 1, 1]


def test_order_length_and_everything_else_of_the_poses_is_kept():
    video = detected(true_frames(crowd(1), 40), 1)
    for before, after in zip(video, follow(video), strict=True):
        np.testing.assert_array_equal(before.keypoints, after.keypoints)
        np.testing.assert_array_equal(before.scores, after.scores)
        assert before.frame == after.frame
        named = after.ids[after.ids >= 0]
        assert len(set(named.tolist())) == len(named)


def test_nobody_and_odd_numbers():
    assert list(follow([])) == []
    assert [len(p) for p in follow([Poses.empty()] * 3)] == [0, 0, 0]
    wild = Poses(
        np.full((2, 17, 2), np.nan), np.full((2, 17), np.nan), [[np.nan] * 4, [5, 5, 5, 5]], [0.9, 0.9], COCO17
    )
    found = list(follow([wild] * 4))
    assert found[0].ids.tolist() == [-1, 1]
    with pytest.raises(ValueError, match="steps 0 must be positive"):
        Tracker().update(wild, steps=0)


def test_the_filter_on_the_box_equals_the_textbook():
    """One coordinate at constant noise: the closed form of a Kalman filter with two states."""
    rng = np.random.default_rng(0)
    measured = 3.0 * np.arange(30) + rng.normal(0, 2, 30)
    boxes = [np.array([x - 40, 0, x + 40, 100]) for x in measured]
    motion = BoxMotion.start(boxes[0])
    state, cov = np.array([measured[0], 0.0]), np.diag([(0.04 * 100) ** 2, (0.15 * 100) ** 2])
    move, look = np.array([[1, 1], [0, 1]]), np.array([[1, 0]])
    noise = (0.04 * 100) ** 2
    for x, box in zip(measured[1:], boxes[1:], strict=True):
        push = (0.006 * motion.mean[3, 0]) ** 2 * np.array([[0.25, 0.5], [0.5, 1]])
        state, cov = move @ state, move @ cov @ move.T + push
        gain = cov @ look.T / (look @ cov @ look.T + noise)
        state, cov = state + gain[:, 0] * (x - state[0]), (np.eye(2) - gain @ look) @ cov
        motion.predict(1.0)
        motion.correct(box)
        np.testing.assert_allclose(motion.mean[0], state)
        np.testing.assert_allclose(motion.covariance[0], cov)
    assert motion.mean[0, 1] == pytest.approx(3, abs=0.4)


def test_somebody_who_is_found_twice_is_one_person():
    """A second, thinner and less sure pose over the first one, now and then, as weak models give it."""
    video = detected(true_frames([ALONE], 60), 0, **CLEAN)
    for frame in (0, 1, 2, 3, 20, 21, 22, 23, 24):
        whole = video[frame]
        centre = whole.boxes[0, [0, 2]].mean()
        thin = whole.keypoints.copy()
        thin[..., 0] = centre + 0.5 * (thin[..., 0] - centre) + 6
        boxes = whole.boxes.copy()
        boxes[:, [0, 2]] = [centre - 15, centre + 25]
        video[frame] = Poses.concatenate([whole, replace(whole, keypoints=thin, boxes=boxes, scores=[0.4])])
    found = list(follow(video))
    assert {int(i) for poses in found for i in poses.ids} == {1, -1}
    assert all(poses.ids[0] == 1 for poses in found)
    twice = list(follow(video, TrackerConfig(max_birth_similarity=1.0)))
    assert max(int(i) for poses in twice for i in poses.ids) > 1
