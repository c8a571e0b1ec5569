"""Does an exported file find what torch finds? Both look at real photographs.

Letters: N poses, K keypoints, B boxes. Frame: image px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from poise.data.images import image_size, read_image
from poise.data.views import image_tensor, normalise
from poise.models.base import PoseModel
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.exported import ExportedPredictor
from poise.predict.mapping import clips_first, mapped_back
from poise.predict.predictor import prepared
from poise.predict.sources import Named, find_pictures
from poise.predict.topdown import TopDownPredictor
from poise.runtime import ExportedModel, inverse, letterbox
from poise.types import ImageArray, Poses

FOLDER = Path(__file__).parent / "photographs"
"""Two free photographs that come with Poise; examples/ATTRIBUTION.md tells where they are from."""
PEOPLE = {
    "grace_hopper.jpg": ((0.0, 24.0, 511.0, 599.0),),
    "three_people.jpg": ((0.0, 55.0, 315.0, 479.0), (505.0, 15.0, 860.0, 479.0), (970.0, 15.0, 1369.0, 479.0)),
}
"""Boxes of the people in them, xyxy."""
MOST_PHOTOGRAPHS = 20
"""Of a folder; upright and lying ones are among them if it has both."""
LEAST_SCORE = 0.01
"""Poses of lower scores are not compared: nobody looks at them."""
KEYPOINT_LIMIT = 0.5
"""Largest distance (px) of a keypoint, or of a corner of a box, from where torch finds it."""
SCORE_LIMIT = 1e-3


class ParityError(ValueError):
    """An exported file does not find what torch finds."""


class Photograph(NamedTuple):
    """A picture and the people in it."""

    name: str
    image: ImageArray
    boxes: PersonBoxes
    """For models that look at one person at a time."""


class Gaps(NamedTuple):
    """How far two poses are apart at most: keypoints and corners of boxes (px), scores of poses and keypoints."""

    keypoints: float
    boxes: float
    scores: float


class Parity(NamedTuple):
    """How far an exported file is from torch."""

    photographs: int
    poses: int
    """Compared."""
    keypoints: float
    """Largest distance of a keypoint, px."""
    boxes: float
    """Largest distance of a corner of a box, px."""
    scores: float
    """Largest difference of a score of a pose or keypoint."""


def photographs(folder: str | Path | None = None) -> list[Photograph]:
    """The first pictures of a folder, each with one box around everything; None: those that come with Poise.

    If all of them lie, or all stand, the last one makes room for the first of the folder that does not: a network is
    to be seen with both.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no pictures, or one cannot be read.
    """
    found = []
    for path in _chosen(find_pictures(FOLDER if folder is None else folder)):
        image = read_image(path)
        whole = ((-0.5, -0.5, image.shape[1] - 0.5, image.shape[0] - 0.5),)
        people = PEOPLE.get(path.name, whole) if folder is None else whole
        found.append(Photograph(path.name, image, PersonBoxes.of(people, [1.0] * len(people))))
    return found


def _chosen(paths: Sequence[Path]) -> list[Path]:
    """`MOST_PHOTOGRAPHS` of them, upright and lying ones if there are both."""
    first, others = list(paths[:MOST_PHOTOGRAPHS]), paths[MOST_PHOTOGRAPHS:]
    if others and len(shapes := {_upright(path) for path in first}) == 1:
        first[-1] = next((path for path in others if _upright(path) not in shapes), first[-1])
    return first


def _upright(path: Path) -> bool:
    height, width = image_size(path)
    return height > width


def check(exported: ExportedModel, model: PoseModel, pictures: Sequence[Photograph]) -> Parity:
    """Compare an exported file with its model.

    A graph whose input has one size looks at padded pictures, and so does torch here.

    Args:
        exported: the file.
        model: what it was made of.
        pictures: with people, so that there is something to compare.

    Raises:
        ParityError: they differ by more than `KEYPOINT_LIMIT` or `SCORE_LIMIT`, or nobody was found.
    """
    reference = by_torch(model, pictures, exported.description)
    found = by_runtime(exported, pictures)
    parts = [compare(a, b, p.name) for a, b, p in zip(reference, found, pictures, strict=True)]
    total = sum(part.poses for part in parts)
    if total == 0:
        raise ParityError(
            "torch finds nobody in the photographs: name a folder with people that the model knows (--photos)"
        )
    worst = (max(values) for values in zip(*(part[2:] for part in parts), strict=True))
    return Parity(len(parts), total, *worst)


def compare(reference: Poses, found: Poses, name: str) -> Parity:
    """How far ``found`` is from ``reference`` in one photograph.

    Raises:
        ParityError: by more than the limits; says where.
    """
    left = list(range(len(found)))
    worst = Gaps(0.0, 0.0, 0.0)
    expected = reference.filter(LEAST_SCORE)
    for pose in expected:
        distances = np.linalg.norm(found.keypoints[left] - pose.keypoints, axis=-1).max(1, initial=0.0)
        if not len(distances):
            raise ParityError(f"in {name} torch finds {len(expected)} people, the exported model {len(found)}")
        # several may lie in one place: the one of nearest score is meant
        near = distances <= max(distances.min(), KEYPOINT_LIMIT)
        best = int(np.where(near, np.abs(found.scores[left] - pose.scores[0]), np.inf).argmin())
        other = left.pop(best)
        gaps = _gaps(pose, found[other])
        worst = Gaps(*map(max, worst, gaps))
        # NaN is no agreement
        if not (gaps.keypoints <= KEYPOINT_LIMIT and gaps.boxes <= KEYPOINT_LIMIT and gaps.scores <= SCORE_LIMIT):
            raise ParityError(
                f"in {name} a pose of score {pose.scores[0]:.4f} is {gaps.keypoints:.3f} px, its box {gaps.boxes:.3f} "
                f"px and a score {gaps.scores:.5f} away from torch's; allowed are {KEYPOINT_LIMIT} px and {SCORE_LIMIT}"
            )
    if left and found.scores[left].max() > LEAST_SCORE + SCORE_LIMIT:
        raise ParityError(f"in {name} the exported model finds somebody whom torch does not find")
    return Parity(1, len(expected), *worst)


def _gaps(pose: Poses, found: Poses) -> Gaps:
    """Between two poses, each alone in its `Poses`; NaN where one has NaN."""
    corners, others = pose.boxes.reshape(2, 2), found.boxes.reshape(2, 2)
    marks = np.append(pose.keypoint_scores - found.keypoint_scores, pose.scores - found.scores)
    return Gaps(
        float(np.linalg.norm(pose.keypoints - found.keypoints, axis=-1).max()),
        float(np.linalg.norm(corners - others, axis=-1).max()),
        float(np.abs(marks).max()),
    )


def by_runtime(exported: ExportedModel, pictures: Sequence[Photograph]) -> list[Poses]:
    """The poses that an exported file finds, of all scores."""
    people = _boxes(pictures) if exported.looks_at_people else None
    return ExportedPredictor(exported, people).predict(_named(pictures), min_score=0.0)


def by_torch(model: PoseModel, pictures: Sequence[Photograph], description: dict[str, Any]) -> list[Poses]:
    """The poses that torch finds in the same pictures, padded as the exported file pads them."""
    if model.view.kind == "crop":
        return TopDownPredictor(model, _boxes(pictures), "cpu").predict(_named(pictures), min_score=0.0)
    ready = prepared(model, torch.device("cpu"))
    return [_whole(ready, picture, description) for picture in pictures]


def _whole(model: PoseModel, picture: Photograph, description: dict[str, Any]) -> Poses:
    seen = letterbox(picture.image, description["view"], description["canvas"], description["least_side"])
    height, width = seen.size
    part = image_tensor(normalise(seen.image[0, :height, :width], model.view))
    padded = torch.zeros(1, 3, *seen.image.shape[1:3])
    padded[0, :, :height, :width] = part
    with torch.inference_mode():
        found = model.detect(padded, [seen.size])[0]
    size = (picture.image.shape[0], picture.image.shape[1])
    candidates = mapped_back(found, inverse(seen.to_input), size, clips_first(model))
    return replace(model.suppress(candidates), source=picture.name)


def _named(pictures: Sequence[Photograph]) -> list[Named]:
    return [Named(picture.image, picture.name, number) for number, picture in enumerate(pictures)]


def _boxes(pictures: Sequence[Photograph]) -> Boxes:
    return Boxes({number: picture.boxes for number, picture in enumerate(pictures)}, where="the photographs")
