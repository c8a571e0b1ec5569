"""Find, then refine: with a model that reads the two ends of a person off a crop exactly, and with a real network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crops import ENDS, VIEW, CropModel, box_of, ends_of, row_of_people, row_picture
from dots import DotModel
from poise.data.crops import crop_matrix, crop_view
from poise.geometry.affine import apply
from poise.geometry.heatmaps import draw_labels, keypoint_cells
from poise.models.rsn import RSN, RSNConfig
from poise.predict import topdown
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.people import FoundPeople
from poise.predict.predictor import Predictor
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor, unmirrored
from poise.skeletons import COCO17
from poise.types import Poses, ViewSpec


def given(boxes, scores=None, key=0):
    return Boxes({key: PersonBoxes.of(boxes, np.ones(len(boxes)) if scores is None else scores)})


def named(image, key=0):
    return Named(image, image_id=key)


def finder():
    return Predictor(DotModel(long_side=240), "cpu", {"min_score": 0.3})


def crowd(counts, seed=0):
    """Pictures of so many people each, and the source of their true boxes."""
    pictures = [named(row_picture(n, seed + i), i) for i, n in enumerate(counts)]
    people = [row_of_people(n, seed + i) for i, n in enumerate(counts)]
    boxes = {i: PersonBoxes.of([box_of(p) for p in group], [p[2] for p in group]) for i, group in enumerate(people)}
    return pictures, Boxes(boxes), people


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("view", [(64, 64), (96, 64), (64, 128)], ids=str)
def test_keypoints_in_image_px(view, flip):
    pictures, boxes, people = crowd([3, 1, 2])
    spec = ViewSpec.parse({**VIEW.model_dump(), "size": view, "extension": (1.1, 1.2)})
    found = TopDownPredictor(CropModel(view=spec), boxes, "cpu").predict(pictures, min_score=0, flip=flip)
    for poses, group, picture in zip(found, people, pictures, strict=True):
        # a dot between the two halves of a mirrored crop moves by the pixel that mirroring shifts the crop's centre
        assert np.abs(poses.keypoints - ends_of(group)).max() < (1.0 if flip else 0.5)
        assert poses.image_size == picture.image.shape[:2]
        np.testing.assert_allclose(poses.boxes, [box_of(p) for p in group], rtol=1e-6)


def test_people_are_found_and_refined():
    pictures, _, people = crowd([2, 0, 3])
    predictor = TopDownPredictor(CropModel(), finder(), "cpu")
    found = predictor.predict(iter(pictures))
    assert [len(f) for f in found] == [2, 0, 3]
    for poses, group in zip(found, people, strict=True):
        assert poses.skeleton == ENDS
        assert np.abs(poses.keypoints - ends_of(group)).max(initial=0) < 0.5
    assert predictor.people.description == "people found by a single-stage model"


def test_scores_lie_in_0_to_1_and_rank_as_the_references_do():
    picture, boxes = row_picture(3), [box_of(p) for p in row_of_people(3)]
    model = CropModel()
    views = [crop_view(picture, b, model.view, box_score=s) for b, s in zip(boxes, (0.5, 0.9, 1.0), strict=True)]
    with torch.inference_mode():
        raw = model.detect(torch.stack([v.image for v in views]), [v.size for v in views])
    published = np.array([0.5, 0.9, 1.0]) * [r.scores[0] for r in raw]
    predictor = TopDownPredictor(CropModel(), given(boxes, [0.5, 0.9, 1.0]), "cpu")
    [found] = predictor.predict(named(picture), min_score=0)
    order = np.argsort(-published)
    np.testing.assert_allclose(found.scores, published[order] / 1.5, rtol=1e-5)
    np.testing.assert_allclose(
        found.keypoint_scores, np.concatenate([r.keypoint_scores for r in raw])[order] - 0.5, atol=1e-5
    )
    assert 0 <= found.keypoint_scores.min() < found.keypoint_scores.max() <= 1


def test_scores_of_clean_and_of_missing_keypoints():
    """A peak above its label still has score 1, a keypoint without any peak 0."""
    boxes = given([box_of(row_of_people(1)[0])])
    high = TopDownPredictor(CropModel(peak=1.4), boxes, "cpu").predict(named(row_picture(1)), min_score=0)[0]
    assert high.keypoint_scores.max() == 1
    none = TopDownPredictor(CropModel(), boxes, "cpu").predict(named(0 * row_picture(1)), min_score=0)[0]
    assert none.keypoint_scores.tolist() == [[0, 0]]
    assert none.scores[0] == pytest.approx(0.5 / 1.5)
    plain = TopDownPredictor(CropModel(score_offset=0.0), boxes, "cpu").predict(named(row_picture(1)), min_score=0)[0]
    assert plain.scores[0] == pytest.approx(plain.keypoint_scores.mean())


def test_thresholds():
    model, boxes = CropModel(), given([])
    assert TopDownPredictor(model, boxes, "cpu").min_score == 0.3
    assert TopDownPredictor(model, boxes, "cpu", {"min_score": 0.125}).min_score == 0.125
    assert TopDownPredictor(model, finder(), "cpu").min_score == pytest.approx(0.2)
    picture, people = row_picture(2), [box_of(p) for p in row_of_people(2)]
    predictor = TopDownPredictor(model, given(people, [1.0, 0.1]), "cpu")
    assert [len(predictor.predict(named(picture), min_score=m)[0]) for m in (None, 0.0, 1.0)] == [1, 2, 0]


def test_an_empty_picture_is_not_looked_at():
    model = CropModel()
    predictor = TopDownPredictor(model, Boxes({0: PersonBoxes.of([], [])}), "cpu")
    [poses] = predictor.predict(named(row_picture(1)), min_score=0, flip=True)
    assert len(poses) == 0
    assert poses.skeleton == ENDS
    assert poses.image_size == (120, 80)
    assert predictor.model.batches == []
    assert predictor.predict([]) == []
    assert len(TopDownPredictor(model, finder(), "cpu").predict(np.zeros((50, 60, 3), np.uint8), min_score=0)[0]) == 0


def test_people_of_several_pictures_share_batches():
    counts = [1, 0, 3, 2, 3, 1, 0]
    pictures, boxes, _ = crowd(counts)
    predictor = TopDownPredictor(CropModel(), boxes, "cpu")
    expected = [predictor.predict(p, min_score=0, batch=1)[0] for p in pictures]
    for batch, sizes in ((4, [4, 4, 2]), (64, [10]), (9, [9, 1]), (None, [10])):
        predictor.model.batches.clear()
        found = predictor.predict(pictures, min_score=0, batch=batch)
        assert predictor.model.batches == sizes
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            np.testing.assert_array_equal(a.scores, b.scores)
            np.testing.assert_array_equal(a.boxes, b.boxes)


def test_little_waits_in_memory(monkeypatch):
    """Neither many pictures nor many people in one picture are prepared before they run."""
    made, taken = [], []

    def counted(*arguments, **options):
        made.append(1)
        return crop_view(*arguments, **options)

    monkeypatch.setattr(topdown, "crop_view", counted)
    pictures, boxes, people = crowd([3] * 12)

    def stream():
        for picture in pictures:
            taken.append(1)
            yield picture

    predictor = TopDownPredictor(CropModel(), boxes, "cpu")
    for done, poses in enumerate(predictor.predict_iter(stream(), min_score=0, batch=4), 1):
        assert len(poses) == 3
        assert len(taken) - done <= 3
    many = TopDownPredictor(CropModel(), given([box_of(people[0][0])] * 40), "cpu")
    made.clear()
    many.model.heatmaps = lambda images: pytest.fail("too many crops wait") if len(made) > 4 else stop()  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        many.predict(pictures[0], batch=4)


def stop():
    raise InterruptedError


SMALL_VIEW = ViewSpec(kind="crop", size=(64, 64), extension=(1.09, 1.135), half_pixel=False)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        small = {"stem": 16, "planes": (16, 16, 32, 32), "unit_channels": 16, "branch_ratio": (32, 64)}
        return RSN(RSNConfig.parse({**small, "view": SMALL_VIEW.model_dump(), "kernels": (7, 7, 7, 5, 5)}))


@pytest.fixture(scope="module")
def predictor(network):
    """Without anybody to look at: for its heatmaps."""
    return TopDownPredictor(network, given([]), "cpu")


def noise(batch=2, seed=0):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("objective", ["height", "place"])
def test_a_real_network_alone_gives_what_it_detects(network, objective):
    weights, network = network.state_dict(), RSN(network.config.model_copy(update={"objective": objective}))
    network.load_state_dict(weights)
    with torch.no_grad():
        network.stages[-1].decoder()[-1].output.norm.weight.fill_(20)  # maps with peaks, so that the objectives differ
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    box = np.array([12.0, 5.0, 50.0, 80.0], np.float32)
    view = crop_view(picture, box, network.view, box_score=0.5)
    with torch.inference_mode():
        expected = network.eval().detect(view.image[None], [view.size])[0]
    [found] = TopDownPredictor(network, given([box], [0.5]), "cpu").predict(named(picture), min_score=0)
    scale = np.linalg.norm(view.to_input[0, :2])
    in_image = (expected.keypoints - view.to_input[:, 2]) / scale
    np.testing.assert_allclose(found.keypoints, in_image, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores * 0.5 / 1.5, rtol=1e-3)
    assert found.boxes.tolist() == [box.tolist()]


def test_the_same_person_twice_is_two_poses_by_default(network):
    person = box_of(row_of_people(1)[0])
    boxes = given([person, [person[0] - 3, person[1], person[2] + 2, person[3]]], [0.5, 0.9])
    picture = named(row_picture(1))
    both = TopDownPredictor(network, boxes, "cpu").predict(picture, min_score=0)[0]
    assert len(both) == 2
    assert both.boxes[0, 0] == pytest.approx(person[0] - 3)


def test_suppression_knows_whole_views_and_boxes_stay_those_of_the_people(network):
    """OKS relates distances to the extent of the views, also where that leaves the picture."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    boxes = [[0, 0, 60, 63], [0, 0, 60.5, 63], [40, 40, 60, 60]]
    seen = []

    class Watched(RSN):
        def suppress(self, poses):
            seen.append(poses)
            return super().suppress(poses)

    model = Watched(network.config.model_copy(update={"oks_nms": "hard", "oks_threshold": 0.5}))
    model.load_state_dict(network.state_dict())
    predictor = TopDownPredictor(model, given(boxes, [0.9, 0.8, 0.7]), "cpu")
    [found] = predictor.predict(named(picture), min_score=0)
    assert found.boxes.tolist() == [boxes[0], boxes[2]]
    assert found.ids is None
    side = 63 * 1.135
    low, high = np.array([30, 31.5]) - side / 2, np.array([30, 31.5]) + side * (63 / 64 - 1 / 2)
    np.testing.assert_allclose(seen[0].boxes[0], [*low, *high], atol=0.01)


