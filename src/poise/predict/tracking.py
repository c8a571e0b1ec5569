"""Who is who in a video: poses get the same id in all frames.

A person is followed by a Kalman filter on the box. A pose of the next frame belongs to whom it resembles most: in the
place of its keypoints (object keypoint similarity with the pose moved to where the filter expects it) and of its box.
All are assigned at once (Hungarian method). Sure poses choose first; unsure ones may only continue what is followed
already (Zhang et al. 2022, ByteTrack). Who is not seen for a while keeps moving as before and is found again.

Letters: T tracks, N poses, K keypoints. Frame: image px; time in frames that are looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.extras import needs
from poise.predict.motion import BoxMotion
from poise.settings import Settings
from poise.skeletons import Skeleton
from poise.types import IntArray, Poses

Array = npt.NDArray[np.float64]
_AREA_OF_BOX = 0.53
"""Share of its box that a person covers on average."""
_PLACE_SPREAD = 0.06
"""Variance of the distance between two boxes of one person in frames that follow, areas of the box."""
_SIZE_SPREAD = 0.4
"""Standard deviation of the logarithm of the ratio of their heights: limbs that are hidden shorten a box."""
_LOWEST_WEIGHT = 0.05
"""Weight of a keypoint with score 0 in the comparison of two poses."""
_KNOWN_GAPS = 50
"""So many gaps between frames say how large the usual one is."""


class TrackerConfig(Settings):
    """How people are followed."""

    birth_score: float = Field(default=0.3, ge=0, le=1)
    """Poses with a lower score only continue what is followed; they start nothing."""
    min_hits: int = Field(default=3, ge=1)
    """In so many frames in a row somebody must be seen to get an id; in the first frame of all, one is enough."""
    max_gap: int = Field(default=30, ge=0)
    """After so many of the frames looked at without being seen somebody is given up; who comes back gets a new id."""
    min_similarity: float = Field(default=0.2, ge=0, le=1)
    """What resembles less is somebody else."""
    keypoint_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of the keypoints in the similarity; the rest is the box's."""
    max_birth_similarity: float = Field(default=0.4, ge=0, le=1)
    """Who resembles somebody found in the same frame more than this is no second person."""
    gap_penalty: float = Field(default=0.1, ge=0, le=1)
    """Taken off the similarity to those who were not seen in the last frame: who was seen goes first."""


@dataclass
class _Track:
    """Somebody who is followed."""

    motion: BoxMotion
    pose: Poses
    seen_box: Array
    hits: int = 1
    gap: float = 0.0
    identity: int = -1
    places: list[tuple[int, int]] = field(default_factory=list)
    """(frame, index of the pose) of what was seen before the id was given."""

    def expected_keypoints(self) -> Array:
        """(K, 2): the last pose, moved and scaled as the box."""
        box = self.motion.box
        old, new = self.seen_box.reshape(2, 2), box.reshape(2, 2)
        scale = (new[1] - new[0]) / np.maximum(old[1] - old[0], 1.0)
        centred = self.pose.keypoints[0].astype(np.float64) - old.mean(0)
        return np.asarray(centred * scale + new.mean(0))


