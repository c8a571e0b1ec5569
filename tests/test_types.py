import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from poise.skeletons import COCO17, LSP14, Skeleton
from poise.types import PersonBoxRule, Persons, Poses, ViewSpec

TWO = Skeleton("two", ("a", "b"), ((0, 1),), (), (0.1, 0.1))


def _poses(n: int = 3) -> Poses:
    rng = np.random.default_rng(0)
    return Poses(
        rng.normal(size=(n, 2, 2)), rng.random((n, 2)), rng.random((n, 4)), np.linspace(0.9, 0.1, n), TWO, (40, 50), "x"
    )


def test_poses_are_float32_and_indexable() -> None:
    poses = _poses()
    assert poses.keypoints.dtype == np.float32
    assert len(poses[1]) == len(poses[-1]) == 1
    assert len(poses[:2]) == 2
    assert len(poses[[2, 0]]) == 2
    np.testing.assert_array_equal(poses[[2, 0]].scores, poses.scores[[2, 0]])
    assert len(poses[poses.scores > 0.4]) == 2
    assert [float(p.scores[0]) for p in poses] == poses.scores.tolist()
    assert poses[0].image_size == (40, 50)
    assert poses[0].source == "x"


def test_filter_includes_the_limit() -> None:
    assert len(_poses().filter(0.5)) == 2
    assert len(_poses().filter(1.0)) == 0


@pytest.mark.parametrize("field", ["keypoints", "keypoint_scores", "boxes", "scores"])
def test_wrong_shapes_name_the_field(field: str) -> None:
    good = {"keypoints": (1, 2, 2), "keypoint_scores": (1, 2), "boxes": (1, 4), "scores": (1,)}
    good[field] = (*good[field], 7)
    arrays = {k: np.zeros(v) for k, v in good.items()}
    with pytest.raises(ValueError, match=rf"Poses\.{field}|Poses\.keypoints"):
        Poses(**arrays, skeleton=TWO)


def test_concatenate() -> None:
    both = Poses.concatenate([_poses(2), _poses(1)])
    assert len(both) == 3
    with pytest.raises(ValueError, match="skeletons differ: \\['coco17', 'two'\\]"):
        Poses.concatenate([_poses(1), Poses.empty()])
    with pytest.raises(ValueError, match="at least one"):
        Poses.concatenate([])


def test_empty_poses() -> None:
    empty = Poses.empty(LSP14, (3, 4))
    assert len(empty) == 0
    assert empty.keypoints.shape == (0, 14, 2)
    assert empty.to_coco() == []
    assert list(empty) == []


def test_to_coco_and_save(tmp_path: Path) -> None:
    poses = Poses([[[1, 2], [3, 4.5]]], [[0.5, 0.25]], [[1, 2, 11, 22]], [0.75], TWO)
    entry = poses.to_coco(image_id=7)[0]
    assert entry == {
        "image_id": 7, "category_id": 1, "keypoints": [1, 2, 0.5, 3, 4.5, 0.25], "bbox": [1, 2, 10, 20], "score": 0.75,
    }  # fmt: skip
    poses.save_json(tmp_path / "deep" / "p.json", image_id=7)
    assert json.loads((tmp_path / "deep" / "p.json").read_text()) == [entry]


def test_what_is_not_a_number_stays_out_of_json() -> None:
    poses = Poses([[[np.nan, 2], [3, 4]]], [[0.5, np.inf]], [[1, 2, np.nan, 22]], [np.nan], TWO)
    entry = poses.to_coco()[0]
    assert entry["keypoints"] == [0] * 6
    assert entry["bbox"] == [0] * 4
    assert json.loads(json.dumps(entry, allow_nan=False))["score"] == 0


def _followed() -> Poses:
    return replace(_poses(), ids=[7, -1, 3], visibility=[[0, 1], [2, 2], [1, 0]], frame=4, time=0.5)


