"""From frames to poses as a stream: read, found, followed and smoothed while they come.

Reading has a thread of its own. Frames wait for their poses in a short queue: memory stays flat however long it lasts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from poise.predict.frames import Clip, Frame, Part, frames
from poise.predict.overlap import ahead
from poise.predict.smoothing import OneEuro, SavitzkyGolay, Smoother
from poise.predict.sources import Named
from poise.predict.tracking import Tracker, TrackerConfig, follow
from poise.skeletons import Skeleton
from poise.types import Poses

SMOOTHERS: dict[str, type[OneEuro] | type[SavitzkyGolay]] = {"online": OneEuro, "offline": SavitzkyGolay}
"""Filters by the name of their option, with their default settings."""
LOW_SCORE = 0.5
"""Followed people are continued by poses down to this share of the score that starts somebody."""


class Finder(Protocol):
    """What finds poses: `poise.Predictor` or a top-down predictor."""

    @property
    def min_score(self) -> float:
        """Lowest score of poses that the model recommends."""
        ...

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints are."""
        ...

    @property
    def predict_iter(self) -> Callable[..., Iterator[Poses]]:
        """A method that gives the poses of one picture after the other."""
        ...


class Seen(NamedTuple):
    """A frame and the poses in it (image px)."""

    frame: Frame
    poses: Poses


@dataclass(frozen=True, slots=True)
class Following:
    """How people are followed through a clip.

    Attributes:
        config: of the tracker.
        smooth: filter for the followed poses, or None.
    """

    config: TrackerConfig
    smooth: type[OneEuro] | type[SavitzkyGolay] | None = None


def stream(
    predictor: Finder,
    sources: Any,
    *,
    min_score: float | None = None,
    track: bool | TrackerConfig = False,
    smooth: str | None = None,
    start: float | None = None,
    stop: float | None = None,
    every: int = 1,
    **options: Any,
) -> Iterator[Seen]:
    """Frames and their poses, one after the other.

    Args:
        predictor: what `poise.load` gives.
        sources: anything, see `poise.predict.frames`.
        min_score: leave out poses with a lower score; None is what the model recommends.
        track: follow people through videos; their poses get ids, and only followed people are kept. In pictures
            nobody is followed. The ``birth_score`` of a `TrackerConfig` stands in videos for ``min_score``.
        smooth: ``online`` (One-Euro) or ``offline`` (Savitzky-Golay); needs ``track``.
        start: seconds of each video to leave out.
        stop: end of each video, seconds from its start.
        every: look at every so many-th frame only.
        options: for ``predictor.predict_iter``.

    Raises:
        FileNotFoundError: there is nothing of this name.
        ValueError: something cannot be read, or options do not go together.
    """
    threshold = predictor.min_score if min_score is None else min_score
    following = following_of(track, smooth, threshold)
    lowest = threshold if following is None else min(threshold, following.config.birth_score)
    seen = find(predictor, frames(sources, Part(start, stop, every)), min_score=LOW_SCORE * lowest, **options)
    for frame, poses in followed(seen, following):
        yield Seen(frame, shown(poses, threshold))


def shown(poses: Poses, threshold: float) -> Poses:
    """Those of the candidates that count: who is followed, or, where nobody is, whose score is high enough."""
    return poses.filter(threshold) if poses.ids is None else poses[poses.ids >= 0]


def following_of(track: bool | TrackerConfig, smooth: str | None, threshold: float) -> Following | None:
    """The settings that ``track`` and ``smooth`` mean; None if nobody is followed.

    Raises:
        ValueError: ``smooth`` has no such value, or stands without ``track``.
    """
    if smooth is not None and smooth not in SMOOTHERS:
        raise ValueError(f"smooth {smooth!r} is not known; known: {', '.join(SMOOTHERS)}")
    if track is False:
        if smooth is not None:
            raise ValueError("smoothing needs people who are followed; turn tracking on, too (track, --track)")
        return None
    config = TrackerConfig(birth_score=threshold) if track is True else track
    Tracker(config)  # says now, not after the first frame, if a library is missing
    return Following(config, None if smooth is None else SMOOTHERS[smooth])


def find(predictor: Finder, source: Iterable[Frame], **options: Any) -> Iterator[Seen]:
    """Frames and what ``predictor.predict_iter`` finds in them; frames are read ahead in a thread."""
    waiting: deque[Frame] = deque()

    def pictures() -> Iterator[Named]:
        for frame in ahead(source):
            waiting.append(frame)
            yield Named(frame.image, frame.name)

    for poses in predictor.predict_iter(pictures(), **options):
        frame = waiting.popleft()
        yield Seen(frame, replace(poses, source=frame.name, frame=frame.number, time=frame.time))


def followed(seen: Iterable[Seen], following: Following | None) -> Iterator[Seen]:
    """The same with ids, each clip for itself; candidates too unsure to be followed are left out in clips."""
    if following is None:
        yield from seen
        return
    for clip, group in groupby(seen, key=lambda s: s.frame.clip):
        yield from _follow_clip(clip, group, following)


def _follow_clip(clip: Clip | None, group: Iterator[Seen], following: Following) -> Iterator[Seen]:
    if clip is None:
        yield from group
        return
    waiting: deque[Frame] = deque()

    def poses() -> Iterator[Poses]:
        for seen in group:
            waiting.append(seen.frame)
            yield seen.poses.filter(LOW_SCORE * following.config.birth_score)

    found: Iterator[Poses] = follow(poses(), following.config)
    if following.smooth is not None:
        smoother: Smoother = following.smooth()
        found = smoother(found)
    for each in found:
        yield Seen(waiting.popleft(), each)
