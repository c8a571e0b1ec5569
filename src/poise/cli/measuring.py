"""What ``poise evaluate`` does: poses of models or from files, measured and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from poise.cli.options import PeopleChoice, open_predictor, progress_bar, where_people_are

if TYPE_CHECKING:
    from poise.data.records import PoseDataset
    from poise.data.yolo import Split
    from poise.evaluate.bootstrap import Difference, Interval
    from poise.evaluate.evaluation import Evaluation
    from poise.predict.devices import Half as Precision
    from poise.predict.opening import AnyPredictor
    from poise.skeletons import Skeleton

Results = list[dict[str, Any]]
Scales = Sequence[int | tuple[int, int]]
"""Sizes at which pictures are looked at, as `poise.predict.predictor.Predictor.predict` takes them."""


class Contestant(NamedTuple):
    """Who is measured: models (several are an ensemble), or a file of results."""

    name: str
    models: tuple[str, ...]
    file: Path | None


@dataclass(frozen=True, slots=True)
class Setting:
    """How models are run; as the options of the command line."""

    weights: Path | None
    device: str
    people: PeopleChoice
    batch: int | None
    scales: Scales | None
    flip: bool
    truth_scores: bool
    half: Precision = False
    compile: bool = False
    turns: bool = False

    def open(self, contestant: Contestant, category: int = 1) -> AnyPredictor:
        """The contestant's predictor; ``category`` is that of people in detection results."""
        from poise.predict.people import PEOPLE_MIN_SCORE_MEASURED, FoundPeople

        how: dict[str, Any] = {"half": self.half, "compile": self.compile, "turns": self.turns}
        predictor = open_predictor(list(contestant.models), self.weights, self.device, self.people, category, **how)
        people = getattr(predictor, "people", None)
        if isinstance(people, FoundPeople) and self.people.min_score is None:
            predictor.people = people.down_to(PEOPLE_MIN_SCORE_MEASURED)  # type: ignore[union-attr]
        return predictor


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured on; as the options of the command line."""

    annotations: Path
    images: Path | None
    kind: str
    skeleton: str | None
    crowd_limits: tuple[float, float]
    head_boxes: Path | None
    pckh: str
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it, for every contestant in turn.

    Attributes:
        target: what was measured on.
        setting: how.
        names: of the contestants.
        numbers: the metrics, 0..1.
        results: the poses.
        people: where top-down models had their boxes from.
        scales: sizes at which the model, or the one that finds people for it, looked at a picture; None: at its own.
        pictures: number of pictures.
        images: folder of the pictures, if it is known.
        evaluations: of COCO's metrics.
        intervals: of the numbers; empty unless asked for.
        differences: of the numbers to those of the first contestant; likewise.
        details: likewise.
    """

    target: Target
    setting: Setting
    names: list[str]
    numbers: list[Mapping[str, float]]
    results: list[Results]
    people: list[str | None]
    scales: list[Scales | None]
    pictures: int
    images: Path | None = None
    evaluations: list[Evaluation] = field(default_factory=list)
    intervals: list[dict[str, Interval]] = field(default_factory=list)
    differences: list[dict[str, Difference]] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)


def measure(
    target: Target, contestants: Sequence[Contestant], setting: Setting, samples: int, seed: int, details: bool
) -> Measured:
    """COCO's metrics of every contestant, on a COCO, CrowdPose or YOLO data set.

    Raises:
        FileNotFoundError: a file, folder or picture is missing.
        ValueError: something does not fit; one line.
    """
    from poise.evaluate.bootstrap import compare
    from poise.evaluate.evaluation import evaluate_entries, truth_skeleton

    ground = _ground(target, any(c.models for c in contestants))
    # what the user or the annotations say, else what the first model says, else an estimate
    skeleton = ground.skeleton
    results: list[Results] = []
    people: list[str | None] = []
    scales: list[Scales | None] = []
    for contestant in contestants:
        found, predictor = _poses(contestant, ground, target, setting)
        skeleton = skeleton or (None if predictor is None else predictor.skeleton)
        results.append(found)
        people.append(where_people_are(predictor))
        scales.append(_scales(predictor, setting))
    skeleton = skeleton or truth_skeleton(ground.data, target.annotations)
    evaluations = [
        evaluate_entries(ground.data, found, skeleton, contestant.name, target.crowd_limits)
        for contestant, found in zip(contestants, results, strict=True)
    ]
    measured = Measured(
        target, setting, [c.name for c in contestants], [e.numbers for e in evaluations], results, people,
        scales, len(ground.data["images"]), ground.images, evaluations,
    )  # fmt: skip
    if samples:
        alone, differences = compare(evaluations, samples, seed)
        measured.intervals.extend(alone)
        measured.differences.extend(differences)
    if details:
        from poise.evaluate.summary import details as details_of

        measured.details.extend(details_of(evaluation, samples, seed) for evaluation in evaluations)
    return measured


