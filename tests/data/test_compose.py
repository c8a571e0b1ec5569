from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marked import FIGURE, RULE, figures, labelled_or_ignored, nearest_colour, strong_pixels

from poise.data.compose import compose, mosaic, paste, place, recolour, single
from poise.data.config import AugmentConfig, Way
from poise.data.material import ImageCache, Material, Source
from poise.data.records import PoseDataset, Record
from poise.data.samples import Sample, Truth
from poise.geometry import affine
from poise.types import ImageArray

PLAIN: dict[str, Any] = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grey_p": 0, "blur_p": 0}
WAYS: tuple[Way, ...] = ("single", "mosaic", "paste")
MAKE = {"single": single, "mosaic": mosaic, "paste": paste}


def one_way(way: Way | None, **more: Any) -> AugmentConfig:
    shares = {w: float(way in (None, w)) for w in WAYS}
    return AugmentConfig(**(PLAIN | shares | {"person_size": (0.25, 0.9), "rotation_p": 0.7} | more))


def dataset(name: str, samples: list[Sample]) -> tuple[PoseDataset, dict[Path, ImageArray]]:
    records, images = [], {}
    for i, sample in enumerate(samples):
        path, truth = Path(name) / str(i), sample.truth
        records.append(Record(path, i, sample.size, truth.keypoints, truth.boxes, truth.areas, truth.ignore))
        images[path] = sample.image
    return PoseDataset(name, FIGURE, tuple(records)), images


@pytest.fixture(scope="module")
def material() -> Material:
    """Pictures with one figure, with several, with none, and with figures that are ignored instead of labelled."""
    one, images_one = dataset("one", [figures((150, 110), [(25, 25, 100)]), figures((130, 200), [(40, 20, 90)])])
    several = figures((300, 400), [(40, 30, 120), (150, 100, 160), (300, 20, 200)])
    hidden = figures((200, 300), [(30, 30, 100), (180, 40, 120)])
    truth = hidden.truth
    hidden = Sample(
        hidden.image,
        Truth(truth.keypoints[:1], truth.boxes[:1], truth.areas[:1], truth.boxes[1:], truth.person_boxes[:1]),
    )
    many, images_many = dataset("many", [several, hidden, figures((90, 100), [])])
    grounds, images_grounds = dataset("grounds", [figures((120, 160), []), figures((500, 330), [])])
    images = images_one | images_many | images_grounds
    sources = [Source(one, 1.0), Source(many, 2.0)]
    return Material(sources, grounds.records, RULE, (128, 128, 128), read=lambda record: images[record.path])


def check_honest(sample: Sample) -> None:
    truth = sample.truth
    seen = truth.keypoints[..., 2] > 0
    assert nearest_colour(sample.image, truth.keypoints)[seen].all()
    assert not (strong_pixels(sample.image) & ~labelled_or_ignored(sample)).any()
    for boxes in (truth.boxes, truth.person_boxes, truth.ignore):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= [sample.size[1], sample.size[0]]).all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


@pytest.mark.parametrize("way", WAYS)
def test_labelled_is_seen_and_seen_is_labelled_or_ignored(way: Way, material: Material) -> None:
    labelled, ignored = 0, 0
    for seed in range(60):
        sample = compose(material, one_way(way), (192, 256), np.random.default_rng(seed))
        assert sample.size == (192, 256)
        check_honest(sample)
        labelled += int(sample.truth.labelled.sum())
        ignored += len(sample.truth.ignore)
    assert labelled > 60
    assert ignored > 5


