"""One door to all data-set formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from poise.data.coco import Unlabelled, read_coco
from poise.data.json_files import file_start, load_json, stem
from poise.data.mpii import read_mpii
from poise.data.outlines import SkeletonOutline, find_skeleton
from poise.data.records import PoseDataset
from poise.data.yolo import Split, read_yolo
from poise.settings import nearest
from poise.skeletons import CROWDPOSE14, Skeleton

Kind = Literal["coco", "crowdpose", "mpii", "yolo"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AUTO = "auto"
Outline = Skeleton | SkeletonOutline
_PREFIXES = ("person_keypoints_", "crowdpose_", "mpii_", "ochuman_coco_format_", "ochuman_")


def read_dataset(
    path: str | Path,
    images: str | Path | None = None,
    kind: str = AUTO,
    skeleton: Skeleton | str | Path | None = None,
    *,
    split: Split | None = None,
    unlabelled: Unlabelled = "ignore",
    min_keypoints: int = 0,
    name: str | None = None,
) -> PoseDataset:
    """Read an annotated set of pictures in any known format.

    Args:
        path: COCO (also OCHuman in COCO form), CrowdPose or MPII JSON file; YOLO YAML file or the folder that holds it.
        images: folder of the pictures; by default what `find_images` finds, for YOLO what the YAML file lists.
        kind: one of `KINDS`, or ``auto`` to recognise it (see `recognise`).
        skeleton: what the keypoints are: a `Skeleton`, the name of a built-in one, or a YAML file (see
            `poise.data.outlines`); by default as the data set says.
        split: of a YOLO data set, or of an MPII file whose people say it (see `read_mpii_people`); by default all.
        unlabelled: people without a labelled keypoint become ignore regions, or background. MPII knows only the
            former.
        min_keypoints: keep only pictures with at least so many labelled keypoints.
        name: name of the data set.

    Raises:
        FileNotFoundError: a file, folder or picture is missing.
        ValueError: the kind is unknown, or something does not fit; one line.
    """
    path = Path(path)
    chosen = recognise(path) if kind == AUTO else known_kind(kind)
    outline = find_skeleton(skeleton) if isinstance(skeleton, str | Path) else skeleton
    if chosen == "yolo":
        return read_yolo(
            path, images, split=split, skeleton=outline, unlabelled=unlabelled, min_keypoints=min_keypoints, name=name
        )
    folder = Path(images) if images is not None else find_images(path)
    if chosen == "mpii":
        whole = _complete(outline)
        return read_mpii(path, folder, split=split, skeleton=whole, min_keypoints=min_keypoints, name=name)
    if split is not None:
        raise ValueError(f"{path} has no part {split!r}: only MPII files and YOLO data sets have parts; ask for none")
    if chosen == "crowdpose":
        outline = outline or CROWDPOSE14
    return read_coco(path, folder, skeleton=outline, unlabelled=unlabelled, min_keypoints=min_keypoints, name=name)


def recognise(path: str | Path) -> Kind:
    """The format of a data set: a folder or YAML file is YOLO, a JSON list MPII, a JSON object COCO.

    CrowdPose files are COCO files with 14 keypoints, which the COCO reader knows by their names. JSON may be packed
    with gzip, if its name ends in ``.gz``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is none of these, or damaged.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in (".yaml", ".yml"):
        return "yolo"
    start = file_start(path, 4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        return "mpii"
    if start == b"{":
        return "coco"
    raise ValueError(f"{path} is neither JSON (COCO, CrowdPose, MPII) nor YAML (YOLO)")


def known_kind(kind: str) -> Kind:
    """The kind, if it is one of `KINDS`; else a ``ValueError``."""
    for known in KINDS:
        if kind == known:
            return known
    raise ValueError(f"data format {kind!r} is unknown{nearest(kind, [*KINDS, AUTO])}")


def find_images(annotations: Path, names: Sequence[str] | None = None) -> Path:
    """The folder of the pictures of an annotation file, where it usually is.

    Tried are the file's own folder, ``images`` in it, and beside it ``images``, folders named as the file without
    ``person_keypoints_`` and the like, and that folder itself: the first that holds the first picture.

    Args:
        annotations: the file.
        names: file names of pictures; by default read from the file.

    Raises:
        FileNotFoundError: none of them does.
    """
    first = (_first_names(load_json(annotations)) if names is None else list(names))[:1]
    above = annotations.parent.parent
    own = stem(annotations)
    stems = [own, *(own.removeprefix(p) for p in _PREFIXES)]
    here = [annotations.parent, annotations.parent / "images"]
    tried = list(dict.fromkeys([*here, *(above / s for s in stems), above / "images", above]))
    for folder in tried:
        if folder.is_dir() and all((folder / name).is_file() for name in first):
            return folder
    places = ", ".join(str(folder) for folder in tried)
    raise FileNotFoundError(f"the pictures of {annotations} ({first[0]}) are in none of {places}; name their folder")


def _first_names(data: Any) -> list[str]:
    """The file name of the first picture in a COCO or MPII file; nothing if it has none, or another form."""
    entries = data.get("images") if isinstance(data, dict) else data
    entry = entries[0] if isinstance(entries, list) and entries else None
    if not isinstance(entry, dict):
        return []
    name = entry.get("file_name") or entry.get("image") or entry.get("img_paths")
    return [name] if isinstance(name, str) else []


def _complete(outline: Outline | None) -> Skeleton | None:
    return outline.skeleton() if isinstance(outline, SkeletonOutline) else outline