def test_ids_and_visibility_go_where_their_pose_goes() -> None:
    poses = _followed()
    assert poses[[2, 0]].ids.tolist() == [3, 7]
    assert poses[1:].visibility.tolist() == [[2, 2], [1, 0]]
    assert [p.ids.tolist() for p in poses] == [[7], [-1], [3]]
    assert poses.filter(0.5).ids.tolist() == [7, -1]
    assert poses.filter(ids=[3, 8]).scores.tolist() == poses.scores[2:].tolist()
    both = Poses.concatenate([poses, poses[:1]])
    assert both.ids.tolist() == [7, -1, 3, 7]
    assert both.visibility.shape == (4, 2)
    assert (both.frame, both.time) == (4, 0.5)
    assert Poses.concatenate([poses, _poses()]).ids is None
    assert [e["track_id"] for e in poses.to_coco()] == [7, -1, 3]
    assert poses.to_coco()[0]["visibility"] == [0, 1]
    assert "track_id" not in _poses().to_coco()[0]


@pytest.mark.parametrize(
    ("field", "values", "words"),
    [
        ("ids", [1, 2], r"ids must have shape \(3,\), not \(2,\)"),
        ("ids", [0, -2, 1], r"ids runs -2\.\.1; expected -1\.\."),
        ("visibility", [[0, 3]] * 3, r"visibility runs 0\.\.3; expected 0\.\.2"),
        ("visibility", [[0, 1, 2]] * 3, r"visibility must have shape \(3, 2\)"),
    ],
)
def test_wrong_ids_and_visibility_are_named(field: str, values: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(_poses(), **{field: values})


def test_filter_by_height_and_ids() -> None:
    poses = replace(_poses(), boxes=[[0, 0, 5, 10], [0, 0, 5, 30], [0, np.nan, 5, 30]])
    assert poses.filter(min_height=20).scores.tolist() == poses.scores[1:2].tolist()
    assert len(poses.filter(0.0)) == 3
    with pytest.raises(ValueError, match="have no ids"):
        poses.filter(ids=[1])


def test_arrays_tensors_and_single_keypoints() -> None:
    poses = _poses()
    whole = poses.to_numpy()
    assert whole.shape == (3, 2, 3)
    np.testing.assert_array_equal(whole[..., :2], poses.keypoints)
    np.testing.assert_array_equal(whole[..., 2], poses.keypoint_scores)
    tensor = poses.to_torch()
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), whole)
    np.testing.assert_array_equal(poses.points("b"), whole[:, 1])
    assert Poses.empty().points("nose").shape == (0, 3)
    with pytest.raises(ValueError, match="skeleton 'coco17' has no keypoint 'noose'; did you mean 'nose'"):
        Poses.empty().points("noose")


def test_persons_check_shapes() -> None:
    with pytest.raises(ValueError, match="keypoints"):
        Persons.from_numpy(np.zeros((1, 2)), np.zeros((1, 4)), np.zeros(1), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="1 persons but boxes"):
        Persons.from_numpy(np.zeros((1, 2, 3)), np.zeros((2, 4)), np.zeros(1), np.zeros((0, 4)))
    with pytest.raises(ValueError, match="ignore"):
        Persons.from_numpy(np.zeros((1, 2, 3)), np.zeros((1, 4)), np.zeros(1), np.zeros(4))


def test_persons_do_not_share_memory_with_their_source() -> None:
    keypoints = np.zeros((1, 2, 3), np.float32)
    persons = Persons.from_numpy(keypoints, np.zeros((1, 4)), np.zeros(1), np.zeros((0, 4)))
    keypoints[:] = 5
    assert persons.keypoints.abs().max() == 0
    assert len(Persons.empty(17)) == 0
    assert persons.to(torch.device("cpu")).boxes.dtype == torch.float32


def test_view_spec() -> None:
    with pytest.raises(ValueError, match="crop view needs size"):
        ViewSpec.parse({"kind": "crop"})
    with pytest.raises(ValueError, match="positive"):
        ViewSpec.parse({"std": [0, 1, 1]})
    with pytest.raises(ValueError, match="long_side"):
        ViewSpec.parse({"long_side": 5})
    assert ViewSpec.parse(ViewSpec(person_box=PersonBoxRule(grow=2)).model_dump(mode="json")).person_box.grow == 2


def test_flip_index_is_an_involution() -> None:
    index = np.array(COCO17.flip_index)
    np.testing.assert_array_equal(index[index], np.arange(17))
