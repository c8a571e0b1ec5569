"""A data set in memory: one `Record` a picture. Pixels stay on disk until a sample is read.

Letters: N persons, K keypoints, R ignore regions. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poise.skeletons import Skeleton
from poise.types import FloatArray


@dataclass(frozen=True, slots=True)
class Record:
    """One picture and its truth, image px.

    Attributes:
        path: the picture.
        image_id: the data set's id of the picture.
        size: (height, width) of the picture as annotated.
        keypoints: (N, K, 3) float32 x, y, visibility (0 not labelled, 1 occluded, 2 visible).
        boxes: (N, 4) float32 xyxy, annotated boxes.
        areas: (N,) float32, segment areas.
        ignore: (R, 4) float32 xyxy, regions with people who are not labelled.
        crowd_index: how crowded the picture is, 0..1, where the data set says so (CrowdPose).
    """

    path: Path
    image_id: int | str
    size: tuple[int, int]
    keypoints: FloatArray
    boxes: FloatArray
    areas: FloatArray
    ignore: FloatArray
    crowd_index: float | None = None

    def __post_init__(self) -> None:
        """Cast to float32 and check shapes; ``ValueError`` names the picture and the field."""
        for name in ("keypoints", "boxes", "areas", "ignore"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float32))
        n = len(self.areas)
        if self.keypoints.ndim != 3 or self.keypoints.shape[0] != n or self.keypoints.shape[2] != 3:
            raise ValueError(f"{self.path}: keypoints must have shape ({n}, K, 3), not {self.keypoints.shape}")
        if self.areas.shape != (n,) or self.boxes.shape != (n, 4):
            raise ValueError(f"{self.path}: {n} areas but boxes of shape {self.boxes.shape}")
        if self.ignore.ndim != 2 or self.ignore.shape[1] != 4:
            raise ValueError(f"{self.path}: ignore must have shape (R, 4), not {self.ignore.shape}")

    def __len__(self) -> int:
        """Number of labelled persons N."""
        return len(self.areas)

    @property
    def labelled(self) -> int:
        """Number of labelled keypoints of all persons."""
        return int((self.keypoints[..., 2] > 0).sum())

    @staticmethod
    def without_people(path: Path, image_id: int | str, size: tuple[int, int], keypoint_count: int) -> Record:
        """A picture in which nobody is."""
        return Record(
            path,
            image_id,
            size,
            np.zeros((0, keypoint_count, 3), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
        )


@dataclass(frozen=True, slots=True)
class PoseDataset:
    """Pictures whose people all have one skeleton.

    Attributes:
        name: short name, for messages and tables.
        skeleton: what the K keypoints are.
        records: the pictures, in the order of the file.
    """

    name: str
    skeleton: Skeleton
    records: tuple[Record, ...]

    def __post_init__(self) -> None:
        """``ValueError`` if a record has another number of keypoints than the skeleton."""
        for record in self.records:
            if record.keypoints.shape[1] != len(self.skeleton):
                raise ValueError(
                    f"data set {self.name!r}: {record.path} has {record.keypoints.shape[1]} keypoints a person, "
                    f"skeleton {self.skeleton.name!r} has {len(self.skeleton)}"
                )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """One picture."""
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        """The pictures in order."""
        return iter(self.records)

    @property
    def person_count(self) -> int:
        """Number of labelled persons in all pictures."""
        return sum(len(record) for record in self.records)
