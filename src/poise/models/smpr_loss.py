"""The losses of SMPR and the targets behind them (SMPR spec 4, 5).

Letters: B images, L levels, P locations, M persons of one image, K keypoints, p initial positives of the batch,
h w P3 size.
Frame: that of `poise.models.smpr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.geometry.oks import oks
from poise.models import dense, heatmap_branch
from poise.types import Persons

if TYPE_CHECKING:
    from poise.models.smpr import SMPRConfig, SMPROutputs

TINY = torch.finfo(torch.float32).tiny
"""Keeps a denominator from being 0 when every weight has underflowed."""


class Judgement(NamedTuple):
    """How good the pose of each location is."""

    quality: Tensor
    """(B, P) largest OKS with any person of the image; 0 where nobody is."""
    good: Tensor
    """(B, P) bool: the quality reaches the threshold, or the pose is some person's best."""


def smpr_losses(
    config: SMPRConfig,
    strides: Sequence[int],
    sigmas: Sequence[float],
    outputs: SMPROutputs,
    truth: Sequence[Persons],
) -> dict[str, Tensor]:
    """All terms, weighted, as scalars in float32; terms without positives are 0 and keep the graph.

    Args:
        config: of the model.
        strides: of the levels that predict poses.
        sigmas: of the skeleton, for OKS.
        outputs: of the network.
        truth: of each image, in the frame of the locations.
    """
    sizes = [(m.shape[-2], m.shape[-1]) for m in outputs.logits]
    grid = dense.make_grid(sizes, strides, outputs.logits[0].device)
    ranges = config.size_ranges[: len(strides)]
    matched = dense.match(grid, truth, ranges=ranges, radius=config.radius, inclusive_area=True)
    target = dense.keypoint_targets(grid, matched.owner, truth)
    initial = dense.precise(dense.flatten_levels(outputs.initial))
    refined = None if outputs.refined is None else dense.precise(dense.flatten_levels(outputs.refined))
    compared = refined if refined is not None and config.oks_pose == "refined" else initial
    judged = judge(config, grid, compared, truth, sigmas)
    assigned = matched.owner >= 0
    positive = assigned & judged.good if config.positives == "oks" else assigned

    where = (target.image, target.location)
    quality = judged.quality[where]
    chosen = positive[where].to(quality.dtype)
    weight = quality if config.l1_weight == "oks" else torch.ones_like(quality)
    terms = {
        "classification": config.class_loss * _classification(config, outputs, matched, positive),
        "initial": config.initial_loss * weighted_mean(pose_error(initial[where], target), weight),
    }
    if refined is not None:
        terms["refined"] = config.refined_loss * weighted_mean(pose_error(refined[where], target), weight * chosen)
    if outputs.quality is not None:
        logits = dense.precise(dense.flatten_levels(outputs.quality))[where][:, 0]
        entropy = losses.binary_cross_entropy(logits, quality)
        some = dense.run_total(chosen.sum()) > 0
        terms["quality"] = config.quality_loss * weighted_mean(entropy, torch.where(some, chosen, 1.0))
    if outputs.heatmaps is not None:
        terms["heatmap"] = config.heatmap_loss * _heatmap(config, dense.precise(outputs.heatmaps), truth)
    return terms


@torch.no_grad()
def judge(
    config: SMPRConfig, grid: dense.Grid, offsets: Tensor, truth: Sequence[Persons], sigmas: Sequence[float]
) -> Judgement:
    """Compare the poses of all locations with all persons (SMPR spec 4, "MaxOKS").

    Args:
        config: of the model.
        grid: the locations.
        offsets: (B, P, 2 K) poses in strides relative to their locations.
        truth: of each image.
        sigmas: of the skeleton.
    """
    poses = offsets.unflatten(-1, (-1, 2)) * grid.strides[:, None, None] + grid.points[:, None]
    qualities, goods = [], []
    for image_poses, persons in zip(poses, truth, strict=True):
        similar = pose_similarity(image_poses, persons, sigmas, config.oks_area)
        quality = similar.amax(1) if len(persons) else similar.new_zeros(len(similar))
        good = quality >= config.oks_threshold
        if config.force_best and len(persons):
            labelled = (persons.keypoints[..., 2] > 0).any(1)
            good |= ((similar == similar.amax(0)) & labelled).any(1)
        qualities.append(quality)
        goods.append(good)
    return Judgement(torch.stack(qualities), torch.stack(goods))


def pose_similarity(poses: Tensor, persons: Persons, sigmas: Sequence[float], area: str = "segment") -> Tensor:
    """OKS (P, M) of poses (P, K, 2) with persons; ``area``: their segments', or ``box`` of their labelled keypoints."""
    areas = persons.areas if area == "segment" else labelled_extent(persons.keypoints).prod(-1)
    return oks(poses, persons.keypoints, areas, sigmas)


def labelled_extent(keypoints: Tensor) -> Tensor:
    """Width and height (M, 2) of the labelled keypoints of persons (M, K, 3); 0 where none is labelled."""
    seen = keypoints[..., 2:] > 0
    low = torch.where(seen, keypoints[..., :2], torch.inf).amin(1)
    high = torch.where(seen, keypoints[..., :2], -torch.inf).amax(1)
    extent: Tensor = (high - low).clamp(min=0)
    return extent


def _classification(config: SMPRConfig, outputs: SMPROutputs, matched: dense.Match, positive: Tensor) -> Tensor:
    logits = dense.precise(dense.flatten_levels(outputs.logits))[..., 0]
    loss = losses.sigmoid_focal(logits, positive.to(logits.dtype))
    if config.ignore_regions:
        loss = loss.masked_fill(matched.ignored, 0.0)
    return loss.sum() / dense.run_total(positive.sum() + len(logits))


def pose_error(offsets: Tensor, target: dense.KeypointTargets) -> Tensor:
    """Sum (p,) of absolute differences over the labelled keypoints, strides."""
    difference = (offsets.unflatten(-1, (-1, 2)) - target.offsets).abs()
    total: Tensor = (difference * target.labelled[..., None]).sum((1, 2))
    return total


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of values (p,) of all processes (see `dense.run_total`); 0 if all weights are 0."""
    return (values * weights).sum() / dense.run_total(weights.sum(), TINY)


def _heatmap(config: SMPRConfig, maps: Tensor, truth: Sequence[Persons]) -> Tensor:
    count, size, stride = maps.shape[1], (maps.shape[-2], maps.shape[-1]), dense.HEATMAP_STRIDE
    labels = heatmap_branch.single_target(truth, size, stride, heatmap_branch.rounded_cells)
    wanted = (labels[:, None] == torch.arange(1, count + 1, device=maps.device)[:, None, None]).to(maps.dtype)
    loss = losses.sigmoid_focal(maps, wanted)
    unknown = torch.zeros_like(wanted, dtype=torch.bool)
    if config.mask_unlabelled:
        unknown = heatmap_branch.unlabelled_mask(truth, size, stride, count)
    elif config.ignore_regions:
        unknown = dense.ignored_cells(truth, size, stride)
    loss = loss.masked_fill(unknown & (wanted == 0), 0.0)
    return loss.sum() / dense.run_total((labels > 0).sum() + len(maps))
