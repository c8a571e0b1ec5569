"""Person boxes from a file: COCO, MPII or YOLO annotations (truth), or COCO detection results.

Letters: N boxes. Frame: image px.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poise.data.coco_rules import extent, people_category
from poise.data.json_files import load_json
from poise.data.mpii import is_mpii, read_mpii_people
from poise.data.yolo import read_yolo
from poise.predict.sources import Named, source_name, to_image
from poise.types import FloatArray, ImageArray

if TYPE_CHECKING:
    from poise.predict.sources import Picture

Key = int | str
PERSON = 1
"""The category of people in detection results, as in COCO."""
MIN_SCORE = 0.3


class PersonBoxes(NamedTuple):
    """Where the people of one picture are, N may be 0."""

    boxes: FloatArray
    """(N, 4) xyxy, image px."""
    scores: FloatArray
    """(N,) how sure each is; 1 for truth."""

    @staticmethod
    def of(boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> PersonBoxes:
        """From lists of N boxes and N scores; N may be 0."""
        return PersonBoxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32))


class Found(NamedTuple):
    """One picture and its people."""

    image: ImageArray
    """(H, W, 3) RGB."""
    name: str | None
    """What the picture is called, if anything."""
    people: PersonBoxes
    """Image px."""


class Boxes:
    """People whose boxes are known, picture by picture; `read_boxes` makes it from a file.

    Args:
        people: boxes by picture id.
        names: file name by picture id, for pictures whose name is known.
        where: where the boxes are from, for messages.
        complete: whether every picture is in ``people``, also those without boxes; detection results name only
            pictures in which something was detected.
    """

    def __init__(
        self,
        people: Mapping[Key, PersonBoxes],
        names: Mapping[Key, str] | None = None,
        where: str = "the given boxes",
        complete: bool = True,
    ) -> None:
        self._people, self._where, self._complete = people, where, complete
        self._parts: dict[str, list[tuple[tuple[str, ...], Key]]] = {}
        for key, name in (names or {}).items():
            parts = PurePath(name).parts
            self._parts.setdefault(parts[-1] if parts else "", []).append((parts, key))

    @property
    def min_score(self) -> float:
        """Threshold of poses that keeps everybody in a box of score 1."""
        return MIN_SCORE

    @property
    def description(self) -> str:
        """Where the boxes come from, for reports."""
        return f"boxes of {self._where}"

    def find(self, pictures: Iterable[Picture]) -> Iterator[Found]:
        """The pictures with their boxes, in order; errors as `of_id` and `of_name`."""
        for picture in pictures:
            yield Found(to_image(picture), source_name(picture), self._of(picture))

    def of_id(self, image_id: Key) -> PersonBoxes:
        """The boxes of a picture by its id.

        Raises:
            ValueError: the file lists pictures, and this one is not among them.
        """
        if image_id not in self._people and self._complete:
            raise ValueError(f"{self._where} does not list the picture with id {image_id!r}")
        return self._people.get(image_id, PersonBoxes.of([], []))

    def of_name(self, name: str) -> PersonBoxes:
        """The boxes of a picture by its file name.

        Folders only count where the file lists several pictures of one name. Detection results hold no names: there
        a picture is found if its id is the file's name without suffix, leading zeros aside, as in COCO.

        Raises:
            ValueError: the file has no such picture, or more than one.
        """
        path = PurePath(name)
        known = self._parts.get(path.name, [])
        if len(known) > 1:
            full = Path(name).resolve().parts
            known = [(parts, key) for parts, key in known if full[-len(parts) :] == parts]
        if len(known) == 1:
            return self._people[known[0][1]]
        if known:
            raise ValueError(f"{self._where} lists several pictures that could be {name}")
        if not self._complete:
            ids: list[Key] = [path.name, path.stem, *([int(path.stem)] if path.stem.isdecimal() else [])]
            for key in ids:
                if key in self._people:
                    return self._people[key]
            raise ValueError(
                f"{self._where} has no boxes for {name}: a list of detections says nothing of pictures without any; "
                "an annotation file can list them"
            )
        raise ValueError(f"{self._where} does not list the picture {name}")

    def require(self, image_ids: Collection[Key]) -> None:
        """``ValueError`` if there are boxes, but none is in a picture with one of these ids."""
        if self._people and image_ids and not any(key in self._people for key in image_ids):
            example, wanted = next(iter(self._people)), next(iter(image_ids))
            raise ValueError(
                f"{self._where} has boxes for other pictures only: its ids are like {example!r}, not like {wanted!r}"
            )

    def _of(self, picture: Picture) -> PersonBoxes:
        if isinstance(picture, Named) and picture.image_id is not None:
            return self.of_id(picture.image_id)
        name = source_name(picture)
        if name is None:
            raise ValueError(f"{self.description} are found by a picture's file name, and this picture has none")
        return self.of_name(name)


def read_boxes(path: str | Path, category: int = PERSON) -> Boxes:
    """Read person boxes: a COCO annotation file, an MPII file, a YOLO data set, or a list of COCO detection results.

    Boxes of other categories, of crowds, and without width or height are left out. A box without a ``score`` has 1. In
    an annotation file a person without ``bbox`` has the extent of the labelled keypoints. The boxes of an MPII file are
    the squares that it describes, its pictures' ids are their file names. Of a YOLO data set, all parts are read, with
    the ids of `read_yolo`.

    Args:
        path: the JSON file, or the YAML file of a YOLO data set, or the folder that holds it. A JSON object has
            ``images`` and ``annotations``, a list has entries with ``image_id``, ``bbox`` (x, y, width, height) and
            usually ``category_id`` and ``score``.
        category: of people in detection results; an annotation file says itself which one it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these, or an entry does not fit; one line that names file and entry.
    """
    where = str(path)
    if Path(path).is_dir() or Path(path).suffix.lower() in (".yaml", ".yml"):
        return _of_yolo(Path(path))
    data = load_json(Path(path), "box file")
    if is_mpii(data):
        return _squares(Path(path))
    if isinstance(data, list):
        people = _boxes(data, None, category, where)
        return Boxes(people, where=where, complete=False)
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise ValueError(
            f"box file {where} is neither a COCO annotation file (images, annotations) nor a list of detections"
        )
    names = {_key(image, "id", f"{where}: an image"): str(image.get("file_name", "")) for image in data["images"]}
    of_people = people_category(data.get("categories"), f"box file {where}").get("id")
    return Boxes(_boxes(data["annotations"], names, of_people, where), names, where)


def _squares(path: Path) -> Boxes:
    """The boxes of an MPII file."""
    found: dict[Key, list[list[float]]] = {}
    for person in read_mpii_people(path):
        found.setdefault(person.image, []).append(person.box.tolist())
    people = {key: PersonBoxes.of(boxes, [1.0] * len(boxes)) for key, boxes in found.items()}
    return Boxes(people, {key: str(key) for key in found}, str(path))


def _of_yolo(path: Path) -> Boxes:
    """The boxes of a YOLO data set, also those of people without keypoints, as in the other formats."""
    people: dict[Key, PersonBoxes] = {}
    for record in read_yolo(path):
        listed = [*record.boxes.tolist(), *record.ignore.tolist()]
        boxes = [box for box in listed if box[2] > box[0] and box[3] > box[1]]
        people[record.image_id] = PersonBoxes.of(boxes, [1.0] * len(boxes))
    return Boxes(people, {key: str(key) for key in people}, str(path))


def _boxes(
    entries: Sequence[Any], pictures: Collection[Key] | None, category: Any, where: str
) -> dict[Key, PersonBoxes]:
    """Boxes by picture: of all ``pictures`` that a file of annotations lists, or of those that detections are in."""
    found: dict[Key, list[tuple[list[float], float]]] = {key: [] for key in pictures or ()}
    for number, entry in enumerate(entries):
        name = f"{where}: box {number}"
        key = _key(entry, "image_id", name)
        if entry.get("iscrowd") or (category is not None and entry.get("category_id", category) != category):
            continue
        if pictures is not None and entry.get("bbox") is None:
            box = _extent(entry.get("keypoints"), name)
        else:
            x, y, width, height = _numbers(entry.get("bbox"), 4, f"{name}: bbox")
            box = [x, y, x + width, y + height]
        score = _numbers([entry.get("score", 1.0)], 1, f"{name}: score")[0]
        if pictures is not None and key not in pictures:
            raise ValueError(f"{name} is in picture {key!r}, which the file does not list")
        if box[2] > box[0] and box[3] > box[1]:
            found.setdefault(key, []).append((box, score))
    return {key: PersonBoxes.of([b for b, _ in many], [s for _, s in many]) for key, many in found.items()}


def _extent(keypoints: Any, where: str) -> list[float]:
    """xyxy that stands in for the box of an annotation; without extent where nothing is labelled."""
    count = len(keypoints) // 3 if isinstance(keypoints, list) else 0
    return list(extent(_numbers(keypoints or [], 3 * count, f"{where}: keypoints")) or (0.0, 0.0, 0.0, 0.0))


def _key(entry: Any, field: str, where: str) -> Key:
    key = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(key, int | str):
        raise ValueError(f"{where} has {field} {key!r}; expected a number or a text")
    return key


def _numbers(values: Any, count: int, where: str) -> list[float]:
    fits = isinstance(values, list) and len(values) == count
    if not fits or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise ValueError(f"{where} is {values!r}; expected {count} finite number{'s' if count > 1 else ''}")
    return [float(v) for v in values]
