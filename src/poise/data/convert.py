"""``poise data convert``: from any format that can be read to COCO, CrowdPose, MPII or YOLO."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, get_args

from poise.data.coco import Unlabelled
from poise.data.formats import AUTO, read_dataset
from poise.data.mpii_writer import write_mpii
from poise.data.records import PoseDataset
from poise.data.writers import common_folder, write_coco, write_yolo
from poise.data.yolo import known_split
from poise.settings import nearest
from poise.skeletons import CROWDPOSE14, Skeleton

Target = Literal["coco", "crowdpose", "mpii", "yolo"]
TARGETS: tuple[Target, ...] = get_args(Target)


class Converted(NamedTuple):
    """What came of a conversion."""

    path: Path
    """The file to name when the data set is read."""
    images: Path
    """The folder of its pictures."""
    dataset: PoseDataset
    """What was converted."""


def convert_dataset(
    path: str | Path,
    out: str | Path,
    to: str,
    *,
    images: str | Path | None = None,
    kind: str = AUTO,
    skeleton: Skeleton | str | Path | None = None,
    unlabelled: Unlabelled = "ignore",
    split: str = "train",
    link: bool = False,
) -> Converted:
    """Read a data set and write it in another format.

    Args:
        path: as `read_dataset`.
        out: for ``yolo`` the folder, which gets copies of the pictures; else the JSON file: pictures stay where they
            are.
        to: one of `TARGETS`.
        images: as `read_dataset`.
        kind: as `read_dataset`.
        skeleton: as `read_dataset`.
        unlabelled: people without a labelled keypoint become crowds, or are left out.
        split: which part of a YOLO data set is written.
        link: make symbolic links to the pictures instead of copies (YOLO).

    Raises:
        FileExistsError: there is something already.
        FileNotFoundError: as `read_dataset`.
        ValueError: as `read_dataset`, `write_yolo`, `write_mpii`, or the target is unknown or has other keypoints.
    """
    if to not in TARGETS:
        raise ValueError(f"cannot write data as {to!r}{nearest(to, TARGETS)}")
    out, part = Path(out), known_split(split)
    dataset = read_dataset(path, images, kind, skeleton, unlabelled=unlabelled)
    if to == "yolo":
        config = write_yolo(dataset, out, part, link)
        return Converted(config, out / "images" / part, dataset)
    if to == "crowdpose" and dataset.skeleton.keypoints != CROWDPOSE14.keypoints:
        raise ValueError(
            f"CrowdPose's form holds the {len(CROWDPOSE14)} keypoints of {CROWDPOSE14.name}, but the data set has "
            f"{len(dataset.skeleton)} ({dataset.skeleton.name}); --to coco holds any"
        )
    if out.exists():
        raise FileExistsError(f"{out} is there already; remove it or choose another name")
    root = common_folder(dataset) if images is None else Path(images)
    write = write_mpii if to == "mpii" else write_coco
    return Converted(out, write(dataset, out, root), dataset)
