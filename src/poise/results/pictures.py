"""What a file of poses says of the pictures in which nobody was found.

Letters: K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from poise.types import Poses


def completed(pictures: Sequence[Poses]) -> list[Poses]:
    """The pictures of a file; those without poses get empty ids and visibility if all poses there are have some.

    So a video reads back as a tracker gave it: (0,) ids in a frame without people, and (0, K) visibility.
    """
    people = [poses for poses in pictures if len(poses)]
    followed = bool(people) and all(poses.ids is not None for poses in people)
    marked = bool(people) and all(poses.visibility is not None for poses in people)
    return [poses if len(poses) else _emptied(poses, followed, marked) for poses in pictures]


def _emptied(poses: Poses, followed: bool, marked: bool) -> Poses:
    ids = np.zeros(0, np.int64) if followed else None
    visibility = np.zeros((0, len(poses.skeleton)), np.int64) if marked else None
    return replace(poses, ids=ids, visibility=visibility)
