"""Typed, frozen settings: validation with helpful errors, YAML, and ``--set a.b=value`` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Base of every configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "settings") -> Self:
        """Validate ``data``; ``ValueError`` has one line that names the key, the value and the nearest known key."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(f"{where}: {_first_problem(error, cls)}") from None

    def override(self, assignments: Iterable[str]) -> Self:
        """A copy with ``a.b=value`` assignments applied; values are read as YAML.

        Raises:
            ValueError: an assignment has no ``=``, or its key or value does not fit.
        """
        data = self.model_dump(mode="json")
        for text in assignments:
            path, sep, value = text.partition("=")
            if not sep or not path.strip():
                raise ValueError(f"--set {text!r}: write it as key=value, for example optimiser.lr=0.01")
            _assign(data, path.strip().split("."), yaml.safe_load(value), text)
        return type(self).parse(data, where="--set")

    def to_yaml(self) -> str:
        """The whole tree as YAML; ``from_yaml`` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not YAML, not a mapping, or does not fit.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"settings file {path} does not exist")
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"settings file {path} is not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(data, dict):
            raise ValueError(f"settings file {path} must hold a mapping of keys to values")
        return cls.parse(data, where=str(path))


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` when a known word is close, else the list of known words."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(words)}"


def _assign(data: dict[str, Any], keys: list[str], value: Any, text: str) -> None:
    for depth, key in enumerate(keys):
        if not isinstance(data, dict):
            raise ValueError(f"--set {text!r}: {'.'.join(keys[:depth])!r} has no keys below it")
        if key not in data:
            raise ValueError(f"--set {text!r}: unknown key {'.'.join(keys[: depth + 1])!r}{nearest(key, data)}")
        if depth == len(keys) - 1:
            data[key] = value
        else:
            data = data[key]


def _first_problem(error: ValidationError, cls: type[BaseModel]) -> str:
    problem = error.errors()[0]
    path, owners = _located(problem["loc"], cls)
    key = ".".join(path) or cls.__name__
    if problem["type"] == "extra_forbidden":
        known = [name for owner in owners for name in owner.model_fields]
        return f"unknown key {key!r}{nearest(path[-1], known) if known else ''}"
    value, reason = problem.get("input"), problem["msg"].removeprefix("Value error, ")
    if isinstance(value, Mapping | BaseModel):  # settings that do not fit each other: the reason names them
        return f"{key}: {reason}"
    return f"{key} = {value!r}: {reason}"


def _located(location: Iterable[Any], cls: type[BaseModel]) -> tuple[list[str], list[type[BaseModel]]]:
    """The key that an error is about, as a user writes it, and the settings that its last part belongs to.

    Where a field may hold one of several settings, a part of the location says which; it is no part of the key.
    """
    path: list[str] = []
    owners = inside = [cls]
    for part in map(str, location):
        tagged = [m for m in inside if len(inside) > 1 and any(f.default == part for f in m.model_fields.values())]
        if tagged:
            inside = tagged
            continue
        path.append(part)
        owners = inside
        inside = [s for m in inside if part in m.model_fields for s in _settings_in(m.model_fields[part].annotation)]
    return path, owners


def _settings_in(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _settings_in(part)]