@pytest.mark.parametrize("method", ["hard", "soft"])
def test_suppression_may_count_only_keypoints_that_are_seen_in_both(network, method):
    """The second pose is the first but for keypoints that are hardly seen."""
    settings = {"oks_nms": method, "oks_threshold": 0.9}
    points = np.random.default_rng(1).uniform(0, 100, (1, 17, 2)).repeat(2, 0)
    points[1, 9:] += 300
    marks = np.ones((2, 17))
    marks[1, 9:] = 0.1
    poses = Poses(points, marks, np.array([[0, 0, 100, 100]] * 2), np.array([0.9, 0.8]), COCO17)

    def second(least):
        config = RSNConfig.parse({**network.config.model_dump(), **settings, "oks_min_score": least})
        return [*RSN(config).suppress(poses).scores[1:], 0.0][0]

    assert second(0.2) < 0.4 < second(0.05) == second(None)
    assert len(RSN(network.config.model_copy(update=settings | {"oks_min_score": 0.2})).suppress(poses[:0])) == 0


def test_heatmaps_lie_where_the_keypoints_are():
    """The centre of mass of each map, taken to the picture, is the keypoint; also after filtering."""
    people = row_of_people(3)
    boxes = given([box_of(p) for p in people], [0.9, 0.7, 0.5])
    predictor = TopDownPredictor(CropModel(), boxes, "cpu")
    [found] = predictor.predict(named(row_picture(3)), min_score=0.4, heatmaps=True)
    assert 0 < len(found) < 3
    for pose in found:
        for k in range(2):
            weights = np.maximum(pose.heatmaps.maps[0, k].astype(float) - 10 / 255, 1e-9)
            rows, columns = np.indices(weights.shape)
            centre = np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()
            # pixels of this model's maps are means of 4 x 4: their centres lie 1.5 px of the input further
            there = apply(pose.heatmaps.to_image[0], centre + 1.5 / 4)
            np.testing.assert_allclose(there, pose.keypoints[0, k], atol=1e-2)
    assert predictor.predict(named(row_picture(3)))[0].heatmaps is None


