from typing import Any

import pytest

from poise.skeletons import COCO17, SKELETONS, Skeleton, mirrored_pairs


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_built_in_skeletons_are_consistent(skeleton: Skeleton) -> None:
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
    for left, right in skeleton.flip_pairs:
        sides = {skeleton.keypoints[left].partition("_")[0], skeleton.keypoints[right].partition("_")[0]}
        assert sides == {"left", "right"}
        assert skeleton.keypoints[left].partition("_")[2] == skeleton.keypoints[right].partition("_")[2]
    joined = {i for edge in skeleton.edges for i in edge}
    assert joined == set(range(len(skeleton)))


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_pairs_can_be_read_off_the_names(skeleton: Skeleton) -> None:
    assert {frozenset(p) for p in mirrored_pairs(skeleton.keypoints)} == {frozenset(p) for p in skeleton.flip_pairs}


def test_pairs_of_other_spellings() -> None:
    assert mirrored_pairs(["L_eye", "nose", "R_eye"]) == ((0, 2),)
    assert mirrored_pairs(["paw left", "paw right"]) == ((0, 1),)
    assert mirrored_pairs(["left_only", "tail"]) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": ()}, "no keypoints"),
        ({"keypoints": ("a", "a"), "sigmas": (0.1, 0.1)}, "twice: a"),
        ({"sigmas": (0.1,)}, "3 keypoints but 1 sigmas"),
        ({"sigmas": (0.1, 0.1, float("nan"))}, "sigma nan"),
        ({"sigmas": (0.1, 0.1, 0.0)}, "sigma 0.0"),
        ({"edges": ((0, 3),)}, r"edge \(0, 3\)"),
        ({"flip_pairs": ((1, 1),)}, r"flip pair \(1, 1\)"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "two flip pairs"),
    ],
)
def test_bad_definitions(change: dict[str, Any], message: str) -> None:
    good = {"name": "s", "keypoints": ("a", "b", "c"), "edges": (), "flip_pairs": (), "sigmas": (0.1, 0.1, 0.1)}
    with pytest.raises(ValueError, match=message):
        Skeleton(**{**good, **change})


def test_missing_fields_are_named() -> None:
    data = COCO17.to_dict()
    del data["sigmas"], data["edges"]
    with pytest.raises(ValueError, match="lacks edges, sigmas"):
        Skeleton.from_dict(data)
