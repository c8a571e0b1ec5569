"""Poses as one table: CSV, Parquet, pandas.

A row is a pose. A picture in which nobody was found has one row, too, in which everything about a pose is empty: so
nothing is lost, and ``table.groupby("picture").score.count()`` counts people.

Columns: ``picture`` (counted from 0), ``source``, ``frame``, ``time``, ``width``, ``height``, ``id``, ``score``,
``x1``, ``y1``, ``x2``, ``y2``, then ``NAME_x``, ``NAME_y``, ``NAME_score`` and ``NAME_visibility`` of every keypoint.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from poise.extras import needs
from poise.results.pictures import completed
from poise.results.writer import PoseSink
from poise.skeletons import COCO17, SKELETONS, Skeleton
from poise.types import Poses

Row = dict[str, Any]
PICTURE_COLUMNS = {"picture": int, "source": str, "frame": int, "time": float, "width": int, "height": int}
POSE_COLUMNS = {"id": int, "score": float, "x1": float, "y1": float, "x2": float, "y2": float}
_PARTS = {"x": float, "y": float, "score": float, "visibility": int}
_ROW_GROUP = 4096
"""Rows of a Parquet file that wait in memory."""


def columns(skeleton: Skeleton) -> dict[str, type]:
    """Names and types of the columns, in order."""
    keypoints = {f"{name}_{part}": kind for name in skeleton.keypoints for part, kind in _PARTS.items()}
    return {**PICTURE_COLUMNS, **POSE_COLUMNS, **keypoints}


def rows(poses: Poses, picture: int) -> Iterator[Row]:
    """One row a pose of one picture, or one for nobody; what is not known or not finite is None."""
    height, width = poses.image_size or (None, None)
    start: Row = {
        "picture": picture, "source": _text(poses.source), "frame": poses.frame, "time": poses.time, "width": width,
        "height": height,
    }  # fmt: skip
    names = list(columns(poses.skeleton))
    if not len(poses):
        yield {**dict.fromkeys(names), **start}
    for i in range(len(poses)):
        marks: list[Any] = [None] * len(poses.skeleton)
        if poses.visibility is not None:
            marks = poses.visibility[i].tolist()
        triples = poses.to_numpy()[i].tolist()
        values = [v for triple, mark in zip(triples, marks, strict=True) for v in (*map(_number, triple), mark)]
        who = None if poses.ids is None else int(poses.ids[i])
        pose = [who, _number(float(poses.scores[i])), *map(_number, poses.boxes[i].tolist()), *values]
        yield {**start, **dict(zip(names[len(start) :], pose, strict=True))}


def _text(name: str | None) -> str | None:
    """A name as text that every table can hold: what is no UTF-8 in it becomes escapes."""
    return None if name is None else name.encode("utf-8", "backslashreplace").decode("utf-8")


class CsvWriter(PoseSink):
    """A CSV file (UTF-8, comma, header); an empty field is a value that is not known."""

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17) -> None:
        super().__init__(path, skeleton)
        file = self._stack.enter_context(self._temporary(self.path).open("w", encoding="utf-8", newline=""))
        self._table = csv.DictWriter(file, list(columns(skeleton)), lineterminator="\n")
        self._table.writeheader()

    def _write(self, poses: Poses, **more: Any) -> None:
        self._table.writerows(rows(poses, self.pictures))


class ParquetWriter(PoseSink):
    """A Parquet file; needs pyarrow (``pip install 'poise[tables]'``)."""

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO17) -> None:
        super().__init__(path, skeleton)
        arrow = needs("pyarrow", "tables", "writing Parquet")
        kinds = {int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in columns(skeleton).items()])
        self._make = arrow.Table.from_pylist
        parquet = needs("pyarrow.parquet", "tables", "writing Parquet")
        self._file = self._stack.enter_context(parquet.ParquetWriter(self._temporary(self.path), self._schema))
        self._rows: list[Row] = []

    def _write(self, poses: Poses, **more: Any) -> None:
        self._rows += rows(poses, self.pictures)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def _finish(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._make(self._rows, schema=self._schema))
            self._rows = []


def to_dataframe(poses: Poses | Iterable[Poses]) -> Any:
    """The table as a ``pandas.DataFrame``; needs pandas (``pip install 'poise[tables]'``).

    Whole numbers that may be missing have pandas' type ``Int64``.
    """
    pandas = needs("pandas", "tables", "a table of poses")
    parts = [poses] if isinstance(poses, Poses) else list(poses)
    skeleton = parts[0].skeleton if parts else COCO17
    if any(part.skeleton != skeleton for part in parts):
        raise ValueError(f"one table holds one skeleton, not {sorted({part.skeleton.name for part in parts})}")
    table = [row for number, part in enumerate(parts) for row in rows(part, number)]
    kinds = {int: "Int64", float: "float64", str: "object"}
    names = columns(skeleton)
    return pandas.DataFrame(table, columns=list(names)).astype({name: kinds[kind] for name, kind in names.items()})


def read_csv(path: str | Path, skeleton: Skeleton | None = None) -> list[Poses]:
    """The poses of every picture, as `CsvWriter` wrote them.

    Where all poses have ids, or visibility, a picture without people has an empty array of them.

    Args:
        path: the file.
        skeleton: what the keypoints are; not needed if it is a built-in one, which the names of the columns tell.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else; one line that names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"table of poses {path} does not exist")
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        skeleton = _skeleton_of(table.fieldnames or (), skeleton, path)
        numbered = ((table.line_num, _parsed(row, skeleton, table.line_num, path)) for row in table)
        groups = groupby(numbered, key=lambda pair: pair[1]["picture"])
        try:
            return completed([_of_picture([row for _, row in group], skeleton) for _, group in groups])
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a table in UTF-8 text") from None


