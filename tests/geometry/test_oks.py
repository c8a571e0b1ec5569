"""Object keypoint similarity against pycocotools and closed forms."""

import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from poise.geometry.oks import oks, paired_oks
from poise.skeletons import COCO17


def _coco(annotations, results=False):
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": i + 1, "image_id": 1, "category_id": 1, **a} for i, a in enumerate(annotations)],
    }
    coco.createIndex()
    return coco


def _random_case(seed, persons=6, poses=15):
    rng = np.random.default_rng(seed)
    truth = np.concatenate(
        [rng.uniform(0, 400, (persons, 17, 2)), rng.integers(0, 3, (persons, 17, 1)).astype(float)], -1
    )
    truth[:, 0, 2] = 2
    areas = rng.uniform(500, 40000, persons)
    found = truth[rng.integers(0, persons, poses), :, :2] + rng.normal(0, 15, (poses, 17, 2))
    return found, truth, areas


def _oracle(found, truth, areas, capsys):
    boxes = [[0, 0, 10, 10]] * len(truth)
    gt = _coco(
        [
            {"keypoints": t.reshape(-1).tolist(), "area": a, "bbox": b, "iscrowd": 0, "num_keypoints": 17}
            for t, a, b in zip(truth, areas, boxes, strict=True)
        ]
    )
    triples = np.concatenate([found, np.ones((*found.shape[:2], 1))], -1)
    dt = _coco([{"keypoints": p.reshape(-1).tolist(), "area": 1, "score": 1 - i / 100} for i, p in enumerate(triples)])
    evaluation = COCOeval(gt, dt, "keypoints")
    evaluation._prepare()
    capsys.readouterr()
    return evaluation.computeOks(1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_pycocotools(seed, capsys):
    found, truth, areas = _random_case(seed)
    expected = _oracle(found, truth, areas, capsys)
    assert expected.shape == (15, 6)
    assert np.max(expected) > 0.2
    np.testing.assert_allclose(oks(found, truth, areas, COCO17.sigmas), expected, rtol=0, atol=1e-12)


def test_numpy_and_torch_agree():
    found, truth, areas = _random_case(7)
    expected = oks(found, truth, areas, COCO17.sigmas)
    actual = oks(torch.from_numpy(found), torch.from_numpy(truth), torch.from_numpy(areas), COCO17.sigmas)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-14)
    single = oks(
        torch.from_numpy(found).float(), torch.from_numpy(truth).float(), torch.from_numpy(areas).float(), COCO17.sigmas
    )
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-5)


def test_closed_form():
    pose = np.array([[[3.0, 4.0], [100.0, 0.0]]])
    person = np.array([[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    value = oks(pose, person, np.array([50.0]), (0.1, 0.2))
    assert value.item() == pytest.approx(math.exp(-25 / (2 * 50 * 0.04)))


def test_person_without_labelled_keypoints_or_area():
    pose = torch.zeros(1, 17, 2)
    nobody = torch.zeros(1, 17, 3)
    assert oks(pose, nobody, torch.tensor([100.0]), COCO17.sigmas).item() == 0
    point = torch.cat([torch.zeros(1, 17, 2), torch.ones(1, 17, 1)], -1)
    assert oks(pose, point, torch.zeros(1), COCO17.sigmas).item() == 1
    assert oks(pose + 5, point, torch.zeros(1), COCO17.sigmas).item() == 0


def test_nobody_gives_an_empty_table():
    assert oks(np.zeros((0, 17, 2)), np.zeros((4, 17, 3)), np.zeros(4), COCO17.sigmas).shape == (0, 4)
    assert oks(torch.zeros(3, 17, 2), torch.zeros(0, 17, 3), torch.zeros(0), COCO17.sigmas).shape == (3, 0)


def test_gradient():
    found, truth, areas = _random_case(3, persons=2, poses=3)
    pose = torch.from_numpy(found).requires_grad_()
    arguments = torch.from_numpy(truth), torch.from_numpy(areas)
    assert torch.autograd.gradcheck(lambda p: oks(p, *arguments, COCO17.sigmas), (pose,))


def test_wrong_keypoint_count_is_named():
    with pytest.raises(ValueError, match="poses have 3 keypoints, persons 17, and 17 sigmas"):
        oks(np.zeros((1, 3, 2)), np.zeros((1, 17, 3)), np.zeros(1), COCO17.sigmas)


def test_pairs_are_the_diagonal_of_the_table():
    rng = np.random.default_rng(4)
    poses, persons = rng.uniform(0, 50, (2, 7, 17, 2))
    areas = rng.uniform(100, 900, 7)
    marked = np.concatenate([persons, np.ones((7, 17, 1))], 2)
    table = oks(poses, marked, areas, COCO17.sigmas)
    np.testing.assert_allclose(paired_oks(poses, persons, areas, COCO17.sigmas), np.diag(table))
    assert paired_oks(poses[:0], persons[:0], areas[:0], COCO17.sigmas).shape == (0,)
