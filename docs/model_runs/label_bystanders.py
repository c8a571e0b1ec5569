"""People in ignore regions, labelled by a model where it is sure: a source of the last runs of the RSNs and of SMPR.

    python docs/model_runs/label_bystanders.py LABELLED.json IMAGES OUT.json [MODEL [EVERYBODY.json]]

Around the athletes of Leeds Sports Pose stand others, of whom only boxes are known. MODEL (``rsn_small``) looks at
those who are large enough and overlap no athlete much, mirrored, too. Of whom it is sure of six keypoints or more,
these become labels. In OUT the athlete and everybody else in the picture become ignore regions, so that nobody is
learnt twice beside LABELLED; EVERYBODY has all pictures of LABELLED, with the athletes and the newly labelled as
people.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import poise
from poise.data.crops import crop_view

LEAST_HEIGHT, LEAST_WIDTH = 56, 18
"""Of a box, px."""
MOST_COVERED = 0.35
"""Of the smaller box of two, the share in which they may overlap."""
SURE = 0.5
LEAST_KEYPOINTS = 6


def covered(a: list[float], b: list[float]) -> float:
    """The share of the smaller of two boxes (x, y, width, height) that lies in the other."""
    sides = [max(0.0, min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    return sides[0] * sides[1] / min(a[2] * a[3], b[2] * b[3])


def bystanders(people: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the annotations of a picture, regions that may show somebody else than the athlete."""
    known = [person["bbox"] for person in people if not person.get("iscrowd")]
    return [
        person
        for person in people
        if person.get("iscrowd")
        and person["bbox"][3] > LEAST_HEIGHT
        and person["bbox"][2] > LEAST_WIDTH
        and all(covered(person["bbox"], box) < MOST_COVERED for box in known)
    ]


def labelled(predictor: Any, image: np.ndarray, regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of whom the model is sure, as annotations of people."""
    views = [
        crop_view(image, (x, y, x + w, y + h), predictor.model.view) for x, y, w, h in (r["bbox"] for r in regions)
    ]
    found = []
    for region, pose in zip(regions, predictor.predict_views(views, flip=True), strict=True):
        sure = pose.keypoint_scores[0] >= SURE
        if sure.sum() >= LEAST_KEYPOINTS:
            points = np.where(sure[:, None], np.c_[pose.keypoints[0], np.full(len(sure), 2)], 0)
            values = [round(float(value), 1) for value in points.ravel()]
            found.append({**region, "iscrowd": 0, "keypoints": values, "num_keypoints": int(sure.sum())})
    return found


if __name__ == "__main__":
    source, folder, target = (Path(argument) for argument in sys.argv[1:4])
    refiner = poise.pipeline("default", *(sys.argv[4:5] or ["rsn_small"]))
    document = json.loads(source.read_text(encoding="utf-8"))
    count = len(refiner.skeleton)
    pictures, annotations, everybody = [], [], []
    for picture in document["images"]:
        people = [a for a in document["annotations"] if a["image_id"] == picture["id"]]
        regions = bystanders(people)
        new = []
        if regions:
            with Image.open(folder / picture["file_name"]) as opened:
                new = labelled(refiner, np.array(opened.convert("RGB")), regions)
        ids = {person["id"] for person in new}
        rest = [person for person in people if person["id"] not in ids]
        everybody += [*new, *rest]
        if new:
            ignored = {"iscrowd": 1, "keypoints": [0] * 3 * count, "num_keypoints": 0}
            pictures.append(picture)
            annotations += [*new, *({**person, **ignored} for person in rest)]
    target.write_text(json.dumps({**document, "images": pictures, "annotations": annotations}), encoding="utf-8")
    for path in sys.argv[5:6]:
        Path(path).write_text(json.dumps({**document, "annotations": everybody}), encoding="utf-8")
    print(f"{len(pictures)} pictures, {sum(not a['iscrowd'] for a in annotations)} people")
