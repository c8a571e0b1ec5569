"""PCK of everybody, whose pose is the one in the best box: against counting by hand."""

import numpy as np
import pytest

from coco_oracle import perturbed
from poise.evaluate.coco import evaluate_results
from poise.evaluate.pck import box_pck, poses_by_boxes
from poise.evaluate.summary import details
from poise.skeletons import COCO17, Skeleton

LINE = Skeleton("line", ("a", "b"), (), (), (0.1, 0.1))
SIDE = 100
"""Of everybody's box: PCK@0.1 allows 10 px, PCK@0.2 allows 20."""


def person(x, image=1, seen=(2, 2), **more):
    """Two keypoints in a box of 100 x 50 px at x."""
    points = [x + 10, 20, seen[0], x + 90, 30, seen[1]]
    return {"image_id": image, "keypoints": points, "bbox": [x, 0, SIDE, 50], "area": 2000, **more}


def pose(x, off=(0, 0), image=1, score=0.5, box=True):
    """The pose of a person at x whose two keypoints are off to the right."""
    points = [x + 10 + off[0], 20, 1, x + 90 + off[1], 30, 1]
    return {"image_id": image, "keypoints": points, "score": score} | ({"bbox": [x, 0, SIDE, 50]} if box else {})


def measured(people, poses, pictures=2):
    truth = {"images": [{"id": i} for i in range(1, pictures + 1)], "annotations": people}
    return evaluate_results(truth, poses, LINE)


def numbers(*arguments):
    return tuple(box_pck(measured(*arguments)).numbers.values())


def test_keypoints_within_a_share_of_the_longer_side():
    people = [person(0), person(300), person(0, image=2)]
    assert numbers(people, [pose(0), pose(300), pose(0, image=2)]) == (1, 1)
    moved = [pose(0, (10, 10.5)), pose(300, (20, 20.5)), pose(0, (0, 50), image=2)]
    assert numbers(people, moved) == pytest.approx((2 / 6, 4 / 6))


def test_unlabelled_keypoints_and_crowds_do_not_count():
    people = [person(0, seen=(2, 0)), person(300, iscrowd=1), person(600, seen=(0, 0), num_keypoints=0)]
    pck = box_pck(measured(people, [pose(0, (5, 999))]))
    assert pck.numbers == {"PCK@0.1": 1, "PCK@0.2": 1}
    assert (pck.people, pck.found, pck.labelled.tolist(), pck.right.tolist()) == (1, 1, [1, 0], [[1, 0], [1, 0]])


def test_who_is_not_found_is_wrong():
    people = [person(0), person(300, image=2)]
    assert numbers(people, [pose(0)]) == (0.5, 0.5)
    assert numbers(people, []) == (0, 0)
    assert numbers([], [pose(0)]) == (0, 0)
    assert numbers([], [], 0) == (0, 0)
    assert numbers(people, [pose(0), pose(0, image=2)]) == (0.5, 0.5), "boxes that do not overlap are of others"


def test_boxes_alone_decide_whose_pose_it_is():
    """A bad pose in the person's own box comes before a good one in a worse box, however sure that is."""
    people = [person(0)]
    bad, good = pose(0, (90, 90), score=0.1), pose(0, score=0.9) | {"bbox": [30, 0, SIDE, 50]}
    assert numbers(people, [good, bad]) == (0, 0)
    assert measured(people, [good, bad]).numbers["AP50"] == pytest.approx(1)
    neighbours = [person(0), person(40)]
    swapped = [pose(0) | {"bbox": [40, 0, SIDE, 50]}, pose(40) | {"bbox": [0, 0, SIDE, 50]}]
    assert numbers(neighbours, swapped) == (0, 0)


def test_nobody_gets_two_poses_and_no_pose_two_people():
    people = [person(0), person(20)]
    evaluation = measured(people, [pose(2), pose(1, score=0.4)])
    # the second pose fits the first person best, the first one is left for the other
    assert poses_by_boxes(evaluation.truth, evaluation.found, evaluation.pairs).tolist() == [1, 0]
    alone = measured(people, [pose(2)])
    assert poses_by_boxes(alone.truth, alone.found, alone.pairs).tolist() == [0, -1]
    equal = measured([person(0)], [pose(0, score=0.3), pose(0, score=0.8)])
    assert poses_by_boxes(equal.truth, equal.found, equal.pairs).tolist() == [0], "the higher score is first"


def test_without_boxes_the_extent_of_the_keypoints_counts():
    assert numbers([person(0), person(300)], [pose(0, box=False), pose(300, box=False)]) == (1, 1)


def test_intervals_hold_the_value_and_the_ten_numbers_stay():
    rng = np.random.default_rng(0)
    people, poses = [], []
    for image in range(1, 31):
        people.append(person(0, image))
        poses.append(pose(0, rng.uniform(0, 40, 2).tolist(), image))
    evaluation = measured(people, poses, 30)
    table = details(evaluation, samples=200)["pck"]
    assert (table["people"], table["found"]) == (30, 30)
    for name in ("PCK@0.1", "PCK@0.2"):
        low, high = table["intervals"][name]
        assert 0 < low < table[name] < high < 1
    assert details(evaluation)["pck"] == {key: value for key, value in table.items() if key != "intervals"}
    assert "PCK@0.1" not in evaluation.numbers
    with pytest.raises(ValueError, match="1 samples give no interval"):
        details(evaluation, samples=1)


def test_against_counting():
    rng = np.random.default_rng(3)
    annotations = []
    for image in range(1, 16):
        for _ in range(int(rng.integers(0, 4))):
            points = rng.uniform(0, 400, 2) + rng.uniform(0, 120, (17, 2))
            triples = np.column_stack([points, rng.integers(0, 3, 17)])
            box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
            annotations.append({"image_id": image, "keypoints": triples.reshape(-1).tolist(), "bbox": box, "area": 9e3})
    truth = {"images": [{"id": i} for i in range(1, 16)], "annotations": annotations}
    results = perturbed(truth, 5, jitter=0.2, decimals=9, false_positives=0, crowded=0, boxes=True)
    evaluation = evaluate_results(truth, results, COCO17)
    pose_of = poses_by_boxes(evaluation.truth, evaluation.found, evaluation.pairs)
    right = labelled = 0
    for number, annotation in enumerate(annotations):
        points = np.reshape(annotation["keypoints"], (17, 3))
        labelled += (points[:, 2] > 0).sum()
        if pose_of[number] >= 0:
            result = results[evaluation.found.rows[pose_of[number]]]
            assert result["image_id"] == annotation["image_id"]
            gaps = np.linalg.norm(np.reshape(result["keypoints"], (17, 3))[:, :2] - points[:, :2], axis=1)
            right += ((gaps <= 0.1 * max(annotation["bbox"][2:])) & (points[:, 2] > 0)).sum()
    assert 0 < right < labelled
    assert box_pck(evaluation, (0.1,)).numbers == {"PCK@0.1": pytest.approx(right / labelled)}