def _skeleton_of(header: Sequence[str], skeleton: Skeleton | None, path: Path) -> Skeleton:
    start = [*PICTURE_COLUMNS, *POSE_COLUMNS]
    if list(header[: len(start)]) != start:
        raise ValueError(f"{path} is not a table of poses: its first line must be {','.join(start)},...")
    given = list(header[len(start) :])
    for known in (skeleton,) if skeleton else SKELETONS.values():
        if given == list(columns(known))[len(start) :]:
            return known
    if skeleton is not None:
        raise ValueError(f"{path}: its columns are not the keypoints of skeleton {skeleton.name!r}")
    raise ValueError(f"{path}: its keypoints are no built-in skeleton's; name the skeleton when reading it")


def _parsed(row: Mapping[str, str], skeleton: Skeleton, line: int, path: Path) -> Row:
    try:
        return {name: kind(row[name]) if row[name] != "" else None for name, kind in columns(skeleton).items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}, line {line}: {error}") from None


def _of_picture(table: list[Row], skeleton: Skeleton) -> Poses:
    first = table[0]
    people = [row for row in table if row["score"] is not None or row["x1"] is not None]

    def values(names: Iterable[str], default: float) -> np.ndarray[Any, Any]:
        names = list(names)
        cells = [[default if row[name] is None else row[name] for name in names] for row in people]
        return np.array(cells, np.float64).reshape(len(people), len(names))

    def optional(names: list[str]) -> np.ndarray[Any, Any] | None:
        known = bool(people) and all(row[name] is not None for row in people for name in names)
        return values(names, 0).astype(np.int64) if known else None

    points = values((f"{name}_{axis}" for name in skeleton.keypoints for axis in "xy"), math.nan)
    ids = optional(["id"])
    return Poses(
        points.reshape(len(people), len(skeleton), 2).astype(np.float32),
        values((f"{name}_score" for name in skeleton.keypoints), math.nan).astype(np.float32),
        values(("x1", "y1", "x2", "y2"), math.nan).astype(np.float32),
        values(("score",), math.nan)[:, 0].astype(np.float32),
        skeleton,
        None if first["height"] is None else (first["height"], first["width"]),
        first["source"],
        visibility=optional([f"{name}_visibility" for name in skeleton.keypoints]),
        ids=None if ids is None else ids[:, 0],
        frame=first["frame"],
        time=first["time"],
    )


def _number(value: float) -> float | None:
    """A number as it stands in a table: four digits after the point; None if it is not finite."""
    return round(value, 4) if math.isfinite(value) else None
