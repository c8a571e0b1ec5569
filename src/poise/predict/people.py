"""Where the people are whom a top-down model looks at: found by a single-stage model, or known from a file.

Letters: N people, K keypoints, H W picture. Frame: image px.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from poise.geometry.nms import box_nms
from poise.predict.boxes import Found, PersonBoxes
from poise.predict.sources import source_name, to_image
from poise.types import FloatArray, ImageArray, Poses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poise.predict.sources import Picture
    from poise.predict.stream import Finder
    from poise.predict.tiles import Tiling
    from poise.predict.views import Scale

MARGIN = (0.12, 0.2)
"""By how much a person's box reaches beyond the keypoints at the sides, and above and below: shares of the geometric
mean of width and height of their extent.

Fitted to 754 annotated people of COCO train2017, clipped to the picture: mean IoU of the annotated box with the
extent 0.54, with the grown extent 0.70; on 369 people of val2017 0.49 and 0.67."""
PEOPLE_MIN_SCORE = 0.05
"""People found with a lower score are not looked at more closely."""
PEOPLE_MIN_SCORE_MEASURED = 0.01
"""The same where average precision is measured, which counts poses of all scores. With people between this score and
`PEOPLE_MIN_SCORE` twice as many are looked at, and hardly any of their poses reaches the score that poses need to be
shown: on 110 pictures of COCO val2017 none of those of `rsn_small`."""
PEOPLE_NMS = 0.8
"""People are not looked at more closely if their box has a larger IoU with that of a better person: that pose would be
the better one's once more, and be suppressed. It changes the AP of `rsn_small` on 110 pictures of COCO val2017 by less
than 0.05, and saves the crops of doubles in pictures of few people."""
TYPICAL_FACTOR = 2 / 3
"""What a pose with middling heatmaps keeps of its box's score, as the references score it (`poise.predict.topdown`)."""


@runtime_checkable
class People(Protocol):
    """A source of person boxes.

    Attributes:
        min_score: threshold of poses that suits the scores of these boxes, if poses are scored as in the references.
        description: where the boxes come from, for reports.
    """

    @property
    def min_score(self) -> float:
        """See above."""
        ...

    @property
    def description(self) -> str:
        """See above."""
        ...

    def find(self, pictures: Iterable[Picture]) -> Iterator[Found]:
        """Every picture with its people, in order, read as needed."""
        ...


class FoundPeople:
    """People found by a single-stage model: a box around each pose.

    Args:
        predictor: of a model that looks at whole pictures.
        name: of the model, for reports.
        min_score: people with a lower score are left out.
        nms: leave out whose box has a larger IoU than this with that of a better person, on top of the model's own
            suppression; None: do not.
        margin: as `pose_boxes`.
        tiles: as `Predictor.predict`.

    Raises:
        ValueError: an argument is out of bounds.
    """

    def __init__(
        self,
        predictor: Finder,
        name: str = "a single-stage model",
        *,
        min_score: float = PEOPLE_MIN_SCORE,
        nms: float | None = PEOPLE_NMS,
        margin: tuple[float, float] = MARGIN,
        tiles: Tiling | str | None = None,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise ValueError(f"people_min_score {min_score!r} must lie in 0..1")
        if nms is not None and not 0 < nms <= 1:
            raise ValueError(f"people_nms {nms!r} must lie above 0 and not above 1")
        if min(margin) < 0:
            raise ValueError(f"margin {margin!r} must not be negative")
        self._predictor, self._name, self.tiles = predictor, name, tiles
        self._min_score, self._nms, self._margin = min_score, nms, margin

    @property
    def min_score(self) -> float:
        """Threshold of refined poses that lets as many pass as the model's own threshold does."""
        return TYPICAL_FACTOR * self._predictor.min_score

    def down_to(self, min_score: float) -> FoundPeople:
        """The same source with another ``min_score``."""
        return FoundPeople(
            self._predictor, self._name, min_score=min_score, nms=self._nms, margin=self._margin, tiles=self.tiles
        )

    @property
    def scales(self) -> Sequence[Scale] | None:
        """Sizes at which the model looks at a picture, input px; None: its own size, or it does not tell."""
        told: Sequence[Scale] | None = getattr(self._predictor, "scales", None)
        return told

    @property
    def description(self) -> str:
        """Where the boxes come from."""
        return f"people found by {self._name}"

    def find(self, pictures: Iterable[Picture]) -> Iterator[Found]:
        """Every picture with its people, in order; besides a few batches of pictures nothing is kept in memory."""
        waiting: deque[tuple[ImageArray, str | None]] = deque()

        def images() -> Iterator[ImageArray]:
            for picture in pictures:
                image = to_image(picture)
                waiting.append((image, source_name(picture)))
                yield image

        options: dict[str, Any] = {} if self.tiles is None else {"tiles": self.tiles}
        for poses in self._predictor.predict_iter(images(), min_score=self._min_score, **options):
            image, name = waiting.popleft()
            yield Found(image, name, self._people(poses, (image.shape[0], image.shape[1])))

    def _people(self, poses: Poses, image_size: tuple[int, int]) -> PersonBoxes:
        boxes, scores = pose_boxes(poses, image_size, self._margin), poses.scores
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, scores = boxes[solid], scores[solid]
        if self._nms is not None:
            kept = box_nms(boxes, scores, self._nms)
            boxes, scores = boxes[kept], scores[kept]
        return PersonBoxes(boxes, scores)


def suiting_threshold(people: People, offset: float, power: float) -> float:
    """Threshold of poses of people whose `People.min_score` suits the references' scores of poses.

    Args:
        people: where they are.
        offset: in the scores of keypoints, 0.5 in the references.
        power: of these in the scores of poses, 1 in the references.
    """
    typical = float(((0.5 + offset) / (1 + offset)) ** power)
    return people.min_score * typical / TYPICAL_FACTOR


def pose_boxes(poses: Poses, image_size: tuple[int, int], margin: tuple[float, float] = MARGIN) -> FloatArray:
    """Boxes (N, 4) of people whose keypoints are known, clipped to the picture.

    A person reaches beyond the outermost keypoints: the head ends above the eyes, the feet below the ankles, and
    shoulders have flesh.

    Args:
        poses: image px. Keypoints that are not finite are not looked at.
        image_size: (height, width) of the picture.
        margin: at the sides, and above and below; shares of sqrt(width x height) of the keypoints' extent.
    """
    height, width = image_size
    points = poses.keypoints.astype(np.float64)
    there = np.isfinite(points)
    low = np.where(there, points, np.inf).min(1, initial=np.inf)
    high = np.where(there, points, -np.inf).max(1, initial=-np.inf)
    unseen = ~np.isfinite(low) | ~np.isfinite(high)
    low[unseen], high[unseen] = 0.0, 0.0
    step = np.sqrt((high - low).prod(1))[:, None] * np.array(margin)
    grown = np.concatenate([low - step, high + step], 1)
    clipped: FloatArray = np.clip(grown, 0.0, np.array([width, height, width, height])).astype(np.float32)
    return clipped
