"""Libraries that only some tasks need: they come with an extra of Poise and are imported when used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingLibraryError(ValueError):
    """A library of an extra is not installed; the message says how to get it."""


def needs(module: str, extra: str, task: str) -> Any:
    """The imported module.

    Args:
        module: name to import.
        extra: the extra of Poise that brings it.
        task: what it is needed for, as the start of a sentence: "writing video".

    Raises:
        MissingLibraryError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingLibraryError(
            f"{task} needs {module.partition('.')[0]}, which is not installed: pip install 'poise[{extra}]'"
        ) from None
