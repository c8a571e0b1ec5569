"""A report that is one HTML file: numbers, where precision is lost, plots and pictures, for one or several results.

Nothing is loaded from anywhere: plots are SVG, pictures JPEG inside the file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from poise.data.images import ImageError, read_image
from poise.evaluate import plots
from poise.evaluate.analysis import STEPS, Analysis, Kind, analyse
from poise.evaluate.bootstrap import LEVEL, Difference, Interval, compare, require_same_pictures
from poise.evaluate.breakdown import PCK, PROPERTIES, calibration, group_scores, keypoint_scores, operating_point
from poise.evaluate.evaluation import Evaluation
from poise.evaluate.examples import Example, draw_example, worst_cases
from poise.evaluate.pck import box_pck
from poise.files import write_text
from poise.types import ImageArray

FILE = "report.html"
EXPLAINED: Mapping[Kind, str] = {
    "miss": "the keypoint is near nobody's keypoint of that name",
    "swap": "the keypoint is on another person",
    "inversion": "left and right of the same person are exchanged",
    "jitter": "the keypoint is near its place, but not on it",
    "score": "worse poses score higher; corrected, this is the upper limit that perfect scores would reach",
    "false positive": "poses that are nobody, or somebody who was found already",
    "missed person": "nobody found them",
}
_QUALITY = 82
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #23272e; background: #fff; margin: 0 auto; max-width: 1120px;
  padding: 1.5rem; }
h1 { font-size: 1.7rem; }
h2 { margin-top: 2.6rem; font-size: 1.3rem; border-bottom: 2px solid #dfe3e8; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { max-width: 75ch; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ed; }
th { font-weight: 600; }
th.text, td.text { text-align: left; }
td:first-child { white-space: nowrap; }
.scroll { overflow-x: auto; }
.range { color: #69727d; font-size: .85em; white-space: nowrap; }
.up { color: #1d7a46; font-weight: 600; }
.down { color: #b3273b; font-weight: 600; }
svg { max-width: 100%; height: auto; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots > div { flex: 1 1 440px; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 1rem; }
figure { margin: 0; }
figure img { max-width: 100%; max-height: 340px; border-radius: 4px; background: #eee; }
figcaption { font-size: .82rem; color: #444b54; }
.mark { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .45em; }
"""


def write_report(
    folder: str | Path,
    evaluations: Sequence[Evaluation],
    *,
    images: str | Path | None = None,
    title: str = "Pose evaluation",
    samples: int = 1000,
    seed: int = 0,
    examples: int = 6,
    notes: Sequence[str] = (),
) -> Path:
    """Write a report.

    Args:
        folder: where to; it is made if it is missing.
        evaluations: at least one; several are of the same pictures, and compared with the first.
        images: folder of the pictures; without it, or where a picture cannot be read, examples are drawn on grey.
        title: of the page.
        samples: resampled sets of pictures, for intervals; 0 for none.
        seed: of the samples.
        examples: pictures of each kind of error; 0 for none.
        notes: lines for the head, for example how each was measured.

    Returns:
        The HTML file.

    Raises:
        ValueError: the evaluations are of different pictures, or one sample is asked for, which gives no interval.
        OSError: the folder cannot be written to.
    """
    require_same_pictures(evaluations)
    alone, differences = compare(evaluations, samples, seed) if samples else ([], [])
    parts = [_head(title, evaluations, notes), _numbers(evaluations, alone, samples)]
    if differences:
        parts.append(_differences(evaluations, differences))
    if len(evaluations) > 1:
        parts.append(_figures([plots.precision_recall(evaluations)]))
    for evaluation in evaluations:
        pck = _pck(evaluation, samples, seed)
        parts.append(_section(evaluation, pck, None if images is None else Path(images), examples))
    path = Path(folder) / FILE
    write_text(path, f"{''.join(parts)}</body></html>\n")
    return path


def _head(title: str, evaluations: Sequence[Evaluation], notes: Sequence[str]) -> str:
    truth = evaluations[0].truth
    lines = "<br>".join(map(escape, notes))
    counted = int((~truth.ignored).sum())
    names = ", ".join(evaluation.name for evaluation in evaluations)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(names)}: {len(truth.image_ids)} pictures, {counted} people with "
        f"keypoints of skeleton {escape(truth.skeleton.name)}.</p>{f'<p>{lines}</p>' if notes else ''}"
    )


