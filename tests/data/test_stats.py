import json
from pathlib import Path

import numpy as np
import pytest

from poise.data.records import PoseDataset, Record
from poise.data.stats import Spread, dataset_statistics, person_shares
from poise.data.stats_plot import plot_statistics
from poise.skeletons import COCO17, Skeleton

PAIR = Skeleton("pair", ("left_hand", "right_hand"), ((0, 1),), ((0, 1),), (0.05, 0.06))


def record(*people: tuple[int, int, float], size: tuple[int, int] = (60, 80), **more: float) -> Record:
    """People as (visibility of left, of right, area)."""
    n = len(people)
    points = np.array([[[1, 2, a], [3, 4, b]] for a, b, _ in people], np.float32).reshape(n, 2, 3)
    boxes = np.tile([10.0, 10, 50, 30], (n, 1))
    areas = np.array([area for *_, area in people])
    return Record(Path("x.png"), 0, size, points, boxes, areas, np.zeros((1, 4)), **more)


def test_counts() -> None:
    records = (record((2, 1, 100), (2, 0, 5000)), record((0, 2, 10000), size=(100, 50), crowd_index=0.5), record())
    found = dataset_statistics(PoseDataset("mine", PAIR, records))
    assert (found.name, found.skeleton, found.pictures, found.people, found.empty) == ("mine", "pair", 3, 3, 1)
    assert (found.small, found.medium, found.large, found.regions) == (1, 1, 1, 3)
    assert found.people_a_picture == (1, 1, 1)
    assert [(k.name, k.visible, k.occluded, k.unlabelled, k.labelled) for k in found.keypoints] == [
        ("left_hand", 2, 0, 1, 2), ("right_hand", 1, 1, 1, 2),
    ]  # fmt: skip
    assert found.widths == Spread(50, 65, 80, 80, 80)
    assert found.heights.high == 100
    assert found.person_sizes.middle == pytest.approx(np.sqrt(5000))
    assert found.labelled_a_person == Spread(1, 1, 1, 1.5, 2)
    assert found.crowd_index == Spread(0.5, 0.5, 0.5, 0.5, 0.5)
    assert person_shares(PoseDataset("mine", PAIR, records)) == pytest.approx([0.5, 0.5, 0.4])
    assert json.loads(json.dumps(found.to_dict()))["keypoints"][0]["name"] == "left_hand"


def test_nothing_to_count() -> None:
    found = dataset_statistics(PoseDataset("none", COCO17, ()))
    assert (found.pictures, found.people, found.people_a_picture, found.crowd_index) == (0, 0, (), None)
    assert len(found.keypoints) == len(COCO17)
    assert found.widths == Spread(0, 0, 0, 0, 0)


def test_the_plot_shows_the_shares() -> None:
    records = tuple(record((2, 1, 100), (2, 1, 100), (0, 0, 100), (0, 0, 100)) for _ in range(20))
    image = plot_statistics(PoseDataset("a name", PAIR, records))
    assert image.shape[1:] == (1200, 3)
    blue, orange = ((image == colour).all(-1) for colour in ((35, 120, 200), (250, 165, 60)))
    first_row, second_row = slice(105, 112), slice(131, 138)
    width = 1200 - 200 - 260
    assert blue[first_row].sum(1) == pytest.approx(np.full(7, width / 2), abs=2)
    assert orange[second_row].sum(1) == pytest.approx(np.full(7, width / 2), abs=2)
    assert not orange[first_row].any()


@pytest.mark.parametrize("records", [(), (record(),), tuple(record(*[(2, 2, 9)] * n) for n in range(40))])
def test_the_plot_of_anything(records: tuple[Record, ...]) -> None:
    assert plot_statistics(PoseDataset("Menschen ä", PAIR, records)).dtype == np.uint8
