"""Pictures in which every keypoint is a disc of its own colour, so that truth can be checked against pixels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, record_truth
from poise.skeletons import Skeleton
from poise.types import PersonBoxRule

FIGURE = Skeleton(
    "figure",
    ("head", "left_hand", "right_hand", "left_foot", "right_foot"),
    ((0, 1), (0, 2), (0, 3), (0, 4)),
    ((1, 2), (3, 4)),
    (0.05,) * 5,
)
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 255, 0), (0, 0, 255), (0, 0, 255)], np.uint8)
"""Left and right are alike, as a mirrored picture shows the colour of the other side."""
SHAPE = np.array([(0.5, 0.0), (0.0, 0.4), (1.0, 0.4), (0.2, 1.0), (0.8, 1.0)])
"""Keypoints within the unit square."""
RULE = PersonBoxRule()


def figures(size: tuple[int, int], places: list[tuple[int, int, int]], path: Path = Path("memory")) -> Sample:
    """Figures (x, y, height) on grey, with boxes that hold their discs."""
    image = np.full((*size, 3), 128, np.uint8)
    keypoints, boxes = [], []
    for x, y, height in places:
        radius = height // 8
        points = np.rint(np.array([x, y]) + SHAPE * (0.5 * height, height))
        for point, colour in zip(points.astype(int), COLOURS, strict=True):
            cv2.circle(image, (int(point[0]), int(point[1])), radius, colour.tolist(), -1)
        keypoints.append(np.concatenate([points, np.full((5, 1), 2)], 1))
        boxes.append([*(points.min(0) - radius), *(points.max(0) + radius)])
    n = len(places)
    record = Record(
        path,
        0,
        size,
        np.array(keypoints).reshape(n, 5, 3),
        np.array(boxes).reshape(n, 4),
        np.array([0.5 * h * h for _, _, h in places]),
        np.zeros((0, 4)),
    )
    return Sample(image, record_truth(record, RULE))


def nearest_colour(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(N, K) whether the pixel under each keypoint has the keypoint's colour."""
    x, y = np.rint(keypoints[..., 0]).astype(int), np.rint(keypoints[..., 1]).astype(int)
    y, x = y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)
    found = image[y, x].astype(int)
    return np.abs(found - COLOURS.astype(int)).max(-1) < 100


def strong_pixels(image: np.ndarray) -> np.ndarray:
    """(H, W) pixels that clearly belong to a disc."""
    return np.ptp(image.astype(int), axis=2) > 200


def labelled_or_ignored(sample: Sample, slack: float = 1.5) -> np.ndarray:
    """(H, W) pixels inside somebody's annotated box or an ignore region."""
    mask = np.zeros(sample.size, bool)
    for x1, y1, x2, y2 in np.concatenate([sample.truth.boxes, sample.truth.ignore]):
        low_x, low_y = max(0, int(np.floor(x1 - slack))), max(0, int(np.floor(y1 - slack)))
        mask[low_y : int(np.ceil(y2 + slack)) + 1, low_x : int(np.ceil(x2 + slack)) + 1] = True
    return mask


def write_set(folder: Path, samples: list[Sample]) -> PoseDataset:
    """The samples as PNG files and COCO annotations ``truth.json``; returns what a reader must find."""
    folder.mkdir(parents=True, exist_ok=True)
    images, people, records = [], [], []
    for i, sample in enumerate(samples):
        height, width = sample.size
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), sample.image[..., ::-1])
        images.append({"id": i, "file_name": path.name, "width": width, "height": height})
        truth = sample.truth
        for points, box, area in zip(truth.keypoints, truth.boxes, truth.areas, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            people.append(
                {
                    "id": len(people),
                    "image_id": i,
                    "category_id": 1,
                    "keypoints": [float(v) for v in points.reshape(-1)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                }
            )
        records.append(Record(path, i, sample.size, truth.keypoints, truth.boxes, truth.areas, truth.ignore))
    category = FIGURE.to_dict() | {"id": 1, "name": "figure", "skeleton": [[a + 1, b + 1] for a, b in FIGURE.edges]}
    content = {"images": images, "annotations": people, "categories": [category]}
    (folder / "truth.json").write_text(json.dumps(content))
    return PoseDataset("truth", FIGURE, tuple(records))
