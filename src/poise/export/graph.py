"""A network with everything around it as one traceable function: a picture goes in, its final poses come out.

What the models do with Python's control flow when they predict (skipping what cannot matter, suppression in numpy) is
said here in tensors, so that it can be recorded. The results are those of the models but for ties and rounding.

Letters: H W input size, P locations of all levels, M candidates, N rows of the result, K keypoints, B crops.
Frames: input px; *picture px* is wherever the input ``to_image`` leads, input px again if that is the identity.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from poise.export.suppression import consensus, greedy, soft_boxes, soft_poses
from poise.models import dense
from poise.models.base import PoseModel
from poise.models.directpose import DirectPose, DirectPoseOutputs
from poise.models.directpose_refine import refine_keypoints
from poise.models.rsn import DECODERS, RSN
from poise.models.smpr import SMPR, FeatureAlignment, SMPROutputs
from poise.models.snapping import snap
from poise.nn.fold import fold_batch_norm
from poise.types import ViewSpec

UNLIMITED = 300
"""Rows of the result of a model without a limit of poses."""


class WholePoses(NamedTuple):
    """The poses of a picture, best first; rows from ``people`` on are zeros."""

    keypoints: Tensor
    """(N, K, 2) x, y, picture px."""
    keypoint_scores: Tensor
    """(N, K)."""
    boxes: Tensor
    """(N, 4) xyxy, picture px."""
    scores: Tensor
    """(N,)."""
    people: Tensor
    """(1,) int64: how many."""


class CropPoses(NamedTuple):
    """The pose in each crop, in their order; `oks_nms` of the model's settings, across people, is not in it."""

    keypoints: Tensor
    """(B, K, 2) x, y, picture px."""
    keypoint_scores: Tensor
    """(B, K)."""
    boxes: Tensor
    """(B, 4) xyxy: what each crop shows, picture px."""
    scores: Tensor
    """(B,)."""