@pytest.mark.parametrize("profile", ["official", "mmpose"])
def test_labels_of_keypoints_are_read_back_as_these_keypoints(network, profile):
    """Crop, decoder and map back fit together: only the rounding to cells of 4 input px is lost."""
    rng = np.random.default_rng(4)
    boxes = [[30.0, 12, 90, 118], [-20.0, 40, 75, 90]]
    truth = np.array([rng.uniform(b[:2], b[2:], (len(COCO17), 2)) for b in boxes])
    predictor = TopDownPredictor(network, given(boxes, [1.0, 0.5]), "cpu")
    member = predictor.models[0]
    member.config = member.config.model_copy(update={"decoding": profile})
    matrices = [crop_matrix(box, network.view) for box in boxes]

    def labels(images):
        points = torch.tensor(np.array([apply(m, t) for m, t in zip(matrices, truth, strict=True)]))
        return draw_labels(
            keypoint_cells(points), torch.ones(points.shape[:2], dtype=torch.bool), (16, 16), 5, "maximum"
        )

    member.heatmaps = labels
    [found] = predictor.predict(named(np.zeros((130, 100, 3), np.uint8)), min_score=0)
    for points, expected, matrix in zip(found.keypoints, truth, matrices, strict=True):
        assert np.abs(points - expected).max() * np.linalg.norm(matrix[0, :2]) < 3.01
        assert np.abs((points - expected).mean(0)).max() * np.linalg.norm(matrix[0, :2]) < 1.2
    assert found.keypoint_scores.min() > 0.8


