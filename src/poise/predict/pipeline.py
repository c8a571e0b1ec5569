"""One call for find-then-refine: who finds the people, and what refines them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from poise.predict import loading
from poise.predict.boxes import Boxes, read_boxes
from poise.predict.people import MARGIN, PEOPLE_MIN_SCORE, FoundPeople, People
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor

Name = str | Path


def pipeline(
    people: Name | Predictor | People = "default",
    pose: Name | Sequence[Name] = "rsn_small",
    *,
    device: str = "auto",
    weights: Name | None = None,
    people_min_score: float = PEOPLE_MIN_SCORE,
    people_nms: float | None = None,
    shift_heatmap: bool = False,
    half: bool = False,
    compile: bool = False,
) -> TopDownPredictor:
    """A predictor in two steps: where people are, then the pose of each of them from near.

    Args:
        people: a single-stage model by name or path (see `poise.load`) or its predictor; or boxes: the path of a
            ``.json`` file as `poise.predict.boxes.read_boxes` takes it, or any source of boxes.
        pose: a top-down model by name or path; several of equal skeleton and view are an ensemble, whose heatmaps
            are averaged.
        device: as `poise.load`.
        weights: as `poise.load`, with one model.
        people_min_score: people whom the single-stage model finds with a lower score are left out.
        people_nms: leave out whose box has a larger IoU with that of a better person; None: the single-stage model's
            own suppression is enough.
        shift_heatmap: as `TopDownPredictor`.
        half: as `Predictor`, for both models.
        compile: likewise.

    Returns:
        A predictor with ``predict`` and ``predict_iter``, as those of `poise.load`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a model is unknown, of the wrong kind, or does not fit the others; or an argument is out of bounds.
    """
    names = [pose] if isinstance(pose, str | Path) else list(pose)
    if not names:
        raise ValueError("pose names no model")
    if weights is not None and len(names) > 1:
        raise ValueError("weights go with one preset; name the checkpoints of an ensemble instead")
    loaded = [loading.load_model(name, weights) for name in names]
    for name, part in zip(names, loaded, strict=True):
        if part.model.view.kind != "crop":
            raise ValueError(
                f"{str(name)!r} looks at whole pictures and finds people itself; boxes, people and ensembles are for "
                "models that look at one person at a time"
            )
    source: Predictor | People
    if isinstance(people, str | Path):
        options = {"min_score": people_min_score, "nms": people_nms, "half": half, "compile": compile}
        source = _source(people, device, **options)
    elif isinstance(people, Predictor):
        source = FoundPeople(people, min_score=people_min_score, nms=people_nms)
    else:
        source = people
    return TopDownPredictor(
        [part.model for part in loaded], source, device, loaded[0].metadata, shift_heatmap=shift_heatmap, half=half,
        compile=compile,
    )  # fmt: skip


def find_people(
    model: Name = "default",
    *,
    device: str = "auto",
    min_score: float = PEOPLE_MIN_SCORE,
    nms: float | None = None,
    margin: tuple[float, float] = MARGIN,
    half: bool = False,
    compile: bool = False,
) -> FoundPeople:
    """People found by a single-stage model, by name or path; arguments and errors as `FoundPeople` and `Predictor`."""
    loaded = loading.load_model(model)
    if loaded.model.view.kind != "whole":
        raise ValueError(f"{str(model)!r} looks at one person at a time and cannot find people; name another model")
    predictor = Predictor(loaded.model, device, loaded.metadata, half=half, compile=compile)
    return FoundPeople(predictor, _told(model), min_score=min_score, nms=nms, margin=margin)


def _source(people: Name, device: str, **options: Any) -> FoundPeople | Boxes:
    if Path(people).suffix.lower() == ".json":
        return read_boxes(people)
    return find_people(people, device=device, **options)


def _told(model: Name) -> str:
    """The name of a model for reports: that of the default model instead of ``default``."""
    from poise.zoo import DEFAULT

    return DEFAULT if model == "default" else str(model)