class Tracker:
    """Gives the poses of one frame after the other their ids.

    Args:
        config: see `TrackerConfig`.

    Raises:
        MissingLibraryError: scipy is not installed.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._assign = needs("scipy.optimize", "video", "following people").linear_sum_assignment
        self.reset()

    def reset(self) -> None:
        """Forget everybody; ids start with 1 again."""
        self._tracks: list[_Track] = []
        self._frame, self._steps = -1, 1.0
        self._next = 1
        self.recognised: list[tuple[int, int, int]] = []
        """(frame, index, id) of earlier poses whose id is known since the last `update`."""

    def update(self, poses: Poses, steps: float = 1.0) -> Poses:
        """The same poses with ids; -1 for those who are not (yet) followed.

        Args:
            poses: of the next frame, image px; those below `TrackerConfig.birth_score` are welcome.
            steps: time since the last call; 1 is that between two frames as a rule. More where frames were skipped.

        Raises:
            ValueError: ``steps`` is not positive.
        """
        if not steps > 0:
            raise ValueError(f"steps {steps!r} must be positive")
        self._frame += 1
        self._steps = steps
        self.recognised = []
        for track in self._tracks:
            track.motion.predict(steps)
            track.gap += steps
        boxes = _solid_boxes(poses)
        ids = np.full(len(poses), -1, np.int64)
        usable = np.isfinite(boxes).all(1)
        sure = usable & (poses.scores >= self.config.birth_score)
        left = self._match(poses, boxes, np.flatnonzero(sure), [t for t in self._tracks if t.identity > 0], ids)
        recent = [t for t in self._tracks if t.identity > 0 and 0 < t.gap <= 2 * steps]
        self._match(poses, boxes, np.flatnonzero(usable & ~sure), recent, ids)
        left = self._match(poses, boxes, left, [t for t in self._tracks if t.identity < 0], ids)
        for index in left[np.argsort(-poses.scores[left], kind="stable")]:
            if not self._second_view(poses, boxes, int(index)):
                self._start(poses, boxes, int(index), ids)
        self._tracks = [t for t in self._tracks if self._alive(t, poses.image_size)]
        return replace(poses, ids=ids)

    def _match(
        self, poses: Poses, boxes: Array, indices: IntArray, tracks: Sequence[_Track], ids: IntArray
    ) -> IntArray:
        """Assign some poses to some tracks; returns the indices of the poses that are left."""
        if not len(indices) or not tracks:
            return indices
        alike = similarity(tracks, poses[indices], boxes[indices], self.config.keypoint_weight)
        possible = alike >= self.config.min_similarity
        lost = np.array([[t.gap > 1.5 * self._steps] for t in tracks])
        value = 1 + alike * _certainty(tracks)[:, None] - self.config.gap_penalty * lost
        taken = []
        for row, column in zip(*self._assign(-np.where(possible, value, -1)), strict=True):
            if possible[row, column]:
                self._see(tracks[row], poses, boxes, int(indices[column]), ids)
                taken.append(column)
        return np.delete(indices, taken)

    def _see(self, track: _Track, poses: Poses, boxes: Array, index: int, ids: IntArray) -> None:
        track.motion.correct(boxes[index])
        track.pose, track.seen_box = poses[index], boxes[index]
        track.gap, track.hits = 0.0, track.hits + 1
        self._name(track, index, ids)

    def _start(self, poses: Poses, boxes: Array, index: int, ids: IntArray) -> None:
        track = _Track(BoxMotion.start(boxes[index]), poses[index], boxes[index])
        self._tracks.append(track)
        self._name(track, index, ids)

    def _second_view(self, poses: Poses, boxes: Array, index: int) -> bool:
        """Whether a pose resembles somebody who was found in this frame already: the same person, found twice."""
        seen = [t for t in self._tracks if t.gap == 0]
        if not seen:
            return False
        alike = similarity(seen, poses[index], boxes[[index]], self.config.keypoint_weight)
        return bool(alike.max() > self.config.max_birth_similarity)

    def _name(self, track: _Track, index: int, ids: IntArray) -> None:
        """Give an id to who was seen often enough."""
        if track.identity < 0:
            if track.hits < self.config.min_hits and self._frame > 0:
                track.places.append((self._frame, index))
                return
            track.identity = self._next
            self._next += 1
            self.recognised += [(frame, place, track.identity) for frame, place in track.places]
            track.places = []
        ids[index] = track.identity

    def _alive(self, track: _Track, image_size: tuple[int, int] | None) -> bool:
        if track.gap == 0:
            return True
        if track.identity < 0 or track.gap > self.config.max_gap:
            return False
        if image_size is None:
            return True
        x1, y1, x2, y2 = track.motion.box
        return bool(x2 > 0 and y2 > 0 and x1 < image_size[1] and y1 < image_size[0])


def follow(video: Iterable[Poses], config: TrackerConfig | None = None) -> Iterator[Poses]:
    """The frames of a video with ids, also in the first frames of those who get theirs later.

    The result comes ``min_hits - 1`` frames late; for a camera, where this matters, use `Tracker`. Where `Poses.frame`
    says that more frames than as a rule were skipped, people have moved on by as much more.

    Args:
        video: poses of one frame after the other, image px.
        config: see `TrackerConfig`.
    """
    tracker, pace = Tracker(config), _Pace()
    waiting: deque[Poses] = deque()
    first = 0
    for number, poses in enumerate(video):
        waiting.append(tracker.update(poses, pace.steps(poses.frame)))
        for frame, index, identity in tracker.recognised:
            if frame >= first:
                ids = waiting[frame - first].ids
                assert ids is not None  # update has set them
                ids[index] = identity
        if number - first >= tracker.config.min_hits - 1:
            yield waiting.popleft()
            first += 1
    yield from waiting


class _Pace:
    """How far frames are apart, in their usual gap: a camera that is read too slowly skips now more, now fewer."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._gaps: deque[int] = deque(maxlen=_KNOWN_GAPS)

    def steps(self, frame: int | None) -> float:
        """From the last frame to that of this number; 1 if the numbers are not known or do not grow."""
        last, self._last = self._last, frame
        if frame is None or last is None or frame <= last:
            return 1.0
        self._gaps.append(frame - last)
        return (frame - last) / float(median(self._gaps))