def test_the_flip_test_averages_and_is_blind_to_mirroring(predictor):
    images = noise()
    with torch.inference_mode():
        plain, other = predictor.heatmaps(images), predictor.heatmaps(images.flip(-1))
        both = predictor.heatmaps(images, flip=True)
        mirrored = predictor.heatmaps(images.flip(-1), flip=True)
    swapped = list(COCO17.flip_index)
    torch.testing.assert_close(both, (plain + other.flip(-1)[:, swapped]) / 2)
    torch.testing.assert_close(mirrored.flip(-1)[:, swapped], both)
    assert (both - plain).abs().max() > 0.01


def test_shifted_flip_test(network, predictor):
    shifted = TopDownPredictor(network, given([]), "cpu", shift_heatmap=True)
    with torch.inference_mode():
        ours, theirs = (p.heatmaps(noise(), flip=True) for p in (predictor, shifted))
        alone = predictor.heatmaps(noise())
    moved = 2 * theirs - alone
    still = 2 * ours - alone
    torch.testing.assert_close(moved[..., 1:], still[..., :-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved[..., 0], still[..., 0], rtol=1e-4, atol=1e-4)


def test_unmirrored_shifts_to_the_right_and_keeps_the_first_column():
    maps = torch.arange(2.0 * 3 * 4).reshape(1, 2, 3, 4)
    back = unmirrored(maps, (1, 0))
    torch.testing.assert_close(back[0, 0], maps[0, 1].flip(-1))
    moved = unmirrored(maps, (1, 0), shift=True)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([15.0, 15.0, 14.0, 13.0]))


def test_an_ensemble_averages_heatmaps(network, predictor):
    other = RSN(network.config)
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    both = TopDownPredictor([network, other], given([]), "cpu")
    with torch.inference_mode():
        first, second = (model.heatmaps(noise()) for model in both.models)
        found = both.heatmaps(noise())
        both.models = [both.models[0]] * 2
        twice, alone = both.heatmaps(noise(), flip=True), predictor.heatmaps(noise(), flip=True)
    torch.testing.assert_close(found, (first + second) / 2)
    assert (first - second).abs().max() > 0.01
    torch.testing.assert_close(twice, alone)


def test_heatmaps_are_averaged_in_single_precision(network):
    """A network in half precision gives half precision; means of its maps have no further rounding."""
    half = TopDownPredictor(network, given([]), "cpu", half="bfloat16")
    with torch.inference_mode(), half.running.context():
        assert half.model.heatmaps(noise()).dtype == torch.bfloat16
        plain, other = (half.model.heatmaps(x).float() for x in (noise(), noise().flip(-1)))
        both = half.heatmaps(noise(), flip=True)
        assert half.heatmaps(noise()).dtype == torch.float32
        half.models = [half.models[0]] * 3
        three = half.heatmaps(noise(), flip=True)
    expected = (plain + unmirrored(other, COCO17.flip_index)) / 2
    torch.testing.assert_close(both, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(three, expected, rtol=1e-6, atol=1e-6)


class Upright(CropModel):
    """Is half as sure of people whose ends are not side by side, or whose right end is the brighter one."""

    def heatmaps(self, images):
        maps = super().heatmaps(images)
        left, right = maps.amax((2, 3)).unbind(1)
        aside = maps[:, 0].amax(1).argmax(1) > 0.65 * maps.shape[-1]
        return maps * torch.where(aside & (left > right), 1.0, 0.5)[:, None, None, None]


@pytest.mark.parametrize("quarters", range(4))
def test_turned_people(quarters):
    picture = row_picture(1)
    picture[:, :40] = picture[:, :40] * 0.7  # the right end
    person = row_of_people(1)[0]
    to_turned = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    height, width = picture.shape[:2]
    for _ in range(quarters):
        to_turned = np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1]]) @ to_turned
        height, width = width, height
    corners = apply(np.array(to_turned)[:2], np.reshape(box_of(person), (2, 2)))
    box = [*corners.min(0), *corners.max(0)]
    turned = np.ascontiguousarray(np.rot90(picture, quarters))
    truth = apply(np.array(to_turned)[:2], ends_of([person]))
    errors = []
    for turns in (False, True):
        predictor = TopDownPredictor(Upright(), given([box]), "cpu", turns=turns)
        [poses] = predictor.predict(named(turned), min_score=0, batch=3)
        assert len(poses) == 1
        np.testing.assert_allclose(poses.boxes, [box], rtol=1e-6)
        assert sum(predictor.model.batches) == (4 if turns else 1)
        errors.append(np.abs(poses.keypoints - truth).max())
    assert errors[1] < 1
    assert (errors[0] < 1) == (quarters == 0)


