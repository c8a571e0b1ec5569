"""Reader of MPII Human Pose annotations in the JSON forms that public codes use.

Two forms of an entry are read, one entry a person:

- ``image``, ``center``, ``scale``, ``joints`` (16 x 2), ``joints_vis`` (16), and in some copies ``headbox``;
- ``img_paths``, ``objpos``, ``scale_provided``, ``joint_self`` (16 x 3: x, y, 1 visible or 0 occluded; 0, 0 missing),
  and ``isValidation`` (0 or 1), which tells the two parts of such a file apart.

MPII counts pixels from 1, Poise from 0: all coordinates lose 1 (RSN spec 10). Letters: N persons, K = 16 joints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poise.data.coco import AREA_OF_BOX
from poise.data.images import image_size
from poise.data.json_files import load_json, numbers, require_pictures, stem
from poise.data.records import PoseDataset, Record
from poise.data.yolo import Split
from poise.skeletons import MPII16, Skeleton
from poise.types import FloatArray

FloatArray64 = npt.NDArray[np.float64]

HEIGHT = 200.0
"""Pixels of a person's height for which ``scale`` is 1."""
DOWN = 15.0
"""The centre is moved down by so many pixels times ``scale``: it is annotated too high to hold the ankles."""
NO_CENTRE = -1.0


@dataclass(frozen=True, slots=True)
class MpiiPerson:
    """One annotated person, image px counted from 0.

    Attributes:
        image: file name of the picture, as annotated.
        keypoints: (16, 3) float64 x, y, visibility (0 not labelled).
        box: (4,) xyxy, the square around the given centre (see `person_box`).
        head_box: (4,) xyxy, annotated box of the head, or None where the file has none.
        validation: whether the person is for validation, or None where the file does not say.
    """

    image: str
    keypoints: FloatArray64
    box: FloatArray64
    head_box: FloatArray64 | None = None
    validation: bool | None = None


def person_box(center: Sequence[float], scale: float) -> FloatArray64:
    """The square (xyxy, image px from 0) that a centre (from 1) and a scale describe (RSN spec 10).

    Its side is 200 x scale; its middle lies 15 x scale below the centre. Networks enlarge it by 1.25.
    """
    x, y = float(center[0]), float(center[1])
    if x != NO_CENTRE:
        y += DOWN * scale
    half = 0.5 * HEIGHT * scale
    return np.array([x - 1 - half, y - 1 - half, x - 1 + half, y - 1 + half])