def _numbers(evaluations: Sequence[Evaluation], alone: Sequence[Mapping[str, Interval]], samples: int) -> str:
    names = list(evaluations[0].numbers)
    if not samples:
        plain = [[escape(e.name), *(_percent(e.numbers[name]) for name in names)] for e in evaluations]
        return f"<h2>Numbers</h2><p>Percent.</p>{_table(['', *names], plain)}"
    rows = [
        [escape(evaluation.name), *(_with_range(table[name]) for name in names)]
        for evaluation, table in zip(evaluations, alone, strict=True)
    ]
    note = (
        f"Percent. Small: the range of {100 * LEVEL:.0f} % of {samples} sets of pictures drawn from these; what "
        "changes less than that may be chance."
    )
    return f"<h2>Numbers</h2><p>{note}</p>{_table(['', *names], rows)}"


def _differences(evaluations: Sequence[Evaluation], differences: Sequence[Mapping[str, Difference]]) -> str:
    names = list(evaluations[0].numbers)
    rows = [
        [escape(evaluation.name), *(_difference(table[name]) for name in names)]
        for evaluation, table in zip(evaluations[1:], differences, strict=True)
    ]
    note = (
        f"Against {evaluations[0].name}, on the same drawn pictures (paired). Coloured: 0 is not in the range, the "
        "difference is hardly chance."
    )
    return f"<h2>Differences</h2><p>{escape(note)}</p>{_table(['', *names], rows)}"


def _section(evaluation: Evaluation, pck: str, images: Path | None, examples: int) -> str:
    analysis = analyse(evaluation)
    groups = group_scores(evaluation)
    curves = [plots.precision_recall([evaluation]), plots.calibration_plot(calibration(evaluation))]
    keypoints = evaluation.truth.skeleton.keypoints
    parts = [
        f"<h2>{escape(evaluation.name)}: where precision is lost</h2>",
        _figures([plots.loss_plot(analysis)]),
        _losses(analysis),
        "<h3>Precision, recall and scores</h3>",
        _threshold(evaluation),
        _figures(curves),
        "<h3>Groups of people</h3>",
        _figures([plots.group_plot(groups)]) if groups else "",
        _groups(evaluation),
        "<h3>Keypoints</h3>",
        _figures([plots.keypoint_plot(analysis, keypoints)]),
        _keypoints(evaluation, analysis),
        pck,
    ]
    if examples:
        parts.append(_examples(evaluation, worst_cases(evaluation, analysis, examples), images))
    return "".join(parts)


def _losses(analysis: Analysis) -> str:
    rows = [
        [
            f'<span class="mark" style="background:{plots.COLOURS[loss.kind]}"></span>{loss.kind}', str(loss.count),
            _signed(loss.alone.ap - analysis.precision.ap), _signed(loss.alone.ap50 - analysis.precision.ap50),
            _signed(loss.alone.ap75 - analysis.precision.ap75), _signed(loss.lost), EXPLAINED[loss.kind],
        ]
        for loss in analysis.losses
    ]  # fmt: skip
    rows.append(["imprecision", "", "", "", "", _signed(analysis.imprecision), "keypoints that are good but not exact"])
    note = (
        "The kinds of errors of Ronchi and Perona (ICCV 2017). <i>Alone</i>: what is gained if only this were "
        "corrected. <i>In turn</i>: if everything above were corrected already; with AP this adds up to 100."
    )
    header = ["error", "count", "AP alone", "AP50 alone", "AP75 alone", "AP in turn", ""]
    duplicates, background = int(analysis.duplicates.sum()), int(analysis.background.sum())
    kinds = f"<p>False positives: {duplicates} second poses of somebody, {background} of nobody.</p>"
    return f"<p>{note}</p>{_table(header, rows, (0, 6))}{kinds}"


def _threshold(evaluation: Evaluation) -> str:
    best = operating_point(evaluation)
    if best is None:
        return "<p>Nobody was found.</p>"
    return (
        f"<p>Poses are worth most from score {best.score:.3f} on: precision {100 * best.precision:.1f} %, recall "
        f"{100 * best.recall:.1f} % at OKS 0.5 (best harmonic mean, {100 * best.f1:.1f} %).</p>"
    )


def _groups(evaluation: Evaluation) -> str:
    rows = [
        [PROPERTIES[g.property], g.name, str(g.people), _percent(g.ap), _percent(g.ap50), _percent(g.ar)]
        for g in group_scores(evaluation)
    ]
    return _table(["by", "", "people", "AP", "AP50", "AR"], rows, (0, 1))


def _keypoints(evaluation: Evaluation, analysis: Analysis) -> str:
    header = ["keypoint", "labelled", "found", "OKS", *(f"PCK {limit:g}" for limit in PCK), *list(analysis.table)]
    rows = [
        [
            escape(score.name), str(score.labelled), str(score.found), f"{score.oks:.3f}",
            *(_percent(value) for value in score.pck), *(str(counts[k]) for counts in analysis.table.values()),
        ]
        for k, score in enumerate(keypoint_scores(evaluation))
    ]  # fmt: skip
    note = (
        "OKS: mean similarity on people found (at OKS 0.5). PCK: share of all labelled ones within that many longer "
        "sides of the person's box; people who were not found count as wrong. Then: how often each is good or wrong."
    )
    return f"<p>{note}</p>{_table(header, rows)}"


def _pck(evaluation: Evaluation, samples: int, seed: int) -> str:
    pck = box_pck(evaluation)
    ranges = pck.intervals(samples, seed) if samples else {}
    cells = [_with_range(ranges[name]) if samples else _percent(value) for name, value in pck.numbers.items()]
    note = (
        f"Of all {pck.people} people, {pck.found} of whom have a pose: each is given the pose whose box fits best, "
        "however good it is. Labelled keypoints within that many longer sides of the person's box."
    )
    return f"<p>{note}</p>{_table(pck.names, [cells], ())}"


def _examples(evaluation: Evaluation, cases: Mapping[Kind, Sequence[Example]], images: Path | None) -> str:
    parts = ["<h3>Worst cases</h3><p>White: the annotated person. Colours: the pose. Red: where keypoints belong.</p>"]
    for kind in STEPS:
        if cases[kind]:
            shown = "".join(_example(evaluation, example, images) for example in cases[kind])
            parts.append(f'<h3>{kind.capitalize()}: {EXPLAINED[kind]}</h3><div class="cases">{shown}</div>')
    return "".join(parts)


def _example(evaluation: Evaluation, example: Example, images: Path | None) -> str:
    name = evaluation.truth.file_names[example.picture] or str(evaluation.truth.image_ids[example.picture])
    data = io.BytesIO()
    picture = draw_example(_picture(images, name), evaluation, example)
    Image.fromarray(picture).save(data, "JPEG", quality=_QUALITY)
    source = base64.b64encode(data.getvalue()).decode("ascii")
    caption = escape(f"{name}: {example.caption}")
    picture_tag = f'<img src="data:image/jpeg;base64,{source}" alt="{caption}">'
    return f"<figure>{picture_tag}<figcaption>{caption}</figcaption></figure>"


def _picture(images: Path | None, name: str) -> ImageArray | None:
    if images is None:
        return None
    try:
        return read_image(images / name)
    except (FileNotFoundError, ImageError):
        return None


def _figures(drawings: Iterable[str]) -> str:
    return f'<div class="plots">{"".join(f"<div>{drawing}</div>" for drawing in drawings)}</div>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML; columns ``text`` are not numbers."""
    kinds = [' class="text"' if column in text else "" for column in range(len(header))]
    head = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(kinds, header, strict=True))
    lines = ("".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _with_range(interval: Interval) -> str:
    ends = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f'{_percent(interval.value)}<br><span class="range">{ends}</span>'


def _difference(difference: Difference) -> str:
    value = difference.interval
    colour = ("up" if value.value > 0 else "down") if difference.certain else ""
    ends = f"{_signed(value.low)} to {_signed(value.high)}"
    return f'<span class="{colour}">{_signed(value.value)}</span><br><span class="range">{ends}</span>'


def _percent(value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"
