"""The losses of DirectPose in all published variants (DirectPose spec 7, 8).

Letters: B images, P locations, K keypoints, p positives of the batch, d values a keypoint, h w P3 size.
Frame: corner-based input px, as in `poise.models.directpose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.models import dense, heatmap_branch
from poise.types import Persons

if TYPE_CHECKING:
    from poise.models.directpose import DirectPoseConfig, DirectPoseOutputs, HeatmapConfig


class Positives(NamedTuple):
    """What the positive locations of a batch shall predict."""

    image: Tensor
    """(p,) int64."""
    location: Tensor
    """(p,) int64 index into the locations."""
    distances: Tensor
    """(p, 4) left, top, right, bottom of the person's box over the stride."""
    centerness: Tensor
    """(p,)."""
    keypoints: Tensor
    """(p, K, 2) offsets over the stride; 0 where not labelled."""
    labelled: Tensor
    """(p, K) 0/1."""


def positives(grid: dense.Grid, owner: Tensor, truth: Sequence[Persons]) -> Positives:
    """Targets at the positive locations (DirectPose spec 7)."""
    target = dense.keypoint_targets(grid, owner, truth)
    boxes = torch.cat([t.boxes for t in truth])[target.person]
    distances = dense.side_distances(grid.points[target.location], boxes)
    return Positives(
        target.image,
        target.location,
        distances / grid.strides[target.location][:, None],
        dense.centerness(distances),
        target.offsets,
        target.labelled,
    )


def directpose_losses(
    config: DirectPoseConfig, strides: Sequence[int], outputs: DirectPoseOutputs, truth: Sequence[Persons]
) -> dict[str, Tensor]:
    """All terms, weighted, as scalars in float32; terms without positives are 0 and keep the graph."""
    sizes = [(m.shape[-2], m.shape[-1]) for m in outputs.logits]
    grid = dense.make_grid(sizes, strides, outputs.logits[0].device)
    ranges = config.size_ranges[: len(strides)]
    matched = dense.match(grid, truth, ranges=ranges, radius=config.radius, inclusive_area=config.inclusive_area)
    target = positives(grid, matched.owner, truth)
    where = (target.image, target.location)
    terms = {
        "classification": _classification(config, outputs, matched),
        "centerness": losses.binary_cross_entropy(
            dense.flatten_levels(outputs.centerness).float()[where][:, 0], target.centerness
        ).sum()
        / dense.run_total(target.centerness.new_tensor(float(len(target.image))), 1),
    }
    values = 3 if config.visibility else 2
    predicted = dense.flatten_levels(outputs.keypoints).float()[where].unflatten(1, (-1, values))
    terms["keypoints"] = _keypoints(config, predicted, target)
    if config.visibility:
        entropy = losses.binary_cross_entropy(predicted[..., 2], target.labelled)
        terms["visibility"] = entropy.sum() / dense.run_total(target.labelled.sum(), 1)
    if outputs.boxes is not None:
        sides = dense.flatten_levels(outputs.boxes).float()[where]
        weighted = losses.ltrb_iou(sides, target.distances, config.box_loss) * target.centerness
        terms["box"] = weighted.sum() / dense.run_total(target.centerness.sum(), 1e-6)
    if config.heatmap is not None and outputs.heatmaps is not None:
        terms["heatmap"] = _heatmaps(config.heatmap, outputs.heatmaps.float(), strides[0], truth)
        if outputs.heatmap_offsets is not None:
            error = _offset_error(outputs.heatmap_offsets.float(), strides[0], truth, config.smooth_l1_beta)
            terms["heatmap_offset"] = error / dense.run_total(target.centerness.sum(), 1e-6)
    return terms


def _classification(config: DirectPoseConfig, outputs: DirectPoseOutputs, matched: dense.Match) -> Tensor:
    logits = dense.flatten_levels(outputs.logits).float()[..., 0]
    positive = matched.owner >= 0
    loss = losses.sigmoid_focal(logits, positive.to(logits.dtype)).masked_fill(matched.ignored, 0.0).sum()
    count = positive.sum().to(logits.dtype)
    if config.cls_normaliser == "official":
        return loss / dense.run_total(count + len(logits))
    return loss / dense.run_total(count, 1)


def _keypoints(config: DirectPoseConfig, predicted: Tensor, target: Positives) -> Tensor:
    error = (predicted[..., :2] - target.keypoints) * target.labelled[..., None]
    count = target.labelled.sum(1)
    if config.keypoint_loss == "official":
        per_person = error.abs().sum((1, 2)) / 2 / count.clamp(min=1)
        weight = target.centerness * (count > 0)
        return (per_person * weight).sum() / dense.run_total(weight.sum(), 1)
    per_person = losses.smooth_l1(error, config.smooth_l1_beta).sum((1, 2)) / 2
    return (per_person * target.centerness).sum() / dense.run_total((target.centerness * count).sum(), 1)


def _heatmaps(config: HeatmapConfig, maps: Tensor, stride: int, truth: Sequence[Persons]) -> Tensor:
    count, size = maps.shape[1], (maps.shape[-2], maps.shape[-1])
    if config.mask_unlabelled:
        unknown = heatmap_branch.unlabelled_mask(truth, size, stride, count)
    else:
        unknown = dense.ignored_cells(truth, size, stride)
    known = 1 - unknown.to(maps.dtype)
    if config.target == "gaussian":
        return _gaussian_loss(config, maps, heatmap_branch.gaussian_target(truth, size, stride, count), known)
    if config.target == "binary":
        wanted = heatmap_branch.binary_target(truth, size, stride, count)
        labelled = wanted.sum()
    else:
        labels = heatmap_branch.single_target(truth, size, stride)
        wanted = (labels[:, None] == torch.arange(1, count + 1, device=maps.device)[:, None, None]).to(maps.dtype)
        labelled = (labels > 0).sum()
    loss = (losses.sigmoid_focal(maps, wanted) * torch.maximum(known, wanted)).sum()
    return config.weight * loss / dense.run_total(labelled, 1)


def _gaussian_loss(config: HeatmapConfig, maps: Tensor, target: heatmap_branch.GaussianTarget, known: Tensor) -> Tensor:
    if config.loss == "mse":
        weight = torch.where(target.window, 1.0, config.background_weight) * known
        return config.mse_weight * (weight * (maps - target.maps) ** 2).mean()
    loss = (losses.gaussian_focal(maps, target.maps) * torch.maximum(known, (target.maps == 1).to(maps.dtype))).sum()
    return config.weight * loss / dense.run_total((target.maps == 1).sum(), 1)


def _offset_error(offsets: Tensor, stride: int, truth: Sequence[Persons], beta: float) -> Tensor:
    """Smooth L1 at the centre cells, meant over the keypoints of a cell, summed over cells (GluonCV ``HM_OFFSET``).

    The caller divides by the sum of the centre-ness targets, as GluonCV does.
    """
    count, height, width = len(offsets), offsets.shape[-2], offsets.shape[-1]
    target = heatmap_branch.gaussian_target(truth, (height, width), stride, truth[0].keypoints.shape[1])
    image, _, row, column = target.cells.unbind(1)
    cell = (image * height + row) * width + column
    error = losses.smooth_l1(offsets[image, :, row, column] - target.offset, beta).sum(1)
    cells = offsets.new_zeros(count * height * width)
    number = cells.index_add(0, cell, torch.ones_like(error))
    return (cells.index_add(0, cell, error) / number.clamp(min=1)).sum()
