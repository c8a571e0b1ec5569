"""What is wrong with a data set: single problems, and a report of all of them.

Letters: K keypoints. Frame: image px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from poise.data.images import ImageError, image_size, read_image

Level = Literal["error", "warning"]
Size = tuple[int, int]
Progress = Callable[[int, int], None]
"""Called with the number of pictures looked at and of all pictures."""

SLACK = 1.0
"""Pixels by which a box or a keypoint may stick out of its picture: tools disagree about where its edge is."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        level: ``error``: the data set cannot be read, or misleads whoever learns from it or is measured on it.
            ``warning``: it may be meant so.
        kind: short name, the same for all problems of a kind.
        file: the file that it is in.
        where: the place in the file: ``annotation 5``, ``line 3`` ...; empty for the whole file.
        message: what was found and what was expected.
    """

    level: Level
    kind: str
    file: str
    where: str
    message: str

    def __str__(self) -> str:
        """One line."""
        place = f"{self.file}: {self.where}" if self.where else self.file
        return f"{self.level}: {place}: {self.message} [{self.kind}]"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All problems of a data set.

    Attributes:
        path: the data set.
        format: which format it was read as; empty if that could not be told.
        pictures: number of pictures listed.
        people: number of annotated people, crowds not counted.
        problems: in the order of the files.
    """

    path: str
    format: str
    pictures: int
    people: int
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> int:
        """Number of problems of level error."""
        return sum(p.level == "error" for p in self.problems)

    @property
    def warnings(self) -> int:
        """Number of problems of level warning."""
        return len(self.problems) - self.errors

    @property
    def kinds(self) -> dict[str, int]:
        """How many problems of each kind there are, most first."""
        return dict(Counter(p.kind for p in self.problems).most_common())

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description."""
        problems = [
            {"level": p.level, "kind": p.kind, "file": p.file, "where": p.where, "message": p.message}
            for p in self.problems
        ]
        return {
            "path": self.path,
            "format": self.format,
            "pictures": self.pictures,
            "people": self.people,
            "errors": self.errors,
            "warnings": self.warnings,
            "kinds": self.kinds,
            "problems": problems,
        }


@dataclass(slots=True)
class Findings:
    """Collects the problems of one data set while it is looked through.

    Attributes:
        decode: decode every picture instead of reading headers only.
        progress: is told how far the pictures are.
        problems: what was found so far.
        pictures: number of pictures so far.
        people: number of people so far.
    """

    decode: bool = True
    progress: Progress | None = None
    problems: list[Problem] = field(default_factory=list)
    pictures: int = 0
    people: int = 0

    def error(self, kind: str, file: str | Path, where: str, message: str) -> None:
        """Note a problem of level error."""
        self.problems.append(Problem("error", kind, str(file), where, message))

    def warning(self, kind: str, file: str | Path, where: str, message: str) -> None:
        """Note a problem of level warning."""
        self.problems.append(Problem("warning", kind, str(file), where, message))

    def refusal(self, kind: str, file: str | Path, error: Exception) -> None:
        """Note what a reader refused; its message begins with the file, which is not told twice."""
        message = " ".join(str(error).split())
        self.error(kind, file, "", message.removeprefix(str(file)).lstrip(":, ") or type(error).__name__)

    def picture(self, path: Path, file: str | Path, where: str, expected: Size | None = None) -> Size | None:
        """Look at a picture; its (height, width), or None if it cannot be used.

        Args:
            path: the picture.
            file: the file that lists it.
            where: the place in that file.
            expected: (height, width) that the annotations say.
        """
        if not path.is_file():
            self.error("missing-picture", file, where, f"picture {path} does not exist")
            return None
        try:
            stored = image_size(path)
            if self.decode:
                read_image(path)
        except (ImageError, OSError) as error:
            self.error("unreadable-picture", file, where, str(error))
            return None
        if expected is not None and expected not in (stored, stored[::-1]):
            self.error(
                "picture-size",
                file,
                where,
                f"picture {path} has {stored[1]}x{stored[0]} pixels, expected {expected[1]}x{expected[0]}",
            )
        return stored

    def looked_at(self, done: int, total: int) -> None:
        """Tell the progress."""
        if self.progress is not None:
            self.progress(done, total)

    def points(
        self, points: npt.NDArray[np.float64], names: Sequence[str], size: Size | None, file: str | Path, where: str
    ) -> None:
        """Look at the keypoints (K, 3) of one person; ``size`` is the picture's (height, width), if known."""
        visibility = points[:, 2]
        bad = ~np.isin(visibility, (0, 1, 2))
        if bad.any():
            values = sorted(set(visibility[bad].tolist()))
            self.error("visibility", file, where, f"keypoint visibility {values}, expected 0, 1 or 2")
        if size is None:
            return
        beyond = (points[:, :2] < -SLACK) | (points[:, :2] > np.array(size[::-1]))
        outside = (visibility > 0) & beyond.any(1)
        if outside.any():
            listed = ", ".join(
                f"{names[k] if k < len(names) else k} at {points[k, 0]:g}, {points[k, 1]:g}"
                for k in np.flatnonzero(outside).tolist()
            )
            self.warning("keypoint-outside", file, where, f"{listed}, expected inside {size[1]}x{size[0]}")

    def box(self, box: Sequence[float], size: Size | None, file: str | Path, where: str) -> None:
        """Look at one xyxy box."""
        x1, y1, x2, y2 = box
        text = f"box from {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        if x2 < x1 or y2 < y1:
            self.error("box-negative", file, where, f"{text}, expected sides of 0 or more")
            return
        if x2 == x1 or y2 == y1:
            self.warning("box-empty", file, where, f"{text}, expected an extent")
        if size is None:
            return
        height, width = size
        if x2 < 0 or y2 < 0 or x1 > width or y1 > height:
            self.error("box-outside", file, where, f"{text} lies outside, expected inside {width}x{height}")
        elif x1 < -SLACK or y1 < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
            self.warning("box-sticks-out", file, where, f"{text}, expected inside {width}x{height}")

    def repeated(self, kind: str, value: Any, seen: set[Any], file: str | Path, where: str) -> bool:
        """Whether a value was seen before, which is an error; it is then remembered."""
        if value in seen:
            self.error(kind, file, where, f"{value!r} is given twice, expected once")
            return True
        seen.add(value)
        return False
