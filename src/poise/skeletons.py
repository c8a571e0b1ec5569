"""Skeletons: which keypoints a person has, and everything that depends on their order.

The skeleton decides every count in Poise: number of channels, of flip pairs, of OKS sigmas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of one kind of figure.

    Attributes:
        name: short name, for messages and files.
        keypoints: names of the K keypoints, in channel order.
        edges: pairs of indices joined by a limb when drawn.
        flip_pairs: pairs of indices (left, right) that change places in a mirrored picture.
        sigmas: K per-keypoint constants of the object keypoint similarity (COCO: k_i = 2 sigma_i).
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[Pair, ...]
    flip_pairs: tuple[Pair, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse inconsistent definitions with a ``ValueError`` that names the bad value."""
        count = len(self.keypoints)
        if count == 0:
            raise ValueError(f"skeleton {self.name!r} has no keypoints")
        if len(set(self.keypoints)) != count:
            twice = sorted({k for k in self.keypoints if self.keypoints.count(k) > 1})
            raise ValueError(f"skeleton {self.name!r} names a keypoint twice: {', '.join(twice)}")
        if len(self.sigmas) != count:
            raise ValueError(f"skeleton {self.name!r} has {count} keypoints but {len(self.sigmas)} sigmas")
        for sigma in self.sigmas:
            if not (math.isfinite(sigma) and sigma > 0):
                raise ValueError(f"skeleton {self.name!r}: sigma {sigma!r} is not a positive number")
        for what, pairs in (("edge", self.edges), ("flip pair", self.flip_pairs)):
            for a, b in pairs:
                if not (0 <= a < count and 0 <= b < count) or a == b:
                    raise ValueError(
                        f"skeleton {self.name!r}: {what} ({a}, {b}) does not join two of {count} keypoints"
                    )
        flat = [i for pair in self.flip_pairs for i in pair]
        if len(set(flat)) != len(flat):
            raise ValueError(f"skeleton {self.name!r}: a keypoint is in two flip pairs: {self.flip_pairs}")

    def __len__(self) -> int:
        """Number of keypoints K."""
        return len(self.keypoints)

    @property
    def flip_index(self) -> tuple[int, ...]:
        """Permutation p such that keypoint k of a mirrored person is keypoint p[k] of the original; p[p[k]] = k."""
        index = list(range(len(self)))
        for a, b in self.flip_pairs:
            index[a], index[b] = b, a
        return tuple(index)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; ``from_dict`` reads it back."""
        return {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "edges": [list(e) for e in self.edges],
            "flip_pairs": [list(p) for p in self.flip_pairs],
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Skeleton:
        """Read what ``to_dict`` wrote; ``ValueError`` names a missing field."""
        missing = [k for k in ("name", "keypoints", "edges", "flip_pairs", "sigmas") if k not in data]
        if missing:
            raise ValueError(f"skeleton description lacks {', '.join(missing)}")
        return cls(
            name=str(data["name"]),
            keypoints=tuple(str(k) for k in data["keypoints"]),
            edges=tuple((int(a), int(b)) for a, b in data["edges"]),
            flip_pairs=tuple((int(a), int(b)) for a, b in data["flip_pairs"]),
            sigmas=tuple(float(s) for s in data["sigmas"]),
        )


def mirrored_pairs(names: Sequence[str]) -> tuple[Pair, ...]:
    """Flip pairs read off the names: ``left_x``/``right_x``, ``l_x``/``r_x``, ``x_left``/``x_right``."""
    lower = [n.lower().replace("-", "_").replace(" ", "_") for n in names]
    pairs = []
    for left, right in (("left_", "right_"), ("l_", "r_")):
        pairs += [
            (i, lower.index(right + n[len(left) :]))
            for i, n in enumerate(lower)
            if n.startswith(left) and right + n[len(left) :] in lower
        ]
    for left, right in (("_left", "_right"), ("_l", "_r")):
        pairs += [
            (i, lower.index(n[: -len(left)] + right))
            for i, n in enumerate(lower)
            if n.endswith(left) and n[: -len(left)] + right in lower
        ]
    return tuple(dict.fromkeys(pairs))


LOWER_BODY = (
    "hip", "pelvis", "crotch", "leg", "thigh", "knee", "shin", "ankle", "foot", "feet", "heel", "toe", "hoof", "tail",
)  # fmt: skip
"""Words in the names of keypoints that belong to the lower half of a body."""


def lower_body(names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the keypoints of the lower half of a body, read off their names; nothing if no name says so."""
    return tuple(i for i, name in enumerate(names) if any(word in name.lower() for word in LOWER_BODY))


COCO17 = Skeleton(
    name="coco17",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    edges=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
        0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip
"""COCO person keypoints; sigmas of the COCO evaluation."""

CROWDPOSE14 = Skeleton(
    name="crowdpose14",
    keypoints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "top_head", "neck",
    ),
    edges=((12, 13), (13, 0), (13, 1), (0, 2), (2, 4), (1, 3), (3, 5), (0, 6), (1, 7), (6, 7), (6, 8), (8, 10),
           (7, 9), (9, 11)),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
)  # fmt: skip
"""CrowdPose keypoints; sigmas of the CrowdPose evaluation."""

MPII16 = Skeleton(
    name="mpii16",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    edges=((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (7, 12), (12, 11), (11, 10),
           (7, 13), (13, 14), (14, 15)),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    sigmas=(0.089, 0.083, 0.107, 0.107, 0.083, 0.089, 0.026, 0.026, 0.026, 0.026, 0.062, 0.072, 0.179, 0.179, 0.072,
            0.062),
)  # fmt: skip
"""MPII joints. MPII has no official sigmas; these are the ones in common use (mmpose) and serve OKS-NMS only."""

LSP14 = Skeleton(
    name="lsp14",
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    edges=((0, 1), (1, 2), (3, 4), (4, 5), (2, 3), (6, 7), (7, 8), (9, 10), (10, 11), (8, 12), (9, 12), (12, 13),
           (2, 8), (3, 9)),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    sigmas=(0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079),
)  # fmt: skip
"""Leeds Sports Pose joints. LSP has no OKS sigmas: the limbs take COCO's, neck and head top CrowdPose's."""

SKELETONS: dict[str, Skeleton] = {s.name: s for s in (COCO17, CROWDPOSE14, MPII16, LSP14)}
"""The built-in skeletons by name."""
