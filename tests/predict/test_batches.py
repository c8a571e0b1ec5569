"""Views of many pictures in batches: nothing lost, nothing mixed up, little waits."""

import numpy as np
import pytest
import torch

from poise.predict.batches import padded_size, run_in_batches
from poise.skeletons import COCO17
from poise.types import Poses, View


def view(height, width, label):
    return View(torch.zeros(3, height, width), np.eye(2, 3), (height, width), (height, width), image_id=label)


def marked(label):
    """A result that tells which view it belongs to."""
    return Poses(np.zeros((1, 17, 2)), np.zeros((1, 17)), np.zeros((1, 4)), np.array([float(label)]), COCO17)


class Runner:
    def __init__(self):
        self.batches = []

    def __call__(self, views):
        assert len({padded_size(v, 32) for v in views}) == 1
        self.batches.append(len(views))
        return [marked(v.image_id) for v in views]


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("seed", range(4))
def test_every_view_runs_once_and_comes_back_in_its_place(seed, batch):
    rng = np.random.default_rng(seed)
    label = iter(range(10**6))
    pictures = [
        [view(int(rng.choice([16, 32, 64])), int(rng.choice([32, 40])), next(label)) for _ in range(rng.integers(0, 4))]
        for _ in range(40)
    ]
    run = Runner()
    found = [[int(p.scores[0]) for p in parts] for parts in run_in_batches(iter(pictures), run, batch, 32)]
    assert found == [[v.image_id for v in views] for views in pictures]
    assert sum(run.batches) == next(label)
    assert max(run.batches) <= batch


def test_batches_are_full_when_sizes_are_equal():
    run = Runner()
    list(run_in_batches(([view(32, 32, i)] for i in range(10)), run, 4, 32))
    assert run.batches == [4, 4, 2]


def test_a_rare_size_does_not_hold_up_the_stream():
    taken = []

    def pictures():
        for i in range(1000):
            taken.append(i)
            yield [view(64 if i == 0 else 32, 32, i)]

    stream = run_in_batches(pictures(), Runner(), 4, 32)
    assert int(next(stream)[0].scores[0]) == 0
    assert len(taken) <= 17


def test_few_views_wait():
    waiting = 0
    most = 0

    def pictures():
        nonlocal waiting, most
        for i in range(200):
            waiting += 3
            most = max(most, waiting)
            yield [view(32 * (1 + (i + j) % 7), 32, i) for j in range(3)]

    def run(views):
        nonlocal waiting
        waiting -= len(views)
        return [marked(v.image_id) for v in views]

    assert len(list(run_in_batches(pictures(), run, 4, 32))) == 200
    assert waiting == 0
    assert most <= 2 * 4 + 3


def test_no_picture():
    assert list(run_in_batches([], Runner(), 4, 32)) == []
