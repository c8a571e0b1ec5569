from pathlib import Path

import numpy as np
import pytest
from marked import FIGURE, RULE, figures
from PIL import Image

from poise.data.images import ImageError
from poise.data.records import Record
from poise.data.samples import (
    Truth,
    clip_truth,
    cover_truth,
    drop_gone,
    join,
    map_truth,
    read_sample,
    record_truth,
    settle,
)
from poise.geometry import affine
from poise.types import PersonBoxRule


@pytest.fixture
def truth() -> Truth:
    """Two figures; boxes of assignment are the keypoints' extent and one pixel."""
    return figures((200, 300), [(20, 30, 80), (150, 60, 100)]).truth


def regions(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def test_boxes_of_assignment_follow_the_rule() -> None:
    record = Record(
        Path("x"), 0, (50, 60), [[(5, 6, 2), (9, 30, 1), (50, 50, 0)]], [[1, 2, 3, 4]], [7], np.zeros((0, 4))
    )
    assert record_truth(record, PersonBoxRule()).person_boxes.tolist() == [[4, 5, 10, 31]]
    assert record_truth(record, PersonBoxRule(pad_low=0, pad_high=-1)).person_boxes.tolist() == [[5, 6, 8, 29]]
    assert record_truth(record, PersonBoxRule(source="annotation")).person_boxes.tolist() == [[1, 2, 3, 4]]


def test_keypoints_outside_the_picture_count_for_the_box_and_are_not_visible() -> None:
    record = Record(
        Path("x"), 0, (50, 60), [[(5, 6, 2), (59.4, 49.4, 2), (59.6, 9, 2)]], [[1, 2, 3, 4]], [7], regions()
    )
    truth = record_truth(record, PersonBoxRule())
    assert truth.keypoints[0, :, 2].tolist() == [2, 2, 0]
    assert truth.person_boxes[0, 2] == pytest.approx(60.6)
    assert record.keypoints[0, 2, 2] == 2


def test_map_and_areas(truth: Truth) -> None:
    matrix = affine.compose(affine.scaling(2, 3, half_pixel=False), affine.translation(5, -7))
    moved = map_truth(truth, matrix, FIGURE.flip_index)
    assert np.allclose(moved.keypoints[..., :2], truth.keypoints[..., :2] * [2, 3] + [5, -7])
    assert np.allclose(moved.keypoints[..., 2], truth.keypoints[..., 2])
    assert np.allclose(moved.areas, 6 * truth.areas)
    assert np.allclose(moved.boxes, truth.boxes * [2, 3, 2, 3] + [5, -7, 5, -7])
    assert np.allclose(moved.person_boxes, truth.person_boxes * [2, 3, 2, 3] + [5, -7, 5, -7])


def test_mirrored_maps_exchange_left_and_right(truth: Truth) -> None:
    moved = map_truth(truth, affine.mirror(300), FIGURE.flip_index)
    expected = truth.keypoints[:, [0, 2, 1, 4, 3]] * [-1, 1, 1] + [299, 0, 0]
    assert np.allclose(moved.keypoints, expected)
    upside_down = map_truth(truth, affine.rotation(180, (0, 0)), FIGURE.flip_index)
    assert np.allclose(upside_down.keypoints, truth.keypoints * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_quarter_turns_turn_the_boxes(truth: Truth, degrees: int) -> None:
    matrix = affine.rotation(degrees, (100, 100))
    moved = map_truth(truth, matrix, FIGURE.flip_index)
    assert np.allclose(moved.boxes, affine.apply_to_boxes(matrix, truth.boxes), atol=1e-3)
    assert np.allclose(moved.person_boxes, affine.apply_to_boxes(matrix, truth.person_boxes), atol=1e-3)


@pytest.mark.parametrize("degrees", [20, -45, 130])
def test_after_a_rotation_boxes_of_assignment_follow_the_keypoints(truth: Truth, degrees: int) -> None:
    matrix = 2 * affine.rotation(degrees, (100, 100))
    moved = map_truth(truth, matrix, FIGURE.flip_index)
    points = moved.keypoints[..., :2]
    tight = np.concatenate([points.min(1) - 2, points.max(1) + 2], 1)  # padding of one pixel, scaled by two
    assert np.allclose(moved.person_boxes, tight, atol=1e-3)
    assert np.allclose(moved.boxes, affine.apply_to_boxes(matrix, truth.boxes), atol=1e-3)
    loose = affine.apply_to_boxes(matrix, truth.person_boxes)
    assert (loose[:, :2] < moved.person_boxes[:, :2] - 1).any()


def test_without_labelled_keypoints_the_rotated_box_is_the_hull() -> None:
    truth = Truth(
        np.zeros((1, 5, 3), np.float32),
        regions((1, 2, 3, 4)),
        np.ones(1, np.float32),
        regions(),
        regions((1, 2, 3, 4)),
    )
    matrix = affine.rotation(30, (0, 0))
    moved = map_truth(truth, matrix, FIGURE.flip_index)
    assert np.allclose(moved.person_boxes, affine.apply_to_boxes(matrix, truth.person_boxes))


def test_clip(truth: Truth) -> None:
    clipped = clip_truth(truth, (100, 160))
    expected = [(2 if x < 159.5 and y < 99.5 else 0) for x, y, _ in truth.keypoints.reshape(-1, 3)]
    assert clipped.keypoints[..., 2].reshape(-1).tolist() == expected
    assert 0 in expected
    assert clipped.person_boxes.tolist() == [[19, 29, 61, 100], [149, 59, 160, 100]]
    assert clipped.areas.tolist() == truth.areas.tolist()
    assert truth.labelled.tolist() == [5, 5]


def test_drop_gone_keeps_people_without_visible_keypoints(truth: Truth) -> None:
    # the left hand of the second figure is at x = 150, the box begins at 149
    dropped = drop_gone(clip_truth(truth, (200, 149)))
    assert len(dropped) == 1
    kept = drop_gone(clip_truth(truth, (200, 150)))
    assert kept.labelled.tolist() == [5, 0]


def test_settle_ignores_who_has_lost_too_much(truth: Truth) -> None:
    clipped = clip_truth(truth, (200, 159))
    assert clipped.labelled.tolist() == [5, 1]
    settled = settle(clipped, truth.labelled, min_visible=2)
    assert len(settled) == 1
    assert settled.ignore.tolist() == [clipped.boxes[1].tolist()]
    assert len(settle(clipped, truth.labelled, min_visible=1)) == 2
    # a hand's disc begins before the box of assignment
    rim = clip_truth(truth, (200, 145))
    assert settle(rim, truth.labelled, 1).ignore.tolist() == [[138, 48, 145, 172]]
    assert len(settle(clip_truth(truth, (200, 130)), truth.labelled, 1).ignore) == 0


def test_settle_leaves_people_who_had_few_keypoints_from_the_start(truth: Truth) -> None:
    sparse = truth.keypoints.copy()
    sparse[:, 1:, 2] = 0
    few = Truth(sparse, truth.boxes, truth.areas, truth.ignore, truth.person_boxes)
    assert len(settle(few, few.labelled, min_visible=3)) == 2


def test_cover_cuts_boxes_to_what_is_seen() -> None:
    truth = figures((100, 100), [(20, 20, 60)]).truth
    truth = Truth(
        truth.keypoints, truth.boxes, truth.areas, regions((10, 10, 90, 20), (60, 60, 70, 70)), truth.person_boxes
    )
    covered = np.zeros((100, 100), bool)
    covered[:50] = True
    rest = cover_truth(truth, covered)
    x1, _, x2, y2 = truth.boxes[0]
    assert rest.boxes.tolist() == [[x1, 50, x2, y2]]
    assert rest.keypoints[0, :, 2].tolist() == [0, 0, 0, 2, 2]
    assert rest.ignore.tolist() == [[0, 0, 0, 0], [60, 60, 70, 70]]
    settled = settle(rest, truth.labelled, min_visible=2)
    assert settled.ignore.tolist() == [[60, 60, 70, 70]]
    assert len(settled) == 1
    hole = np.zeros((100, 100), bool)
    hole[40:60, 30:40] = True
    assert cover_truth(truth, hole).boxes.tolist() == truth.boxes.tolist()


def test_whoever_is_covered_wholly_is_gone(truth: Truth) -> None:
    covered = np.ones((200, 300), bool)
    settled = settle(cover_truth(truth, covered), truth.labelled, 3)
    assert len(settled) == 0
    assert settled.ignore.shape == (0, 4)


def test_nobody() -> None:
    nobody = Truth.empty(5)
    for result in (
        map_truth(nobody, affine.rotation(20, (3, 4)), FIGURE.flip_index),
        drop_gone(clip_truth(nobody, (3, 3))),
        settle(cover_truth(nobody, np.ones((3, 3), bool)), nobody.labelled, 1),
        join([nobody, nobody]),
    ):
        assert len(result) == 0
        assert result.keypoints.shape == (0, 5, 3)
        assert result.ignore.shape == (0, 4)
        assert len(result.persons()) == 0


def test_persons_carry_the_box_of_assignment(truth: Truth) -> None:
    persons = truth.persons()
    assert persons.boxes.tolist() == truth.person_boxes.tolist()
    assert persons.keypoints.tolist() == truth.keypoints.tolist()


def test_a_picture_of_another_size_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    assert read_sample(Record.without_people(path, 0, (8, 6), 5), RULE).size == (8, 6)
    stored = read_sample(Record.without_people(path, 0, (6, 8), 5), RULE)
    assert np.array_equal(stored.image, pixels)
    with pytest.raises(ImageError, match=r"a\.png has 8x6 pixels, its annotation says 9x6"):
        read_sample(Record.without_people(path, 0, (6, 9), 5), RULE)
