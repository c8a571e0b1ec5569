"""``poise data stats``: how many pictures, people and keypoints a data set has, and how large they are.

Letters: N persons, K keypoints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from poise.data.records import PoseDataset

SMALL, MEDIUM = 32.0**2, 96.0**2
"""Areas below the first are small, below the second medium, above it large (COCO)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, quartiles and largest of some numbers; all 0 where there is none."""

    low: float
    quarter: float
    middle: float
    three_quarters: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of values in any order."""
        if not len(values):
            return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
        return Spread(*(float(v) for v in np.quantile(np.asarray(values, np.float64), (0, 0.25, 0.5, 0.75, 1))))


@dataclass(frozen=True, slots=True)
class KeypointCounts:
    """How often a keypoint was labelled, over all people, and its OKS sigma."""

    name: str
    visible: int
    occluded: int
    unlabelled: int
    sigma: float

    @property
    def labelled(self) -> int:
        """Visible or occluded."""
        return self.visible + self.occluded


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """Numbers of a data set.

    Attributes:
        name: of the data set.
        skeleton: name of the skeleton.
        pictures: number of pictures.
        empty: pictures without a labelled person.
        people: number of labelled people.
        regions: number of ignore regions.
        people_a_picture: how many pictures have 0, 1, 2 ... people, up to the most.
        widths: of the pictures, px.
        heights: of the pictures, px.
        person_sizes: square roots of the people's areas, px.
        person_shares: longer side of a person's box over the longer side of its picture.
        small: people of a small area, and so on (`SMALL`, `MEDIUM`).
        medium: see ``small``.
        large: see ``small``.
        labelled_a_person: labelled keypoints.
        keypoints: per keypoint.
        crowd_index: of the pictures, where the data set has it.
    """

    name: str
    skeleton: str
    pictures: int
    empty: int
    people: int
    regions: int
    people_a_picture: tuple[int, ...]
    widths: Spread
    heights: Spread
    person_sizes: Spread
    person_shares: Spread
    small: int
    medium: int
    large: int
    labelled_a_person: Spread
    keypoints: tuple[KeypointCounts, ...]
    crowd_index: Spread | None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return asdict(self)


def dataset_statistics(dataset: PoseDataset) -> DatasetStatistics:
    """Count; no picture is opened."""
    counts = Counter(len(record) for record in dataset)
    areas = np.concatenate([r.areas for r in dataset] or [np.zeros(0, np.float32)]).astype(np.float64)
    visibility = np.concatenate(
        [r.keypoints[..., 2] for r in dataset] or [np.zeros((0, len(dataset.skeleton)), np.float32)]
    )
    crowd = [r.crowd_index for r in dataset if r.crowd_index is not None]
    return DatasetStatistics(
        name=dataset.name,
        skeleton=dataset.skeleton.name,
        pictures=len(dataset),
        empty=counts[0],
        people=dataset.person_count,
        regions=sum(len(r.ignore) for r in dataset),
        people_a_picture=tuple(counts[n] for n in range(max(counts, default=-1) + 1)),
        widths=Spread.of([r.size[1] for r in dataset]),
        heights=Spread.of([r.size[0] for r in dataset]),
        person_sizes=Spread.of(np.sqrt(areas).tolist()),
        person_shares=Spread.of(person_shares(dataset)),
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < MEDIUM)).sum()),
        large=int((areas >= MEDIUM).sum()),
        labelled_a_person=Spread.of((visibility > 0).sum(1).tolist()),
        keypoints=tuple(
            KeypointCounts(name, int((flags == 2).sum()), int((flags == 1).sum()), int((flags == 0).sum()), sigma)
            for name, flags, sigma in zip(
                dataset.skeleton.keypoints, visibility.T, dataset.skeleton.sigmas, strict=True
            )
        ),
        crowd_index=Spread.of(crowd) if crowd else None,
    )


def person_shares(dataset: PoseDataset) -> list[float]:
    """Per person, the longer side of the box over the longer side of the picture."""
    return [
        float(max(x2 - x1, y2 - y1) / max(record.size))
        for record in dataset
        for x1, y1, x2, y2 in record.boxes.tolist()
    ]
