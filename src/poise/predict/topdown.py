"""Find, then refine: a top-down model looks at every person that somebody else has found (RSN spec 11).

Letters: B crops, N people, K keypoints, h w heatmap size. Frames: image px, input px (of a crop).

Scores. The references score a keypoint with the height of its peak (0..1) plus 0.5, and a person with the score of
the box times the mean of these. Such scores reach 1.5, and a keypoint that is nowhere to be seen still has 0.5. People
are ranked by these numbers here too; but what comes out is a keypoint's height alone, and a person's score divided by
1.5 (or that to the model's ``score_power``). Both then lie in 0..1 (a peak may exceed its label by a little), and the
order of the people is the same.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from poise.data.crops import crop_view
from poise.data.views import collate
from poise.geometry.affine import apply, apply_to_boxes, compose, invert, scaling
from poise.geometry.heatmaps import PEAK
from poise.heatmaps import Heatmaps
from poise.models.base import PoseModel
from poise.models.dense import precise
from poise.predict.batches import Run, run_in_batches
from poise.predict.boxes import Found, PersonBoxes
from poise.predict.devices import Half, running
from poise.predict.leaning import further_looks, mean_pose, torso_of
from poise.predict.people import FoundPeople, People, suiting_threshold
from poise.predict.predictor import Predictor, Rescore, prepared
from poise.predict.sources import each_picture
from poise.skeletons import Skeleton
from poise.types import FloatArray, ImageArray, Poses, View

if TYPE_CHECKING:
    from poise.predict.sources import Pictures
    from poise.predict.views import Scale

BATCH_CPU, BATCH_GPU = 16, 64
"""Crops that run together."""

TURN_MARGIN = 0.03
"""By so much the mean score of the keypoints of a turned person must be better than upright, to be believed.

