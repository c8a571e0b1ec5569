"""What a data set says of its skeleton: in a COCO category, or in a small YAML file beside the annotations.

A YAML file holds ``keypoints`` (names), and optionally ``name``, ``edges`` and ``flip_pairs`` (pairs of names, or of
indices from 0) and ``sigmas`` (a list, or a mapping of names to numbers)::

    keypoints: [snout, left_ear, right_ear, tail]
    edges: [[snout, left_ear], [snout, right_ear], [snout, tail]]
    flip_pairs: [[left_ear, right_ear]]

Without ``flip_pairs`` left and right are read off the names. Without ``sigmas`` they are those of the built-in skeleton
with the same keypoints, if there is one; else they are estimated from the data, and a warning tells what was taken.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import yaml

from poise.data.json_files import stem
from poise.data.sigmas import estimate_sigmas
from poise.settings import nearest
from poise.skeletons import SKELETONS, Pair, Skeleton, mirrored_pairs

_LOG = logging.getLogger(__name__)
_FIELDS = ("name", "keypoints", "edges", "flip_pairs", "sigmas")
_ALIASES = {"head": "top_head"}
"""CrowdPose's own file calls the top of the head so."""
_ROUNDED = 1e-3
"""Sigmas that differ by a smaller share are the same."""

People = Callable[[], tuple[npt.ArrayLike, npt.ArrayLike]]
"""Gives (keypoints (N, K, 3), areas (N,)) of a data set, for an estimate."""


@dataclass(frozen=True, slots=True)
class SkeletonOutline:
    """A skeleton whose sigmas may be missing; fields as `Skeleton`.

    Attributes:
        where: the file, for messages.
    """

    where: str
    name: str
    keypoints: tuple[str, ...]
    edges: tuple[Pair, ...]
    flip_pairs: tuple[Pair, ...]
    sigmas: tuple[float, ...] | None

    def skeleton(self, people: People | None = None) -> Skeleton:
        """The skeleton; missing sigmas are estimated from ``people``, with a warning.

        A built-in skeleton is taken if the keypoint names are equal; if other sigmas are given, with these, under the
        name that is given.

        Raises:
            ValueError: something does not fit, or sigmas are missing and there is nobody to estimate them from.
        """
        known = built_in(self.keypoints)
        if known is not None and (self.sigmas is None or _alike(self.sigmas, known.sigmas)):
            return known
        if self.sigmas is not None:
            return self._with(self.sigmas, known)
        if people is None:
            raise ValueError(
                f"{self.where}: {self.name!r} has {len(self.keypoints)} keypoints that are no built-in "
                f'skeleton\'s; add "sigmas": [{len(self.keypoints)} numbers] beside them'
            )
        self.check()
        estimate = estimate_sigmas(self.keypoints, *people(), self.flip_pairs)
        _LOG.warning("%s: %r has no OKS sigmas; estimated: %s", self.where, self.name, estimate)
        return self._with(estimate.sigmas)

    def check(self) -> None:
        """``ValueError`` if `skeleton` would refuse this, whoever there is to estimate sigmas from."""
        known = built_in(self.keypoints)
        if known is None or self.sigmas is not None:
            self._with((1.0,) * len(self.keypoints) if self.sigmas is None else self.sigmas, known)

    def _with(self, sigmas: tuple[float, ...], known: Skeleton | None = None) -> Skeleton:
        """With these sigmas; of a built-in skeleton all but name and sigmas."""
        try:
            if known is not None:
                return replace(known, name=self.name, sigmas=sigmas)
            return Skeleton(self.name, self.keypoints, self.edges, self.flip_pairs, sigmas)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None


def built_in(names: Sequence[str]) -> Skeleton | None:
    """The built-in skeleton that has exactly these keypoints, if there is one."""
    for known in SKELETONS.values():
        if known.keypoints == tuple(names) or known.keypoints == tuple(_ALIASES.get(n, n) for n in names):
            return known
    return None