class Normalised(nn.Module):
    """Pixels as the network wants them.

    Args:
        spec: of the model.
    """

    def __init__(self, spec: ViewSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
        order = [0, 1, 2] if spec.channels == "rgb" else [2, 1, 0]
        factor = (1 / (spec.value_range * std))[order].float()  # for the channels of the picture: RGB
        self.register_buffer("factor", factor)
        self.register_buffer("shift", (mean / std)[order].float())
        self.factor: Tensor
        self.shift: Tensor
        self.reverse = spec.channels == "bgr"

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float32 of RGB pictures (B, H, W, 3) uint8."""
        values = (image.to(torch.float32) * self.factor - self.shift).permute(0, 3, 1, 2)
        return values.flip(1) if self.reverse else values


class WholeGraph(nn.Module):
    """From one padded picture to its poses.

    Args:
        model: DirectPose or SMPR, ready for inference.
    """

    def __init__(self, model: DirectPose | SMPR) -> None:
        super().__init__()
        self.model = model
        self.normalised = Normalised(model.view)
        self.rows = model.config.max_poses if model.config.max_poses > 0 else UNLIMITED

    def forward(self, image: Tensor, size: Tensor, to_image: Tensor) -> WholePoses:
        """The poses of one picture.

        Args:
            image: (1, H, W, 3) uint8 RGB; H and W multiples of the view's stride.
            size: (2,) int64 height and width of what ``image`` shows of the picture; the rest, at the right and
                bottom, is padding of any value.
            to_image: (2, 3) float32 map input px -> picture px, without rotation.
        """
        x = self.normalised(image)
        shown = _shown(x, size)
        outputs = self.model(x * shown)
        if isinstance(self.model, DirectPose):
            return self._directpose(self.model, outputs, size, to_image)
        return self._smpr(self.model, outputs, size, to_image)

    def _directpose(self, model: DirectPose, outputs: DirectPoseOutputs, size: Tensor, to_image: Tensor) -> WholePoses:
        config = model.config
        found = _to_picture(directpose_candidates(model, outputs, size), config.pixel_offset, to_image)
        found = _clipped(found, size, to_image)
        kept = greedy(found.boxes, found.scores, config.nms_iou, self.rows)
        best = found.boxes[kept.indices]
        solid = ((best[:, 2:] - best[:, :2]) > 0).all(-1)
        scores = kept.scores
        if config.consensus:
            scores = consensus(found, kept.indices, scores, model.skeleton.sigmas)
        return _ordered(found, kept.indices, torch.where(solid & (kept.scores >= 0), scores, -1.0))

    def _smpr(self, model: SMPR, outputs: SMPROutputs, size: Tensor, to_image: Tensor) -> WholePoses:
        config = model.config
        found = _to_picture(smpr_candidates(model, outputs, size), config.pixel_offset, to_image)
        if config.suppress_on == "oks":
            kept = soft_poses(found.keypoints, found.scores, model.skeleton.sigmas, config.suppression, self.rows)
        else:
            boxes = torch.cat([found.keypoints.amin(1), found.keypoints.amax(1)], 1)
            kept = soft_boxes(boxes, found.scores, config.suppression, self.rows)
        if not config.consensus:
            return _ordered(found, kept.indices, kept.scores)
        found = _clipped(found, size, to_image)
        scores = consensus(found, kept.indices, kept.scores, model.skeleton.sigmas)
        return _ordered(found, kept.indices, torch.where(kept.scores >= 0, scores, -1.0))


class CropGraph(nn.Module):
    """From crops of people to their poses.

    Args:
        model: RSN, ready for inference.
    """

    def __init__(self, model: RSN) -> None:
        super().__init__()
        self.model = model
        self.normalised = Normalised(model.view)

    def forward(self, image: Tensor, to_image: Tensor, box_scores: Tensor) -> CropPoses:
        """The pose in each crop.

        Args:
            image: (B, H, W, 3) uint8 RGB crops, black where the picture ends.
            to_image: (B, 2, 3) float32 maps input px -> picture px.
            box_scores: (B,) float32 scores of the people's boxes.
        """
        model, config = self.model, self.model.config
        maps = dense.precise(model.heatmaps(self.normalised(image)))
        read = DECODERS[config.decoding]
        peaks = read(maps, config.blur)
        points, marks = peaks.points.float(), peaks.scores.float() + config.score_offset
        factor = _mean_of_counted(marks, config.min_keypoint_score)
        scores = factor * box_scores / (1 + config.score_offset)
        height, width = model.view.size or (0, 0)
        corners = points.new_tensor([[0.0, 0.0], [width - 1.0, height - 1.0]]).expand(points.shape[0], 2, 2)
        placed = _mapped(torch.cat([points, corners], 1), to_image)
        keypoints, boxes = placed[:, :-2], placed[:, -2:].flatten(1)
        marks = (marks - config.score_offset).clamp(0, 1)
        return CropPoses(keypoints, marks, boxes, scores)


class OperatorAlignment(nn.Module):
    """SMPR's aligned features by the operator for deformable convolutions, where a format and its runtime have it.

    On one core, a convolution of 96 channels in maps of 48 x 64 with four offset groups takes onnxruntime 16 ms with
    the operator and 52 ms with gathers and a product; OpenVINO reads no such operator from ONNX.

    Args:
        align: of which it computes the same.
    """

    def __init__(self, align: FeatureAlignment) -> None:
        super().__init__()
        self.align = align

    def forward(self, pose: Tensor, person: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """As `FeatureAlignment.forward`."""
        offsets = self.align.offset(initial)
        weights = self.align.pose.weight, self.align.person.weight
        aligned = (deform_conv2d(x, offsets, w, padding=1) for x, w in zip((pose, person), weights, strict=True))
        first, second = (torch.relu(x) for x in aligned)
        return first, second


def with_operator(graph: WholeGraph | CropGraph) -> WholeGraph | CropGraph:
    """The same function, deformable convolutions by the operator for them; ``graph`` is not changed."""
    if not isinstance(graph.model, SMPR) or graph.model.head.align is None:
        return graph
    changed = copy.deepcopy(graph)
    head = cast(SMPR, changed.model).head
    head.align = OperatorAlignment(cast(FeatureAlignment, head.align))  # type: ignore[assignment]
    return changed


def pose_graph(model: PoseModel) -> WholeGraph | CropGraph:
    """The whole function of a model, in eval mode, with batch norms folded; the model is not changed.

    Raises:
        ValueError: the model is of no system that can be exported.
    """
    view = model.view
    side = (2 * view.stride, 2 * view.stride) if view.size is None else view.size
    example = torch.randn(1, 3, *side, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(cast(nn.Module, model).cpu(), example).requires_grad_(False)
    if isinstance(folded, DirectPose | SMPR):
        return WholeGraph(folded).eval()
    if isinstance(folded, RSN):
        return CropGraph(folded).eval()
    raise ValueError(f"models of the system {type(model).__name__} cannot be exported")


# ------------------------------------------------------------------------------------------------------- candidates


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


def smpr_candidates(model: SMPR, outputs: SMPROutputs, size: Tensor) -> dense.Candidates:
    """Candidates (M) of one picture as `SMPR.candidates`, and a last one of score -1 that is nobody."""
    config, skeleton = model.config, model.skeleton
    all_scores, chosen = [], []
    for level, logits in enumerate(outputs.logits):
        chance = dense.precise(logits.flatten()).sigmoid()
        score = chance
        if config.score == "product" and outputs.quality is not None:
            score = chance * dense.precise(outputs.quality[level].flatten()).sigmoid()
        chosen.append((chance > config.score_threshold) & _among_best(score, config.pre_nms))
        all_scores.append(score)
    index = _indices(torch.cat(chosen))
    scores = torch.cat(all_scores)[index]
    places = _locations(outputs.logits, model.strides)[index]
    points, strides = places[:, :2], places[:, 2]
    poses = outputs.initial if outputs.refined is None else outputs.refined
    raw = dense.precise(dense.flatten_levels(poses)[0][index]).unflatten(1, (len(skeleton), 2))
    low = config.pixel_offset
    high = torch.stack([size[1], size[0]]).to(raw.dtype) - 1 + low
    keypoints = torch.minimum((points[:, None] + strides[:, None, None] * raw).clamp(min=low), high)
    boxes = torch.cat([keypoints.amin(1), keypoints.amax(1)], 1)
    marks = scores[:, None].expand(-1, len(skeleton))
    found = dense.Candidates(scores, keypoints, marks, boxes, index, points)
    if config.snap is not None and outputs.heatmaps is not None:
        found = snap(found, outputs.heatmaps[0], model.strides[0], config.snap)
    return _with_nobody(found)


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


# ------------------------------------------------------------------------------------------------------------ frames


def _shown(x: Tensor, size: Tensor) -> Tensor:
    """(H, W) 1 where the input shows the picture, 0 in the padding."""
    rows = torch.arange(x.shape[-2], device=x.device) < size[0]
    columns = torch.arange(x.shape[-1], device=x.device) < size[1]
    return (rows[:, None] & columns).to(x.dtype)


def _to_picture(found: dense.Candidates, offset: float, to_image: Tensor) -> dense.Candidates:
    """Candidates of a frame that lies ``offset`` beside input px, in picture px."""
    corners = _to_picture_points(found.boxes.unflatten(1, (2, 2)) - offset, to_image)
    return found._replace(
        keypoints=_to_picture_points(found.keypoints - offset, to_image), boxes=corners.flatten(1)
    )  # fmt: skip


def _clipped(found: dense.Candidates, size: Tensor, to_image: Tensor) -> dense.Candidates:
    """Candidates, picture px, whose boxes end where the picture does."""
    high = _to_picture_points(torch.stack([size[1], size[0]]).to(torch.float32) - 0.5, to_image)
    low = _to_picture_points(high.new_full((2,), -0.5), to_image)
    boxes = torch.minimum(torch.maximum(found.boxes, torch.cat([low, low])), torch.cat([high, high]))
    return found._replace(boxes=boxes)


def _to_picture_points(points: Tensor, to_image: Tensor) -> Tensor:
    """Points (..., 2) through one map (2, 3)."""
    return points @ to_image[:, :2].T + to_image[:, 2]


def _mapped(points: Tensor, maps: Tensor) -> Tensor:
    """Points (B, n, 2), each row through its own map (B, 2, 3)."""
    return points @ maps[:, :, :2].transpose(1, 2) + maps[:, None, :, 2]


def _ordered(found: dense.Candidates, indices: Tensor, scores: Tensor) -> WholePoses:
    """Rows of ``found`` by falling scores (N,); a negative score marks an empty row, 0 a pose nobody agrees with."""
    scores, order = scores.topk(scores.shape[0])
    index, there = indices[order], scores >= 0
    return WholePoses(
        torch.where(there[:, None, None], found.keypoints[index], 0.0),
        torch.where(there[:, None], found.keypoint_scores[index], 0.0),
        torch.where(there[:, None], found.boxes[index], 0.0),
        torch.where(there, scores, 0.0),
        there.sum().reshape(1),
    )


def _mean_of_counted(marks: Tensor, least: float | None) -> Tensor:
    """(B,) means of keypoint scores (B, K) above ``least``; 0 where there are none."""
    if least is None:
        return marks.mean(1)
    counted = (marks > least).to(marks.dtype)
    return (marks * counted).sum(1) / counted.sum(1).clamp(min=1)
