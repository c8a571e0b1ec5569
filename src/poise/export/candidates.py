"""Which locations become poses, in tensors without Python's control flow; see `poise.export.graph` for the letters.

p locations of a level. Frame: input px plus the model's ``pixel_offset``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poise.export.smpr_cells import SMPRCells, SMPRLevels
from poise.models import dense
from poise.models.directpose import DirectPose, DirectPoseOutputs
from poise.models.directpose_refine import refine_keypoints
from poise.models.smpr import SMPR, SMPRConfig
from poise.models.snapping import snap


def directpose_candidates(model: DirectPose, outputs: DirectPoseOutputs, size: Tensor) -> dense.Candidates:
    """Candidates (M) of one picture as `DirectPose.candidates`, and a last one of score -1 that is nobody."""
    config, skeleton = model.config, model.skeleton
    chances, ranks, chosen = [], [], []
    for logits, centerness in zip(outputs.logits, outputs.centerness, strict=True):
        chance = dense.precise(logits.flatten()).sigmoid()
        rank = chance * dense.precise(centerness.flatten()).sigmoid()
        passes = chance > config.score_threshold
        if config.threshold_with_centerness:
            passes = passes & (rank > config.score_threshold)
        chosen.append(passes & _among_best(torch.where(passes, rank, -1.0), config.pre_nms))
        chances.append(chance)
        ranks.append(rank)
    index = _indices(torch.cat(chosen))
    rank = torch.cat(ranks)[index]
    scores = {"sqrt": rank.sqrt(), "product": rank, "cls": torch.cat(chances)[index]}[config.score]
    places = _locations(outputs.logits, model.strides)[index]
    points, strides = places[:, :2], places[:, 2]
    raw = dense.precise(dense.flatten_levels(outputs.keypoints)[0][index]).unflatten(1, (len(skeleton), -1))
    keypoints = points[:, None] + strides[:, None, None] * raw[..., :2]
    marks = raw[..., 2].sigmoid() if raw.shape[-1] == 3 else scores[:, None].expand(-1, len(skeleton))
    if outputs.boxes is None:
        low, high = keypoints.amin(1).clamp(min=0), keypoints.amax(1).clamp(min=0)
        edge = torch.stack([size[1], size[0]]).to(low.dtype)
        boxes = torch.cat([torch.minimum(low, edge), torch.minimum(high, edge)], 1)
    else:
        sides = dense.precise(dense.flatten_levels(outputs.boxes)[0][index])
        boxes = torch.cat([points, points], -1) + strides[:, None] * sides * sides.new_tensor([-1, -1, 1, 1])
    found = dense.Candidates(scores, keypoints, marks, boxes, index, points)
    if config.refine_keypoints and outputs.heatmaps is not None:
        offsets = outputs.heatmap_offsets
        found = refine_keypoints(found, outputs.heatmaps[0], None if offsets is None else offsets[0])
    if config.snap is not None and outputs.heatmaps is not None:
        found = snap(found, outputs.heatmaps[0], model.strides[0], config.snap, not config.box_branch)
    return _with_nobody(found)


def smpr_candidates(model: SMPR, x: Tensor, size: Tensor, operator: bool) -> dense.Candidates:
    """Candidates (M) of one picture (1, 3, H, W) as `SMPR.lazy_candidates`, and a last one of score -1 that is nobody.

    Args:
        model: in eval mode.
        x: normalised.
        size: (2,) height and width of what ``x`` shows of the picture.
        operator: compute deformable convolutions of whole maps by the operator for them.
    """
    config, skeleton, head = model.config, model.skeleton, model.head
    features = model.pyramid(model.backbone(x))
    heatmaps = head.heatmap(features[0]) if config.snap is not None and head.heatmap is not None else None
    answering = head.answering(features)
    levels = SMPRLevels(head, answering, operator)
    chance = dense.precise(levels.logits).sigmoid()
    some = levels.at(chance > config.score_threshold, config.score == "product")
    best = _score(chance, some)
    kept = _among_best_of_level(levels, chance, some, best[:-1], config)
    last = best.new_full((1,), -1.0)  # stands for nobody
    index, best, raw = some.cells, torch.cat([best[:-1], last]), dense.precise(some.poses)
    if kept is not None:
        left = _indices(kept)
        index, best, raw = index[left], best[left], raw[left]
    located = _locations(answering, model.strides)[index]
    points, strides = located[:, :2], located[:, 2]
    raw = raw.unflatten(1, (len(skeleton), 2))
    low = config.pixel_offset
    high = torch.stack([size[1], size[0]]).to(raw.dtype) - 1 + low
    keypoints = torch.minimum((points[:, None] + strides[:, None, None] * raw).clamp(min=low), high)
    boxes = torch.cat([keypoints.amin(1), keypoints.amax(1)], 1)
    marks = best[:, None].expand(-1, len(skeleton))
    found = dense.Candidates(best, keypoints, marks, boxes, index, points)
    if config.snap is not None and heatmaps is not None:
        found = snap(found, heatmaps[0], dense.HEATMAP_STRIDE, config.snap)
    return _with_nobody(found)


def _score(chance: Tensor, some: SMPRCells) -> Tensor:
    """Scores (n,) of some cells, by the class probabilities (P,) of all."""
    score = chance.index_select(0, some.cells)
    return score if some.quality is None else score * some.quality


def _among_best_of_level(
    levels: SMPRLevels, chance: Tensor, some: SMPRCells, scores: Tensor, config: SMPRConfig
) -> Tensor | None:
    """(n - 1,) bool: which cells above the threshold are among the best of their level, see `preselect`.

    None where no level has more cells than may stay.
    """
    limit, index = config.pre_nms, some.cells[:-1]
    passing, kept = chance > config.score_threshold, None
    numbers = torch.arange(chance.shape[0], device=chance.device)
    start = 0
    for count in levels.counts:
        first, start = start, start + count
        if limit <= 0 or (isinstance(count, int) and count <= limit):
            continue
        mine = (index >= first) & (index < start)
        own = torch.where(mine, scores, -1.0)
        rivals = chance.new_zeros(0)
        if config.score == "product":
            inside = (numbers >= first) & (numbers < start)
            # cells below the threshold may push others out only where more than may stay come near
            least = torch.where(mine, scores, 2.0)
            near = inside & ~passing & (chance > torch.cat([least, least.new_full((1,), 2.0)]).amin(0))
            crowded = near.sum() + mine.sum() > limit
            rivals = _score(chance, levels.at(near & crowded, True))[:-1]
        best = ~mine | _among_best(torch.cat([own, rivals]), limit)[: own.shape[0]]
        kept = best if kept is None else kept & best
    return kept


def _locations(maps: Sequence[Tensor], strides: tuple[int, ...]) -> Tensor:
    """(P, 3) x, y and stride of all locations, as `dense.make_grid`, by sums alone: sizes may be symbols."""
    parts = []
    for level, stride in zip(maps, strides, strict=True):
        rows = torch.arange(level.shape[-2], dtype=torch.float32, device=level.device)[:, None]
        columns = torch.arange(level.shape[-1], dtype=torch.float32, device=level.device)[None]
        x = columns * stride + stride // 2 + 0 * rows
        y = rows * stride + stride // 2 + 0 * columns
        parts.append(torch.stack([x, y, 0 * x + stride], -1).flatten(0, 1))
    return torch.cat(parts)


def _among_best(scores: Tensor, limit: int) -> Tensor:
    """(p,) bool: the ``limit`` best of scores (p,), and what ties with the last of them; <= 0: all."""
    if limit <= 0:
        return torch.ones_like(scores, dtype=torch.bool)
    longer = torch.cat([scores, scores.new_full((limit,), -1.0)])  # so that there are always enough
    return scores >= longer.topk(limit).values[-1]


def _indices(chosen: Tensor) -> Tensor:
    """Where (p,) is true, and a last index that stands for nobody: no tensor is then ever empty."""
    index = torch.nonzero(chosen).squeeze(1)
    return torch.cat([index, index.new_zeros(1)])


def _with_nobody(found: dense.Candidates) -> dense.Candidates:
    """The last one, which stands for nobody, loses against everybody."""
    return found._replace(scores=torch.cat([found.scores[:-1], found.scores.new_full((1,), -1.0)]))