def is_mpii(data: Any) -> bool:
    """Whether the content of a JSON file has the form of MPII annotations."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and ({"image", "center"} <= first.keys() or {"img_paths", "objpos"} <= first.keys())


def read_mpii_people(annotations: str | Path, split: Split | None = None) -> tuple[MpiiPerson, ...]:
    """All persons of a file in its order, or those of one part: ``train`` or ``val``, as ``isValidation`` says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not fit, or has no such part; one line that names file and entry (counted from 0).
    """
    path = Path(annotations)
    data = load_json(path)
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise ValueError(f"{path} is not an MPII file: its top level must be a list of objects, one a person")
    people = tuple(parse_person(entry, f"{path}: entry {i}") for i, entry in enumerate(data))
    return people if split is None else _part(people, split, path)


def _part(people: Sequence[MpiiPerson], split: Split, path: Path) -> tuple[MpiiPerson, ...]:
    unsaid = [i for i, person in enumerate(people) if person.validation is None]
    if unsaid or split == "test":
        reason = f"entry {unsaid[0]} has no isValidation" if unsaid else "isValidation tells train from val alone"
        raise ValueError(f"{path} has no part {split!r}: {reason}; ask for no part to read everybody")
    return tuple(person for person in people if person.validation == (split == "val"))


def read_mpii(
    annotations: str | Path,
    images: str | Path,
    *,
    split: Split | None = None,
    skeleton: Skeleton | None = None,
    min_keypoints: int = 0,
    name: str | None = None,
) -> PoseDataset:
    """Read an MPII file; a picture's ``image_id`` is its file name, and its size is read from the picture.

    Every person's box is the square of `person_box`, the area `AREA_OF_BOX` of the extent of the labelled joints.
    People without a labelled joint become ignore regions. **Not everybody in a picture is annotated**: the files hold
    the people that stand apart, so a network that looks at whole pictures learns to miss the others.

    Args:
        annotations: the JSON file.
        images: the folder of its pictures.
        split: as `read_mpii_people`; by default everybody is read.
        skeleton: only for its name, limbs and sigmas: 16 keypoints in MPII's order; by default `MPII16`.
        min_keypoints: keep only pictures with at least so many labelled keypoints.
        name: name of the data set; by default the file's stem.

    Raises:
        FileNotFoundError: the file, the folder or pictures are missing.
        ValueError: the file does not fit, or a picture cannot be read.
    """
    annotations, images = Path(annotations), Path(images)
    skeleton = MPII16 if skeleton is None else skeleton
    if len(skeleton) != len(MPII16):
        raise ValueError(
            f"{annotations}: MPII has {len(MPII16)} joints, skeleton {skeleton.name!r} has {len(skeleton)}"
        )
    people: dict[str, list[MpiiPerson]] = {}
    for person in read_mpii_people(annotations, split):
        people.setdefault(person.image, []).append(person)
    counts = {key: sum(int((p.keypoints[:, 2] > 0).sum()) for p in who) for key, who in people.items()}
    kept = {key: who for key, who in people.items() if counts[key] >= min_keypoints}
    require_pictures([images / key for key in kept], images)
    records = tuple(_record(images / key, key, who) for key, who in kept.items())
    return PoseDataset(name or stem(annotations), skeleton, records)


def parse_person(entry: Mapping[str, Any], where: str) -> MpiiPerson:
    """One entry of a file; a ``ValueError`` begins with ``where``."""
    other = "img_paths" in entry
    image = entry.get("img_paths" if other else "image")
    if not isinstance(image, str) or not image:
        raise ValueError(f"{where}: it has no picture; expected the file name under 'image'")
    center = numbers(entry.get("objpos" if other else "center"), "center", 2, where)
    scale = numbers([entry.get("scale_provided" if other else "scale")], "scale", 1, where)[0]
    if scale <= 0:
        raise ValueError(f"{where}: scale must be positive, not {scale}")
    keypoints = _joints_with_flag(entry, where) if other else _joints(entry, where)
    head = next((entry[key] for key in ("headbox", "head_box", "head_rect") if entry.get(key) is not None), None)
    head_box = None if head is None else _head_box(head, where)
    return MpiiPerson(image, keypoints, person_box(center, scale), head_box, _validation(entry, where))


def read_head_boxes(path: str | Path) -> FloatArray64:
    """(N, 4) xyxy head boxes, in the order of the persons they belong to.

    Args:
        path: ``gt_valid.mat`` of public codes (its ``headboxes_src``), or a JSON list of (x1, y1, x2, y2).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not hold head boxes.
    """
    path = Path(path)
    if path.suffix.lower() == ".mat":
        corners = _load_mat(path).get("headboxes_src")
        if corners is None or np.asarray(corners).ndim != 3 or np.asarray(corners).shape[:2] != (2, 2):
            raise ValueError(f"{path} has no headboxes_src of shape (2, 2, N)")
        return np.ascontiguousarray(np.asarray(corners, np.float64).reshape(4, -1).T)
    data = load_json(path)
    if not isinstance(data, list):
        raise ValueError(f"{path} must be a list of head boxes [x1, y1, x2, y2]")
    boxes = [numbers(box, "head box", 4, f"{path}: entry {i}") for i, box in enumerate(data)]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _load_mat(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"file {path} does not exist")
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ValueError(
            f"reading {path} needs scipy: pip install 'poise[mpii]', or give a JSON list of (x1, y1, x2, y2)"
        ) from None
    try:
        return dict(loadmat(str(path)))
    except Exception as error:  # the reader of damaged files raises nearly anything
        raise ValueError(f"{path} is not a readable .mat file: {' '.join(str(error).split())}") from None


def _validation(entry: Mapping[str, Any], where: str) -> bool | None:
    value = entry.get("isValidation")
    if value is None:
        return None
    if value not in (0, 1):
        raise ValueError(f"{where}: isValidation must be 0 or 1, not {value!r}")
    return bool(value)


def _joints(entry: Mapping[str, Any], where: str) -> FloatArray64:
    """(16, 3) of ``joints`` and ``joints_vis``; test sets have neither."""
    points = np.zeros((len(MPII16), 3))
    if entry.get("joints") is None:
        return points
    rows = _rows(entry["joints"], 2, "joints", where)
    seen = numbers(entry.get("joints_vis"), "joints_vis", len(MPII16), where)
    if not set(seen) <= {0, 1}:
        raise ValueError(f"{where}: joints_vis must hold 0 and 1, not {seen}")
    labelled = np.array(seen) > 0
    points[:, :2] = np.where(labelled[:, None], np.array(rows, np.float64) - 1, 0)
    points[:, 2] = 2 * labelled
    return points


def _joints_with_flag(entry: Mapping[str, Any], where: str) -> FloatArray64:
    rows = np.array(_rows(entry.get("joint_self"), 3, "joint_self", where), np.float64)
    labelled = (rows[:, :2] != 0).any(1)
    points = np.zeros((len(MPII16), 3))
    points[:, :2] = np.where(labelled[:, None], rows[:, :2] - 1, 0)
    points[:, 2] = np.where(labelled, np.where(rows[:, 2] == 1, 2, 1), 0)
    return points


def _rows(values: Any, width: int, what: str, where: str) -> list[list[float]]:
    if not isinstance(values, list) or len(values) != len(MPII16):
        found = len(values) if isinstance(values, list) else repr(values)
        raise ValueError(f"{where}: {what} must have {len(MPII16)} rows, not {found}")
    return [numbers(row, f"{what}[{i}]", width, where) for i, row in enumerate(values)]


def _head_box(values: Any, where: str) -> FloatArray64:
    """(x1, y1, x2, y2), or two corners."""
    if isinstance(values, list) and len(values) == 2 and all(isinstance(corner, list) for corner in values):
        values = [*values[0], *values[1]]
    x1, y1, x2, y2 = numbers(values, "head box", 4, where)
    if not (x2 > x1 and y2 > y1):
        raise ValueError(f"{where}: head box {values} must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2")
    return np.array([x1, y1, x2, y2]) - 1


def _record(path: Path, image: str, people: Sequence[MpiiPerson]) -> Record:
    named = [p for p in people if (p.keypoints[:, 2] > 0).any()]
    others = [p for p in people if not (p.keypoints[:, 2] > 0).any()]
    return Record(
        path=path,
        image_id=image,
        size=image_size(path),
        keypoints=_stack([p.keypoints for p in named], (len(MPII16), 3)),
        boxes=_stack([p.box for p in named], (4,)),
        areas=np.array([_area(p.keypoints) for p in named], np.float32),
        ignore=_stack([p.box for p in others], (4,)),
    )


def _stack(rows: Sequence[FloatArray64], shape: tuple[int, ...]) -> FloatArray:
    return np.array(rows, np.float32).reshape(-1, *shape)


def _area(keypoints: FloatArray64) -> float:
    seen = keypoints[keypoints[:, 2] > 0, :2]
    return AREA_OF_BOX * float(np.prod(np.ptp(seen, axis=0)))
