import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from marked import FIGURE, figures, write_set

from poise.data.config import DataConfig, SourceConfig
from poise.data.images import ImageError
from poise.data.loader import (
    BatchPlan,
    DataWorkerError,
    Drawn,
    Failure,
    Key,
    TrainDataset,
    TrainLoader,
    build_train_loader,
    fill_colour,
    read_source,
)
from poise.data.material import Source
from poise.data.views import Batch
from poise.types import ViewSpec

SPEC = ViewSpec(long_side=64, short_side=None)
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set")
    write_set(path / "people", [figures((60 + 7 * i, 90), [(10, 10, 40 + 5 * i)]) for i in range(5)])
    write_set(path / "grounds", [figures((50, 60), [])])
    return path


def settings(folder: Path, **more: Any) -> DataConfig:
    source = SourceConfig(annotations=str(folder / "people/truth.json"), images=str(folder / "people"), name="people")
    values: dict[str, Any] = {"sizes": (64, 96), "batch": 2, "workers": 0, "samples_per_epoch": 7}
    values["negatives"] = (str(folder / "grounds"),)
    return DataConfig(sources=(source,), **(values | more))


def loader(folder: Path, seed: int = 0, **more: Any) -> TrainLoader:
    return build_train_loader(settings(folder, **more), SPEC, FIGURE, seed)


def same(a: Batch, b: Batch) -> bool:
    truth = all(
        torch.equal(getattr(p, name), getattr(q, name))
        for p, q in zip(a.persons, b.persons, strict=True)
        for name in ("keypoints", "boxes", "areas", "ignore")
    )
    return truth and torch.equal(a.images, b.images) and [v.image_id for v in a.views] == [v.image_id for v in b.views]


@pytest.mark.parametrize("pipeline", ["compose", "paper", "paper_smpr"])
def test_batches_do_not_depend_on_workers(folder: Path, pipeline: str) -> None:
    more: dict[str, Any] = {"pipeline": pipeline, "paper": {"short_sides": (40, 80), "crop": 64}}
    alone = list(islice(loader(folder, **more), 5))
    for workers in (1, 2):
        for a, b in zip(alone, islice(loader(folder, workers=workers, cache_mb=1, **more), 5), strict=True):
            assert same(a, b)
            for view, image in zip(a.views, b.images, strict=True):
                assert torch.equal(view.image, image[:, : view.size[0], : view.size[1]])
            assert b.images.is_contiguous(memory_format=torch.channels_last)
    assert not same(alone[0], next(iter(loader(folder, seed=1, **more))))


def test_a_resumed_run_goes_on_with_the_next_batch(folder: Path) -> None:
    whole = loader(folder)
    assert whole.steps_per_epoch == 3
    states, batches = [], []
    for batch in islice(whole, 8):
        batches.append(batch)
        states.append(whole.state)
    assert states == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    resumed = loader(folder, workers=1)
    resumed.set_state(*states[3])
    for a, b in zip(batches[4:], islice(resumed, 4), strict=True):
        assert same(a, b)
    assert not same(batches[0], batches[3])
    again = islice(whole, 1)  # a new iteration goes on where the last one stood
    assert whole.state == (2, 2)
    assert len(next(again).views) == 2


