"""From pictures to poses with a model that finds coloured dots exactly."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dots import DOTS, DotModel, dot_picture, keypoints_of, random_people
from poise.predict.predictor import MIN_SCORE, Predictor
from poise.predict.views import mirrored, whole_views
from poise.types import Poses

SIZES = [(97, 131), (64, 64), (200, 333), (255, 120), (480, 639), (33, 400)]


def predictor(**view):
    return Predictor(DotModel(**view), "cpu")


def error(poses, people):
    """Largest distance (px) of a keypoint from the truth; people and poses are both ordered by brightness."""
    truth = keypoints_of(people)
    assert poses.keypoints.shape == truth.shape
    return np.abs(poses.keypoints - truth).max()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_image_px_at_scale_one(size):
    people = random_people(np.random.default_rng(sum(size)), size, 3, margin=14)
    found = predictor(long_side=max(size)).predict(dot_picture(size, people, sigma=3))[0]
    assert error(found, people) < 0.1
    assert found.image_size == size


def factor_of(size, long_side, short_side):
    return min(long_side / max(size), short_side / min(size) if short_side else np.inf)


FITS = [(256, None), (333, 160), (1333, 800), (97, 97)]
LETTERBOXED = [(size, *fit) for size in SIZES for fit in FITS if factor_of(size, *fit) >= 0.5]


@pytest.mark.parametrize("stride", [1, 32, 128])
@pytest.mark.parametrize(("size", "long_side", "short_side"), LETTERBOXED, ids=str)
def test_image_px_whatever_the_letterboxing(size, long_side, short_side, stride):
    factor = factor_of(size, long_side, short_side)
    people = random_people(np.random.default_rng(3), size, 2, margin=14)
    found = predictor(long_side=long_side, short_side=short_side, stride=stride).predict(dot_picture(size, people))[0]
    assert error(found, people) < 0.2 / min(factor, 1)


def test_convention_without_half_pixel():
    people = random_people(np.random.default_rng(3), (150, 200), 2)
    model = predictor(long_side=400, half_pixel=False)
    found = model.predict(dot_picture((150, 200), people))[0]
    shift = found.keypoints - keypoints_of(people)
    # whole_view resizes as all resizers do, edge to edge, and the map x' = 2 x then leaves a quarter of a pixel
    np.testing.assert_allclose(shift, 0.25, atol=0.1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [None, [192], [160, 256, 384]], ids=str)
@pytest.mark.parametrize("size", [(150, 201), (201, 150)], ids=str)
def test_other_scales_and_the_mirror_find_the_same(size, scales, flip):
    people = random_people(np.random.default_rng(8), size, 3, margin=24)
    found = predictor(long_side=256).predict(dot_picture(size, people), scales=scales, flip=flip)[0]
    assert error(found, people) < 0.3


def test_views_that_are_shown():
    found = predictor(long_side=400, short_side=200, stride=8)
    found.predict(dot_picture((100, 150), []), scales=[100, 200], flip=True)
    assert found.model.batches == [(1, 3, 104, 152)] * 2 + [(1, 3, 200, 304)] * 2


def test_mirror_alone_gives_left_and_right_their_names():
    people = random_people(np.random.default_rng(8), (150, 201), 1)
    model = predictor()

    def only_mirrored(image, number):
        return [mirrored(view) for view in whole_views(model.model.view)(image, number)]

    found = next(model.predict_iter(dot_picture((150, 201), people), views=only_mirrored))
    assert error(found, people) < 0.2
    assert found.keypoints[0, 0, 0] > found.keypoints[0, 2, 0]


def test_a_source_without_views_finds_nobody():
    model = predictor()
    found = list(model.predict_iter([dot_picture((50, 60), [])] * 2, views=lambda image, number: []))
    assert [len(f) for f in found] == [0, 0]
    assert found[0].image_size == (50, 60)


def test_empty_picture_and_no_picture():
    found = predictor().predict(dot_picture((50, 60), []))
    assert len(found) == 1
    assert isinstance(found[0], Poses)
    assert len(found[0]) == 0
    assert found[0].skeleton == DOTS
    assert found[0].image_size == (50, 60)
    assert predictor().predict([]) == []


def test_batches_change_nothing():
    rng = np.random.default_rng(5)
    sizes = [SIZES[i] for i in rng.integers(0, len(SIZES), 17)]
    pictures = [dot_picture(s, random_people(rng, s, int(rng.integers(0, 4)), margin=14)) for s in sizes]
    model = predictor()
    expected = [model.predict(p, batch=1)[0] for p in pictures]
    for batch in (1, 2, 5, 64):
        actual = model.predict(pictures, batch=batch)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            np.testing.assert_array_equal(a.scores, b.scores)
            assert a.image_size == b.image_size


def test_equal_sizes_share_a_batch():
    model = predictor(long_side=128)
    model.predict([dot_picture((64, 128), [])] * 5 + [dot_picture((128, 64), [])] * 2, batch=4)
    assert sorted(shape[0] for shape in model.model.batches) == [1, 2, 4]


def test_streaming_reads_as_needed():
    taken = []

    def pictures():
        for i in range(50):
            taken.append(i)
            yield dot_picture((40, 40 + 40 * (i % 3)), [])

    stream = predictor().predict_iter(pictures(), batch=4)
    for done in range(1, 51):
        next(stream)
        assert len(taken) - done <= 16
    assert next(stream, None) is None


def test_best_first_and_min_score():
    people = [(*person[:2], score) for person, score in zip(
        random_people(np.random.default_rng(2), (150, 150), 3), (0.25, 0.9, 0.5), strict=True
    )]  # fmt: skip
    picture = dot_picture((150, 150), people)
    model = predictor()
    np.testing.assert_allclose(model.predict(picture, min_score=0.0)[0].scores, [0.9, 0.5, 0.25], atol=0.02)
    np.testing.assert_allclose(model.predict(picture, min_score=0.6)[0].scores, [0.9], atol=0.02)
    assert model.min_score == MIN_SCORE
    assert len(model.predict(picture)[0]) == 2
    recommended = Predictor(DotModel(), "cpu", metadata={"min_score": 0.1})
    assert len(recommended.predict(picture)[0]) == 3


def test_sizes_that_the_checkpoint_recommends(monkeypatch):
    picture = dot_picture((150, 150), random_people(np.random.default_rng(2), (150, 150), 1))
    both = Predictor(DotModel(), "cpu", metadata={"scales": [[160, 160], [96, 96]]})
    one = predictor()
    wanted = one.predict(picture, scales=[(160, 160), (96, 96)])[0]
    np.testing.assert_array_equal(both.predict(picture)[0].keypoints, wanted.keypoints)
    seen, look = [], both.predict_views
    monkeypatch.setattr(both, "predict_views", lambda views: seen.extend(max(v.size) for v in views) or look(views))
    for scales, sides in ((None, [160, 96]), ([(128, 128)], [128])):
        seen.clear()
        both.predict(picture, scales=scales)
        assert seen == sides
    for wrong in ("608", [[1]], 5):
        with pytest.raises(ValueError, match="neither short sides nor pairs"):
            Predictor(DotModel(), "cpu", metadata={"scales": wrong})


def test_all_kinds_of_pictures(tmp_path):
    people = random_people(np.random.default_rng(1), (90, 120), 2)
    picture = dot_picture((90, 120), people)
    path = tmp_path / "dots.png"
    Image.fromarray(picture).save(path)
    chw = torch.from_numpy(picture).permute(2, 0, 1)
    kinds = [path, str(path), path.read_bytes(), picture, picture / 255.0, Image.open(path), chw, chw / 255.0]
    model = predictor()
    expected = model.predict(picture)[0].keypoints
    for kind in kinds:
        found = model.predict(kind)
        assert len(found) == 1
        np.testing.assert_allclose(found[0].keypoints, expected, atol=1e-3)
    assert [f.source for f in model.predict(kinds)] == [str(path), str(path)] + [None] * 6
    assert len(model.predict(np.stack([picture] * 3))) == 3
    assert len(model.predict(torch.stack([chw] * 3))) == 3


def test_exif_orientation(tmp_path):
    people = random_people(np.random.default_rng(1), (90, 120), 1)
    picture = dot_picture((90, 120), people)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(picture))).save(tmp_path / "turned.png", exif=exif)
    found = predictor().predict(tmp_path / "turned.png")[0]
    assert found.image_size == (90, 120)
    assert error(found, people) < 0.2


class Normed(DotModel):
    """With a batch norm that changes nothing, once its statistics are used."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3, eps=0.0)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[..., None, None] * 2)
            self.norm.running_var.fill_(4.0)

    def forward(self, images):
        return super().forward(self.norm(self.conv(images)))


