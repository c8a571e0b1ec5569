"""Tracking on a video of real people with known truth: cut out of annotated pictures, and moved across another one.

The people keep their poses and slide; nearer ones hide farther ones. The video is predicted from pixels as
``poise predict --track`` does, and compared with the truth: MOTA, IDF1 and the number of switches. The same with ids by
the truth instead of the tracker's tells what the detector's misses alone cost.

    python benchmarks/tracking.py --annotations coco/val.json --images coco/val --background street.jpg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

import poise
from poise.data.images import read_image
from poise.evaluate.tracking import AREA_OF_BOX, tracking_scores
from poise.geometry.oks import oks
from poise.predict.video import VideoWriter
from poise.skeletons import COCO17
from poise.types import Poses

SIZE = (480, 854)
RATE = 12


class CutOut(NamedTuple):
    """Somebody with transparent surroundings (h, w, 4), and the keypoints (17, 3) in it."""

    picture: Any
    keypoints: Any


class Way(NamedTuple):
    """Left edge of the cut-out at the start, pixels a frame, height on the screen, lower edge."""

    start: float
    speed: float
    height: float
    ground: float


def cut_outs(annotations: Path, images: Path, count: int) -> list[CutOut]:
    """The first ``count`` people who stand, are whole, and are large enough."""
    data = json.loads(annotations.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in data["images"]}
    found = []
    for person in data["annotations"]:
        x, y, w, h = person["bbox"]
        if person["num_keypoints"] < 15 or h < max(150, 2 * w):
            continue
        image = read_image(images / names[person["image_id"]])
        part = np.s_[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1]
        points = np.reshape(person["keypoints"], (17, 3)) - (int(x), int(y), 0)
        mask = body_mask(points, image[part].shape[:2])
        found.append(CutOut(np.dstack([image[part], mask]), points))
        if len(found) == count:
            break
    return found


def body_mask(keypoints: Any, size: tuple[int, int]) -> Any:
    """(h, w) uint8: limbs as thick lines, the trunk filled, a disc for the head; soft edges."""
    mask = np.zeros(size, np.uint8)
    known = {name: keypoints[k, :2] for k, name in enumerate(COCO17.keypoints) if keypoints[k, 2] > 0}
    width = max(2, round(0.085 * size[0]))
    for a, b in COCO17.edges:
        if keypoints[a, 2] > 0 and keypoints[b, 2] > 0:
            ends = [tuple(int(v) for v in np.rint(keypoints[k, :2])) for k in (a, b)]
            cv2.line(mask, *ends, 255, width)
    trunk = [known[n] for n in ("left_shoulder", "right_shoulder", "right_hip", "left_hip") if n in known]
    if len(trunk) > 2:
        cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(trunk).astype(np.int32)), 255)
        mask = cv2.dilate(mask, np.ones((width // 3 + 1, width // 3 + 1), np.uint8))
    head = [known[n] for n in ("nose", "left_ear", "right_ear", "left_eye", "right_eye") if n in known]
    if head:
        centre = np.rint(np.mean(head, axis=0)).astype(int)
        cv2.circle(mask, (int(centre[0]), int(centre[1])), round(0.085 * size[0]), 255, -1)
    feet = [known[n] for n in ("left_ankle", "right_ankle") if n in known]
    for foot in feet:
        cv2.circle(mask, (int(foot[0]), int(foot[1])), round(0.05 * size[0]), 255, -1)
    return cv2.GaussianBlur(mask, (5, 5), 0)


def ways(count: int, frames: int, rng: np.random.Generator) -> list[Way]:
    """Every second one to the left, and all meet in the middle; the nearer somebody, the larger and lower."""
    found = []
    for i in range(count):
        height = rng.uniform(0.35, 0.75) * SIZE[0]
        travel = rng.uniform(0.5, 0.8) * SIZE[1]
        first = (SIZE[1] - travel) / 2 + rng.uniform(-60, 60)
        start, speed = (first, travel / frames) if i % 2 == 0 else (first + travel, -travel / frames)
        found.append(Way(start - 0.2 * height, speed, height, 0.55 * SIZE[0] + 0.55 * height))
    return sorted(found, key=lambda way: way.height)


def scene(people: Sequence[CutOut], paths: Sequence[Way], background: Any, frames: int) -> Iterator[tuple[Any, Poses]]:
    """Frames and truth; who is hidden by more than half is not in the truth."""
    for number in range(frames):
        canvas = background.copy()
        owner = np.full(SIZE, -1)
        points, areas = [], []
        for who, (person, way) in enumerate(zip(people, paths, strict=True)):
            factor = way.height / person.picture.shape[0]
            move = np.array([[factor, 0, way.start + way.speed * number], [0, factor, way.ground - way.height]])
            layer = cv2.warpAffine(person.picture, move, SIZE[::-1], flags=cv2.INTER_AREA).astype(np.float32)
            weight = layer[..., 3:] / 255
            canvas = np.rint(canvas * (1 - weight) + layer[..., :3] * weight).astype(np.uint8)
            owner[weight[..., 0] > 0.5] = who
            areas.append(max(1, int((weight > 0.5).sum())))
            points.append(person.keypoints[:, :2] @ move[:, :2].T + move[:, 2])
        seen = [who for who in range(len(people)) if (owner == who).sum() > 0.5 * areas[who]]
        yield canvas, _truth([(who, points[who], people[who].keypoints[:, 2]) for who in seen], number)


def _truth(people: Sequence[tuple[int, Any, Any]], frame: int) -> Poses:
    if not people:
        return replace(Poses.empty(COCO17, SIZE), ids=np.zeros(0, int), frame=frame)
    points = np.array([np.where(marks[:, None] > 0, p, np.nan) for _, p, marks in people])
    boxes = np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], 1)
    ids = np.array([who + 1 for who, _, _ in people])
    n = len(people)
    return Poses(points, np.ones((n, 17)), boxes, np.ones(n), COCO17, SIZE, ids=ids, frame=frame)


def with_true_ids(truth: Poses, found: Poses, min_oks: float) -> Poses:
    """The found poses with the ids of the people whom they resemble most; others have none."""
    ids = np.full(len(found), -1)
    if len(truth) and len(found):
        people = np.concatenate([np.nan_to_num(truth.keypoints), np.isfinite(truth.keypoints[..., :1])], 2)
        areas = AREA_OF_BOX * (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1)
        alike = oks(found.keypoints, people, areas, COCO17.sigmas)
        for _ in range(min(alike.shape)):
            row, column = np.unravel_index(alike.argmax(), alike.shape)
            if alike[row, column] < min_oks:
                break
            ids[row] = truth.ids[column]
            alike[row], alike[:, column] = -1, -1
    return replace(found, ids=ids)


def measured(truth: Sequence[Poses], found: Sequence[Poses], limits: Sequence[float]) -> list[dict[str, Any]]:
    """The numbers at several similarities, with the tracker's ids and with those of the truth."""
    numbers = []
    for limit in limits:
        ideal = [with_true_ids(t, f, limit) for t, f in zip(truth, found, strict=True)]
        scores = {"tracker": tracking_scores(truth, found, limit), "true ids": tracking_scores(truth, ideal, limit)}
        numbers.append({"min_oks": limit, **{name: score._asdict() for name, score in scores.items()}})
    return numbers


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--background", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--frames", type=int, default=72)
    parser.add_argument(
        "--min-oks", type=float, nargs="+", default=[0.5, 0.25], help="a found pose is somebody from it on"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the video with what was found, for looking at it")
    given = parser.parse_args()
    people = cut_outs(given.annotations, given.images, given.people)
    paths = ways(len(people), given.frames, np.random.default_rng(given.seed))
    background = cv2.resize(read_image(given.background), SIZE[::-1], interpolation=cv2.INTER_AREA)
    pictures, truth = zip(*scene(people, paths, background, given.frames), strict=True)
    predictor = poise.load(given.model)
    clip = given.out or Path("tracking-scene.mp4")
    with VideoWriter(clip, RATE) as writer:
        for picture in pictures:
            writer.add(picture)
    found = [poses for _, poses in poise.stream(predictor, clip, track=True)]
    if given.out is None:
        clip.unlink()
    else:
        with VideoWriter(given.out.with_name(given.out.stem + "-found.mp4"), RATE) as writer:
            for picture, poses in zip(pictures, found, strict=True):
                writer.add(poses.draw(picture))
    print(json.dumps({"people": len(people), "frames": given.frames, "scores": measured(truth, found, given.min_oks)}))


if __name__ == "__main__":
    main()
