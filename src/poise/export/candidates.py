"""Which locations become poses, in tensors without Python's control flow; see `poise.export.graph` for the letters.

p locations of a level. Frame: input px plus the model's ``pixel_offset``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.export.smpr_cells import SMPRLevel
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
    scores, places, poses, chosen = [], [], [], []
    for number, feature in enumerate(head.answering(features)):
        level = SMPRLevel(head, number, feature, operator)
        chance = dense.precise(level.logits.flatten()).sigmoid()
        some = level.at(chance > config.score_threshold)
        score, rivals = chance[some.index], chance.new_zeros(0)
        if config.score == "product":
            score = score * some.quality()
            rivals = _rivals(level, chance, score[:-1], config)
        last = score.new_full((1,), -1.0)  # stands for nobody
        score = torch.cat([score[:-1], last])
        kept = _among_best(torch.cat([score, rivals]), config.pre_nms)[: score.shape[0]]
        scores.append(score)
        chosen.append(kept & (score >= 0))
        places.append(_locations([level.logits], (model.strides[number],))[some.index])
        poses.append(dense.precise(some.pose()))
    index = _indices(torch.cat(chosen))
    best, located = torch.cat(scores)[index], torch.cat(places)[index]
    points, strides = located[:, :2], located[:, 2]
    raw = torch.cat(poses)[index].unflatten(1, (len(skeleton), 2))
    low = config.pixel_offset
    high = torch.stack([size[1], size[0]]).to(raw.dtype) - 1 + low
    keypoints = torch.minimum((points[:, None] + strides[:, None, None] * raw).clamp(min=low), high)
    boxes = torch.cat([keypoints.amin(1), keypoints.amax(1)], 1)
    marks = best[:, None].expand(-1, len(skeleton))
    found = dense.Candidates(best, keypoints, marks, boxes, index, points)
    if config.snap is not None and heatmaps is not None:
        found = snap(found, heatmaps[0], dense.HEATMAP_STRIDE, config.snap)
    return _with_nobody(found)


def _rivals(level: SMPRLevel, chance: Tensor, scores: Tensor, config: SMPRConfig) -> Tensor:
    """Scores of locations (p) below the threshold that may push candidates out of the best, see `preselect`.

    They matter only where more than ``pre_nms`` of a level come near; the last score belongs to nobody.
    """
    limit = config.pre_nms
    if limit <= 0 or (isinstance(chance.shape[0], int) and chance.shape[0] <= limit):
        return chance.new_zeros(0)
    least = torch.cat([scores, scores.new_full((1,), 2.0)]).amin(0)
    near = (chance <= config.score_threshold) & (chance > least)
    crowded = near.sum() + (chance > config.score_threshold).sum() > limit
    some = level.at(near & crowded)
    score = chance[some.index] * some.quality()
    return torch.cat([score[:-1], score.new_full((1,), -1.0)])


def _locations(maps: list[Tensor], strides: tuple[int, ...]) -> Tensor:
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
