import numpy as np
import pytest
import torch
from marked import FIGURE, figures, nearest_colour, write_set

from poise.data.samples import Sample
from poise.data.views import collate, eval_views, normalise, sample_to_view, whole_view
from poise.geometry import affine
from poise.types import View, ViewSpec

RAW = ViewSpec(long_side=64, short_side=None, mean=(0, 0, 0), std=(1, 1, 1), value_range=1.0)
"""Normalisation that leaves the values alone."""


def pixels(view: View) -> np.ndarray:
    return view.image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (37, 53), (53, 37), (64, 64), (641, 479), (20, 30)])
def test_whole_view_of_odd_sizes(size: tuple[int, int]) -> None:
    spec = ViewSpec(long_side=96, short_side=80)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    view = whole_view(image, spec, "id")
    matrix, expected = affine.fit(size, spec)
    assert view.size == expected == tuple(view.image.shape[1:])
    assert max(view.size) <= 96
    assert view.image_size == size
    assert view.image_id == "id"
    assert view.persons is None
    assert view.image.dtype == torch.float32
    assert np.array_equal(view.to_input, matrix)


@pytest.mark.parametrize("long_side", [40, 100, 200, 333])
def test_truth_follows_the_picture(long_side: int) -> None:
    sample = figures((200, 151), [(20, 20, 150)])
    spec = RAW.model_copy(update={"long_side": long_side})
    view = whole_view(sample.image, spec, 0, sample.truth)
    assert view.persons is not None
    assert nearest_colour(np.rint(pixels(view)).astype(np.uint8), view.persons.keypoints.numpy()).all()
    factor = long_side / 200
    assert view.persons.areas.numpy() == pytest.approx(sample.truth.areas * factor**2, rel=0.02)
    back = affine.apply(affine.invert(view.to_input), view.persons.keypoints[..., :2].numpy())
    assert np.allclose(back, sample.truth.keypoints[..., :2], atol=1e-3)


def test_shrinking_averages() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    view = whole_view(stripes, RAW.model_copy(update={"long_side": 32, "short_side": None}))
    assert view.size == (32, 32)
    small = whole_view(np.tile(stripes, (4, 4, 1)), RAW)
    assert np.abs(pixels(small) - 50).max() <= 1


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalise(channels: str) -> None:
    spec = ViewSpec(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channels=channels, value_range=200.0)
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    ordered = image if channels == "rgb" else image[..., ::-1]
    expected = (ordered / 200.0 - np.array(spec.mean)) / np.array(spec.std)
    result = normalise(image, spec)
    assert result.dtype == np.float32
    assert np.allclose(result, expected, atol=1e-6)


def test_collate_pads_with_zeros_to_a_multiple() -> None:
    views = [
        whole_view(np.full((h, w, 3), 200, np.uint8), ViewSpec(long_side=60, short_side=None), i)
        for i, (h, w) in enumerate([(60, 30), (20, 60), (33, 33)])
    ]
    batch = collate(views, stride=32)
    assert tuple(batch.images.shape) == (3, 3, 64, 64)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert [v.image_id for v in batch.views] == [0, 1, 2]
    for i, (view, before) in enumerate(zip(batch.views, views, strict=True)):
        height, width = view.size
        assert torch.equal(batch.images[i, :, :height, :width], before.image)
        assert torch.equal(view.image, before.image)
        assert view.image.untyped_storage().data_ptr() == batch.images.untyped_storage().data_ptr()
        rest = batch.images[i].clone()
        rest[:, :height, :width] = 0
        assert rest.abs().sum() == 0
    assert all(len(p) == 0 for p in batch.persons)
    assert tuple(collate(views[:1], stride=1).images.shape) == (1, 3, 60, 30)
    with pytest.raises(ValueError, match="at least one view"):
        collate([])


def test_training_views_keep_their_frame() -> None:
    sample = figures((64, 96), [(10, 10, 40)])
    view = sample_to_view(sample, RAW, 3)
    assert np.array_equal(pixels(view), sample.image)
    assert np.array_equal(view.to_input, affine.identity())
    assert view.persons is not None
    assert np.array_equal(view.persons.keypoints.numpy(), sample.truth.keypoints)
    assert np.array_equal(view.persons.boxes.numpy(), sample.truth.person_boxes)
    batch = collate([view])
    assert batch.persons == [view.persons]


def test_a_crop_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'whole'"):
        whole_view(np.zeros((4, 4, 3), np.uint8), ViewSpec(kind="crop", size=(8, 8)))


def test_eval_views(tmp_path) -> None:
    samples: list[Sample] = [figures((50, 80), [(5, 5, 40)]), figures((80, 50), [])]
    dataset = write_set(tmp_path, samples)
    views = list(eval_views(dataset, RAW))
    assert [v.image_id for v in views] == [0, 1]
    assert [v.size for v in views] == [(40, 64), (64, 40)]
    assert views[0].persons is not None
    assert np.allclose(
        views[0].persons.keypoints[0, :, :2].numpy(), samples[0].truth.keypoints[0, :, :2] * 0.8 - 0.1, atol=0.1
    )
    assert views[1].persons is not None
    assert tuple(views[1].persons.keypoints.shape) == (0, len(FIGURE), 3)
