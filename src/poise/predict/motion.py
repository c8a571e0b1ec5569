"""Where a box will be: a Kalman filter with constant velocity.

Letters: T tracks, N poses, K keypoints. Frame: image px; time in frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_CENTRE_NOISE, _SIZE_NOISE = 0.04, 0.08
"""Standard deviations of a measured centre and of a measured width or height, in heights of the person."""
_START_SPEED = 0.15
"""Standard deviation of the speed of somebody new, heights a frame."""
_CENTRE_PUSH, _SIZE_PUSH = 0.006, 0.004
"""Standard deviations of the acceleration of the centre and of the size, heights a frame and frame."""


@dataclass
class BoxMotion:
    """State of one box: centre x, centre y, width, height, each with its speed.

    The four are filtered apart: ``mean`` (4, 2) holds value and speed, ``covariance`` (4, 2, 2) their uncertainty.
    """

    mean: Array
    covariance: Array

    @classmethod
    def start(cls, box: Array) -> BoxMotion:
        """Somebody seen for the first time in ``box`` (4,) xyxy, at unknown speed."""
        measured = to_centre(box)
        scale = max(measured[3], 1.0)
        covariance = np.zeros((4, 2, 2))
        covariance[:, 0, 0] = _noise(scale)
        covariance[:, 1, 1] = (_START_SPEED * scale) ** 2 * np.array([1, 1, 0.1, 0.1])
        return cls(np.column_stack([measured, np.zeros(4)]), covariance)

    def predict(self, steps: float) -> None:
        """Move on by ``steps`` frames."""
        scale = max(self.mean[3, 0], 1.0)
        move = np.array([[1.0, steps], [0.0, 1.0]])
        push = (scale * np.array([_CENTRE_PUSH, _CENTRE_PUSH, _SIZE_PUSH, _SIZE_PUSH])) ** 2
        spread = np.array([[steps**4 / 4, steps**3 / 2], [steps**3 / 2, steps**2]])
        self.mean = self.mean @ move.T
        self.mean[2:, 0] = np.maximum(self.mean[2:, 0], 1.0)
        self.covariance = move @ self.covariance @ move.T + push[:, None, None] * spread

    def correct(self, box: Array) -> None:
        """Take in a measured box (4,) xyxy."""
        measured = to_centre(box)
        total = self.covariance[:, 0, 0] + _noise(max(measured[3], 1.0))
        gain = self.covariance[:, :, 0] / total[:, None]
        self.mean = self.mean + gain * (measured - self.mean[:, 0])[:, None]
        self.covariance = self.covariance - gain[:, :, None] * self.covariance[:, None, 0, :]

    @property
    def box(self) -> Array:
        """(4,) xyxy."""
        centre, half = self.mean[:2, 0], self.mean[2:, 0] / 2
        return np.concatenate([centre - half, centre + half])

    @property
    def centre_variance(self) -> float:
        """Mean variance of the centre's two coordinates, px^2."""
        return float(self.covariance[:2, 0, 0].mean())


def to_centre(box: Array) -> Array:
    """Centre x, centre y, width, height of a box (4,) xyxy."""
    return np.array([box[0] + box[2], box[1] + box[3], 2 * (box[2] - box[0]), 2 * (box[3] - box[1])]) / 2


def _noise(scale: float) -> Array:
    return (scale * np.array([_CENTRE_NOISE, _CENTRE_NOISE, _SIZE_NOISE, _SIZE_NOISE])) ** 2