def measure_mpii(target: Target, contestants: Sequence[Contestant], setting: Setting, details: bool) -> Measured:
    """PCKh of every contestant, with ``details`` also of every joint; errors as `measure`."""
    from poise.data.formats import read_dataset
    from poise.evaluate.dataset import matched_mpii
    from poise.evaluate.mpii import joint_table, pckh

    formula: Literal["official", "mmpose"] = "mmpose" if target.pckh == "mmpose" else "official"
    dataset = read_dataset(target.annotations, target.images, "mpii", split=target.split)
    measured = Measured(target, setting, [c.name for c in contestants], [], [], [], [], len(dataset), target.images)
    for contestant in contestants:
        found, predictor = _mpii_poses(contestant, dataset, setting)
        matched = matched_mpii(target.annotations, dataset, found, head_boxes=target.head_boxes, split=target.split)
        measured.numbers.append(pckh(*matched, formula))
        if details:
            measured.details.append({"joints": joint_table(matched, formula)})
        measured.results.append(found)
        measured.people.append(where_people_are(predictor))
        measured.scales.append(_scales(predictor, setting))
    return measured


def _scales(predictor: AnyPredictor | None, setting: Setting) -> Scales | None:
    """Sizes at which whole pictures are looked at."""
    if predictor is None or setting.scales is not None:
        return None if predictor is None else setting.scales
    told: Scales | None = getattr(getattr(predictor, "people", predictor), "scales", None)
    return told


def _mpii_poses(contestant: Contestant, dataset: PoseDataset, setting: Setting) -> tuple[Results, AnyPredictor | None]:
    """Results by the names of the pictures, and who found them, unless they are of a file."""
    if contestant.file is not None:
        from poise.evaluate.coco import read_results
        from poise.evaluate.tables import result_arrays

        names = [{"id": record.image_id, "file_name": str(record.image_id)} for record in dataset]
        found = read_results(contestant.file, {"images": names})
        result_arrays(found, dataset.skeleton)
        return found, None
    from poise.evaluate.dataset import predict_dataset

    predictor = setting.open(contestant)
    options: dict[str, Any] = {"batch": setting.batch, "scales": setting.scales, "flip": setting.flip}
    with progress_bar(f"evaluating {contestant.name}") as advance:
        found = predict_dataset(predictor, dataset, progress=advance, **options)
    return found, predictor


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is measured on.

    Attributes:
        data: annotations in COCO's form.
        images: folder of the pictures, if it is known.
        dataset: the data set itself, if it is a YOLO one.
        skeleton: whose sigmas the user or the annotations give, if they do; that of a YOLO data set.
    """

    data: Mapping[str, Any]
    images: Path | None
    dataset: PoseDataset | None
    skeleton: Skeleton | None


def _ground(target: Target, pictures: bool) -> _Ground:
    """``pictures``: whether they are needed."""
    if target.kind == "yolo":
        from poise.data.formats import read_dataset
        from poise.data.writers import coco_document, common_folder

        dataset = read_dataset(target.annotations, target.images, "yolo", target.skeleton, split=target.split)
        return _Ground(coco_document(dataset), common_folder(dataset), dataset, dataset.skeleton)
    from poise.data.formats import find_images
    from poise.evaluate.coco import read_truth

    data = read_truth(target.annotations)
    folder = target.images
    if folder is None:
        names = [str(image.get("file_name")) for image in data["images"]]
        try:
            folder = find_images(target.annotations, names)
        except FileNotFoundError:
            if pictures:
                raise
    return _Ground(data, folder, None, _chosen_skeleton(target, data))


def _chosen_skeleton(target: Target, data: Mapping[str, Any]) -> Skeleton | None:
    """That of ``--skeleton``, or the one that the annotations give sigmas for, if there is one."""
    from poise.data.outlines import SkeletonOutline, find_skeleton
    from poise.evaluate.evaluation import given_skeleton, truth_skeleton

    if target.skeleton is None:
        return given_skeleton(data, target.annotations)
    found = find_skeleton(target.skeleton)
    return truth_skeleton(data, outline=found) if isinstance(found, SkeletonOutline) else found


def _poses(
    contestant: Contestant, ground: _Ground, target: Target, setting: Setting
) -> tuple[Results, AnyPredictor | None]:
    """Results by the ids of the annotations, and who found them, unless they are of a file."""
    if contestant.file is not None:
        from poise.evaluate.coco import read_results

        return read_results(contestant.file, ground.data), None
    from poise.evaluate.model import category_of_results

    category = category_of_results(ground.data)
    predictor = setting.open(contestant, category)
    with progress_bar(f"evaluating {contestant.name}") as advance:
        found = _predicted(predictor, ground, target, setting, advance)
    return found, predictor


def _predicted(predictor: AnyPredictor, ground: _Ground, target: Target, setting: Setting, advance: Any) -> Results:
    options: dict[str, Any] = {"batch": setting.batch, "scales": setting.scales, "flip": setting.flip}
    if ground.dataset is None:
        from poise.evaluate.model import predict_annotated

        folder = ground.images if ground.images is not None else target.annotations.parent
        options["truth_scores"] = setting.truth_scores
        return predict_annotated(predictor, target.annotations, folder, progress=advance, **options)
    from poise.evaluate.dataset import predict_dataset

    found = predict_dataset(predictor, ground.dataset, progress=advance, **options)
    # ids that are no numbers are counted in the document
    numbers = {r.image_id: i["id"] for r, i in zip(ground.dataset, ground.data["images"], strict=True)}
    return [{**result, "image_id": numbers[result["image_id"]]} for result in found]
