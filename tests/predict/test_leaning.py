"""Further looks at people who lean, with a stick figure as the oracle."""

import numpy as np
import pytest
import torch

from crops import ENDS, CropModel, box_of, ends_of
from dots import dot_picture
from poise.data.crops import crop_matrix
from poise.geometry.affine import apply, rotation
from poise.predict import topdown
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.leaning import GROWTHS, LEAST, further_looks, mean_pose, torso_of
from poise.predict.sources import Named
from poise.predict.topdown import TopDownPredictor
from poise.skeletons import COCO17
from poise.types import Poses, ViewSpec

SPEC = ViewSpec(kind="crop", size=(192, 160), stride=32, extension=(1.2, 1.2))
SHOULDERS, HIPS = [5, 6], [11, 12]


def pose(keypoints, marks=1.0, score=0.5):
    keypoints = np.asarray(keypoints, np.float32)[None]
    each = np.broadcast_to(np.float32(marks), keypoints.shape[:2]).copy()
    box = np.array([[0, 0, 9, 9]], np.float32)
    return Poses(keypoints, each, box, np.array([score], np.float32), COCO17, (400, 600))


def figure(degrees, seed=0):
    """A person of 17 points, the torso ``degrees`` counter-clockwise of up."""
    draw = np.random.default_rng(seed)
    points = np.column_stack([draw.uniform(-30, 30, 17), draw.uniform(-80, 80, 17)])
    points[SHOULDERS] = (-15, -40), (15, -40)
    points[HIPS] = (-10, 20), (10, 20)
    return apply(rotation(degrees, (0.0, 0.0)), points) + np.array([300, 200])


@pytest.mark.parametrize("degrees", [-179, -90, -45, -11, 11, 30, 120, 180])
def test_the_torso_points_up_in_every_further_look(degrees):
    torso = torso_of(COCO17)
    keypoints = figure(degrees)
    looks = list(further_looks(pose(keypoints), torso))
    assert len(looks) == len(GROWTHS)
    for look, growth in zip(looks, GROWTHS, strict=True):
        seen = apply(crop_matrix(look.box, SPEC, look.degrees), keypoints)
        across, along = seen[SHOULDERS].mean(0) - seen[HIPS].mean(0)
        assert along < 0
        assert abs(across) < 1e-3 * abs(along)
        # the box is around the keypoints, and the longer side of the two decides how large they are in the crop
        middle = (seen.min(0) + seen.max(0)) / 2
        np.testing.assert_allclose(middle, (80, 96), atol=1e-3)
        share = (np.ptp(seen, axis=0) / (160, 192)).max()
        np.testing.assert_allclose(share, 1 / (1.2 * growth), rtol=1e-4)


@pytest.mark.parametrize("degrees", [0, LEAST - 1, 1 - LEAST])
def test_upright_people_need_no_further_look(degrees):
    assert not list(further_looks(pose(figure(degrees)), torso_of(COCO17)))


def test_no_torso():
    together = figure(90)
    together[SHOULDERS + HIPS] = (5, 5)
    assert not list(further_looks(pose(together), torso_of(COCO17)))
    assert torso_of(ENDS) is None


def test_mean_pose():
    first, second = pose(np.zeros((17, 2)), 0.25, 0.2), pose(np.full((17, 2), 8.0), 0.75, 0.6)
    first.keypoint_scores[0, 3] = second.keypoint_scores[0, 3] = 0
    found = mean_pose([first, second])
    expected = np.full((17, 2), 6.0)
    expected[3] = 0
    np.testing.assert_allclose(found.keypoints[0], expected)
    np.testing.assert_allclose(found.keypoint_scores[0, :3], 0.5)
    np.testing.assert_allclose(found.scores, 0.4)
    assert found.boxes is first.boxes


class Standing(CropModel):
    """Reads the left end off the upper half of a crop and the right end off the lower half."""

    def heatmaps(self, images):
        both = super().heatmaps(images).sum(1, keepdim=True)
        upper = (torch.arange(both.shape[-2]) < both.shape[-2] / 2).float()[:, None]
        return torch.cat([both * upper, both * (1 - upper)], 1)


@pytest.mark.parametrize("heatmaps", [False, True])
def test_people_who_lean_are_looked_at_once_more(monkeypatch, heatmaps):
    masks = np.array([False, True]), np.array([True, False])  # the left end is above the right one
    monkeypatch.setattr(topdown, "torso_of", lambda skeleton: masks)
    people = [[((70, 20), (40, 70), 1.0), ((130, 30), (131, 80), 0.8)], [], [((20, 30), (50, 60), 1.0)]]
    boxes = {i: PersonBoxes.of([box_of(p) for p in group], [1.0] * len(group)) for i, group in enumerate(people)}
    pictures = [Named(dot_picture((110, 160), group, sigma=3), image_id=i) for i, group in enumerate(people)]
    predictor = TopDownPredictor(Standing(), Boxes(boxes), "cpu", turns=True)
    found = predictor.predict(pictures, min_score=0, batch=4, heatmaps=heatmaps)
    leaning = 2
    assert sum(predictor.model.batches) == 3 * 4 + leaning * len(GROWTHS)
    assert max(predictor.model.batches) <= 4
    for poses, group in zip(found, people, strict=True):
        assert len(poses) == len(group)
        assert (poses.heatmaps is not None) == (heatmaps and len(group) > 0)
        for person in group:
            assert min(np.abs(keypoints - ends_of([person])[0]).max() for keypoints in poses.keypoints) < 1
