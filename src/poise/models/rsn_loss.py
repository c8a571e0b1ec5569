"""The losses of RSN and the labels behind them (RSN spec 8, 9).

The paper's maps learn the heights of the labels. With ``objective = "place"``, which is ours, the softmax of a map over
its cells learns the label as a distribution (cross entropy): most of a heatmap is background, and a network without
pretrained parts first learns to be zero everywhere; where a keypoint is has a gradient from the first step.

Letters: B views, n views with a person, K keypoints, h w map size.
Frame: input px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from poise import losses
from poise.geometry import heatmaps
from poise.models.dense import precise
from poise.models.rsn_blocks import LEVELS
from poise.types import Persons

if TYPE_CHECKING:
    from poise.models.rsn import RSNConfig


class Truth(NamedTuple):
    """One person a view."""

    cells: Tensor
    """(n, K, 2) int64 x, y on the map."""
    visible: Tensor
    """(n, K) 0, 1 or 2; 0 also where the keypoint is not on the map."""


def rsn_losses(config: RSNConfig, maps: Sequence[Tensor], persons: Sequence[Persons]) -> dict[str, Tensor]:
    """All terms, weighted, as scalars in float32: two a stage, whose names carry its number from 1.

    With ``objective = "place"`` the finest level has no choice of hardest keypoints, and keypoints that are not
    labelled or not on the map are left out of every term.

    Args:
        config: of the model.
        maps: (B, K, h, w), stages in order, in each the levels from coarse to fine.
        persons: of each view, at most one; views without anybody take no part in the mean over views.

    Raises:
        ValueError: a view has more than one person.
    """
    most = max(map(len, persons), default=0)
    if most > 1:
        raise ValueError(f"RSN learns from views of one person each, but one of them has {most}")
    present = [b for b, p in enumerate(persons) if len(p)]
    if len(present) < len(persons):
        maps = [m[present] for m in maps]
    truth = read_truth(config, [persons[b] for b in present], maps[0])
    return stage_terms(config, maps, draw(config, truth, maps), truth.visible)


@torch.no_grad()
def read_truth(config: RSNConfig, persons: Sequence[Persons], like: Tensor) -> Truth:
    """Where the keypoints of n persons lie on a map (n, K, h, w), and which of them do."""
    if not persons:
        nowhere = like.new_zeros(like.shape[:2])
        return Truth(torch.stack([nowhere, nowhere], -1).long(), nowhere)
    keypoints = torch.cat([p.keypoints for p in persons]).to(like.device)
    points = keypoints[..., :2]
    on_map = heatmaps.inside(points, (like.shape[-2], like.shape[-1]), config.label_bounds)
    return Truth(heatmaps.keypoint_cells(points), keypoints[..., 2] * on_map)


@torch.no_grad()
def draw(config: RSNConfig, truth: Truth, maps: Sequence[Tensor]) -> dict[int, Tensor]:
    """Labels (n, K, h, w) of all keypoints on the map, for every kernel that some level learns from."""
    size = (maps[0].shape[-2], maps[0].shape[-1])
    kernels = {k for stage in level_kernels(config, len(maps) // LEVELS) for k in stage}
    return {k: heatmaps.draw_labels(truth.cells, truth.visible > 0, size, k, config.label_peak) for k in kernels}


def level_kernels(config: RSNConfig, stages: int) -> list[tuple[int, ...]]:
    """Kernel of every level, coarse to fine, of every stage: the last stage has smaller ones (RSN spec 9)."""
    return [config.kernels[:LEVELS]] * (stages - 1) + [config.kernels[1:]]


def stage_terms(
    config: RSNConfig, maps: Sequence[Tensor], labels: Mapping[int, Tensor], visible: Tensor
) -> dict[str, Tensor]:
    """The terms of `rsn_losses` of maps (n, K, h, w), given labels by kernel and visibilities (n, K)."""
    terms: dict[str, Tensor] = {}
    for s, kernels in enumerate(level_kernels(config, len(maps) // LEVELS)):
        stage = maps[s * LEVELS : (s + 1) * LEVELS]
        if config.objective == "place":
            places = [place_loss(m, labels[k], visible) for m, k in zip(stage, kernels, strict=True)]
            terms[f"stage{s + 1}_plain"] = config.plain_weight * torch.stack(places[:-1]).sum()
            terms[f"stage{s + 1}_finest"] = places[-1]
            continue
        plain = [plain_loss(config, m, labels[k], visible) for m, k in zip(stage[:-1], kernels[:-1], strict=True)]
        terms[f"stage{s + 1}_plain"] = torch.stack(plain).sum()
        terms[f"stage{s + 1}_hardest"] = hardest_loss(config, stage[-1], labels[kernels[-1]], visible)
    return terms


def plain_loss(config: RSNConfig, maps: Tensor, labels: Tensor, visible: Tensor) -> Tensor:
    """Weighted loss of a coarser level: the mean over everything of squared errors.

    Keypoints that are not drawn are trained to zero, or left out (``unlabelled``); the mean is over all K either way.

    Args:
        config: of the model.
        maps: (n, K, h, w) predicted.
        labels: (n, K, h, w).
        visible: (n, K) 0, 1 or 2.
    """
    shown = visible > 0 if config.occluded_in_plain_loss else visible > 1
    errors = losses.mean_square(precise(maps), labels * shown[..., None, None])
    if config.unlabelled == "ignore":
        errors = errors * (visible > 0)
    return config.plain_weight * losses.mean_or_zero(errors)


def hardest_loss(config: RSNConfig, maps: Tensor, labels: Tensor, visible: Tensor) -> Tensor:
    """Loss of the finest level: the mean over views of the mean of the largest errors of a view's keypoints.

    Where fewer keypoints are labelled than are wanted, zeros take the other places. Arguments as in `plain_loss`.
    """
    errors = losses.mean_square(precise(maps), labels) * (visible > 0)
    return losses.hardest_mean(errors, config.hardest)


def place_loss(maps: Tensor, labels: Tensor, visible: Tensor) -> Tensor:
    """Cross entropy between labels, as distributions over the cells, and the softmax of the maps; mean over n and K.

    Keypoints without a label count as 0. Arguments as in `plain_loss`.
    """
    wanted = labels.flatten(2)
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp_min(1.0)
    errors = -(wanted * heatmaps.place_scores(precise(maps))).sum(-1)
    return losses.mean_or_zero(errors * (visible > 0))


def imitation_terms(config: RSNConfig, maps: Sequence[Tensor], example: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the last stage has yet to learn from another network's last stage (distillation, ours): two scalars.

    With ``objective = "place"`` every level learns the other's distribution over the cells (cross entropy), each
    keypoint as much as the other is sure of it: the peak of its final map, 1 for one as sharp as a label. With
    ``height`` it learns the heights (squared errors). Levels weigh as in `rsn_losses`.

    Args:
        config: of the network that learns.
        maps: of that network: (B, K, h, w), stages in order, in each the levels from coarse to fine.
        example: of the other one, likewise.
    """
    last, wanted = [precise(m) for m in maps[-LEVELS:]], [precise(m) for m in example[-LEVELS:]]
    if config.objective == "place":
        sure = heatmaps.place_heights(wanted[-1], config.kernels[-1]).amax((-2, -1)) / heatmaps.PEAK
        pairs = [(heatmaps.place_scores(m), heatmaps.place_scores(w).exp()) for m, w in zip(last, wanted, strict=True)]
        levels = [losses.mean_or_zero(sure * -(target * scores).sum(-1)) for scores, target in pairs]
    else:
        levels = [losses.mean_or_zero(losses.mean_square(m, w)) for m, w in zip(last, wanted, strict=True)]
    return {"teacher_plain": config.plain_weight * torch.stack(levels[:-1]).sum(), "teacher_finest": levels[-1]}