Chosen on 110 pictures of COCO and 493 of LSPET: most people are upright, and a turn that is wrong loses them.
"""


@runtime_checkable
class HeatmapModel(PoseModel, Protocol):
    """A model of one person at a time, whose output is one heatmap a keypoint."""

    def heatmaps(self, images: Tensor) -> Tensor:
        """(B, K, h, w) of images (B, 3, H, W): the maps that keypoints are read from, and no others."""
        ...

    def decode_heatmaps(self, heatmaps: Tensor) -> tuple[FloatArray, FloatArray]:
        """Keypoints (B, K, 2) in input px and their scores (B, K), of what `heatmaps` gives, or of a mean of such."""
        ...

    def pose_scores(self, keypoint_scores: FloatArray) -> FloatArray:
        """(B,) scores of poses by the scores (B, K) of their keypoints."""
        ...


class _Picture(NamedTuple):
    """What is kept of a picture while its crops run."""

    boxes: FloatArray
    scores: FloatArray
    size: tuple[int, int]
    name: str | None
    image: ImageArray | None
    """Kept where people may be looked at once more."""


class TopDownPredictor:
    """Finds the poses in pictures in two steps: where people are, then each of them from near.

    Several models are an ensemble: their heatmaps are averaged. The models are not changed (see `Predictor`).

    Args:
        models: one model that looks at crops, or several with equal skeleton and view.
        people: where the people are: a single-stage predictor, or any source of boxes.
        device: as `Predictor`.
        metadata: of the model's checkpoint; ``min_score`` in it is the default threshold, else what suits the people.
        shift_heatmap: in a flip test, move the mirrored heatmaps one column right; the references do not (RSN spec 11).
        half: as `Predictor`.
        compile: as `Predictor`.
        turns: also look at each person turned by 90, 180 and 270 degrees, and keep the surest of the four poses (see
            `TURN_MARGIN`); then three times at those who still lean, turned until the torso points up, and take the
            mean (see `poise.predict.leaning`). For acrobats, divers and cameras overhead; four to seven times the work.

    Attributes:
        running: where and how the models really run, as text or in parts.

    Raises:
        ValueError: a model looks at whole pictures, or models do not go together; or as `Predictor`.
    """

    def __init__(
        self,
        models: PoseModel | Sequence[PoseModel],
        people: People | Predictor,
        device: str | torch.device = "auto",
        metadata: Mapping[str, Any] | None = None,
        *,
        shift_heatmap: bool = False,
        half: Half = False,
        compile: bool = False,
        turns: bool = False,
    ) -> None:
        members = [_heatmap_model(m) for m in (models if isinstance(models, Sequence) else [models])]
        _require_alike(members)
        self.running = running(device, half=half, compiled=compile)
        self.people: People = FoundPeople(people) if isinstance(people, Predictor) else people
        self.metadata = dict(metadata or {})
        self.models = [prepared(m, self.running) for m in members]
        suiting = suiting_threshold(self.people, *self._scoring())
        self.min_score = float(self.metadata.get("min_score", suiting))
        self._shift = shift_heatmap
        self._turns = range(4 if turns else 1)
        self._torso = torso_of(self.skeleton) if turns else None

    @property
    def device(self) -> torch.device:
        """Where the models run."""
        return self.running.device

    @property
    def model(self) -> HeatmapModel:
        """The first model: it reads keypoints off the heatmaps, and suppresses."""
        return self.models[0]

    @property
    def skeleton(self) -> Skeleton:
        """What the K keypoints are."""
        return self.model.skeleton

    def _scoring(self) -> tuple[float, float]:
        """The offset in the model's scores of keypoints, and the power of these in those of poses."""
        config = self.model.config
        return float(getattr(config, "score_offset", 0.0)), float(getattr(config, "score_power", 1.0))

    def predict(
        self,
        images: Pictures,
        *,
        min_score: float | None = None,
        batch: int | None = None,
        scales: Sequence[Scale] | None = None,
        flip: bool = False,
        heatmaps: bool = False,
    ) -> list[Poses]:
        """The poses in one picture or several: one `Poses` a picture, in order, in pixels of the picture.

        Args:
            images: as `Predictor.predict`; where boxes come from a file, pictures are paths or `Named`.
            min_score: leave out poses with a lower score (see the head of this module); None is the attribute
                ``min_score``, 0 keeps one pose for every box.
            batch: crops that run together, whichever pictures they are from; None is 64 on a GPU and 16 on the CPU.
            scales: None: a crop has one size.
            flip: also look at each person mirrored, and average the heatmaps.
            heatmaps: give the poses their ``heatmaps``, as keypoints were read from them.

        Returns:
            `Poses` whose ``boxes`` are those of the people; the best pose first; empty where nobody is.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: something is not a picture, a picture's boxes are not known, or an argument is out of bounds.
        """
        return list(
            self.predict_iter(images, min_score=min_score, batch=batch, scales=scales, flip=flip, heatmaps=heatmaps)
        )

    def predict_iter(
        self,
        images: Pictures,
        *,
        min_score: float | None = None,
        batch: int | None = None,
        scales: Sequence[Scale] | None = None,
        flip: bool = False,
        heatmaps: bool = False,
        rescore: Rescore | None = None,
    ) -> Iterator[Poses]:
        """As `predict`, one after the other: any number of pictures in little memory.

        Args:
            images: as `predict`; any iterable, read as needed.
            min_score: as `predict`.
            batch: as `predict`.
            scales: as `predict`.
            flip: as `predict`.
            heatmaps: as `predict`.
            rescore: gives the candidates of each picture other scores before they are suppressed.
        """
        if scales is not None:
            raise ValueError("scales are for models that look at whole pictures; this one looks at crops of one size")
        threshold = self.min_score if min_score is None else min_score
        if not 0 <= threshold <= 1:
            raise ValueError(f"min_score {min_score!r} must lie in 0..1")
        if batch is not None and batch < 1:
            raise ValueError(f"batch {batch!r} must be at least 1")
        size = batch or (BATCH_CPU if self.device.type == "cpu" else BATCH_GPU)
        run = functools.partial(self.predict_views, flip=flip, heatmaps=heatmaps)
        again = functools.partial(self.predict_views, flip=flip)
        return self._stream(self.people.find(each_picture(images)), size, run, again, threshold, rescore)

    def predict_views(self, views: Sequence[View], *, flip: bool = False, heatmaps: bool = False) -> list[Poses]:
        """The pose in each view, in image px; its box is what the view shows, its score is final.

        Args:
            views: crops, at least one, of whatever pictures; they run as one batch.
            flip: as `predict`.
            heatmaps: as `predict`.
        """
        images = collate(views, self.model.view.stride).images.to(self.device)
        with torch.inference_mode(), self.running.context():
            maps = self.heatmaps(images, flip)
            points, marks = self.model.decode_heatmaps(maps)
        scores = self.model.pose_scores(marks)
        offset, power = self._scoring()
        found = []
        for b, view in enumerate(views):
            height, width = view.size
            box = np.array([[0, 0, width - 1, height - 1]], np.float32)
            one = slice(b, b + 1)
            poses = Poses(points[one], marks[one], box, scores[one], self.skeleton, view.size)
            seen = _seen(maps[b], view) if heatmaps else None
            found.append(replace(_in_picture(poses, view, offset, power), heatmaps=seen))
        return found

    def heatmaps(self, images: Tensor, flip: bool = False) -> Tensor:
        """(B, K, h, w): the mean of all models' heatmaps of crops (B, 3, H, W), with ``flip`` also of the mirrored.

        In float32 whatever the models compute in.
        """
        total: Tensor | None = None
        for model in self.models:
            maps = precise(model.heatmaps(images))
            if flip:
                other = precise(model.heatmaps(images.flip(-1)))
                maps = (maps + unmirrored(other, self.skeleton.flip_index, self._shift)) / 2
            total = maps if total is None else total + maps
        assert total is not None
        return total / len(self.models)

    def _stream(
        self,
        found: Iterator[Found],
        batch: int,
        run: Run,
        again: Run,
        min_score: float,
        rescore: Rescore | None,
    ) -> Iterator[Poses]:
        waiting: deque[_Picture] = deque()

        def crops() -> Iterator[Iterator[View]]:
            for image, name, people in found:
                kept = image if self._torso is not None else None
                waiting.append(_Picture(*people, (image.shape[0], image.shape[1]), name, kept))
                yield self._crops(image, people)

        for number, looks in enumerate(run_in_batches(crops(), run, batch, self.model.view.stride)):
            picture = waiting.popleft()
            count = len(self._turns)
            parts = [_surest(looks[at : at + count]) for at in range(0, len(looks), count)]
            if picture.image is not None:
                parts = self._with_further_looks(parts, picture, picture.image, again, batch)
            # suppression leaves ids alone: they say which box a pose is from
            candidates = [replace(pose, ids=np.array([box])) for box, pose in enumerate(parts)]
            if candidates and rescore is not None:
                candidates = [rescore(number, Poses.concatenate(candidates))]
            yield self._finished(candidates, picture).filter(min_score)

    def _crops(self, image: ImageArray, people: PersonBoxes) -> Iterator[View]:
        for box, score in zip(*people, strict=True):
            for turns in self._turns:
                yield crop_view(image, box, self.model.view, box_score=float(score), turns=turns)

    def _with_further_looks(
        self, poses: list[Poses], picture: _Picture, image: ImageArray, run: Run, batch: int
    ) -> list[Poses]:
        """The poses of one picture, one a box; those who lean as the mean of this and further looks."""
        assert self._torso is not None
        whose: list[int] = []
        views: list[View] = []
        for person, pose in enumerate(poses):
            for look in further_looks(pose, self._torso):
                score = float(picture.scores[person])
                views.append(crop_view(image, look.box, self.model.view, box_score=score, rotation=look.degrees))
                whose.append(person)
        looks: dict[int, list[Poses]] = {person: [pose] for person, pose in enumerate(poses)}
        for first in range(0, len(views), batch):
            for person, pose in zip(whose[first:], run(views[first : first + batch]), strict=False):
                looks[person].append(pose)
        return [mean_pose(each) if len(each) > 1 else each[0] for each in looks.values()]

    def _finished(self, candidates: list[Poses], picture: _Picture) -> Poses:
        """The poses of one picture out of those of its boxes."""
        if not candidates:
            return replace(Poses.empty(self.skeleton, picture.size), source=picture.name)
        kept = self.model.suppress(Poses.concatenate(candidates))
        height, width = picture.size
        edge = np.array([width, height, width, height], np.float32) - 0.5
        boxes = np.clip(picture.boxes[kept.ids], -0.5, edge)
        order = np.argsort(-kept.scores, kind="stable")
        return replace(kept, boxes=boxes, ids=None, image_size=picture.size, source=picture.name)[order]


