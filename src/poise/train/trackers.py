"""Experiment trackers besides ``metrics.jsonl``: TensorBoard, or whatever else accelerate knows, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from poise.settings import nearest

TENSORBOARD = "tensorboard"
PROJECT = "poise"
"""Under which name services file the runs."""


class Trackers:
    """Several trackers at once.

    Args:
        names: as accelerate names them; None: TensorBoard, if it is installed.
        folder: of the run; trackers that write files do it below.
        settings: of the run; told to all but TensorBoard, which lies beside the file that holds them.

    Raises:
        ValueError: a name is unknown, or the tracker's library is not installed.
    """

    def __init__(self, names: Sequence[str] | None, folder: Path, settings: Mapping[str, Any]) -> None:
        if names is None:
            names = [TENSORBOARD] if find_spec(TENSORBOARD) is not None else []
        self._trackers = [_open(name, folder) for name in names]
        for tracker in self._trackers:
            if tracker.name != TENSORBOARD:
                tracker.store_init_configuration(dict(settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name."""
        for tracker in self._trackers:
            tracker.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left."""
        for tracker in self._trackers:
            tracker.finish()
        self._trackers = []


def _open(name: str, folder: Path) -> Any:
    known = {str(key): tracker for key, tracker in LOGGER_TYPE_TO_CLASS.items()}
    if name not in known:
        raise ValueError(f"train.trackers: unknown tracker {name!r}{nearest(name, known)}")
    make = known[name]
    title = TENSORBOARD if name == TENSORBOARD else PROJECT
    try:
        tracker = make(title, logging_dir=str(folder)) if make.requires_logging_directory else make(title)
        if hasattr(tracker, "start"):  # older versions of accelerate start them at once
            tracker.start()
    except ImportError as error:
        raise ValueError(f"train.trackers: {name} is not installed ({error}): pip install {name}") from None
    return tracker
