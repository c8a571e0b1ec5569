"""Object keypoint similarity (OKS): how alike two poses are, from 0 to 1.

Letters: N poses, M persons, K keypoints. One formula serves numpy arrays and torch tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = float(np.spacing(1))
"""Added to the area, as in the COCO evaluation: a person of area 0 does not divide by zero."""


@overload
def oks(
    poses: npt.NDArray[np.floating],
    persons: npt.NDArray[np.floating],
    areas: npt.NDArray[np.floating],
    sigmas: Sequence[float],
) -> npt.NDArray[np.floating]: ...


@overload
def oks(poses: Tensor, persons: Tensor, areas: Tensor, sigmas: Sequence[float]) -> Tensor: ...


def oks(poses: Any, persons: Any, areas: Any, sigmas: Sequence[float]) -> Any:
    """OKS between every pose and every person.

    The mean over the labelled keypoints j of exp(-d_j^2 / (2 area (2 sigma_j)^2)) (COCO evaluation; SMPR spec 4).

    Args:
        poses: (N, K, 2 or more) x, y; further columns are not looked at.
        persons: (M, K, 3) x, y, visibility (> 0: labelled), in the frame of ``poses``. Two predictions are compared
            by giving one of them visibility 1 throughout.
        areas: (M,) areas of the persons, squared units of the same frame.
        sigmas: the K constants of the skeleton.

    Returns:
        (N, M), of the inputs' kind (array or tensor; all three of the same kind). A person without a labelled
        keypoint is similar to nothing: 0. Differentiable in ``poses``.
    """
    keypoints = persons.shape[1]
    if poses.shape[1] != keypoints or len(sigmas) != keypoints:
        raise ValueError(f"oks: poses have {poses.shape[1]} keypoints, persons {keypoints}, and {len(sigmas)} sigmas")
    scale = _like([2 * (2 * sigma) ** 2 for sigma in sigmas], areas)
    labelled = persons[None, :, :, 2] > 0
    dx = poses[:, None, :, 0] - persons[None, :, :, 0]
    dy = poses[:, None, :, 1] - persons[None, :, :, 1]
    exponent = (dx**2 + dy**2) / ((areas[None, :, None] + _EPSILON) * scale)
    similarity = _exp(-exponent) * labelled
    return similarity.sum(-1) / labelled.sum(-1).clip(1)


def paired_oks(
    poses: npt.NDArray[np.floating],
    persons: npt.NDArray[np.floating],
    areas: npt.NDArray[np.floating],
    sigmas: Sequence[float],
) -> npt.NDArray[np.floating]:
    """OKS (n,) of n pairs: pose i with person i, all of whose keypoints count.

    Args:
        poses: (n, K, 2) x, y.
        persons: (n, K, 2).
        areas: (n,) areas of the persons.
        sigmas: the K constants of the skeleton.
    """
    squares = ((poses - persons) ** 2).sum(-1)
    scale = np.array([2 * (2 * sigma) ** 2 for sigma in sigmas], squares.dtype)
    return np.asarray(np.exp(-squares / ((areas[:, None] + _EPSILON) * scale)).mean(-1))


def mutual_oks(
    keypoints: npt.NDArray[np.floating],
    areas: npt.NDArray[np.floating],
    sigmas: Sequence[float],
    counted: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.floating]:
    """OKS (N, N) between predicted poses, with the mean of both areas (mmpose; RSN spec 11).

    Args:
        keypoints: (N, K, 2) x, y.
        areas: (N,) squared units of the same frame.
        sigmas: the K constants of the skeleton.
        counted: (N, K) bool: the mean is over the keypoints that count in both poses; 0 if there are none. None: all.
    """
    squares = ((keypoints[:, None] - keypoints[None]) ** 2).sum(-1)
    area = (areas[:, None] + areas[None]) / 2 + _EPSILON
    alike = np.exp(-squares / (area[..., None] * _like([2 * (2 * sigma) ** 2 for sigma in sigmas], areas)))
    if counted is None:
        return np.asarray(alike.mean(-1))
    both = counted[:, None] & counted[None]
    return np.asarray((alike * both).sum(-1) / both.sum(-1).clip(1))


def _like(values: list[float], example: Any) -> Any:
    return np.asarray(values) if isinstance(example, np.ndarray) else example.new_tensor(values)


def _exp(values: Any) -> Any:
    return np.exp(values) if isinstance(values, np.ndarray) else values.exp()
