"""Less jitter in the poses of people who are followed.

Two filters, both apart for every id and every keypoint:

- `OneEuro` (Casiez et al. 2012) needs no future frame. It follows fast movement closely and slow movement smoothly. At
  constant speed v it is late by the time constant 1 / (2 pi (min_cutoff + beta v)), in distance at most
  ``1 / (2 pi beta)`` of the person's height, whatever the speed: with the default beta 8, 2 % of the height.
- `SavitzkyGolay` fits a polynomial over a window of frames around each frame. It looks ahead half a window, and so is
  not late: movement of the polynomial's order goes through unchanged.

Letters: N poses, K keypoints. Frame: image px; time in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from poise.settings import Settings
from poise.types import FloatArray, Poses

Array = npt.NDArray[np.float64]
Smoother = Callable[[Iterable[Poses]], Iterator[Poses]]
_FORGET = 1.0
"""Seconds after which somebody who comes back is filtered anew."""
_DEFAULT_STEP = 1 / 25
"""Seconds between frames without time."""


class OneEuroConfig(Settings):
    """How much `OneEuro` smooths."""

    min_cutoff: float = Field(default=1.0, gt=0)
    """Cut-off frequency at rest, Hz: lower is smoother."""
    beta: float = Field(default=8.0, gt=0)
    """Growth of the cut-off with the speed, Hz for each height of the person a second: higher is less late."""
    speed_cutoff: float = Field(default=1.0, gt=0)
    """Cut-off frequency of the speed, Hz."""


@dataclass
class _State:
    """What `OneEuro` knows of one person: (K, 2) arrays."""

    points: Array
    measured: Array
    speeds: Array
    height: float
    time: float


class OneEuro:
    """The One-Euro filter, frame by frame; poses without an id go through unchanged."""

    def __init__(self, config: OneEuroConfig | None = None) -> None:
        self.config = config or OneEuroConfig()
        self._states: dict[int, _State] = {}
        self._time = -_DEFAULT_STEP

    def update(self, poses: Poses) -> Poses:
        """The smoothed poses of the next frame.

        Args:
            poses: with ids, image px; ``time`` is used if it is set.

        Raises:
            ValueError: the poses have no ids.
        """
        ids = _ids(poses)
        self._time = self._time + _DEFAULT_STEP if poses.time is None else poses.time
        self._states = {who: s for who, s in self._states.items() if self._time - s.time <= _FORGET}
        points = poses.keypoints.copy()
        for i, who in enumerate(ids):
            if who >= 0:
                points[i] = self._filter(who, poses.keypoints[i].astype(np.float64), poses.boxes[i])
        return replace(poses, keypoints=points)

    def __call__(self, video: Iterable[Poses]) -> Iterator[Poses]:
        """All frames of a video."""
        return (self.update(poses) for poses in video)

    def _filter(self, who: int, points: Array, box: FloatArray) -> Array:
        height = max(float(box[3] - box[1]), 1.0)
        state = self._states.get(who)
        step = self._time - state.time if state else 0.0
        if state is None or step <= 0:
            self._states[who] = _State(points, points, np.zeros_like(points), height, self._time)
            return points
        state.height += float(_share(1.0, step)) * (height - state.height)
        speeds = (points - state.measured) / step
        speeds = state.speeds + _share(self.config.speed_cutoff, step) * (speeds - state.speeds)
        pace = np.hypot(speeds[:, :1], speeds[:, 1:]) / state.height
        smooth = state.points + _share(self.config.min_cutoff + self.config.beta * pace, step) * (points - state.points)
        # a keypoint that appears starts anew, one that is gone leaves nothing behind
        fresh = np.isnan(smooth)
        self._states[who] = _State(
            np.where(fresh, points, smooth), points, np.where(np.isnan(speeds), 0.0, speeds), state.height, self._time
        )
        return self._states[who].points


def _share(cutoff: float | Array, step: float) -> Array:
    """Share of the new value in an exponential filter with this cut-off (Hz) and time step (s)."""
    rate = 2 * math.pi * np.asarray(cutoff) * step
    return np.asarray(rate / (1 + rate))


class SavitzkyGolayConfig(Settings):
    """Window and order of `SavitzkyGolay`."""

    window: int = Field(default=9, ge=3, le=101)
    """Frames, an odd number."""
    order: int = Field(default=2, ge=0, le=5)
    """Of the polynomial; less than ``window``."""

    @model_validator(mode="after")
    def _consistent(self) -> SavitzkyGolayConfig:
        if self.window % 2 == 0:
            raise ValueError(f"window {self.window} must be odd")
        if self.order >= self.window:
            raise ValueError(f"order {self.order} must be less than window {self.window}")
        return self


@dataclass
class _Window:
    """Frames around the one that is smoothed next."""

    frames: deque[Poses] = field(default_factory=deque)
    first: int = 0


class SavitzkyGolay:
    """The Savitzky-Golay filter over the frames of a video; poses without an id go through unchanged.

    Frames in which somebody is missing are left out of the fit, and at both ends the window is cut off; where fewer
    frames are left than the polynomial needs, its order is lowered. The result comes half a window late.
    """

    def __init__(self, config: SavitzkyGolayConfig | None = None) -> None:
        self.config = config or SavitzkyGolayConfig()

    def __call__(self, video: Iterable[Poses]) -> Iterator[Poses]:
        """All frames of a video; ``ValueError`` if poses have no ids."""
        half = self.config.window // 2
        window, centre = _Window(), 0
        for number, poses in enumerate(video):
            _ids(poses)
            window.frames.append(poses)
            if number >= half:
                yield self._smoothed(window, centre)
                centre += 1
                if centre - window.first > half:
                    window.frames.popleft()
                    window.first += 1
        while centre - window.first < len(window.frames):
            yield self._smoothed(window, centre)
            centre += 1
            if centre - window.first > half:
                window.frames.popleft()
                window.first += 1

    def _smoothed(self, window: _Window, centre: int) -> Poses:
        poses = window.frames[centre - window.first]
        points = poses.keypoints.copy()
        for i, who in enumerate(_ids(poses)):
            if who >= 0:
                times, values = self._around(window, centre, who)
                points[i] = _fitted(times, values, self.config.order)
        return replace(poses, keypoints=points)

    def _around(self, window: _Window, centre: int, who: int) -> tuple[Array, Array]:
        """Frame numbers (T,) relative to the centre, and keypoints (T, K, 2), of the frames that show somebody."""
        half = self.config.window // 2
        found = [
            (window.first + offset - centre, poses.keypoints[_ids(poses).index(who)])
            for offset, poses in enumerate(window.frames)
            if abs(window.first + offset - centre) <= half and who in _ids(poses)
        ]
        return np.array([t for t, _ in found], np.float64), np.array([v for _, v in found], np.float64)


def _fitted(times: Array, values: Array, order: int) -> Array:
    """(K, 2): value at time 0 of the polynomials through values (T, K, 2); NaN where the value at 0 is NaN."""
    known = np.asarray(np.isfinite(values).all(2))
    result: Array = values[times == 0][0].copy()
    for pattern in np.unique(known, axis=1).T:
        columns = (known == pattern[:, None]).all(0) & known[times == 0][0]
        if columns.any():
            powers = times[pattern][:, None] ** np.arange(min(order, int(pattern.sum()) - 1) + 1)
            weights = np.linalg.pinv(powers)[0]
            result[columns] = np.tensordot(weights, values[pattern][:, columns], 1)
    return result


def _ids(poses: Poses) -> list[int]:
    if poses.ids is None:
        raise ValueError("smoothing needs poses with ids; follow people with a Tracker (--track) first")
    ids: list[int] = poses.ids.tolist()
    return ids