def test_the_global_generators_are_left_alone(folder: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    next(iter(loader(folder, workers=1)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_many_pictures_need_few_open_files(folder: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        batches = loader(folder, workers=1, batch=100, samples_per_epoch=1000, sizes=(32,))
        assert [len(batch.persons) for batch in islice(batches, 3)] == [100] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_states_that_do_not_exist(folder: Path) -> None:
    for state in ((-1, 0), (0, 3), (0, -1)):
        with pytest.raises(ValueError, match="an epoch has 3 batches"):
            loader(folder).set_state(*state)


def test_one_size_a_batch_all_sizes_in_time(folder: Path) -> None:
    sizes = {tuple(b.images.shape[2:]) for b in islice(loader(folder), 12)}
    assert sizes == {(64, 64), (96, 96)}


def test_processes_share_a_batch_without_overlap(folder: Path) -> None:
    config = settings(folder, batch=3)
    one = BatchPlan(config, 12, seed=0)
    two = [BatchPlan(config, 12, seed=0, rank=rank, world=2) for rank in range(2)]
    assert (one.steps_per_epoch, two[0].steps_per_epoch) == (4, 2)
    for batch in range(2):
        keys = [plan.keys(1, batch) for plan in two]
        positions = [key.position for part in keys for key in part]
        assert positions == list(range(6 * batch, 6 * batch + 6))
        assert len({key.size for part in keys for key in part}) == 1


def test_an_epoch_must_hold_a_batch(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"7 pictures is smaller than a batch of 8"):
        loader(folder, batch=8)


def test_the_paper_pipeline_goes_through_all_pictures(folder: Path) -> None:
    source = Source(read_source(settings(folder).sources[0]))
    read: list[str] = []
    config = settings(folder, pipeline="paper", samples_per_epoch=None, batch=1)
    dataset = TrainDataset(config, [source], [], SPEC, seed=0)
    dataset._material._read = lambda record: read.append(record.path.name) or np.zeros((*record.size, 3), np.uint8)
    for epoch in range(3):
        for position in range(len(dataset)):
            dataset[Key(epoch, position, 0)]
    names = {f"{i}.png" for i in range(5)}
    assert [set(read[i : i + 5]) for i in (0, 5, 10)] == [names] * 3
    assert read[:5] != read[5:10]


def test_a_bad_picture_is_one_clear_error(tmp_path: Path) -> None:
    write_set(tmp_path / "people", [figures((60, 60), [(10, 10, 40)])])
    write_set(tmp_path / "grounds", [figures((60, 60), [])])
    (tmp_path / "people/0.png").write_bytes(b"broken")
    for workers in (0, 1):
        with pytest.raises(ImageError, match=r"0\.png is not a picture") as caught:
            list(islice(loader(tmp_path, workers=workers), 3))
        assert "\n" not in str(caught.value)
    dataset = loader(tmp_path).dataset
    assert isinstance(dataset[Key(0, 0, 64)], Failure)


class Dying(TrainDataset):
    def __getitem__(self, key: Key) -> Drawn | Failure:
        if key.epoch > 0:
            os._exit(1)
        return super().__getitem__(key)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a batch was on its way
def test_a_dead_worker_is_reported(folder: Path) -> None:
    config = settings(folder, workers=1)
    dataset = Dying(config, [Source(read_source(config.sources[0]))], [], SPEC, 0)
    batches = iter(TrainLoader(dataset, BatchPlan(config, 7, 0), 1))
    with pytest.raises(DataWorkerError, match=r"died before batch \d of epoch \d"):
        list(islice(batches, 5))


def test_missing_data_is_named(folder: Path) -> None:
    config = settings(folder, negatives=(str(folder / "nowhere"),))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_train_loader(config, SPEC, FIGURE, 0)


def test_empty_sources_are_refused(folder: Path) -> None:
    source = settings(folder).sources[0].model_copy(update={"min_keypoints": 99})
    config = settings(folder).model_copy(update={"sources": (source,)})
    with pytest.raises(ValueError, match="'people' has no picture"):
        build_train_loader(config, SPEC, FIGURE, 0)


def test_a_set_without_anybody_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "people", [figures((60, 60), [])])
    write_set(tmp_path / "grounds", [figures((60, 60), [])])
    with pytest.raises(ValueError, match=r"nobody in .*truth\.json has a labelled keypoint"):
        loader(tmp_path)


@pytest.mark.parametrize("pipeline", ["compose", "paper", "paper_smpr"])
def test_the_files_of_a_training_picture(folder: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were read when it was made, whichever process made it."""
    made = loader(folder, pipeline=pipeline, batch=1)
    read: list[str] = []
    cache = made.dataset._cache
    monkeypatch.setattr(made.dataset._material, "_read", lambda record: read.append(str(record.path)) or cache(record))
    batches = iter(made)
    for number in range(9):
        read.clear()
        (view,) = next(batches).views
        expected = list(dict.fromkeys(read))
        monkeypatch.setattr(made.dataset._material, "_read", cache)
        assert made.names(number // 7, [view.image_id]) == expected
        monkeypatch.setattr(
            made.dataset._material, "_read", lambda record: read.append(str(record.path)) or cache(record)
        )
        assert expected


def test_the_files_of_a_broken_picture(tmp_path: Path) -> None:
    write_set(tmp_path / "people", [figures((60, 60), [(10, 10, 40)])])
    write_set(tmp_path / "grounds", [figures((60, 60), [])])
    made = loader(tmp_path, pipeline="paper")
    (tmp_path / "people/0.png").write_bytes(b"broken")
    assert made.names(0, [0, 1]) == [str(tmp_path / "people/0.png")]


def test_fill_colour_normalises_to_nothing() -> None:
    assert fill_colour(ViewSpec()) == (124, 116, 104)
    caffe = ViewSpec(mean=(102.98, 115.95, 122.77), std=(1, 1, 1), value_range=1.0, channels="bgr")
    assert fill_colour(caffe) == (123, 116, 103)
    assert fill_colour(ViewSpec(mean=(0, -3, 9))) == (0, 0, 255)


def test_bad_sizes_are_refused() -> None:
    source = {"annotations": "a", "images": "b"}
    with pytest.raises(ValueError, match="16 must lie in"):
        DataConfig.parse({"sources": [source], "sizes": [16]})
    with pytest.raises(ValueError, match="sources"):
        DataConfig.parse({"sources": []})
    parsed = DataConfig.parse({"sources": [source]})
    assert DataConfig.parse(parsed.model_dump(mode="json")) == parsed