@pytest.mark.parametrize("way", WAYS)
def test_a_canvas_depends_on_its_generator_alone(way: Way, material: Material) -> None:
    config = one_way(way, brightness=0.3, hue=0.1, blur_p=0.5)
    first, again, other = (compose(material, config, (96, 96), np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.truth.keypoints, again.truth.keypoints)
    assert not np.array_equal(first.image, other.image)


def test_material_is_not_written_to(material: Material) -> None:
    record = material._sources[0].dataset[0]
    before = material.sample(record).image.copy()
    for seed in range(20):
        compose(material, one_way(None), (96, 96), np.random.default_rng(seed))
    assert np.array_equal(material.sample(record).image, before)


def test_sizes_of_people_in_a_paste(material: Material) -> None:
    exact: dict[str, Any] = {"rotation_p": 0, "pasted": (1, 1), "paste_margin": (0, 0), "feather_p": 0}
    config = one_way("paste", person_size=(0.3, 0.5), **exact)
    sizes = []
    for seed in range(40):
        sample = paste(material, config, (200, 200), np.random.default_rng(seed))
        sides = sample.truth.boxes[:, 2:] - sample.truth.boxes[:, :2]
        sizes.append(sides.max() / 200)
    assert 0.29 <= min(sizes) < 0.35
    assert 0.45 < max(sizes) <= 0.51


def test_pictures_are_not_enlarged_beyond_the_limit(material: Material) -> None:
    config = one_way("paste", person_size=(0.9, 0.9), max_upscale=1.0, rotation_p=0, pasted=(1, 1), paste_margin=(0, 0))
    sample = paste(material, config, (1000, 1000), np.random.default_rng(0))
    sides = sample.truth.boxes[:, 2:] - sample.truth.boxes[:, :2]
    assert sides.max() <= 251


def canvas(size: tuple[int, int] = (100, 100)) -> Sample:
    return figures(size, [(20, 20, 60)])


def patch(size: tuple[int, int] = (40, 40)) -> Sample:
    return Sample(np.full((*size, 3), 7, np.uint8), Truth.empty(5))


def test_place_paints_and_covers() -> None:
    below = canvas()
    result = place(below, patch(), affine.translation(0, 40), (0, 0, 100, 100), FIGURE.flip_index, 2)
    assert (result.image[40:80, :40] == 7).all()
    assert np.array_equal(result.image[:40], below.image[:40])
    assert np.array_equal(result.image[:, 40:], below.image[:, 40:])
    # left hand (20, 44) and left foot (26, 80): one under the patch, one just below it
    assert result.truth.keypoints[0, :, 2].tolist() == [2, 0, 2, 2, 2]
    assert (below.image != 7).all()
    check_honest(result)


def test_place_keeps_to_its_window() -> None:
    result = place(canvas(), patch((300, 300)), affine.translation(-50, -50), (30, 0, 60, 90), FIGURE.flip_index, 1)
    assert (result.image[:90, 30:60] == 7).all()
    assert (result.image[90:] != 7).all()
    assert (result.image[:, :30] != 7).all()
    assert (result.image[:, 60:] != 7).all()


def test_place_outside_changes_nothing() -> None:
    below = canvas()
    assert place(below, patch(), affine.translation(200, 0), (0, 0, 100, 100), FIGURE.flip_index, 1) is below


def test_place_turns_covered_people_into_regions_or_drops_them() -> None:
    below = canvas()
    window = (0, 0, 100, 100)
    most = place(below, patch((65, 100)), affine.identity(), window, FIGURE.flip_index, 3)
    assert len(most.truth) == 0
    x1, _, x2, y2 = below.truth.boxes[0].tolist()
    assert most.truth.ignore.tolist() == [[x1, 65, x2, y2]]
    check_honest(most)
    whole = place(below, patch((100, 100)), affine.identity(), window, FIGURE.flip_index, 3)
    assert (len(whole.truth), len(whole.truth.ignore)) == (0, 0)


def test_people_of_the_placed_picture_are_cut_at_the_window() -> None:
    piece = canvas()
    empty = Sample(np.full((100, 100, 3), 128, np.uint8), Truth.empty(5))
    result = place(empty, piece, affine.identity(), (0, 0, 35, 100), FIGURE.flip_index, 1)
    assert result.truth.keypoints[0, :, 2].tolist() == [0, 2, 0, 2, 0]
    assert result.truth.person_boxes[0, 2] <= 35
    check_honest(result)


def test_feathered_edges_blend_and_stay_honest() -> None:
    matrix = affine.compose(affine.rotation(20, (20, 20)), affine.translation(40, 30))
    hard = place(canvas(), patch(), matrix, (0, 0, 100, 100), FIGURE.flip_index, 1)
    soft = place(canvas(), patch(), matrix, (0, 0, 100, 100), FIGURE.flip_index, 1, feather=4.0)
    values = np.unique(soft.image[50:60, 40:95])
    assert len(values) > 10
    assert np.array_equal(np.unique(hard.image[50:60, 62:95]), [7, 128])
    check_honest(soft)


def test_small_people_are_ignored(material: Material) -> None:
    config = one_way("single", single_scale=(1, 1), rotation_p=0, min_size=60.0, negative_p=0)
    for seed in range(30):
        truth = compose(material, config, (100, 100), np.random.default_rng(seed)).truth
        assert ((truth.boxes[:, 2:] - truth.boxes[:, :2]).max(1, initial=60) >= 60).all()
    total = sum(len(compose(material, config, (100, 100), np.random.default_rng(s)).truth.ignore) for s in range(30))
    assert total > 5


def test_colours_change_pixels_within_bounds() -> None:
    image = canvas().image
    strong = AugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, grey_p=0, blur_p=1)
    results = [recolour(image, strong, np.random.default_rng(s)) for s in range(5)]
    assert all(r.dtype == np.uint8 and r.shape == image.shape for r in results)
    assert not np.array_equal(results[0], results[1])
    grey = recolour(image, AugmentConfig(grey_p=1), np.random.default_rng(0)).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1


