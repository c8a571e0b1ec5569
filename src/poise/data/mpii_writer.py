"""Writing a data set in MPII's JSON form, one entry a person.

What the form cannot say is lost, and told: areas, whether a joint is visible or occluded, and pictures without people;
boxes become the squares that a centre and a scale describe. Head boxes, which the form could hold, are in no data set
in memory, and are told to be missing. Frame: image px.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poise.data.mpii import DOWN, HEIGHT
from poise.data.records import PoseDataset
from poise.data.writers import common_folder, file_name, short
from poise.files import write_text
from poise.skeletons import MPII16

_LOG = logging.getLogger(__name__)


def mpii_document(dataset: PoseDataset, images: str | Path | None = None) -> list[dict[str, Any]]:
    """A data set as the content of an MPII file; ignore regions become people without joints.

    Args:
        dataset: of MPII's 16 keypoints, in MPII's order.
        images: folder that file names are relative to; by default `common_folder`.

    Raises:
        ValueError: it has other keypoints, or a picture is not below ``images``.
    """
    if dataset.skeleton.keypoints != MPII16.keypoints:
        raise ValueError(
            f"MPII's form holds the {len(MPII16)} joints of {MPII16.name}, but the data set has "
            f"{len(dataset.skeleton)} keypoints ({dataset.skeleton.name})"
        )
    root = common_folder(dataset) if images is None else Path(images).absolute()
    nobody = [[0.0, 0.0, 0.0]] * len(MPII16)
    document = []
    for record in dataset:
        image = file_name(record, root)
        for points, box in zip(record.keypoints.tolist(), record.boxes.tolist(), strict=True):
            document.append(_entry(image, points, box))
        document += [_entry(image, nobody, region) for region in record.ignore.tolist()]
    _tell_losses(dataset)
    return document


def write_mpii(dataset: PoseDataset, path: str | Path, images: str | Path | None = None) -> Path:
    """Write an MPII file, whole or not at all; arguments and errors as `mpii_document`.

    Returns:
        The folder that the file names are relative to.
    """
    write_text(path, json.dumps(mpii_document(dataset, images)))
    return common_folder(dataset) if images is None else Path(images)


def _entry(image: str, points: Sequence[Sequence[float]], box: Sequence[float]) -> dict[str, Any]:
    """One person; the inverse of `poise.data.mpii.person_box` for square boxes. MPII counts pixels from 1."""
    x1, y1, x2, y2 = box
    scale = max(x2 - x1, y2 - y1, 1.0) / HEIGHT
    return {
        "image": image,
        "center": [short((x1 + x2) / 2 + 1), short((y1 + y2) / 2 + 1 - DOWN * scale)],
        "scale": round(scale, 6),
        "joints": [[short(x + 1), short(y + 1)] if seen else [0, 0] for x, y, seen in points],
        "joints_vis": [int(seen > 0) for _, _, seen in points],
    }


def _tell_losses(dataset: PoseDataset) -> None:
    occluded = sum(int((record.keypoints[..., 2] == 1).sum()) for record in dataset)
    empty = sum(not len(record) and not len(record.ignore) for record in dataset)
    people = dataset.person_count
    if people:
        _LOG.warning(
            "%d people of %r are written without head boxes, which published PCKh wants; give them to "
            "poise evaluate with --head-boxes",
            people,
            dataset.name,
        )
    if occluded:
        _LOG.warning("%d occluded joints of %r have no place in MPII's form and became visible", occluded, dataset.name)
    if empty:
        _LOG.warning("%d pictures of %r without people have no place in MPII's form", empty, dataset.name)
