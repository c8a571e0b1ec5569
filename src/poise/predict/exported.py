"""An exported model as a predictor: the same `Poses` as those of `poise.Predictor`, without torch.

Frames: image px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.predict.sources import each_picture, source_name, to_image
from poise.runtime import CROPS_AT_ONCE, OPENERS, ExportedModel, Found
from poise.skeletons import Skeleton
from poise.types import ImageArray, Poses

if TYPE_CHECKING:
    from poise.predict.people import People
    from poise.predict.sources import Picture, Pictures

MIN_SCORE = 0.3
"""Poses below this score are left out where the file recommends no other ``min_score``."""


def is_exported(name: str | Path) -> bool:
    """Whether a model's name is that of an exported file."""
    return Path(name).suffix.lower() in OPENERS


class ExportedPredictor:
    """Finds the poses in pictures with an exported model.

    Args:
        exported: the opened file.
        people: for a model that looks at one person at a time: where the people are.

    Attributes:
        description: what the file says about itself, see docs/guides/export.md.
        running: by what the file is run, as text.
        people: as given.
        skeleton: what the K keypoints are.
        min_score: poses below it are left out unless asked for.

    Raises:
        ValueError: ``people`` are missing or not wanted.
    """

    def __init__(self, exported: ExportedModel, people: People | None = None) -> None:
        self.exported = exported
        self.description, self.running = exported.description, exported.running
        if exported.looks_at_people != (people is not None):
            raise ValueError(
                f"{exported.path} looks at whole pictures and finds people itself; boxes, people are for other models"
                if people is not None
                else f"{exported.path} looks at one person at a time and needs to be told where people are"
            )
        self.people = people
        self.metadata: dict[str, Any] = self.description["metadata"]
        self.skeleton = Skeleton.from_dict(self.description["skeleton"])
        default = MIN_SCORE
        if people is not None:
            from poise.predict.people import suiting_threshold

            config = self.description["model"]
            default = suiting_threshold(people, config.get("score_offset", 0.0), config.get("score_power", 1.0))
        least = self.description["min_score"]
        self.min_score = float(default if least is None else least)

    def predict(self, images: Pictures, *, min_score: float | None = None, **options: Any) -> list[Poses]:
        """The poses in one picture or several, as `poise.Predictor.predict`; other options as `predict_iter`."""
        return list(self.predict_iter(images, min_score=min_score, **options))

    def predict_iter(
        self,
        images: Pictures,
        *,
        min_score: float | None = None,
        batch: int | None = None,
        scales: Sequence[Any] | None = None,
        flip: bool = False,
        tiles: Any = None,
        rescore: Any = None,
    ) -> Iterator[Poses]:
        """As `predict`, one after the other.

        Args:
            images: as `poise.Predictor.predict`; any iterable, read as needed.
            min_score: leave out poses with a lower score; None is the attribute ``min_score``.
            batch: people of a picture that run together; whole pictures run one by one.
            scales: None: what a graph looks at is fixed.
            flip: False, likewise.
            tiles: None, likewise.
            rescore: None, likewise.

        Raises:
            ValueError: an option that an exported graph cannot follow, or ``min_score`` is out of bounds.
        """
        if scales is not None or flip or tiles is not None or rescore is not None:
            raise ValueError(
                "an exported model looks at each picture once; flip, scales, tiles and rescoring need its checkpoint"
            )
        threshold = self.min_score if min_score is None else min_score
        if not 0 <= threshold <= 1:
            raise ValueError(f"min_score {min_score!r} must lie in 0..1")
        if batch is not None and batch < 1:
            raise ValueError(f"batch {batch!r} must be at least 1")
        return self._stream(each_picture(images), threshold, batch or CROPS_AT_ONCE)

    def _stream(self, pictures: Iterator[Picture], min_score: float, batch: int) -> Iterator[Poses]:
        if self.people is None:
            for picture in pictures:
                image = to_image(picture)
                yield self._poses(self.exported.find(image), image, source_name(picture)).filter(min_score)
            return
        for image, name, people in self.people.find(pictures):
            found = self.exported.find(image, people.boxes, people.scores, batch)
            yield self._poses(found, image, name).filter(min_score)

    def _poses(self, found: Found, image: ImageArray, name: str | None) -> Poses:
        return Poses(*found, skeleton=self.skeleton, image_size=(image.shape[0], image.shape[1]), source=name)
