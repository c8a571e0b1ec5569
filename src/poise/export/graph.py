"""A network with everything around it as one traceable function: a picture goes in, its final poses come out.

What the models do with Python's control flow when they predict (skipping what cannot matter, suppression in numpy) is
said here in tensors, so that it can be recorded. The results are those of the models but for ties and rounding.

Letters: H W input size, P locations of all levels, M candidates, N rows of the result, K keypoints, B crops.
Frames: input px; *picture px* is wherever the input ``to_image`` leads, input px again if that is the identity.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from poise.export.candidates import directpose_candidates, smpr_candidates
from poise.export.suppression import consensus, greedy, soft_boxes, soft_poses
from poise.models import dense
from poise.models.base import PoseModel
from poise.models.directpose import DirectPose
from poise.models.rsn import DECODERS, RSN
from poise.models.smpr import SMPR
from poise.nn.fold import fold_batch_norm
from poise.nn.pyramids import make_direct
from poise.types import ViewSpec

UNLIMITED = 300
"""Rows of the result of a model without a limit of poses."""


MOST_AT_ONCE = 2048
"""Locations of an input of one size up to which their boxes are compared all with all."""


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
        self.register_buffer("factor", (1 / (spec.value_range * std)).float()[:, None, None])
        self.register_buffer("shift", (mean / std).float()[:, None, None])
        self.factor: Tensor
        self.shift: Tensor
        self.reverse = spec.channels == "bgr"

    def forward(self, image: Tensor, shown: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, 3, H, W) float32 of RGB pictures (B, H, W, 3) uint8, 0 where one of ``shown`` (H, 1) and (W,) is 0.

        Channels come first while values are bytes: there is least to move then.
        """
        planes = image.permute(0, 3, 1, 2)
        values = (planes.flip(1) if self.reverse else planes).to(torch.float32) * self.factor - self.shift
        return values if shown is None else values * (shown[0] * shown[1])


class SpreadGroupNorm(nn.GroupNorm):
    """A group norm whose steps keep the layout of maps (B, C, h, w).

    The usual way puts the channels of a group in a row, for which runtimes that hold channels last in memory copy the
    map there and back.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.GroupNorm``."""
        centred = input - self._of_group(input.mean((2, 3)))
        scale = torch.rsqrt(self._of_group((centred * centred).mean((2, 3))) + self.eps)
        done: Tensor = centred * (scale * self.weight[:, None, None]) + self.bias[:, None, None]
        return done

    def _of_group(self, values: Tensor) -> Tensor:
        """Means (B, C, 1, 1) over the group of each channel, of values (B, C)."""
        size = self.num_channels // self.num_groups
        means = values.unflatten(1, (self.num_groups, size)).mean(2, keepdim=True)
        spread: Tensor = means.expand(-1, -1, size).flatten(1)[..., None, None]
        return spread


class WholeGraph(nn.Module):
    """From one padded picture to its poses.

    Args:
        model: DirectPose or SMPR, ready for inference.
        operator: compute deformable convolutions of whole maps by the operator for them.
    """

    def __init__(self, model: DirectPose | SMPR, operator: bool = False) -> None:
        super().__init__()
        self.model, self.operator = model, operator
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
        x = self.normalised(image, _shown(image, size))
        if isinstance(self.model, DirectPose):
            return self._directpose(self.model, x, size, to_image)
        return self._smpr(self.model, x, size, to_image)

    def _directpose(self, model: DirectPose, x: Tensor, size: Tensor, to_image: Tensor) -> WholePoses:
        config = model.config
        found = _to_picture(directpose_candidates(model, model(x), size), config.pixel_offset, to_image)
        whole = found
        found = _clipped(found, size, to_image)
        kept = greedy((whole if config.box_branch else found).boxes, found.scores, config.nms_iou, self.rows)
        best = found.boxes[kept.indices]
        solid = ((best[:, 2:] - best[:, :2]) > 0).all(-1)
        scores = kept.scores
        if config.consensus:
            scores = consensus(found, kept.indices, scores, model.skeleton.sigmas)
        return _ordered(found, kept.indices, torch.where(solid & (kept.scores >= 0), scores, -1.0))

    def _smpr(self, model: SMPR, x: Tensor, size: Tensor, to_image: Tensor) -> WholePoses:
        config = model.config
        found = _to_picture(smpr_candidates(model, x, size, self.operator), config.pixel_offset, to_image)
        if config.suppress_on == "oks":
            kept = soft_poses(found.keypoints, found.scores, model.skeleton.sigmas, config.suppression, self.rows)
        else:
            boxes = torch.cat([found.keypoints.amin(1), found.keypoints.amax(1)], 1)
            kept = soft_boxes(boxes, found.scores, config.suppression, self.rows, _few(x, model.strides))
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
        factor = _mean_of_counted(marks, config.min_keypoint_score, config.score_power)
        scores = factor * box_scores / (1 + config.score_offset) ** config.score_power
        height, width = model.view.size or (0, 0)
        corners = points.new_tensor([[0.0, 0.0], [width - 1.0, height - 1.0]]).expand(points.shape[0], 2, 2)
        placed = _mapped(torch.cat([points, corners], 1), to_image)
        keypoints, boxes = placed[:, :-2], placed[:, -2:].flatten(1)
        marks = (marks - config.score_offset).clamp(0, 1)
        return CropPoses(keypoints, marks, boxes, scores)


def with_operator(graph: WholeGraph | CropGraph) -> WholeGraph | CropGraph:
    """The same function, deformable convolutions by the operator for them; ``graph`` is not changed."""
    changed = copy.copy(graph)
    if isinstance(changed, WholeGraph):
        changed.operator = True
    return changed


def with_spread_norms(graph: WholeGraph | CropGraph) -> WholeGraph | CropGraph:
    """The same function with `SpreadGroupNorm`; ``graph`` is not changed."""
    changed = copy.deepcopy(graph)
    for part in changed.modules():
        if type(part) is nn.GroupNorm and part.affine:
            part.__class__ = SpreadGroupNorm
    return changed


def with_direct_pyramids(graph: WholeGraph | CropGraph) -> WholeGraph | CropGraph:
    """The same function with `DirectFPN` where that is less work, for inputs of one size; ``graph`` is not changed."""
    changed = copy.deepcopy(graph)
    make_direct(changed)
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


# ------------------------------------------------------------------------------------------------------------ frames


def _few(x: Tensor, strides: Sequence[int]) -> bool:
    """Whether input (B, C, H, W) of one size has so few locations that all may be compared with all."""
    height, width = x.shape[-2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        return False
    return sum(-(-height // s) * -(-width // s) for s in strides) <= MOST_AT_ONCE


def _shown(image: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (W,) of a picture (1, H, W, 3) with padding: 1 where it shows something, else 0."""
    rows = torch.arange(image.shape[1], device=image.device) < size[0]
    columns = torch.arange(image.shape[2], device=image.device) < size[1]
    return rows[:, None].to(torch.float32), columns.to(torch.float32)


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
    x, y = points[..., :1], points[..., 1:]  # torch 2.6 writes no product of matrices with an open number of rows
    return x * to_image[:, 0] + y * to_image[:, 1] + to_image[:, 2]


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


def _mean_of_counted(marks: Tensor, least: float | None, power: float) -> Tensor:
    """(B,) means of powers of the keypoint scores (B, K) above ``least``; 0 where there are none."""
    raised = marks if power == 1 else marks.clamp(min=0) ** power
    if least is None:
        return raised.mean(1)
    counted = (marks > least).to(marks.dtype)
    return (raised * counted).sum(1) / counted.sum(1).clamp(min=1)