def test_only_asked_ways_and_fitting_sources_take_part() -> None:
    busy, images = dataset("busy", [canvas()])
    empty, more = dataset("empty", [figures((50, 50), [])])
    images |= more

    def read(record: Record) -> ImageArray:
        return images[record.path]

    only_single = Material([Source(busy, 1.0, ("single",))], read=read)
    assert [only_single.offers(way) for way in WAYS] == [True, False, False]
    compose(only_single, AugmentConfig(single=0.001, mosaic=100, paste=100), (64, 64), np.random.default_rng(0))
    with pytest.raises(ValueError, match="ways of the sources"):
        compose(only_single, AugmentConfig(single=0), (64, 64), np.random.default_rng(0))
    nobody = Material([Source(empty)], read=read)
    assert [nobody.offers(way) for way in WAYS] == [True, True, False]
    for seed in range(5):
        sample = compose(nobody, AugmentConfig(), (64, 64), np.random.default_rng(seed))
        assert (len(sample.truth), len(sample.truth.ignore)) == (0, 0)


def test_sources_are_drawn_by_weight(material: Material) -> None:
    rng = np.random.default_rng(0)
    sizes = [material.picture("single", 0.0, rng).size for _ in range(600)]
    share = np.mean([size in ((150, 110), (130, 200)) for size in sizes])
    assert share == pytest.approx(1 / 3, abs=0.06)
    assert all(material.picture("single", 1.0, rng).size in ((120, 160), (500, 330)) for _ in range(10))
    assert all(len(material.people("mosaic", rng).truth) for _ in range(50))


def test_material_refuses_unusable_sources() -> None:
    with pytest.raises(ValueError, match="at least one source"):
        Material([])
    with pytest.raises(ValueError, match="'none' has no picture"):
        Material([Source(PoseDataset("none", FIGURE, ()))])
    from poise.skeletons import COCO17

    busy, _ = dataset("busy", [canvas()])
    coco = PoseDataset("c", COCO17, (Record.without_people(Path("x"), 0, (5, 5), 17),))
    with pytest.raises(ValueError, match="'figure' and 'coco17'"):
        Material([Source(busy), Source(coco)])


def test_cache_keeps_the_latest(tmp_path: Path) -> None:
    import cv2

    records = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((10, 10, 3), i, np.uint8))
        records.append(Record.without_people(path, i, (10, 10), 5))
    cache = ImageCache(budget=2 * 300)
    first = cache(records[0])
    assert cache(records[0]) is first
    cache(records[1])
    cache(records[0])
    cache(records[2])  # the one used longest ago, 1, makes room
    assert cache(records[0]) is first
    (tmp_path / "1.png").unlink()
    with pytest.raises(FileNotFoundError):
        cache(records[1])
    nothing = ImageCache(budget=0)
    assert nothing(records[0]) is not nothing(records[0])


@pytest.mark.parametrize(
    "bad",
    [
        {"single": 0, "mosaic": 0, "paste": 0},
        {"single_scale": (2, 1)},
        {"person_size": (0, 1)},
        {"split": (0.5, 1.0)},
        {"pasted": (0, 3)},
        {"rotation": 200},
        {"paste_margin": (-0.1, 0.2)},
    ],
)
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AugmentConfig.parse(bad)
