"""The table of an ablation, for people and for machines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.evaluate.coco import METRICS
from poise.files import write_text

COLUMNS = ("row", "AP", "AP50", "change", "paper AP", "paper AP50", "paper change")
"""Of the tables for people; percent, changes against the row before."""
_OWN = 4
"""So many of them do not need a paper."""


@dataclass(frozen=True, slots=True)
class Line:
    """A measured row.

    Attributes:
        title: of the row.
        preset: of its network.
        metrics: measured, 0..1.
        paper: published, percent; empty if there is nothing.
        before: the row that it is compared with.
    """

    title: str
    preset: str
    metrics: Mapping[str, float]
    paper: Mapping[str, float]
    before: Line | None

    @property
    def change(self) -> float | None:
        """Measured AP minus that of the row before, percent."""
        return None if self.before is None else 100 * (self.metrics["AP"] - self.before.metrics["AP"])

    @property
    def paper_change(self) -> float | None:
        """The same of the paper's numbers."""
        if self.before is None or "AP" not in self.paper or "AP" not in self.before.paper:
            return None
        return self.paper["AP"] - self.before.paper["AP"]

    def cells(self) -> tuple[str, ...]:
        """One text for each of `COLUMNS`; empty where there is no number."""
        measured = [f"{100 * self.metrics[name]:.1f}" for name in ("AP", "AP50")]
        paper = [f"{self.paper[name]:.1f}" if name in self.paper else "" for name in ("AP", "AP50")]
        return (self.title, *measured, _signed(self.change), *paper, _signed(self.paper_change))

    def record(self) -> dict[str, Any]:
        """Everything about the row; all numbers are percent."""
        return {
            "row": self.title,
            "preset": self.preset,
            "before": None if self.before is None else self.before.title,
            **{name: 100 * self.metrics[name] for name in METRICS},
            "change": self.change,
            **{f"paper {name}": self.paper.get(name) for name in METRICS[:6]},
            "paper change": self.paper_change,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """Measured rows beside a paper's.

    Attributes:
        title: whose ablation it is.
        measured: under which conditions the rows were measured.
        paper: under which conditions the paper's were; empty: there is no paper, and no column for it.
        lines: the rows.
    """

    title: str
    measured: str
    paper: str
    lines: tuple[Line, ...]

    @property
    def heading(self) -> tuple[str, ...]:
        """What has to be said before the numbers."""
        return tuple(line for line in (self.title, self.measured, self.paper) if line)

    @property
    def note(self) -> str:
        """What has to be said about the numbers."""
        return NOTE if self.paper else NOTE_WITHOUT_PAPER

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of `COLUMNS` that the table has."""
        return COLUMNS if self.paper else COLUMNS[:_OWN]

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as texts, one for each of `columns`."""
        return [line.cells()[: len(self.columns)] for line in self.lines]

    def to_markdown(self) -> str:
        """A document with the heading and one table."""
        rows = [self.columns, ("---",) + ("---:",) * (len(self.columns) - 1), *self.cells()]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows)
        said = "\n".join(f"- {line}" for line in self.heading[1:])
        return f"# {self.title}\n\n{said}\n\n{self.note}\n\n{table}\n"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; all numbers are percent."""
        return {
            "title": self.title,
            "measured": self.measured,
            "paper": self.paper,
            "rows": [line.record() for line in self.lines],
        }

    def to_csv(self) -> str:
        """The records, after the heading as comments."""
        text = io.StringIO()
        for line in self.heading:
            text.write(f"# {line}\n")
        if self.lines:
            records = [line.record() for line in self.lines]
            writer = csv.DictWriter(text, records[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
        return text.getvalue()


NOTE = "Percent. Measured numbers and the paper's come from different settings: only their changes can be compared."
"""Under the heading of a table with a paper's numbers."""
NOTE_WITHOUT_PAPER = "Percent. Changes are against the first row; another seed shows how much of them is chance."
"""Under the heading of any other table."""


def write_table(table: Table, folder: Path) -> None:
    """Write ``table.md``, ``table.json`` and ``table.csv``, each whole or not at all."""
    write_text(folder / "table.md", table.to_markdown())
    write_text(folder / "table.json", json.dumps(table.to_dict(), indent=1) + "\n")
    write_text(folder / "table.csv", table.to_csv())


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"