def _alike(sigmas: Sequence[float], others: Sequence[float]) -> bool:
    """Whether they are the same numbers, but for rounding."""
    return len(sigmas) == len(others) and all(map(_same, sigmas, others))


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDED)


def category_outline(category: Mapping[str, Any], where: str | Path) -> SkeletonOutline:
    """What a COCO category says: ``keypoints``, ``skeleton`` (from 1), ``flip_pairs`` (from 0), ``sigmas``.

    Raises:
        ValueError: a field has another form.
    """
    label = str(category.get("name", "person"))
    try:
        names = tuple(str(n) for n in category.get("keypoints") or ())
        return SkeletonOutline(
            where=str(where),
            name=label,
            keypoints=names,
            edges=tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or ()),
            flip_pairs=tuple((int(a), int(b)) for a, b in category["flip_pairs"])
            if "flip_pairs" in category
            else mirrored_pairs(names),
            sigmas=None if category.get("sigmas") is None else tuple(float(s) for s in category["sigmas"]),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: category {label!r}: {error}") from None


def read_outline(path: str | Path) -> SkeletonOutline:
    """Read a skeleton's YAML file (see the head of this module).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not fit; one line that names the file and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"skeleton file {path} does not exist")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"skeleton file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping) or not isinstance(data.get("keypoints"), list) or not data["keypoints"]:
        raise ValueError(f"skeleton file {path} must hold a list of names under keypoints")
    for key in data:
        if key not in _FIELDS:
            raise ValueError(f"skeleton file {path}: unknown key {key!r}{nearest(str(key), _FIELDS)}")
    names = tuple(str(n) for n in data["keypoints"])
    name = str(data.get("name", path.name.partition(".")[0]))
    flips = data.get("flip_pairs")
    return SkeletonOutline(
        where=str(path),
        name=name,
        keypoints=names,
        edges=_pairs(data.get("edges") or (), names, "edges", path),
        flip_pairs=mirrored_pairs(names) if flips is None else _pairs(flips, names, "flip_pairs", path),
        sigmas=_sigmas(data.get("sigmas"), names, path),
    )


def outline_beside(annotations: Path) -> SkeletonOutline | None:
    """The outline in ``NAME.skeleton.yaml``, else ``skeleton.yaml``, in the folder of an annotation file."""
    for name in (f"{stem(annotations)}.skeleton.yaml", "skeleton.yaml"):
        path = annotations.parent / name
        if path.is_file():
            return read_outline(path)
    return None


def find_skeleton(name: str | Path) -> Skeleton | SkeletonOutline:
    """A built-in skeleton by its name, or the outline in a YAML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name is unknown, or the file does not fit.
    """
    if str(name) in SKELETONS:
        return SKELETONS[str(name)]
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        return read_outline(name)
    raise ValueError(f"unknown skeleton {str(name)!r}{nearest(str(name), SKELETONS)}; or give a YAML file")


def _pairs(values: Any, names: Sequence[str], field: str, path: Path) -> tuple[Pair, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"skeleton file {path}: {field} must be a list of pairs, not {values!r}")
    pairs = []
    for pair in values:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"skeleton file {path}: {field} holds {pair!r}, which is not a pair")
        pairs.append((_index(pair[0], names, field, path), _index(pair[1], names, field, path)))
    return tuple(pairs)


def _index(value: Any, names: Sequence[str], field: str, path: Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return value
    if value in names:
        return names.index(value)
    hint = nearest(str(value), names)
    raise ValueError(f"skeleton file {path}: {field} holds {value!r}, which is no keypoint{hint}")


def _sigmas(values: Any, names: Sequence[str], path: Path) -> tuple[float, ...] | None:
    if values is None:
        return None
    if isinstance(values, Mapping):
        lacking = [n for n in names if n not in values]
        if lacking or len(values) != len(names):
            extra = [str(n) for n in values if n not in names]
            raise ValueError(f"skeleton file {path}: sigmas lack {lacking} and have {extra} too many")
        values = [values[n] for n in names]
    try:
        return tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(f"skeleton file {path}: sigmas must be {len(names)} numbers, not {values!r}") from None