def unmirrored(heatmaps: Tensor, flip_index: Sequence[int], shift: bool = False) -> Tensor:
    """Heatmaps (B, K, h, w) of a mirrored picture as those of the picture: mirrored, left and right exchanged.

    Args:
        heatmaps: of the mirrored picture.
        flip_index: for each keypoint, which one it is in the mirror.
        shift: move the maps one column right; the first column stays (RSN spec 11).
    """
    back = heatmaps.flip(-1)[:, list(flip_index)]
    return torch.cat([back[..., :1], back[..., :-1]], -1) if shift else back


def _surest(looks: Sequence[Poses]) -> Poses:
    """The pose to keep of those of one person: upright, and turned by quarters."""
    certain = np.array([float(pose.keypoint_scores.mean()) for pose in looks])
    certain[0] += TURN_MARGIN
    return looks[int(certain.argmax())]


def _in_picture(poses: Poses, view: View, offset: float, power: float) -> Poses:
    """The pose of a view in image px, with the scores that users see.

    Args:
        poses: in input px.
        view: of the pose.
        offset: in the model's scores of keypoints.
        power: of these in the scores of poses.
    """
    to_image = invert(view.to_input)
    return replace(
        poses,
        keypoints=apply(to_image, poses.keypoints).astype(np.float32),
        keypoint_scores=np.clip(poses.keypoint_scores - offset, 0, 1),
        boxes=apply_to_boxes(to_image, poses.boxes).astype(np.float32),
        scores=poses.scores * view.box_score / (1 + offset) ** power,
        image_size=view.image_size,
    )