def test_the_model_is_folded_in_a_copy():
    model = Normed().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    people = random_people(np.random.default_rng(1), (90, 120), 2)
    found = Predictor(model, "cpu")
    assert error(found.predict(dot_picture((90, 120), people))[0], people) < 0.1
    assert type(found.model.norm) is not nn.BatchNorm2d
    assert not found.model.training
    assert found.model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.training
    assert type(model.norm) is nn.BatchNorm2d
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_errors_name_the_value(tmp_path):
    model = predictor()
    picture = dot_picture((50, 50), [])
    with pytest.raises(ValueError, match="batch 0"):
        model.predict(picture, batch=0)
    with pytest.raises(ValueError, match=r"min_score 1\.5"):
        model.predict(picture, min_score=1.5)
    with pytest.raises(ValueError, match="scales is empty"):
        model.predict(picture, scales=[])
    with pytest.raises(ValueError, match="scale 9: long_side = 9"):
        model.predict(picture, scales=[9])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        model.predict(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match=r"tensor has shape \(50, 50, 3\)"):
        model.predict(torch.zeros(50, 50, 3))
    with pytest.raises(ValueError, match="one person at a time"):
        predictor(kind="crop", size=(64, 64)).predict(picture)
    with pytest.raises(ValueError, match="device 'toaster' cannot be used"):
        Predictor(DotModel(), "toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' cannot be used"):
            Predictor(DotModel(), "cuda")
        assert Predictor(DotModel(), "auto").device == torch.device("cpu")


def test_predict_views_gives_candidates_of_each_view():
    model = predictor()
    people = random_people(np.random.default_rng(1), (90, 120), 2)
    views = whole_views(model.model.view, flip=True)(dot_picture((90, 120), people), 0)
    found = model.predict_views(views)
    assert [len(f) for f in found] == [2, 2]
    np.testing.assert_allclose(found[0].keypoints, found[1].keypoints, atol=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    people = random_people(np.random.default_rng(1), (90, 120), 2)
    found = Predictor(DotModel(), "auto")
    assert found.device.type == "cuda"
    assert error(found.predict(dot_picture((90, 120), people))[0], people) < 0.2
