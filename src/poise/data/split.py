"""``poise data split``: a data set in parts, by picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from poise.data.coco_rules import people_category
from poise.data.formats import AUTO, known_kind, read_dataset, recognise
from poise.data.json_files import load_json, stem
from poise.data.outlines import category_outline
from poise.data.writers import coco_document
from poise.files import write_text
from poise.skeletons import Skeleton

DEFAULT_PARTS = {"train": 0.8, "val": 0.2}
GROUPS = (0, 1, 2, 5)
"""Pictures with 0, 1, 2, up to 5 and more people are dealt out apart, if asked for."""


def split_dataset(
    path: str | Path,
    out: str | Path,
    parts: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
    by_people: bool = False,
    images: str | Path | None = None,
    kind: str = AUTO,
    skeleton: Skeleton | str | Path | None = None,
) -> dict[str, Path]:
    """Deal the pictures of a data set out to parts, each written as one COCO file ``STEM_PART.json``.

    The same seed gives the same parts. Every picture is in exactly one. COCO and CrowdPose files keep all that they
    say of pictures and people; the other formats are turned into COCO. Pictures stay where they are. Where a part does
    not tell its whole skeleton, because a YAML file did, or sigmas were estimated, ``STEM_PART.skeleton.yaml`` does.

    Args:
        path: as `read_dataset`.
        out: folder for the files.
        parts: names and shares of the parts, shares of any sum; by default `DEFAULT_PARTS`.
        seed: of the shuffle.
        by_people: let every part have its share of the pictures with few and with many people.
        images: as `read_dataset`.
        kind: as `read_dataset`.
        skeleton: as `read_dataset`.

    Returns:
        The files by name of the part.

    Raises:
        FileExistsError: one of the files is there already.
        FileNotFoundError: as `read_dataset`.
        ValueError: as `read_dataset`, shares that are not positive, or a part without a picture.
    """
    path, out = Path(path), Path(out)
    shares = dict(DEFAULT_PARTS if parts is None else parts)
    chosen = recognise(path) if kind == AUTO else known_kind(kind)
    dataset = read_dataset(path, images, chosen, skeleton)
    document = load_json(path) if chosen in ("coco", "crowdpose") else coco_document(dataset, images)
    keys = [image["id"] for image in document["images"]]
    crowds = [sum(len(r) > limit for limit in GROUPS) for r in dataset] if by_people else [0] * len(keys)
    home = dict(zip(keys, deal(crowds, shares, seed), strict=True))
    files = {name: out / f"{stem(path)}_{name}.json" for name in shares}
    outlines = [] if _told(document, path) == dataset.skeleton else [_outline_of(file) for file in files.values()]
    for file in (*files.values(), *outlines):
        if file.exists():
            raise FileExistsError(f"{file} is there already; remove it or choose another folder")
    for file in outlines:
        write_text(file, yaml.safe_dump(dataset.skeleton.to_dict(), sort_keys=False, allow_unicode=True))
    for name, file in files.items():
        write_text(file, json.dumps(_part(document, home, name)))
    return files


def _told(document: Mapping[str, Any], path: Path) -> Skeleton | None:
    """The skeleton that the content of a COCO file tells by itself; None if something is missing."""
    try:
        return category_outline(people_category(document.get("categories"), path, named=True), path).skeleton()
    except ValueError:
        return None


def _outline_of(file: Path) -> Path:
    """The YAML file that describes the skeleton of this annotation file alone."""
    return file.with_name(f"{file.stem}.skeleton.yaml")


def deal(groups: Sequence[int], shares: Mapping[str, float], seed: int) -> list[str]:
    """The part of each item. Every part gets its share of all items, and of each group, within one or two items.

    Args:
        groups: the group of each item.
        shares: shares of the parts, of any sum.
        seed: of the shuffle within the groups.

    Raises:
        ValueError: there are no parts, a share is not a positive number, or a part would get nothing.
    """
    if not shares or not all(np.isfinite(share) and share > 0 for share in shares.values()):
        raise ValueError(f"parts {dict(shares)} must have positive shares, for example train=0.8, val=0.2")
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(np.asarray(groups, np.int64)[order], kind="stable")] if len(groups) else order
    names, total = list(shares), sum(shares.values())
    counts = dict.fromkeys(names, 0)
    homes = [""] * len(groups)
    for dealt, index in enumerate(order.tolist(), 1):
        # whoever lags most behind its share is next
        name = max(names, key=lambda n: dealt * shares[n] / total - counts[n])
        counts[name] += 1
        homes[index] = name
    empty = [name for name in names if not counts[name]]
    if empty:
        raise ValueError(f"{len(groups)} pictures are too few: part {empty[0]!r} of {dict(shares)} would be empty")
    return homes


def part_sizes(files: Mapping[str, Path]) -> dict[str, Counter[str]]:
    """Numbers of pictures and annotations in written parts."""
    sizes = {}
    for name, file in files.items():
        data = load_json(file)
        sizes[name] = Counter(pictures=len(data["images"]), annotations=len(data["annotations"]))
    return sizes


def _part(document: Mapping[str, Any], home: Mapping[Any, str], name: str) -> dict[str, Any]:
    images = [image for image in document["images"] if home[image["id"]] == name]
    people = [entry for entry in document["annotations"] if home.get(entry.get("image_id")) == name]
    return {**document, "images": images, "annotations": people}
