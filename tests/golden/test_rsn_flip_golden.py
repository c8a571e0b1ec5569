"""The flip test of RSN against both reference codes."""

import pytest
import torch
from golden_case import Case, normal

from poise.predict.topdown import unmirrored
from poise.skeletons import COCO17, MPII16

CASE = Case("rsn", "flip")


@pytest.mark.parametrize(
    ("key", "shift"),
    [("official_average", False), ("mmpose_average_noshift", False), ("mmpose_average_shift", True)],
)
def test_average(key: str, shift: bool) -> None:
    inputs = CASE.settings["inputs"]
    plain, other = (normal(inputs[n]["seed"], inputs[n]["shape"]) for n in ("plain", "of_flipped_image"))
    average = (plain + unmirrored(other, COCO17.flip_index, shift)) / 2
    CASE.compare(key, average, absolute=1e-7)


def test_pairs() -> None:
    for name, skeleton in (("COCO", COCO17), ("MPII", MPII16)):
        expected = torch.arange(len(skeleton))
        for a, b in CASE.settings["flip_pairs"][name]:
            expected[a], expected[b] = b, a
        assert list(skeleton.flip_index) == expected.tolist()
