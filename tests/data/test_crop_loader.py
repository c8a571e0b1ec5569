"""Training batches of single persons."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marked import FIGURE, figures, nearest_colour, write_set

from poise.data.config import AugmentConfig, CropConfig, DataConfig, SourceConfig
from poise.data.crop_people import PersonCrops, shares
from poise.data.loader import TrainLoader, build_train_loader, read_source
from poise.data.material import Source
from poise.data.views import Batch
from poise.skeletons import COCO17, CROWDPOSE14, LSP14, MPII16, lower_body
from poise.types import ViewSpec

SPEC = ViewSpec(kind="crop", size=(96, 64), half_pixel=False)
UPPER = ("head", "left_hand", "right_hand")
CALM = CropConfig(half_body_p=0.0, scale=(1.0, 1.0), shift_p=0.0, rotation_p=0.0, flip_p=0.0)
WILD = CropConfig(
    half_body_keypoints=3, upper=UPPER, upper_keypoints=2, lower_keypoints=2, rotation_p=1.0, recolour_p=0.5,
    erase_p=0.5, shift_p=1.0, shift=0.3,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crops")
    many = [figures((120, 200), [(10, 10, 60), (80, 30, 64), (140, 15, 80)]), figures((90, 90), [(20, 10, 64)])]
    write_set(path / "many", [*many, figures((50, 60), [])])
    write_set(path / "few", [figures((100 + 9 * i, 80), [(15, 10, 64)]) for i in range(2)])
    return path


def settings(folder: Path, crop: CropConfig = WILD, weights: tuple[float, float] = (1, 1), **more: Any) -> DataConfig:
    sources = tuple(
        SourceConfig(annotations=str(folder / n / "truth.json"), images=str(folder / n), weight=w)
        for n, w in zip(("many", "few"), weights, strict=True)
    )
    values = {"pipeline": "crop", "crop": crop, "batch": 2, "workers": 0} | more
    return DataConfig.parse({"sources": [s.model_dump() for s in sources], **values})


def loader(folder: Path, seed: int = 0, **more: Any) -> TrainLoader:
    return build_train_loader(settings(folder, **more), SPEC, FIGURE, seed)


def same(a: Batch, b: Batch) -> bool:
    truth = all(
        torch.equal(getattr(p, n), getattr(q, n))
        for p, q in zip(a.persons, b.persons, strict=True)
        for n in ("keypoints", "boxes", "areas")
    )
    return truth and torch.equal(a.images, b.images)


def test_a_batch_shows_one_person_a_view(folder: Path) -> None:
    batches = loader(folder)
    assert batches.steps_per_epoch == 3
    for batch in islice(batches, 6):
        assert batch.images.shape == (2, 3, 96, 64)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert [len(p) for p in batch.persons] == [1, 1]
        assert [v.size for v in batch.views] == [(96, 64)] * 2
        assert all(p.keypoints.shape == (1, len(FIGURE), 3) for p in batch.persons)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1)])
def test_batches_depend_on_seed_and_place_alone(folder: Path, weights: tuple[float, float]) -> None:
    """Neither workers, nor the cache, nor where a run began change a number."""
    alone = list(islice(loader(folder, weights=weights), 7))
    for workers, cache in ((1, 0), (2, 1)):
        others = loader(folder, weights=weights, workers=workers, cache_mb=cache)
        assert all(same(a, b) for a, b in zip(alone, islice(others, 7), strict=True))
    resumed = loader(folder, weights=weights, cache_mb=1)
    resumed.set_state(1, 1)
    assert all(same(a, b) for a, b in zip(alone[4:], islice(resumed, 3), strict=True))
    assert not same(alone[0], next(iter(loader(folder, seed=1, weights=weights))))


def crops(folder: Path, crop: CropConfig = CALM, weights: tuple[float, float] = (1, 1), cache: int = 0) -> PersonCrops:
    config = settings(folder, crop, weights)
    sources = [Source(read_source(s, FIGURE), s.weight) for s in config.sources]
    return PersonCrops(sources, crop, config.augment, SPEC, 0, cache)


def test_everybody_comes_once_before_anybody_comes_again(folder: Path) -> None:
    drawer = crops(folder)
    assert len(drawer) == 6
    for length in (6, 4):  # an epoch may be shorter than a turn
        seen = [drawer.person(i // length, i % length, length) for i in range(24)]
        for source in ("many", "few"):
            drawn = [(p.record.path, p.number) for p in seen if p.record.path.parent.name == source]
            count = len(set(drawn))
            turns = [drawn[i : i + count] for i in range(0, len(drawn) - count + 1, count)]
            assert len(drawn) == 12
            assert all(len(set(turn)) == count for turn in turns)
        assert len({tuple(str(p.record.path) + str(p.number) for p in seen[i : i + 6]) for i in range(0, 24, 6)}) > 1


def test_weights_share_an_epoch(folder: Path) -> None:
    drawer = crops(folder, weights=(1, 3))
    for epoch in range(3):
        seen = [drawer.person(epoch, i, 20).record.path.parent.name for i in range(20)]
        assert (seen.count("many"), seen.count("few")) == (5, 15)
        assert seen != sorted(seen)
    many = [p for i in range(40) if (p := drawer.person(i // 20, i % 20, 20)).record.path.parent.name == "many"]
    assert len({(p.record.path, p.number) for p in many[:4]}) == 4


def test_shares_add_up() -> None:
    assert shares((1.0,), 7) == (7,)
    assert shares((0.45, 0.55), 20) == (9, 11)
    assert shares((1.0, 1.0, 1.0), 10) == (4, 3, 3)
    assert shares((0.1, 0.9), 1) == (0, 1)


@pytest.mark.parametrize("crop", [CALM, CALM.model_copy(update={"rotation_p": 1.0, "rotation": 180.0, "flip_p": 0.5})])
def test_keypoints_follow_the_pixels(folder: Path, crop: CropConfig) -> None:
    drawer = crops(folder, crop)
    for i in range(18):
        person = drawer.person(i // 6, i % 6, 6)
        sample = drawer.sample(person, np.random.default_rng(i))
        points = sample.truth.keypoints
        inside = (points[..., 0] > 1) & (points[..., 0] < 62) & (points[..., 1] > 1) & (points[..., 1] < 94)
        assert inside.sum() >= 3
        assert nearest_colour(sample.image, points)[inside].all()


@pytest.mark.parametrize("budget", [1, 40_000, 10**7])
def test_what_is_kept_changes_no_pixel(folder: Path, budget: int) -> None:
    plain, cached = crops(folder, WILD), crops(folder, WILD, cache=budget)
    reads: list[Path] = []
    read = cached._cutouts._read
    cached._cutouts._read = lambda record: (reads.append(record.path), read(record))[1]
    for i in range(60):
        person = plain.person(i // 6, i % 6, 6)
        a = plain.sample(person, np.random.default_rng(i))
        b = cached.sample(person, np.random.default_rng(i))
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.truth.keypoints, b.truth.keypoints)
    kept = sum(c.pixels.nbytes for c in cached._cutouts._kept.values())
    assert kept <= budget
    assert (kept > 0) == (budget > 1)
    assert (len(reads) < 30) == (budget == 10**7)


def test_who_is_no_sample(folder: Path) -> None:
    with pytest.raises(ValueError, match="has no person with 6 or more labelled keypoints"):
        crops(folder, CALM.model_copy(update={"min_keypoints": 6}))


def test_names_of_the_upper_half_belong_to_the_skeleton(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"crop\.upper names 'nose', which is no keypoint"):
        crops(folder, CropConfig(upper=("head", "nose")))


def test_halves_are_read_off_the_names_or_there_are_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert lower_body(FIGURE.keypoints) == (3, 4)
    for skeleton in (COCO17, CROWDPOSE14, MPII16, LSP14):
        lower = {
            skeleton.keypoints[i].removeprefix("left_").removeprefix("right_") for i in lower_body(skeleton.keypoints)
        }
        assert lower - {"pelvis"} == {"hip", "knee", "ankle"}
    drawer = crops(folder, CropConfig(half_body_p=1.0))
    assert drawer._upper.tolist() == [True] * 3 + [False] * 2
    assert drawer._config.half_body_p == 1.0
    nameless = replace(FIGURE, keypoints=tuple("abcde"))
    source = read_source(settings(folder).sources[0])
    with caplog.at_level("INFO"):
        drawer = PersonCrops(
            [Source(replace(source, skeleton=nameless))], CropConfig(half_body_p=1.0), AugmentConfig(), SPEC, 0
        )
    assert drawer._config.half_body_p == 0.0
    assert "no half bodies in training" in caplog.text


def test_pipeline_and_view_fit_together(folder: Path) -> None:
    with pytest.raises(ValueError, match="'crop', but the model wants to see 'whole'"):
        build_train_loader(settings(folder), ViewSpec(), FIGURE, 0)
    with pytest.raises(ValueError, match="'compose', but the model wants to see 'crop'"):
        build_train_loader(settings(folder, pipeline="compose"), SPEC, FIGURE, 0)


def test_mmpose_clips_boxes_and_knows_two_visibilities(folder: Path) -> None:
    config = CALM.model_copy(update={"clip_boxes": True, "binary_visibility": True})
    for drawer in (crops(folder, config), crops(folder)):
        everybody = [drawer.person(0, i, 6) for i in range(6)]
        clipped = all((p.box[2:] <= np.array(p.record.size[::-1]) - 1).all() for p in everybody)
        assert clipped
        assert {float(p.keypoints[:, 2].max()) for p in everybody} == {1.0 if drawer._config.binary_visibility else 2.0}
