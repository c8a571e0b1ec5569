"""SMPR's pipeline (SMPR spec 9); that its numbers are the reference's is shown by the golden cases."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from marked import FIGURE, figures, nearest_colour, write_set

from poise.data.config import DataConfig, PaperConfig, SourceConfig
from poise.data.loader import Key, TrainDataset, build_train_loader, read_source
from poise.data.material import Source
from poise.data.paper_smpr import clipped_crop, resize_flip_clip, resize_to_fit, usable
from poise.data.samples import Sample, Truth
from poise.types import PersonBoxRule, ViewSpec

SPEC = ViewSpec(long_side=96, short_side=64, half_pixel=False, person_box=PersonBoxRule(pad_low=0, pad_high=0, grow=-1))


def test_truth_lies_on_its_pixels_or_on_the_border() -> None:
    sample = figures((240, 400), [(30, 30, 120), (200, 60, 150), (330, 20, 90)])
    config = PaperConfig(short_sides=(150, 500), long_side=700, crop=160)
    inside = outside = 0
    for seed in range(60):
        result = resize_flip_clip(sample, config, FIGURE.flip_index, np.random.default_rng(seed))
        assert max(result.size) <= 160
        points = result.truth.keypoints
        assert (points[..., 2] == 2).all()
        limit = np.array([result.size[1] - 1, result.size[0] - 1])
        assert ((points[..., :2] >= 0) & (points[..., :2] <= limit)).all()
        border = ((points[..., :2] < 2) | (points[..., :2] > limit - 2)).any(-1)
        assert nearest_colour(result.image, points)[~border].all()
        inside += int((~border).sum())
        outside += int(border.sum())
    assert inside > 100
    assert outside > 100


def test_crops_lie_anywhere() -> None:
    sample = figures((64, 200), [(20, 10, 40)])
    config = PaperConfig(short_sides=(64, 64), long_side=400, crop=64, flip_p=0.0)
    found = [resize_flip_clip(sample, config, FIGURE.flip_index, np.random.default_rng(s)) for s in range(300)]
    assert any(len(r.truth) == 0 for r in found)
    lefts = {float(20 + 20 - r.truth.keypoints[0, 0, 0]) for r in found if len(r.truth)}
    assert len(lefts) > 20


def test_short_sides_are_drawn_and_the_long_side_is_limited() -> None:
    sample = figures((60, 90), [(20, 10, 40)])
    config = PaperConfig(short_sides=(60, 64), long_side=1000, crop=800)
    sizes = {resize_flip_clip(sample, config, FIGURE.flip_index, np.random.default_rng(s)).size for s in range(60)}
    assert {height for height, _ in sizes} == {60, 61, 62, 63, 64}
    assert resize_to_fit(sample, 45, 64).size == (30, 45)


def test_areas_follow_what_is_left_of_the_extent() -> None:
    sample = figures((100, 100), [(20, 20, 60)])
    points = sample.truth.keypoints[0]
    assert points[:, 0].tolist() == [35, 20, 50, 26, 44]
    half = clipped_crop(sample, 0, 0, (100, 36))
    assert half.truth.areas[0] == pytest.approx(sample.truth.areas[0] * 15 / 30)
    np.testing.assert_array_equal(half.truth.keypoints[0, :, 0], [35, 20, 35, 26, 35])
    assert clipped_crop(sample, 0, 0, (100, 100)).truth.areas[0] == sample.truth.areas[0]


def test_who_is_outside_is_dropped() -> None:
    sample = figures((100, 300), [(20, 20, 60), (200, 20, 60)])
    left = clipped_crop(sample, 0, 0, (100, 100))
    assert len(left.truth) == 1
    np.testing.assert_array_equal(left.truth.keypoints[0], sample.truth.keypoints[0])
    assert len(clipped_crop(sample, 110, 0, (100, 60)).truth) == 0


def test_unusable_persons() -> None:
    truth = figures((100, 300), [(20, 20, 60), (100, 20, 60), (200, 20, 60)]).truth
    truth.keypoints[0, 1:, 2] = 0
    truth.areas[1] = 0
    assert usable(truth).keypoints.tolist() == truth.keypoints[2:].tolist()
    assert len(usable(Truth.empty(5))) == 0
    nobody = resize_flip_clip(
        Sample(np.zeros((50, 60, 3), np.uint8), Truth.empty(5)), PaperConfig(), (), np.random.default_rng(0)
    )
    assert len(nobody.truth) == 0


def test_pictures_that_lost_everybody_are_replaced_by_some_of_their_orientation(tmp_path: Path) -> None:
    wide = [figures((60, 400), [(10 + 40 * i, 5, 40)]) for i in range(3)]
    tall = [figures((400, 60), [(10, 20 + 40 * i, 40)]) for i in range(2)]
    write_set(tmp_path / "people", [*wide, *tall])
    source = SourceConfig(annotations=str(tmp_path / "people/truth.json"), images=str(tmp_path / "people"))
    paper = PaperConfig(short_sides=(60, 60), long_side=400, crop=100)
    config = DataConfig(sources=(source,), pipeline="paper_smpr", paper=paper, batch=5, workers=0)
    shapes = set()
    for batch in islice(build_train_loader(config, SPEC, FIGURE, 0), 12):
        assert all(len(p) for p in batch.persons)
        shapes |= {v.size for v in batch.views}
        assert sum(v.size[1] > v.size[0] for v in batch.views) == 3
    assert shapes == {(60, 100), (100, 60)}


def test_a_set_in_which_nobody_can_be_shown_does_not_hang(tmp_path: Path) -> None:
    write_set(tmp_path / "grounds", [figures((60, 70), []), figures((70, 60), [])])
    source = SourceConfig(annotations=str(tmp_path / "grounds/truth.json"), images=str(tmp_path / "grounds"))
    config = DataConfig(sources=(source,), pipeline="paper_smpr", batch=2, workers=0)
    dataset = TrainDataset(config, [Source(read_source(source, FIGURE))], [], SPEC, 0)
    assert [len(dataset.sample(Key(0, position, 0)).truth) for position in range(2)] == [0, 0]
