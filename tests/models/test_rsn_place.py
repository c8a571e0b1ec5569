"""RSN's other objective: maps that predict a place."""

import numpy as np
import pytest
import torch

from poise.geometry.heatmaps import place_heights, place_scores
from poise.models.rsn import PRESETS, RSN, RSNConfig
from poise.models.rsn_loss import place_loss
from poise.skeletons import COCO17
from poise.types import Persons, ViewSpec


def config(**changes: object) -> RSNConfig:
    view = ViewSpec(kind="crop", size=(64, 64), half_pixel=False)
    small = {"stem": 8, "planes": (8, 16, 16, 16), "branch_ratio": (1, 2), "unit_channels": 16, "view": view}
    return RSNConfig.model_validate({**small, "kernels": (7, 7, 7, 5, 5), "objective": "place", **changes})


def somebody(seed: int = 0, visibility: int = 2) -> Persons:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(8, 56, (1, 17, 2)), np.full((1, 17, 1), visibility)], axis=2)
    return Persons.from_numpy(points, [[8, 8, 56, 56]], [2000.0], np.zeros((0, 4)))


def test_scores_are_log_probabilities() -> None:
    maps = torch.randn(3, 17, 12, 16, generator=torch.Generator().manual_seed(0)) * 100
    torch.testing.assert_close(place_scores(maps).exp().sum(-1), torch.ones(3, 17))


def test_a_map_as_sure_as_its_label_is_the_label() -> None:
    label = torch.zeros(1, 1, 16, 16)
    kernel = torch.tensor([0.0625, 0.25, 0.375, 0.25, 0.0625])
    label[0, 0, 4:9, 6:11] = kernel[:, None] * kernel[None]
    heights = place_heights(16 * label.clamp_min(1e-12).log(), 5)
    torch.testing.assert_close(heights, 255 * label / label.max(), atol=1e-3, rtol=0)


def test_a_map_that_knows_nothing_is_low_and_a_surer_one_no_higher_than_a_label() -> None:
    assert place_heights(torch.zeros(1, 1, 32, 24), 5).max() < 5
    certain = torch.zeros(1, 1, 32, 24)
    certain[0, 0, 3, 4] = 1e4
    assert place_heights(certain, 5).max() == 255


def test_loss_is_the_cross_entropy_by_hand() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 16
    labels = torch.zeros(2, 3, 4, 5)
    labels[:, :, 1, 2] = 255.0
    visible = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    logits = (maps / 16).double().flatten(2)
    expected = (logits.logsumexp(-1) - logits[..., 1 * 5 + 2])[0, :2].sum() / 6
    torch.testing.assert_close(place_loss(maps, labels, visible).double(), expected, rtol=1e-5, atol=1e-5)


def test_terms_and_gradients_are_finite_and_unlabelled_keypoints_take_no_part() -> None:
    torch.manual_seed(0)
    model = RSN(config(stages=2), COCO17)
    outputs = model(torch.randn(2, 3, 64, 64))
    terms = model.loss(outputs, [somebody(0), somebody(1)])
    assert set(terms) == {"stage1_plain", "stage1_finest", "stage2_plain", "stage2_finest"}
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    nothing = model.loss(outputs, [somebody(0, visibility=0), Persons.empty(17)])
    assert all(t.item() == 0 for t in nothing.values())


def test_it_learns_one_person_by_heart() -> None:
    torch.manual_seed(0)
    model = RSN(config(output_gain=20.0), COCO17).train()
    image, person = torch.randn(2, 3, 64, 64), somebody()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.stack(list(model.loss(model(image), [person, person]).values())).sum().backward()
        optimiser.step()
    poses = model.decode(model(image), [(64, 64), (64, 64)])
    apart = np.abs(poses[0].keypoints[0] - person.keypoints[0, :, :2].numpy())
    assert np.median(apart) < 3  # a cell has 4 px
    assert poses[0].keypoint_scores.mean() > 1.0


def test_detect_is_decode() -> None:
    torch.manual_seed(0)
    model = RSN(config(), COCO17).eval()
    images, sizes = torch.randn(2, 3, 64, 64), [(64, 64), (64, 64)]
    with torch.no_grad():
        for a, b in zip(model.detect(images, sizes), model.decode(model(images), sizes), strict=True):
            np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-4)
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"rsn_small", "rsn_medium"}))
def test_published_presets_learn_heights(name: str) -> None:
    assert PRESETS[name]().objective == "height"
