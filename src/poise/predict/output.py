"""A folder of annotated pictures and one JSON file with all poses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import poise
from poise.data.images import read_image
from poise.draw import draw_poses
from poise.files import replacing, write_text
from poise.skeletons import Skeleton
from poise.types import Poses

POSES_FILE = "poses.json"
JPEG_QUALITY = 92


class PoseWriter:
    """Collects the poses of many pictures and writes the pictures with the poses drawn on them.

    A drawn picture has the name of its source: ``.png`` for a PNG, ``.jpg`` for everything else. It gets a number
    where that name is taken: by a source, by another picture of this run, or by a file that no earlier run wrote.

    Args:
        folder: where to; None: nothing is written.
        sources: all pictures of the run; none of these files is overwritten.
        skeleton: of the poses.
        show_boxes: draw boxes and scores.
    """

    def __init__(self, folder: Path | None, sources: Sequence[Path], skeleton: Skeleton, show_boxes: bool) -> None:
        self._folder, self._show_boxes = folder, show_boxes
        self._document = empty_document(skeleton)
        self._taken = {source.resolve() for source in sources}
        self._ours = set() if folder is None else _written_before(folder)

    def add(self, source: Path, poses: Poses) -> Path | None:
        """Take the poses of one picture (image px); returns the drawn picture, if files are written.

        Raises:
            OSError: the folder cannot be written to.
            ValueError: the picture cannot be read any more.
        """
        drawn = None if self._folder is None else self._draw(self._folder, source, poses)
        images, annotations = self._document["images"], self._document["annotations"]
        height, width = poses.image_size or (0, 0)
        number = len(images) + 1
        entry = {"id": number, "file_name": str(source), "width": width, "height": height}
        images.append(entry if drawn is None else {**entry, "drawn": drawn.name})
        for result in poses.to_coco(number):
            annotations.append({"id": len(annotations) + 1, **result})
        return drawn

    def finish(self) -> dict[str, Any]:
        """All poses as one COCO-like object (see `empty_document`), which is also written to the folder."""
        if self._folder is not None:
            write_text(self._folder / POSES_FILE, json.dumps(self._document))
        return self._document

    def _draw(self, folder: Path, source: Path, poses: Poses) -> Path:
        target = self._free_name(folder, source)
        picture = Image.fromarray(draw_poses(read_image(source), poses, show_boxes=self._show_boxes))
        with replacing(target) as temporary:
            picture.save(temporary, quality=JPEG_QUALITY)
        return target

    def _free_name(self, folder: Path, source: Path) -> Path:
        suffix = ".png" if source.suffix.lower() == ".png" else ".jpg"
        number = 1
        while True:
            target = folder / (f"{source.stem}{suffix}" if number == 1 else f"{source.stem}-{number}{suffix}")
            resolved = target.resolve()
            if resolved not in self._taken and (target.name in self._ours or not target.exists()):
                self._taken.add(resolved)
                return target
            number += 1


def empty_document(skeleton: Skeleton) -> dict[str, Any]:
    """What is written for no picture: a COCO object with ``info``, ``images``, ``categories``, ``annotations``.

    Annotations are COCO keypoint results: the third number of a keypoint is its score.
    """
    category = {
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
    }
    info = {"description": f"poses found by Poise {poise.__version__}"}
    return {"info": info, "images": [], "categories": [category], "annotations": []}


def _written_before(folder: Path) -> set[str]:
    """Names of the drawn pictures that an earlier run has left in a folder."""
    try:
        images = json.loads((folder / POSES_FILE).read_text(encoding="utf-8"))["images"]
        return {str(image["drawn"]) for image in images if "drawn" in image}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
