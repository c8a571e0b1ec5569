"""One call for find-then-refine: who finds the people, and what refines them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.predict.boxes import Boxes, read_boxes
from poise.predict.exported import ExportedPredictor, is_exported
from poise.predict.people import MARGIN, PEOPLE_MIN_SCORE, PEOPLE_NMS, FoundPeople, People
from poise.runtime import ExportedModel

if TYPE_CHECKING:
    from poise.checkpoints import LoadedCheckpoint
    from poise.predict.devices import Half
    from poise.predict.stream import Finder
    from poise.predict.topdown import TopDownPredictor

Name = str | Path


def pipeline(
    people: Name | Finder | People = "default",
    pose: Name | Sequence[Name] = "rsn_small",
    *,
    device: str = "auto",
    weights: Name | None = None,
    people_min_score: float = PEOPLE_MIN_SCORE,
    people_nms: float | None = PEOPLE_NMS,
    shift_heatmap: bool = False,
    half: Half = False,
    compile: bool = False,
    turns: bool = False,
) -> TopDownPredictor | ExportedPredictor:
    """A predictor in two steps: where people are, then the pose of each of them from near.

    Args:
        people: a single-stage model by name or path (see `poise.load`) or its predictor; or boxes: the path of a
            ``.json`` file as `poise.predict.boxes.read_boxes` takes it, or any source of boxes.
        pose: a top-down model by name or path; several of equal skeleton and view are an ensemble, whose heatmaps
            are averaged; an exported model stands alone.
        device: as `poise.load`.
        weights: as `poise.load`, with one model.
        people_min_score: people whom the single-stage model finds with a lower score are left out.
        people_nms: leave out whose box has a larger IoU with that of a better person, on top of the single-stage
            model's own suppression; None or 1: do not.
        shift_heatmap: as `TopDownPredictor`.
        half: as `Predictor`, for both models.
        compile: likewise.
        turns: as `TopDownPredictor`: find people upside down, too.

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
    exported = [name for name in names if is_exported(name)]
    if exported and len(names) > 1:
        raise ValueError(f"{exported[0]} is exported; an ensemble averages heatmaps, which only checkpoints show")
    if exported:
        refuse_options(exported[0], weights, turns=turns)
        opened = ExportedModel(exported[0], device)
    loaded = [] if exported else _crop_models(names, weights)
    source: People
    if isinstance(people, str | Path):
        options = {"min_score": people_min_score, "nms": people_nms, "half": half, "compile": compile}
        source = _source(people, device, **options)
    elif isinstance(people, People):
        source = people
    else:
        source = FoundPeople(people, min_score=people_min_score, nms=people_nms)
    if exported:
        return ExportedPredictor(opened, source)
    from poise.predict.topdown import TopDownPredictor

    return TopDownPredictor(
        [part.model for part in loaded], source, device, loaded[0].metadata, shift_heatmap=shift_heatmap, half=half,
        compile=compile, turns=turns,
    )  # fmt: skip


def find_people(
    model: Name = "default",
    *,
    device: str = "auto",
    min_score: float = PEOPLE_MIN_SCORE,
    nms: float | None = PEOPLE_NMS,
    margin: tuple[float, float] = MARGIN,
    half: Half = False,
    compile: bool = False,
) -> FoundPeople:
    """People found by a single-stage model, by name or path; arguments and errors as `FoundPeople` and `Predictor`."""
    options: dict[str, Any] = {"min_score": min_score, "nms": nms, "margin": margin}
    if is_exported(model):
        refuse_options(model, None, half=half, compile=compile)
        return FoundPeople(ExportedPredictor(ExportedModel(model, device)), str(model), **options)
    from poise.predict import loading
    from poise.predict.predictor import Predictor

    loaded = loading.load_model(model)
    if loaded.model.view.kind != "whole":
        raise ValueError(f"{str(model)!r} looks at one person at a time and cannot find people; name another model")
    predictor = Predictor(loaded.model, device, loaded.metadata, half=half, compile=compile)
    return FoundPeople(predictor, _told(model), **options)


def refuse_options(path: Name, weights: Name | None, **how: bool | str) -> None:
    """``ValueError`` if somebody wants to run an exported file in another way than it was made for."""
    if weights is not None:
        raise ValueError(f"weights go with a preset; {path} has its own")
    wanted = [name for name, value in how.items() if value]
    if wanted:
        raise ValueError(f"{path} runs as it was exported; {' and '.join(wanted)} are for checkpoints")


def _crop_models(names: Sequence[Name], weights: Name | None) -> list[LoadedCheckpoint]:
    from poise.predict import loading

    loaded = [loading.load_model(name, weights) for name in names]
    for name, part in zip(names, loaded, strict=True):
        if part.model.view.kind != "crop":
            raise ValueError(
                f"{str(name)!r} looks at whole pictures and finds people itself; boxes, people and ensembles are for "
                "models that look at one person at a time"
            )
    return loaded


def _source(people: Name, device: str, **options: Any) -> FoundPeople | Boxes:
    if Path(people).suffix.lower() == ".json":
        return read_boxes(people)
    return find_people(people, device=device, **options)


def _told(model: Name) -> str:
    """The name of a model for reports: that of the default model instead of ``default``."""
    from poise.zoo import DEFAULT

    return DEFAULT if model == "default" else str(model)
