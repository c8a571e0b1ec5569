"""A predictor by the name of its model, whatever kind of file that is; torch is loaded only where it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.predict.exported import ExportedPredictor, is_exported
from poise.runtime import ExportedModel

if TYPE_CHECKING:
    from poise.predict.people import People
    from poise.predict.predictor import Predictor
    from poise.predict.topdown import TopDownPredictor

    AnyPredictor = Predictor | TopDownPredictor | ExportedPredictor


def load(
    name_or_path: str | Path = "default", *, device: str = "auto", weights: str | Path | None = None, **how: Any
) -> AnyPredictor:
    """A predictor by the name of a model that comes with Poise, or from a checkpoint or an exported file.

    For a model that looks at one person at a time, the default model finds the people; `poise.pipeline` lets choose.

    Args:
        name_or_path: ``default``, the name of a shipped model, the path of a checkpoint or of a file that ``poise
            export`` wrote, or, with ``weights``, the name of a preset.
        device: as `Predictor`.
        weights: a safetensors file whose tensors fit the preset; a Poise checkpoint also brings its skeleton.
        how: ``half`` and ``compile`` as `Predictor`, ``turns`` as `TopDownPredictor`; an exported file is as it was
            made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such model (the message lists what there is), or the file does not fit.
    """
    if is_exported(name_or_path):
        from poise.predict.pipeline import refuse_options

        refuse_options(name_or_path, weights, **how)
        return open_exported(name_or_path, device=device)
    from poise.predict import predictor

    return predictor.load(name_or_path, device=device, weights=weights, **how)


def open_exported(
    path: str | Path, people: People | None = None, *, device: str = "auto", threads: int = 0
) -> ExportedPredictor:
    """A predictor of an exported file.

    Args:
        path: the file.
        people: for a model that looks at one person at a time; None: the default model finds them, which needs torch.
        device: as `ExportedPredictor`.
        threads: as `ExportedPredictor`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be used, or ``people`` are not wanted.
    """
    exported = ExportedModel(path, device, threads)
    if people is None and exported.looks_at_people:
        from poise.predict.pipeline import find_people

        people = find_people("default", device=device)
    return ExportedPredictor(exported, people)
