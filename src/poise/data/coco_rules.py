"""What COCO files leave open, decided once: for the reader of data sets, for person boxes and for the evaluation.

Letters: K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Entry = Mapping[str, Any]


def people_category(categories: Any, where: str | Path, *, named: bool = False) -> Entry:
    """The category of people: the one with keypoints, or if several have some, the one of these called person.

    Without any keypoints it is the one called person, or the only one there is. It is empty if there are no
    categories.

    Args:
        categories: what the file lists.
        where: begins the message of an error.
        named: it must name its keypoints.

    Raises:
        ValueError: it cannot be told which one it is, or nothing is named.
    """
    listed = [c for c in categories if isinstance(c, Mapping)] if isinstance(categories, list | tuple) else []
    fitting = [c for c in listed if c.get("keypoints")]
    if not fitting and not named:
        fitting = listed
    if len(fitting) > 1:
        fitting = [c for c in fitting if c.get("name") == "person"]
    if len(fitting) == 1:
        return fitting[0]
    if not listed and not named:
        return {}
    names = ", ".join(str(c.get("name")) for c in listed[:5])
    raise ValueError(
        f"{where}: cannot tell which category ({names or 'there are none'}) has the people's keypoints; "
        'give exactly one a "keypoints" list, or call one of those person'
    )


def extent(points: npt.ArrayLike) -> tuple[float, float, float, float] | None:
    """xyxy of the labelled ones of keypoints (K, 3), a person's box where there is no other; None if none is."""
    values = np.asarray(points).reshape(-1, 3)
    seen = values[values[:, 2] > 0, :2]
    if len(seen) == 0:
        return None
    (x1, y1), (x2, y2) = seen.min(0).tolist(), seen.max(0).tolist()
    return x1, y1, x2, y2