def test_the_threshold_suits_how_the_model_scores():
    published, squares = CropModel(), CropModel(score_offset=0.0, score_power=2.0)
    for people in (given([]), FoundPeople(finder())):
        assert TopDownPredictor(published, people, "cpu").min_score == pytest.approx(people.min_score)
        assert TopDownPredictor(squares, people, "cpu").min_score == pytest.approx(people.min_score * 0.25 * 1.5)
        assert TopDownPredictor(squares, people, "cpu", {"min_score": 0.2}).min_score == 0.2


def test_turns_need_crops():
    from poise.predict.predictor import load

    with pytest.raises(ValueError, match="turns are for models that look at one person"):
        load("smpr_mobilenetv2", turns=True)


def test_members_that_do_not_go_together():
    wide = CropModel(view=ViewSpec.parse({**VIEW.model_dump(), "size": (64, 96)}))
    with pytest.raises(ValueError, match=r"need equal views; these differ in size \(64, 64\) and \(64, 96\)"):
        TopDownPredictor([CropModel(), wide], given([]), "cpu")
    renamed = CropModel(replace(ENDS, name="others"))
    with pytest.raises(ValueError, match="need the same skeleton, not 'ends' and 'others'"):
        TopDownPredictor([CropModel(), renamed], given([]), "cpu")
    with pytest.raises(ValueError, match="at least one model"):
        TopDownPredictor([], given([]), "cpu")


def test_models_of_the_wrong_kind():
    with pytest.raises(ValueError, match="looks at whole pictures: it finds people itself"):
        TopDownPredictor(DotModel(), given([]), "cpu")
    with pytest.raises(ValueError, match="needs to be told where people are"):
        Predictor(CropModel(), "cpu")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"scales": [640]}, "scales are for models that look at whole pictures"),
        ({"min_score": 2.0}, r"min_score 2.0 must lie in 0..1"),
        ({"batch": 0}, "batch 0 must be at least 1"),
    ],
    ids=str,
)
def test_arguments_are_checked_at_once(bad, words):
    with pytest.raises(ValueError, match=words):
        TopDownPredictor(CropModel(), given([]), "cpu").predict_iter([], **bad)


def test_other_scores_before_suppression():
    pictures, boxes, people = crowd([2, 3])

    def rescore(number, poses):
        assert len(poses) == len(people[number])
        return replace(poses, scores=poses.keypoints[:, 0, 0] / 1000)

    found = list(TopDownPredictor(CropModel(), boxes, "cpu").predict_iter(pictures, min_score=0, rescore=rescore))
    for poses, group in zip(found, people, strict=True):
        assert np.abs(poses.keypoints - ends_of(group)[::-1]).max() < 0.5
        np.testing.assert_allclose(poses.boxes, [box_of(p) for p in group[::-1]], rtol=1e-6)


def test_a_source_of_people_may_be_configured():
    people = FoundPeople(finder(), "mine", min_score=0.9)
    predictor = TopDownPredictor(CropModel(), people, "cpu")
    [found] = predictor.predict(row_picture(3), min_score=0)
    assert len(found) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(network):
    pictures, boxes, _ = crowd([3, 2])
    here, there = (TopDownPredictor(network, boxes, device) for device in ("cpu", "cuda"))
    for a, b in zip(here.predict(pictures, min_score=0), there.predict(pictures, min_score=0), strict=True):
        np.testing.assert_allclose(np.sort(a.scores), np.sort(b.scores), atol=1e-2)
