"""Multiply-adds of a network as it predicts: without the outputs that only training needs."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from poise.models import DirectPose
from poise.models.base import PoseModel
from poise.models.smpr import SMPR


def predicted_macs(model: PoseModel, size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and matrix products, every location of every map of one input computed.

    Args:
        model: on any device; nothing is computed.
        size: (height, width) of the input.
    """
    network = copy.deepcopy(cast(nn.Module, model)).eval().to("meta")
    images = torch.empty(1, 3, *size, device="meta")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        heatmaps = getattr(network, "heatmaps", None)
        if heatmaps is not None:
            heatmaps(images)
        else:
            _drop_training_outputs(network)
            network(images)
    return counter.get_total_flops() // 2


def _drop_training_outputs(network: nn.Module) -> None:
    """The heatmap branch is trained along, and predicts nothing unless keypoints are refined by it or drawn to it."""
    if not isinstance(network, DirectPose | SMPR):
        return
    refines = isinstance(network, DirectPose) and network.config.refine_keypoints
    if not refines and network.config.snap is None:
        network.head.heatmap = None
