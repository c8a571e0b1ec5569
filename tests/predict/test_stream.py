"""Frames to poses as a stream."""

import numpy as np
import pytest
from PIL import Image

from clips import SIZE, dots_at, moving_dots, write_clip
from dots import DOTS, DotModel, dot_picture, keypoints_of
from poise.predict.predictor import Predictor
from poise.predict.smoothing import OneEuro
from poise.predict.stream import following_of, stream
from poise.predict.tracking import TrackerConfig

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("stream") / "clip.mp4", moving_dots(12))


@pytest.fixture
def predictor():
    return Predictor(DotModel(long_side=128), "cpu")


def test_poses_know_their_frame(predictor, clip, tmp_path):
    Image.fromarray(moving_dots(1)[0]).save(tmp_path / "one.png")
    seen = list(stream(predictor, [clip, tmp_path / "one.png", moving_dots(1)[0]], batch=4))
    assert [s.poses.frame for s in seen] == [*range(12), None, None]
    assert [s.poses.source for s in seen] == [str(clip)] * 12 + [str(tmp_path / "one.png"), None]
    assert seen[5].poses.time == pytest.approx(0.5)
    for i, s in enumerate(seen[:12]):
        assert np.abs(s.poses.keypoints - keypoints_of(dots_at(i))).max() < 1.5
        assert s.frame.number == i
        assert s.poses.ids is None


def test_frames_of_several_videos_and_pictures_share_batches(predictor, clip):
    list(stream(predictor, [clip, moving_dots(1)[0], clip], batch=5))
    assert [shape[0] for shape in predictor.model.batches] == [5] * 5


def test_each_clip_is_followed_for_itself_and_pictures_are_not(predictor, clip):
    seen = list(stream(predictor, [clip, moving_dots(1)[0], clip], track=True))
    assert [None if s.poses.ids is None else sorted(s.poses.ids.tolist()) for s in seen] == (
        [[1, 2]] * 12 + [None] + [[1, 2]] * 12
    )
    bright = [int(s.poses.ids[s.poses.scores.argmax()]) for s in seen if s.poses.ids is not None]
    assert len(set(bright)) == 1


@pytest.mark.parametrize("smooth", ["online", "offline"])
def test_smoothing_stays_near_and_loses_no_frame(predictor, clip, smooth):
    seen = list(stream(predictor, clip, track=True, smooth=smooth, every=2))
    assert [s.frame.number for s in seen] == [0, 2, 4, 6, 8, 10]
    for s in seen:
        assert s.poses.frame == s.frame.number
        assert np.abs(np.sort(s.poses.keypoints, 0) - np.sort(keypoints_of(dots_at(s.frame.number)), 0)).max() < 3


def test_low_scores_continue_who_is_followed_and_are_left_out_elsewhere(predictor, clip):
    seen = list(stream(predictor, [clip, moving_dots(1)[0]], track=True, min_score=0.95))
    assert [len(s.poses) for s in seen] == [1] * 13
    config = TrackerConfig(birth_score=0.0)
    assert [len(s.poses) for s in stream(predictor, clip, track=config, min_score=0.95)] == [2] * 12


def test_a_lower_birth_score_finds_more_people_in_videos_only(predictor, tmp_path):
    dim = [dot_picture(SIZE, [dots_at(i)[0], (*dots_at(i)[1][:2], 0.4)]) for i in range(6)]
    clip = write_clip(tmp_path / "dim.mp4", dim)
    config = TrackerConfig(birth_score=0.3)
    seen = list(stream(predictor, [clip, dim[0]], track=config, min_score=0.9))
    assert [len(s.poses) for s in seen] == [2] * 6 + [1]
    strict = TrackerConfig(birth_score=0.9)
    assert [len(s.poses) for s in stream(predictor, [clip, dim[0]], track=strict, min_score=0.3)] == [1] * 6 + [2]


def test_a_camera_is_a_number(predictor):
    with pytest.raises(ValueError, match="camera 97 cannot be opened"):
        list(stream(predictor, 97))


def test_options_that_do_not_go_together(predictor, clip):
    assert following_of(False, None, 0.3) is None
    assert following_of(True, "online", 0.4).config.birth_score == 0.4
    assert following_of(True, "online", 0.4).smooth is OneEuro
    with pytest.raises(ValueError, match="smoothing needs people who are followed"):
        list(stream(predictor, clip, smooth="online"))
    with pytest.raises(ValueError, match="smooth 'much' is not known; known: online, offline"):
        list(stream(predictor, clip, track=True, smooth="much"))


def test_reading_is_a_few_frames_ahead(predictor):
    read = []

    def pictures():
        for i in range(60):
            read.append(i)
            yield moving_dots(1)[0]

    for done, _ in enumerate(stream(predictor, pictures(), batch=2), 1):
        assert len(read) - done <= 4 * 2 + 8


def test_an_error_while_reading_comes_up(predictor, clip, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(stream(predictor, [clip, tmp_path / "nowhere.mp4"]))
    assert list(stream(predictor, [])) == []
    assert predictor.skeleton == DOTS