def _seen(maps: Tensor, view: View) -> Heatmaps:
    """Heatmaps (K, h, w) of a view, 0..255, for one person in the picture."""
    height, width = maps.shape[-2:]
    to_input = scaling(view.size[1] / width, view.size[0] / height, half_pixel=False)
    to_image = compose(to_input, invert(view.to_input))
    return Heatmaps((maps[None].float() / PEAK).cpu().numpy(), to_image[None])


def _heatmap_model(model: PoseModel) -> HeatmapModel:
    if model.view.kind != "crop" or not isinstance(model, HeatmapModel):
        raise ValueError("this model looks at whole pictures: it finds people itself and needs no boxes")
    return model


def _require_alike(models: Sequence[HeatmapModel]) -> None:
    """``ValueError`` unless the heatmaps of all models can be averaged."""
    if not models:
        raise ValueError("an ensemble needs at least one model")
    first = models[0]
    for other in models[1:]:
        if other.skeleton != first.skeleton:
            raise ValueError(
                f"models of an ensemble need the same skeleton, not {first.skeleton.name!r} and {other.skeleton.name!r}"
            )
        if other.view != first.view:
            fields = [f for f in type(first.view).model_fields if getattr(first.view, f) != getattr(other.view, f)]
            told = ", ".join(f"{f} {getattr(first.view, f)} and {getattr(other.view, f)}" for f in fields)
            raise ValueError(f"models of an ensemble need equal views; these differ in {told}")