def similarity(tracks: Sequence[_Track], poses: Poses, boxes: Array, keypoint_weight: float) -> Array:
    """(T, N) in 0..1: how well each pose fits each track.

    Keypoints and place allow for the uncertainty of the filter, which grows with the time that somebody was not seen;
    the size of a person does not change meanwhile.
    """
    variances = _variances(tracks)
    expected = np.array([t.motion.box for t in tracks])
    areas = _areas(tracks)
    keypoints = _keypoint_similarity(tracks, poses, areas, variances)
    centres = (expected[:, :2] + expected[:, 2:]) / 2
    offsets = centres[:, None] - (boxes[None, :, :2] + boxes[None, :, 2:]) / 2
    reach = _PLACE_SPREAD * areas + variances
    near = np.exp(-(offsets**2).sum(-1) / (2 * reach[:, None]))
    heights = np.log((expected[:, None, 3] - expected[:, None, 1]) / (boxes[None, :, 3] - boxes[None, :, 1]))
    size = np.exp(-(heights**2) / (2 * _SIZE_SPREAD**2))
    return np.asarray(size * (keypoint_weight * keypoints + (1 - keypoint_weight) * near))


def _certainty(tracks: Sequence[_Track]) -> Array:
    """(T,) in 0..1: how sharply each track says where somebody is.

    Who was lost long ago could be anywhere and would resemble everybody; who is known to be there goes first.
    """
    spread = _PLACE_SPREAD * _areas(tracks)
    return np.asarray(np.sqrt(spread / (spread + _variances(tracks))))


def _areas(tracks: Sequence[_Track]) -> Array:
    boxes = np.array([t.motion.box for t in tracks])
    return np.asarray(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1.0))


def _variances(tracks: Sequence[_Track]) -> Array:
    return np.array([t.motion.centre_variance for t in tracks])


def _keypoint_similarity(tracks: Sequence[_Track], poses: Poses, areas: Array, variances: Array) -> Array:
    """(T, N): OKS with the expected keypoints, weighted with both scores, over the keypoints that both have."""
    expected = np.array([t.expected_keypoints() for t in tracks])
    scores = np.array([t.pose.keypoint_scores[0] for t in tracks], np.float64)
    offsets = expected[:, None] - poses.keypoints[None].astype(np.float64)
    known = np.isfinite(offsets).all(-1)
    weights = _weights(scores)[:, None] * _weights(poses.keypoint_scores)[None] * known
    reach = areas[:, None] * _AREA_OF_BOX * _keypoint_variances(poses.skeleton) + variances[:, None]
    squares = np.where(known, (np.where(known[..., None], offsets, 0.0) ** 2).sum(-1), 0.0)
    total = (np.exp(-squares / (2 * reach[:, None])) * weights).sum(-1)
    return np.asarray(total / np.maximum(weights.sum(-1), 1e-12))


def _keypoint_variances(skeleton: Skeleton) -> Array:
    return (2 * np.array(skeleton.sigmas)) ** 2


def _weights(scores: npt.NDArray[np.floating]) -> Array:
    return np.clip(np.nan_to_num(scores.astype(np.float64), nan=0.0), _LOWEST_WEIGHT, 1.0)


def _solid_boxes(poses: Poses) -> Array:
    """(N, 4) boxes with sides of at least one pixel."""
    boxes = poses.boxes.astype(np.float64)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes
