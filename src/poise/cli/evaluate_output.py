"""What ``poise evaluate`` prints: text or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poise.cli.measuring import Contestant, Measured, Scales

_FEW = 5
_PCKH = {"official": "at most", "mmpose": "less than"}


def as_document(measured: Measured) -> dict[str, Any]:
    """For JSON. One contestant: the numbers and the setting; several: ``models``, ``differences`` and the setting."""
    entries: list[dict[str, Any]] = []
    for i, (name, numbers) in enumerate(zip(measured.names, measured.numbers, strict=True)):
        entry: dict[str, Any] = {**numbers, "model": name, "people": measured.people[i], "scales": measured.scales[i]}
        if measured.intervals:
            from poise.evaluate.summary import interval_table

            entry["intervals"] = interval_table(measured.intervals[i])
        if measured.details:
            entry["details"] = measured.details[i]
        entries.append(entry)
    setting = _setting(measured)
    if len(entries) == 1:
        return entries[0] | setting
    document: dict[str, Any] = {"models": entries}
    if measured.differences:
        from poise.evaluate.summary import difference_tables

        document["differences"] = difference_tables(measured.names, measured.differences)
    return document | setting


def _setting(measured: Measured) -> dict[str, Any]:
    setting = measured.setting
    values = {
        "annotations": str(measured.target.annotations),
        "split": measured.target.split,
        "pictures": measured.pictures,
        "flip": setting.flip,
        "turns": setting.turns,
        "truth_scores": setting.truth_scores,
    }
    return values | ({"pckh": measured.target.pckh} if measured.target.kind == "mpii" else {})


def as_text(measured: Measured) -> str:
    """For people; numbers are percent."""
    where = f"{measured.pictures} pictures of {measured.target.annotations}"
    first = measured.names[0] if len(measured.names) == 1 else f"{len(measured.names)} compared"
    lines = [f"{first} on {where}"]
    lines += [f"people: {people}" for people in dict.fromkeys(measured.people) if people]
    lines += [f"sizes: {sizes}" for sizes in dict.fromkeys(map(_sizes, measured.scales)) if sizes]
    if measured.target.kind == "mpii":
        lines.append(f"PCKh: joints {_PCKH[measured.target.pckh]} half a head away")
    lines += _one(measured) if len(measured.names) == 1 else _several(measured)
    for name, details in zip(measured.names, measured.details, strict=bool(measured.details)):
        lines += _details(name, details)
    return "\n".join(lines)


def how_measured(contestants: Sequence[Contestant], measured: Measured) -> list[str]:
    """A line for each contestant, for a report: where it had people from, and how models were run."""
    setting = measured.setting
    how = f"flip: {_yes(setting.flip)}; turns: {_yes(setting.turns)}"
    if setting.truth_scores:
        how += "; poses ranked by their likeness to the truth"
    return [
        f"{contestant.name}: a file of results"
        if contestant.file is not None
        else f"{contestant.name}: {people or 'looks at whole pictures'}; sizes: {_sizes(scales) or 'its own'}; {how}"
        for contestant, people, scales in zip(contestants, measured.people, measured.scales, strict=True)
    ]


def _sizes(scales: Scales | None) -> str:
    """Limits of sides, for people; empty if nothing is known of them."""
    each = [str(scale) if isinstance(scale, int) else "x".join(map(str, scale)) for scale in scales or []]
    return f"{', '.join(each)} px" if each else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _one(measured: Measured) -> list[str]:
    numbers = measured.numbers[0]
    names = list(numbers)
    size = len(names) // 2 if measured.target.kind == "mpii" else _FEW
    lines = []
    for start in range(0, len(names), size):
        group = names[start : start + size]
        rows = [[f"{100 * numbers[name]:.1f}" for name in group]]
        if measured.intervals:
            rows.append([_span(measured.intervals[0][name], "{:.1f}") for name in group])
        lines += _columns([group, *rows])
    return lines


def _several(measured: Measured) -> list[str]:
    names = list(measured.numbers[0])
    rows = [["", *names]]
    for i, numbers in enumerate(measured.numbers):
        rows.append([measured.names[i], *(f"{100 * numbers[name]:.1f}" for name in names)])
        if measured.intervals:
            rows.append(["", *(_span(measured.intervals[i][name], "{:.1f}") for name in names)])
    lines = _columns(rows)
    if measured.differences:
        rows = [["", *names]]
        for name, table in zip(measured.names[1:], measured.differences, strict=True):
            rows.append([name, *(f"{100 * table[n].interval.value:+.1f}{'*' * table[n].certain}" for n in names)])
            rows.append(["", *(_span(table[n].interval, "{:+.1f}") for n in names)])
        lines += ["", f"Differences to {measured.names[0]} (* 0 is not within the 95 % interval)", *_columns(rows)]
    return lines


def _details(name: str, details: Mapping[str, Any]) -> list[str]:
    if "joints" in details:
        return ["", f"{name}: joints", *_joints(details["joints"])]
    lines = ["", f"{name}: AP lost to errors (alone: only this corrected; in turn: all above, too)"]
    rows = [["", "count", "alone", "in turn"]]
    for loss in details["losses"]:
        alone = "" if loss["alone"] is None else f"{100 * loss['alone']['AP']:+.1f}"
        rows.append([loss["error"], str(loss["count"] or ""), alone, f"{100 * loss['in_turn']:+.1f}"])
    lines += [*_columns(rows), ""]
    rows = [["", "", "people", "AP", "AP50", "AR"]]
    for group in details["groups"]:
        values = (f"{100 * group[n]:.1f}" for n in ("AP", "AP50", "AR"))
        rows.append([group["by"], group["group"], str(group["people"]), *values])
    lines += [*_columns(rows), ""]
    shares = [key for key in next(iter(details["keypoints"]), {}) if key.startswith("PCK")]
    rows = [["", "labelled", "found", "OKS", *shares]]
    for k in details["keypoints"]:
        percents = (f"{100 * k[share]:.1f}" for share in shares)
        rows.append([k["name"], str(k["labelled"]), str(k["found"]), f"{k['OKS']:.3f}", *percents])
    lines += [*_columns(rows), "", *_pck(details["pck"])]
    best = details["threshold"]
    if best is not None:
        lines += ["", f"best threshold: score {best['score']:.3f} (precision {100 * best['precision']:.1f}, "
                  f"recall {100 * best['recall']:.1f} at OKS 0.5)"]  # fmt: skip
    return lines


def _joints(joints: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [key for key in joints[0] if key.startswith("PCKh")]
    rows = [[j["name"], str(j["labelled"]), *(f"{100 * j[share]:.1f}" for share in shares)] for j in joints]
    return _columns([["", "labelled", *shares], *rows])


def _pck(pck: Mapping[str, Any]) -> list[str]:
    """PCK of everybody, with its interval if there is one."""
    names = [key for key in pck if key.startswith("PCK@")]
    rows = [names, [f"{100 * pck[name]:.1f}" for name in names]]
    if "intervals" in pck:
        rows.append(["..".join(f"{100 * end:.1f}" for end in pck["intervals"][name]) for name in names])
    return [f"PCK of all {pck['people']} people, each with the pose whose box fits best", *_columns(rows)]


def _span(interval: Any, form: str) -> str:
    return f"{form.format(100 * interval.low)}..{form.format(100 * interval.high)}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, in columns; the first one is flush left if its head is empty."""
    widths = [max(5, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    return ["  ".join(_cell(row, i, width, rows[0]) for i, width in enumerate(widths)).rstrip() for row in rows]


def _cell(row: Sequence[str], column: int, width: int, head: Iterable[str]) -> str:
    return row[column].ljust(width) if list(head)[column] == "" else row[column].rjust(width)
