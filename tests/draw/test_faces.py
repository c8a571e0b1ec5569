"""Faces made unrecognisable: where the ellipse lies, from all sides, and what is left of a face."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poise.draw import anonymise, head_ellipse
from poise.draw.faces import Anonymiser, Ellipse, cover
from poise.skeletons import COCO17, CROWDPOSE14, LSP14, MPII16
from poise.types import Poses

HEIGHT = 40.0
"""Of the head, px."""
FRONT = {
    "nose": (100, 104), "left_eye": (105, 98), "right_eye": (95, 98), "left_ear": (112, 100), "right_ear": (88, 100),
    "left_shoulder": (132, 140), "right_shoulder": (68, 140), "left_hip": (120, 225), "right_hip": (80, 225),
}  # fmt: skip
"""A person seen from the front whose head is an ellipse of 40 x 28 px around (100, 100)."""
PROFILE = {"nose": (83, 103), "right_eye": (87, 97), "right_ear": (102, 100), "right_shoulder": (103, 140),
           "left_shoulder": (99, 141)}  # fmt: skip
"""The same, looking to the left: the head is 40 x 36 px around (100, 100)."""


def person(points, skeleton=COCO17, sure=0.9, unsure=0.05):
    """Keypoints of these names are sure; the others are somewhere else, and the model knows that it does not know."""
    k = len(skeleton)
    keypoints, scores = np.tile((300.0, 300.0), (1, k, 1)), np.full((1, k), unsure)
    for name, point in points.items():
        index = skeleton.keypoints.index(name)
        keypoints[0, index], scores[0, index] = point, sure
    return Poses(keypoints, scores, [[60, 75, 140, 380]], [0.9], skeleton)


def covered(head, half_width, half_height=HEIGHT / 2):
    """Share of the true head around (100, 100) that lies in the ellipse."""
    turns = np.linspace(0, 2 * np.pi, 72)
    rings = [np.column_stack([half_width * r * np.cos(turns), half_height * r * np.sin(turns)]) for r in (0.3, 0.6, 1)]
    offsets = np.concatenate(rings) - (head.centre - 100)
    side = np.array([-head.up[1], head.up[0]])
    return np.mean(np.hypot(offsets @ head.up / head.along, offsets @ side / head.across) <= 1)


def test_from_the_front():
    head = head_ellipse(person(FRONT))
    assert covered(head, 14) == 1
    assert np.linalg.norm(head.centre - (100, 100)) < 4
    assert 20 <= head.along <= 34
    assert head.up @ (0, -1) > 0.99


@pytest.mark.parametrize(
    "names",
    [
        ("nose", "right_eye", "right_ear"),
        ("nose", "right_ear"),
        ("right_eye", "right_ear"),
        ("nose", "right_eye", "right_ear", "right_shoulder"),
        tuple(PROFILE),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_from_the_side_where_only_some_points_are_sure(names, mirrored):
    points = {name: np.array(PROFILE[name], float) for name in names}
    if mirrored:
        points = {n.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left"): (200 - x, y)
                  for n, (x, y) in points.items()}  # fmt: skip
    head = head_ellipse(person(points))
    assert covered(head, 18) > 0.97
    assert head.along < 45


@pytest.mark.parametrize(
    "names", [("left_eye", "right_eye"), ("nose", "left_eye", "right_eye"), ("left_ear", "right_ear")]
)
def test_from_the_front_where_only_some_points_are_sure(names):
    head = head_ellipse(person({n: FRONT[n] for n in (*names, "left_shoulder", "right_shoulder")}))
    assert covered(head, 14) == 1


def test_from_behind_the_head_is_sought_above_the_shoulders():
    body = {n: FRONT[n] for n in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")}
    head = head_ellipse(person(body))
    assert covered(head, 14) > 0.95
    assert head.along < 40


def test_a_tilted_head_turns_the_ellipse():
    angle = np.radians(60)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = {n: turn @ (np.array(p) - 100.0) + 100 for n, p in FRONT.items()}
    head = head_ellipse(person(points))
    assert head.up @ (turn @ (0, -1)) > 0.99
    lying = head_ellipse(person({n: points[n] for n in ("left_eye", "right_eye", "nose")}))
    assert abs(lying.up @ (turn @ (0, -1))) > 0.95


@pytest.mark.parametrize(
    ("skeleton", "points"),
    [
        (LSP14, {"head_top": (100, 80), "neck": (100, 126)}),
        (MPII16, {"head_top": (100, 80), "upper_neck": (100, 122)}),
        (CROWDPOSE14, {"top_head": (100, 80), "neck": (100, 128)}),
        (CROWDPOSE14, {"top_head": (100, 80), "left_shoulder": (132, 140), "right_shoulder": (68, 140)}),
    ],
    ids=["lsp", "mpii", "crowdpose", "crowdpose without neck"],
)
def test_skeletons_with_a_crown(skeleton, points):
    assert covered(head_ellipse(person(points, skeleton)), 14) > 0.97


def test_unsure_points_count_when_there_is_nothing_else():
    head = head_ellipse(person(FRONT, sure=0.1, unsure=0.1))
    assert head is not None
    single = head_ellipse(person({"nose": (100, 100)}))
    assert covered(single, 14) == 1
    nothing = Poses(np.full((1, 17, 2), np.nan), np.ones((1, 17)), [[0, 0, 9, 9]], [0.9], COCO17)
    assert head_ellipse(nothing) is None
    picture = np.zeros((50, 50, 3), np.uint8)
    np.testing.assert_array_equal(anonymise(picture, nothing), picture)
    np.testing.assert_array_equal(anonymise(picture, Poses.empty()), picture)


def noise(size=(200, 200), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", ["blur", "pixels", "fill"])
def test_little_is_left_of_a_face(method):
    """Inside: variation falls to that of a few patches. Outside: not a pixel changes."""
    picture = noise()
    out = anonymise(picture, person(FRONT), method=method)
    head = head_ellipse(person(FRONT))
    rows, columns = np.mgrid[:200, :200]
    distance = np.hypot((columns - head.centre[0]) / head.across, (rows - head.centre[1]) / head.along)
    inside, outside = distance < 1, distance > 1.13
    assert out[inside].astype(float).std() < 0.3 * picture[inside].std()
    np.testing.assert_array_equal(out[outside], picture[outside])
    assert (picture == noise()).all()
    gradient = np.abs(np.diff(out[inside[:, 0] | True][:, :, 0].astype(int), axis=1))[inside[:, 1:]]
    assert np.median(gradient) < 8


def test_no_trace_of_fine_detail_survives():
    """Two faces that differ in everything but their coarse brightness look the same."""
    one, other = (np.kron(np.full((50, 50, 3), 100, np.uint8), np.ones((4, 4, 1), np.uint8)) for _ in range(2))
    stripes = (np.arange(200) % 4 < 2).astype(np.uint8) * 80
    one = one + stripes[:, None, None]
    other = other + stripes[None, :, None]
    a, b = (anonymise(p, person(FRONT)).astype(int)[85:115, 90:110] for p in (one, other))
    assert np.abs(a - b).max() <= 12
    assert np.abs(one.astype(int) - other).max() == 80


def test_at_the_edge_and_far_outside():
    moved = {n: (x - 100, y - 100) for n, (x, y) in FRONT.items()}
    out = anonymise(noise(), person(moved))
    assert (out[:10, :10] != noise()[:10, :10]).any()
    far = {n: (x + 5000, y) for n, (x, y) in FRONT.items()}
    np.testing.assert_array_equal(anonymise(noise(), person(far)), noise())
    wild = {n: (x * 1e30, y) for n, (x, y) in FRONT.items()}
    assert anonymise(noise(), person(wild)).shape == noise().shape
    assert anonymise(noise((3, 2)), person({"nose": (1, 1)})).shape == (3, 2, 3)
    with pytest.raises(ValueError, match="unknown method 'smear'; known: blur"):
        anonymise(noise(), Poses.empty(), method="smear")


def test_in_a_video_heads_stay_covered_for_a_while():
    picture = noise()
    frames = [person(FRONT), Poses.empty(), Poses.empty(), Poses.empty()]

    def hidden(hide, times):
        timed = (replace(poses, time=time) for poses, time in zip(frames, times, strict=True))
        return [(hide(picture, poses)[95:105, 95:105] != picture[95:105, 95:105]).any() for poses in timed]

    assert hidden(Anonymiser(hold=0.2), (5.0, 5.1, 5.2, 5.3)) == [True, True, True, False]
    assert hidden(Anonymiser(hold=0.2), (5.0, 6.0, 7.0, 8.0)) == [True, False, False, False]
    assert hidden(Anonymiser(hold=0.09), (None,) * 4) == [True, True, True, False]


def test_colours_come_from_the_picture_and_not_from_covered_neighbours():
    up = np.array([0.0, -1.0])
    heads = [Ellipse(np.array([x, 100.0]), 30.0, 30.0, up) for x in (90.0, 110.0)]
    picture = noise()
    np.testing.assert_array_equal(cover(picture, heads[:1])[:, :75], cover(picture, heads)[:, :75])


DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "coco").is_dir(), reason="no real pictures: set POISE_DATA")
def test_ellipses_of_real_people_cover_all_their_face_points_even_when_one_is_hidden():
    people = json.loads((DATA / "coco/annotations/val.json").read_text())["annotations"]
    face = [COCO17.keypoints.index(n) for n in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")]
    inside = []
    for entry in people:
        truth = np.array(entry["keypoints"], float).reshape(17, 3)
        known = [k for k in face if truth[k, 2] == 2]
        for left_out in known if len(known) >= 3 else ():
            points = np.where(truth[:, 2:] > 0, truth[:, :2], np.nan)
            points[left_out] = np.nan
            x, y, w, h = entry["bbox"]
            head = head_ellipse(Poses(points[None], np.ones((1, 17)), [[x, y, x + w, y + h]], [1], COCO17))
            offset = truth[left_out, :2] - head.centre
            side = np.array([-head.up[1], head.up[0]])
            inside.append(np.hypot(offset @ head.up / head.along, offset @ side / head.across) <= 1)
    assert len(inside) > 100
    assert np.mean(inside) > 0.98
