"""What ``--scales`` says of itself fits the models that come with Poise: a number is the long side."""

from typing import get_args

import poise
from poise.cli.options import Scales, parse_scales
from poise.predict.views import scaled


def test_a_number_is_the_long_side_of_the_shipped_models():
    [option] = get_args(Scales)[1:]
    assert "long sides, for example 608,320" in option.help
    model = poise.load("default", device="cpu").model
    assert [scaled(model.view, side).long_side for side in parse_scales("608,320")] == [608, 320]
    assert scaled(model.view, 320).short_side is None
