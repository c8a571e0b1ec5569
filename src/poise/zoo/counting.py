"""Parameters and multiply-adds of networks, counted without running them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from poise.models import build_model, parameter_count, preset
from poise.zoo.papers import PICTURE


@dataclass(frozen=True, slots=True)
class Count:
    """Size of a network.

    Attributes:
        size: (height, width) of the input.
        parameters: all of them, trained or not.
        macs: multiply-adds of convolutions and matrix products for one input, outputs that only training needs
            included.
    """

    size: tuple[int, int]
    parameters: int
    macs: int


def count(name: str) -> Count:
    """Build a preset without values and count it, at its crop's size or at `PICTURE`.

    Raises:
        ValueError: there is no such preset.
    """
    config = preset(name)
    size = config.view.size or PICTURE
    with torch.device("meta"):
        network = build_model(config).eval()
        images = torch.empty(1, 3, *size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(images)
    return Count(size, parameter_count(network), counter.get_total_flops() // 2)
