"""Faces made unrecognisable: an ellipse over each head, placed by the keypoints that are sure.

Letters: N poses, K keypoints. Frame: image px. Lengths are in head heights (chin to crown), of an adult.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from poise.types import ImageArray, Poses

Point = npt.NDArray[np.float64]
Known = dict[str, Point]
"""Keypoints of one person that are known, by name."""
Method = Literal["blur", "pixels", "fill"]

MIN_KEYPOINT_SCORE = 0.3
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head_top", "top_head")
_EYES = 0.27
"""Between the eyes, from the front."""
_LENGTHS = {
    ("left_ear", "right_ear"): 0.6,
    ("left_eye", "right_eye"): _EYES,
    ("nose", "left_eye"): 0.22,
    ("nose", "right_eye"): 0.22,
    ("nose", "left_ear"): 0.5,
    ("nose", "right_ear"): 0.5,
    ("left_eye", "left_ear"): 0.4,
    ("right_eye", "right_ear"): 0.4,
    ("head_top", "upper_neck"): 1.0,
    ("head_top", "neck"): 1.2,
    ("top_head", "neck"): 1.2,
    ("left_shoulder", "right_shoulder"): 1.6,
    ("left_shoulder", "left_hip"): 2.2,
    ("right_shoulder", "right_hip"): 2.2,
}
"""Distances between keypoints where they are seen longest; what is foreshortened is shorter, so the longest counts."""
_HALF_HEIGHT, _HALF_WIDTH = 0.68, 0.6
"""Half axes of the ellipse: hair and a margin included, and as wide as a head from the side."""
_ONE_EAR = 1.2
"""How much wider the ellipse is while an ear is not known, and with it the side to which the head is turned."""
_MARGIN = 1.2
"""Every sure keypoint of the face lies inside the ellipse by this factor."""
_CELLS = 5
"""So many patches of one colour are left across a head."""


class Ellipse(NamedTuple):
    """Centre, half axes along and across ``up``, and the unit vector that points to the crown."""

    centre: Point
    along: float
    across: float
    up: Point


def anonymise(
    image: ImageArray,
    poses: Poses,
    *,
    method: Method = "blur",
    min_keypoint_score: float = MIN_KEYPOINT_SCORE,
) -> ImageArray:
    """A copy of the picture in which the heads of all poses are unrecognisable.

    Give it every candidate, also those too unsure to be drawn: it is better to cover a lamp than to show a face. Whom
    the model has not found at all stays visible.

    Args:
        image: (H, W, 3) RGB. It is not changed.
        poses: in image px.
        method: ``blur``, ``pixels`` (a mosaic) or ``fill`` (one colour). What is left of a head are a few patches of
            colour; blur is these patches, smoothed.
        min_keypoint_score: keypoints from this score on place the ellipse.
    """
    return cover(image, [e for pose in poses if (e := head_ellipse(pose, min_keypoint_score)) is not None], method)


def cover(image: ImageArray, heads: Iterable[Ellipse], method: Method = "blur") -> ImageArray:
    """A copy of the picture with the ellipses made unrecognisable."""
    if method not in ("blur", "pixels", "fill"):
        raise ValueError(f"unknown method {method!r}; known: blur, pixels, fill")
    canvas = np.array(image, order="C")
    for head in heads:
        _cover(canvas, image, head, method)
    return canvas


class Anonymiser:
    """`anonymise` for the frames of a video: a head stays covered for a moment after it was last found there.

    So a face does not flash up in a frame in which the model misses it.

    Args:
        hold: seconds; frames whose poses have no time count for 1/25.
        method: as `anonymise`.
    """

    def __init__(self, hold: float = 0.25, method: Method = "blur") -> None:
        self._hold, self._time = hold, 0.0
        self._method: Method = method
        self._seen: deque[tuple[float, list[Ellipse]]] = deque()

    def __call__(self, image: ImageArray, poses: Poses) -> ImageArray:
        """The next frame, as `anonymise`."""
        self._time = self._time + 1 / 25 if poses.time is None else poses.time
        self._seen.append((self._time, [e for pose in poses if (e := head_ellipse(pose)) is not None]))
        while self._seen[0][0] < self._time - self._hold - 1e-6:
            self._seen.popleft()
        return cover(image, [head for _, heads in self._seen for head in heads], self._method)


def head_ellipse(pose: Poses, min_keypoint_score: float = MIN_KEYPOINT_SCORE) -> Ellipse | None:
    """Where the head of one person is.

    Two sure keypoints of the face are enough, and from the side, where one eye and one ear are hidden, the ear gives
    the centre. Without a sure one the head is sought above the shoulders; where nothing is sure, all keypoints
    count as they are. None: there is no finite keypoint of face or shoulders.

    Args:
        pose: one person, image px, of any skeleton.
        min_keypoint_score: see `anonymise`.
    """
    sure = _known(pose, min_keypoint_score)
    for known in (sure, _known(pose, -math.inf)):
        height = _head_height(known)
        centre = _centre(known, height)
        if centre is not None:
            return _around_face(Ellipse(centre, *_axes(height, pose, known), _up(known, centre)), known)
    return None


def _known(pose: Poses, min_score: float) -> Known:
    points, scores = pose.keypoints[0].astype(np.float64), np.nan_to_num(pose.keypoint_scores[0], nan=0.0)
    return {
        name: point
        for name, point, score in zip(pose.skeleton.keypoints, points, scores, strict=True)
        if score >= min_score and np.isfinite(point).all() and (np.abs(point) < 1e6).all()
    }


def _head_height(known: Known) -> float:
    """Height of the head, px; 0 if nothing tells."""
    pairs = ((known[a] - known[b], share) for (a, b), share in _LENGTHS.items() if {a, b} <= known.keys())
    return max((float(np.linalg.norm(offset)) / share for offset, share in pairs), default=0.0)


def _centre(known: Known, height: float) -> Point | None:
    """The middle of the head: from the face, else from crown and neck, else from the shoulders."""
    face = _centre_of_face(known, height)
    if face is not None:
        return face
    crown, below = _all(known, ("head_top", "top_head")), _all(known, ("upper_neck", "neck"))
    shoulders = _all(known, ("left_shoulder", "right_shoulder"))
    if crown and below:
        return 0.55 * crown[0] + 0.45 * below[0]
    if crown:
        return crown[0] + 0.5 * height * np.array([0.0, 1.0])
    if shoulders:
        middle = _mean(shoulders)
        return np.asarray(middle + 0.95 * height * _up(known, middle))
    return None


def _centre_of_face(known: Known, height: float) -> Point | None:
    """Between the ears; from the side at the one ear that is seen; without ears behind the eyes."""
    ears = _all(known, ("left_ear", "right_ear"))
    eyes = _all(known, ("left_eye", "right_eye"))
    nose = _all(known, ("nose",))
    if len(ears) == 2:
        return _mean(ears)
    front = eyes + nose
    if not front or not ears:
        return _behind_eyes(eyes, nose, known) if eyes and nose else _mean(front or ears) if front or ears else None
    # from the side the ear is in the middle of the head, and the nose at its edge; from the front the eyes are
    turned = 1.0
    if len(eyes) == 2 and height > 0:
        turned = 1 - min(1.0, float(np.linalg.norm(eyes[0] - eyes[1])) / (_EYES * height))
    side, ahead = 0.8 * ears[0] + 0.2 * _mean(front), _mean(eyes or front)
    return np.asarray(turned * side + (1 - turned) * ahead)


def _behind_eyes(eyes: list[Point], nose: list[Point], known: Known) -> Point:
    """The middle of a head of which no ear is known: from the eyes away from where the nose points."""
    middle = _mean(eyes)
    up = _up(known, middle)
    side = np.array([-up[1], up[0]])
    return np.asarray(middle - 1.2 * float((nose[0] - middle) @ side) * side)


def _up(known: Known, centre: Point) -> Point:
    """Unit vector from the body to the crown; without a body, across the eyes or ears; else up in the picture."""
    upright = np.array([0.0, -1.0])
    shoulders, hips = (_all(known, (f"left_{part}", f"right_{part}")) for part in ("shoulder", "hip"))
    crown = _all(known, ("head_top", "top_head"))
    if crown and np.linalg.norm(crown[0] - centre) > 1:
        return _unit(crown[0] - centre)
    if shoulders and np.linalg.norm(_mean(shoulders) - centre) > 1:
        return _unit(centre - _mean(shoulders))
    if shoulders and hips:
        return _unit(_mean(shoulders) - _mean(hips))
    for pair in (("left_ear", "right_ear"), ("left_eye", "right_eye")):
        if set(pair) <= known.keys():
            left, right = known[pair[0]], known[pair[1]]
            across = np.array([right[1] - left[1], left[0] - right[0]])
            return _unit(across if across @ upright >= 0 else -across)
    return upright


def _axes(height: float, pose: Poses, known: Known) -> tuple[float, float]:
    """Half axes, px. Who shows a single keypoint has a head of the usual share of the box."""
    if height <= 0:
        box = pose.boxes[0].astype(np.float64)
        side = float(max(box[2] - box[0], box[3] - box[1])) if np.isfinite(box).all() else 0.0
        height = side / 6
    height = max(height, 6.0)
    wider = 1.0 if {"left_ear", "right_ear"} <= known.keys() else _ONE_EAR
    return _HALF_HEIGHT * height, _HALF_WIDTH * height * wider


def _around_face(head: Ellipse, known: Known) -> Ellipse:
    """The ellipse, larger if a keypoint of the face lies outside or near its edge."""
    factor = max((_MARGIN * _distance(head, known[name]) for name in _FACE if name in known), default=1.0)
    factor = max(1.0, factor)
    return head._replace(along=head.along * factor, across=head.across * factor)


def _distance(head: Ellipse, point: Point) -> float:
    """1 on the ellipse, less inside."""
    offset = point - head.centre
    side = np.array([-head.up[1], head.up[0]])
    return math.hypot(float(offset @ head.up) / head.along, float(offset @ side) / head.across)


def _cover(canvas: ImageArray, image: ImageArray, head: Ellipse, method: Method) -> None:
    """Cover one ellipse in place; colours are taken from the original picture."""
    reach = 1.15 * max(head.along, head.across)
    low = np.floor(np.maximum(head.centre - reach, 0)).astype(int)
    high = np.ceil(np.minimum(head.centre + reach + 1, np.array(image.shape[1::-1], float))).astype(int)
    if (low >= high).any():
        return
    part = np.s_[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.mgrid[part]
    offset = np.stack([columns - head.centre[0], rows - head.centre[1]], -1)
    side = np.array([-head.up[1], head.up[0]])
    distance = np.hypot(offset @ head.up / head.along, offset @ side / head.across)
    # full inside, and a soft edge that lies outside
    weight = np.clip((1.12 - distance) / 0.12, 0, 1)[..., None]
    region = canvas[part]
    patches = _patches(image[part], head, method)
    region[:] = np.rint(region + weight * (patches.astype(np.float64) - region)).astype(np.uint8)


def _patches(region: ImageArray, head: Ellipse, method: Method) -> ImageArray:
    """The region in a few patches of colour."""
    height, width = region.shape[:2]
    if method == "fill":
        return np.broadcast_to(region.reshape(-1, 3).mean(0).astype(np.uint8), region.shape)
    cell = max(2.0, 2 * head.across / _CELLS)
    small = max(1, math.ceil(width / cell)), max(1, math.ceil(height / cell))
    coarse = cv2.resize(region, small, interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_CUBIC if method == "blur" else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=smooth), np.uint8)


def _all(known: Known, names: Sequence[str]) -> list[Point]:
    return [known[name] for name in names if name in known]


def _mean(points: Sequence[Point]) -> Point:
    return np.asarray(np.mean(points, axis=0))


def _unit(vector: Point) -> Point:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else np.array([0.0, -1.0])
