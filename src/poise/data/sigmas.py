"""OKS sigmas for skeletons that come without: how far careful annotators disagree about each keypoint.

sigma_k^2 is the mean of d^2 / area, d the distance between an annotation and the true place (COCO). It can only be
*measured* where the same people were annotated twice (`sigmas_from_repeats`). Everything else is an estimate, says so,
and is never made in silence (`estimate_sigmas`). Letters: N persons, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from poise.skeletons import COCO17, CROWDPOSE14, Pair

SPACING = 0.27
"""sigma over the distance to the nearest other keypoint; fitted to COCO (see `estimate_sigmas`)."""
TYPICAL = 0.06
"""Geometric mean of COCO's 17 sigmas, for keypoints of which nothing is known."""
RANGE = (0.02, 0.11)
"""Estimates are kept in it; COCO's sigmas run from 0.025 to 0.107."""
MIN_PEOPLE = 10
"""People with both keypoints that a distance must be seen on."""

_ALIASES = {"head": "top_head", "head_top": "top_head", "upper_neck": "neck"}
_SIDES = ("left_", "right_", "l_", "r_")


@dataclass(frozen=True, slots=True)
class SigmaEstimate:
    """Estimated sigmas of K keypoints.

    Attributes:
        names: of the keypoints.
        sigmas: the numbers.
        origins: where each comes from: a published skeleton and its keypoint, ``spacing`` or ``typical``.
    """

    names: tuple[str, ...]
    sigmas: tuple[float, ...]
    origins: tuple[str, ...]

    def __str__(self) -> str:
        """All of it in one line."""
        return ", ".join(f"{n} {s:.3f} ({o})" for n, s, o in zip(self.names, self.sigmas, self.origins, strict=True))


def estimate_sigmas(
    names: Sequence[str], keypoints: npt.ArrayLike, areas: npt.ArrayLike, flip_pairs: Sequence[Pair] = ()
) -> SigmaEstimate:
    """Sigmas for a skeleton that has none, each with where it comes from.

    1. A keypoint with the name of a body part in COCO's or CrowdPose's skeleton, whatever its side, takes the
       published number.
    2. Any other takes `SPACING` times its spacing: the smallest, over the other keypoints, of the median distance on
       people who have both, over the square root of the area. Points that lie close together have to be placed
       precisely to be told apart. On 1,123 people of COCO this gives COCO's own sigmas within a factor of 1.5 each
       (root mean square 1.2), on 8,726 people of Leeds Sports Poses the ones in use there within 1.8 (1.4). The
       scatter of a keypoint around the body, which measures how people move, gives COCO's only within 1.8 (1.5), one
       number for all within 2.4 (1.7).
    3. What fewer than `MIN_PEOPLE` people show takes `TYPICAL`.

    Args:
        names: of the K keypoints.
        keypoints: (N, K, 3) x, y, visibility (0 not labelled); N may be 0.
        areas: (N,) in the squared unit of ``keypoints``; people without a positive area are left out.
        flip_pairs: keypoints that share one sigma, the geometric mean of their estimates.

    Raises:
        ValueError: the shapes do not fit.
    """
    points, sizes = _people(keypoints, areas, len(names))
    spacing = _spacings(points, sizes)
    sigmas, origins = [], []
    for name, distance in zip(names, spacing.tolist(), strict=True):
        published = published_sigma(name)
        if published is not None:
            sigma, origin = published
        elif np.isfinite(distance):
            sigma, origin = float(np.clip(SPACING * distance, *RANGE)), "spacing"
        else:
            sigma, origin = TYPICAL, "typical"
        sigmas.append(sigma)
        origins.append(origin)
    for a, b in flip_pairs:
        if origins[a] == origins[b] == "spacing":
            sigmas[a] = sigmas[b] = float(np.sqrt(sigmas[a] * sigmas[b]))
    return SigmaEstimate(tuple(names), tuple(round(s, 4) for s in sigmas), tuple(origins))


def sigmas_from_repeats(first: npt.ArrayLike, second: npt.ArrayLike, areas: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(K,) measured sigmas from two independent annotations of the same people.

    Two annotators who err alike are 2 sigma^2 area apart in the mean square; NaN for a keypoint that nobody has twice.

    Args:
        first: (N, K, 3) x, y, visibility.
        second: (N, K, 3) the same people in the same order.
        areas: (N,)

    Raises:
        ValueError: the shapes do not fit.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape or one.ndim != 3 or one.shape[2] != 3 or np.shape(areas) != one.shape[:1]:
        raise ValueError(f"repeated annotations of shapes {one.shape}, {other.shape} and areas {np.shape(areas)}")
    both = (one[..., 2] > 0) & (other[..., 2] > 0)
    squares = ((one[..., :2] - other[..., :2]) ** 2).sum(-1) / np.asarray(areas, np.float64)[:, None]
    counts = both.sum(0)
    means = (squares * both).sum(0) / (2 * counts.clip(1))
    result: npt.NDArray[np.float64] = np.where(counts > 0, np.sqrt(means), np.nan)
    return result


def published_sigma(name: str) -> tuple[float, str] | None:
    """The sigma of a body part of that name and where it was published, if it was: COCO first, then CrowdPose."""
    part = _part(name)
    for skeleton in (COCO17, CROWDPOSE14):
        for known, sigma in zip(skeleton.keypoints, skeleton.sigmas, strict=True):
            if _part(known) == part:
                return sigma, f"{skeleton.name} {known}"
    return None


def _part(name: str) -> str:
    """The name without its side: ``left_wrist``, ``wrist_l`` and ``R-Wrist`` are all ``wrist``."""
    text = name.strip().lower().replace("-", "_").replace(" ", "_")
    for side in _SIDES:
        text = text.removeprefix(side)
        text = text.removesuffix("_" + side[:-1])
    return _ALIASES.get(text, text)


def _people(
    keypoints: npt.ArrayLike, areas: npt.ArrayLike, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    points, sizes = np.asarray(keypoints, np.float64), np.asarray(areas, np.float64)
    if points.shape != (len(sizes), count, 3):
        raise ValueError(f"sigmas of {count} keypoints need people ({len(sizes)}, {count}, 3), not {points.shape}")
    return points[sizes > 0], sizes[sizes > 0]


def _spacings(points: npt.NDArray[np.float64], areas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(K,) smallest median distance to another keypoint over the root of the area; infinite where too few show it."""
    count = points.shape[1]
    spacings = np.full(count, np.inf)
    labelled = points[..., 2] > 0
    for k in range(count):
        both = labelled & labelled[:, k : k + 1]
        distances = np.linalg.norm(points[..., :2] - points[:, k : k + 1, :2], axis=2) / np.sqrt(areas)[:, None]
        for other in range(count):
            if other != k and both[:, other].sum() >= MIN_PEOPLE:
                spacings[k] = min(spacings[k], float(np.median(distances[both[:, other], other])))
    return spacings
