"""Poses as a folder with one file a picture: YOLO's text and OpenPose's JSON.

A file is named after its picture; frames of a video get a number: ``clip_000000000012``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from poise.files import fitting, source_stem, write_text
from poise.results.writer import PoseSink
from poise.skeletons import COCO17, Skeleton
from poise.types import FloatArray, Poses

Layout = Literal["body_25", "coco_18"]

_COCO_18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_BODY_25 = (
    *_COCO_18[:8], "mid_hip", *_COCO_18[8:], "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
LAYOUTS: dict[Layout, tuple[str, ...]] = {"body_25": _BODY_25, "coco_18": _COCO_18}
"""Names of OpenPose's keypoints in its order."""
_MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}


class FolderSink(PoseSink):
    """Writes a file as soon as its picture comes; each file is whole or absent."""

    suffix = ""

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17) -> None:
        super().__init__(path, skeleton)
        self._names: set[str] = set()
        self.path.mkdir(parents=True, exist_ok=True)

    def _write(self, poses: Poses, **more: Any) -> None:
        write_text(self.path / self._name(poses), self._text(poses))

    def _text(self, poses: Poses) -> str:
        raise NotImplementedError

    def _name(self, poses: Poses) -> str:
        """A name that no other picture of this run has."""
        stem = source_stem(poses.source) if poses.source else "picture" if poses.frame is None else "frame"
        mark = "" if poses.frame is None else f"_{poses.frame:012d}"
        name, number = fitting(stem, f"{mark}{self.suffix}"), 1
        while name in self._names:
            number += 1
            name = fitting(stem, f"{mark}-{number}{self.suffix}")
        self._names.add(name)
        return name


class YoloWriter(FolderSink):
    """YOLO pose labels: a line a pose, ``0 cx cy w h`` and ``x y v`` of every keypoint, in shares of the picture.

    Coordinates are divided by width and height alone, as the tools that write the format have it. v is the pose's
    visibility if it has one; else 2, or 0 for a keypoint with a score below ``min_keypoint_score``. Keypoints that are
    not finite or lie outside the picture get 0 0 0.
    """

    suffix = ".txt"

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17, *, min_keypoint_score: float = 0.0) -> None:
        super().__init__(path, skeleton)
        self.min_keypoint_score = min_keypoint_score

    def _text(self, poses: Poses) -> str:
        if poses.image_size is None:
            raise ValueError("YOLO labels are shares of the picture, but the size of this picture is not known")
        height, width = poses.image_size
        scale = np.array([width, height], np.float64)
        points = poses.keypoints.astype(np.float64) / scale
        corners = np.clip(np.nan_to_num(poses.boxes.astype(np.float64)).reshape(-1, 2, 2) / scale, 0, 1)
        boxes = np.concatenate([corners.mean(1), corners[:, 1] - corners[:, 0]], 1)
        marks = self._marks(poses)
        inside = np.isfinite(points).all(2) & (points >= 0).all(2) & (points <= 1).all(2) & (marks > 0)
        lines = []
        for box, person, mark, good in zip(boxes, points, marks, inside, strict=True):
            keypoints = [
                f"{x:.6f} {y:.6f} {v}" if ok else "0 0 0" for (x, y), v, ok in zip(person, mark, good, strict=True)
            ]
            lines.append(" ".join(["0", *(f"{value:.6f}" for value in box), *keypoints]) + "\n")
        return "".join(lines)

    def _marks(self, poses: Poses) -> npt.NDArray[np.int64]:
        if poses.visibility is not None:
            return poses.visibility
        return np.where(poses.keypoint_scores >= self.min_keypoint_score, 2, 0)


class OpenPoseWriter(FolderSink):
    """OpenPose's JSON, one file a picture: ``NAME_keypoints.json``.

    Keypoints are found by their names. Neck and middle of the hips, where a skeleton lacks them, are halfway between
    the shoulders and between the hips, with the lower of the two scores. What else is missing is 0 0 0.
    """

    suffix = "_keypoints.json"

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17, *, layout: Layout = "body_25") -> None:
        super().__init__(path, skeleton)
        if layout not in LAYOUTS:
            raise ValueError(f"unknown layout {layout!r} of OpenPose; known: {', '.join(LAYOUTS)}")
        self.layout = layout

    def _text(self, poses: Poses) -> str:
        whole = poses.to_numpy()
        whole = np.where(np.isfinite(whole).all(2, keepdims=True), whole, np.float32(0))
        empty = ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d", "pose_keypoints_3d")
        people = []
        for i, person in enumerate(whole):
            who = -1 if poses.ids is None else int(poses.ids[i])
            values = np.concatenate([_named(person, name, self.skeleton) for name in LAYOUTS[self.layout]])
            numbers = [round(v, 4) for v in values.tolist()]
            people.append({"person_id": [who], "pose_keypoints_2d": numbers, **{key: [] for key in empty}})
        return json.dumps({"version": 1.3, "people": people}, allow_nan=False)


def _named(person: FloatArray, name: str, skeleton: Skeleton) -> FloatArray:
    """(3,) x, y, score of one keypoint of (K, 3), or zeros."""
    if name in skeleton.keypoints:
        values: FloatArray = person[skeleton.keypoints.index(name)]
        return values
    ends = [_named(person, end, skeleton) for end in _MIDDLES.get(name, ())]
    if not ends or not all(end[2] > 0 for end in ends):
        return np.zeros(3, np.float32)
    return np.array([*((ends[0][:2] + ends[1][:2]) / 2), min(ends[0][2], ends[1][2])], np.float32)
