"""A tiny data set in COCO's layout, written to a folder: pictures of a bright stick figure on noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from poise.skeletons import COCO17


def write_tiny_set(root: Path, pictures: int = 4, side: int = 96) -> Path:
    """Write ``root/tiny.json`` and ``root/pictures/*.png``; the last picture shows nobody. Returns ``root``."""
    rng = np.random.default_rng(17)
    (root / "pictures").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(pictures):
        image = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
        if number < pictures - 1:
            points = rng.uniform(0.15 * side, 0.85 * side, (len(COCO17), 2)).round(1)
            for x, y in points:
                cv2.circle(image, (int(x), int(y)), 3, (255, 255, 255), -1)
            low, high = points.min(0), points.max(0)
            annotations.append(
                {
                    "id": number + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "num_keypoints": len(COCO17),
                    "keypoints": [float(v) for point in points for v in (*point, 2)],
                    "bbox": [float(v) for v in (*low, *(high - low))],
                    "area": float(np.prod(high - low)),
                }
            )
        cv2.imwrite(str(root / "pictures" / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": side, "height": side})
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": []}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    (root / "tiny.json").write_text(json.dumps(data))
    return root
