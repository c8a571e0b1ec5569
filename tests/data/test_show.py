from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from marked import FIGURE, figures, write_set

from poise.data.config import DataConfig
from poise.data.images import ImageError, image_size, read_image
from poise.data.records import PoseDataset
from poise.data.show import IGNORED, draw_truth, show_dataset, show_training
from poise.types import ViewSpec


@pytest.fixture
def dataset(tmp_path: Path) -> PoseDataset:
    samples = [figures((120, 160), [(20 * i, 10, 80)] if i else []) for i in range(4)]
    return write_set(tmp_path / "set", samples)


def test_truth_on_a_picture() -> None:
    sample = figures((120, 160), [(30, 20, 80)])
    truth = replace(sample.truth, ignore=np.array([[100, 10, 140, 50]], np.float32))
    before = sample.image.copy()
    drawn = draw_truth(sample.image, truth, FIGURE)
    assert (sample.image == before).all()
    changed = (drawn != before).any(-1)
    assert tuple(drawn[10, 120]) == IGNORED
    assert tuple(drawn[30, 120]) == IGNORED, "crossed out"
    assert changed[60, 44], "half-way from head to foot"
    x1, y1 = np.rint(truth.boxes[0, :2]).astype(int)
    assert tuple(drawn[y1, x1]) == (255, 255, 255)
    assert tuple(draw_truth(sample.image, truth, FIGURE, show_boxes=False)[y1, x1]) == (128, 128, 128)
    assert (draw_truth(sample.image, figures((120, 160), []).truth, FIGURE) == before).all()


def test_keypoints_without_a_label_are_not_drawn() -> None:
    sample = figures((120, 160), [(30, 20, 80)])
    points = sample.truth.keypoints.copy()
    points[..., 2] = 0
    nothing = draw_truth(sample.image, replace(sample.truth, keypoints=points), FIGURE, show_boxes=False)
    assert (nothing == sample.image).all()
    points[..., 2] = 1
    faint = draw_truth(sample.image, replace(sample.truth, keypoints=points), FIGURE, show_boxes=False)
    strong = draw_truth(sample.image, sample.truth, FIGURE, show_boxes=False)
    differences = [np.abs(d.astype(int) - sample.image).sum() for d in (faint, strong)]
    assert 0 < differences[0] < 0.8 * differences[1]


def test_pictures_of_a_set(dataset: PoseDataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    files = show_dataset(dataset, tmp_path / "out", progress=lambda *done: seen.append(done))
    assert [f.name for f in files] == [f"0000{i}_{i}.jpg" for i in range(4)]
    assert seen == [(i, 4) for i in range(1, 5)]
    for file, record in zip(files, dataset, strict=True):
        drawn = read_image(file).astype(int)
        original = read_image(record.path).astype(int)
        assert drawn.shape == original.shape
        assert (np.abs(drawn - original).max() > 60) == bool(len(record))
    assert len(show_dataset(dataset, tmp_path / "few", count=2)) == 2
    chosen = [[f.name for f in show_dataset(dataset, tmp_path / "r", count=2, seed=s)] for s in range(8)]
    assert chosen[0] == [f.name for f in show_dataset(dataset, tmp_path / "again", count=2, seed=0)]
    assert len({tuple(c) for c in chosen}) > 1
    assert show_dataset(PoseDataset("none", FIGURE, ()), tmp_path / "none") == []


def test_a_picture_that_cannot_be_shown(dataset: PoseDataset, tmp_path: Path) -> None:
    dataset[2].path.write_text("broken")
    with pytest.raises(ImageError, match=r"2\.png"):
        show_dataset(dataset, tmp_path / "out")


def test_training_pictures(dataset: PoseDataset, tmp_path: Path) -> None:
    source = {"annotations": "unused.json", "images": "unused"}
    config = DataConfig.parse({"sources": [source], "sizes": [96], "batch": 64})
    options = {"config": config, "spec": ViewSpec(stride=32), "count": 2}
    files = show_training(dataset, out=tmp_path / "out", **options)
    assert [f.name for f in files] == [f"0000{i}.jpg" for i in range(2)]
    assert {image_size(f) for f in files} == {(96, 96)}
    again = show_training(dataset, out=tmp_path / "again", **options)
    other = show_training(dataset, out=tmp_path / "other", seed=1, **options)
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in again] != [f.read_bytes() for f in other]
    with pytest.raises(ValueError, match="no picture to train on"):
        show_training(PoseDataset("none", FIGURE, ()), out=tmp_path / "none", **options)


def test_training_crops(dataset: PoseDataset, tmp_path: Path) -> None:
    source = {"annotations": "unused.json", "images": "unused"}
    config = DataConfig.parse({"sources": [source], "pipeline": "crop", "crop": {"half_body_p": 0}})
    files = show_training(dataset, config, ViewSpec(kind="crop", size=(64, 48)), tmp_path / "out", count=2)
    assert {image_size(f) for f in files} == {(64, 48)}
