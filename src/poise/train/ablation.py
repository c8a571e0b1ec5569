"""Ablations: the rows of a paper's table, trained alike on one data set and measured beside the paper's numbers.

::

    OUT/PRESET/            the run of a row, as any other run (see `poise.train.run`)
    OUT/PRESET/scores.json, truth_scores.json   its metrics
    OUT/table.md, table.json, table.csv         all rows so far

Rows with the same preset share a run. A finished run is not repeated, an interrupted one goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.checkpoints import load_checkpoint, read_header
from poise.evaluate.coco import read_truth
from poise.evaluate.model import evaluate_model
from poise.files import write_text
from poise.models import ModelConfig, parse_model_config
from poise.predict.predictor import Predictor
from poise.settings import nearest
from poise.train.ablation_table import Line, Table, write_table
from poise.train.config import RunConfig
from poise.train.engine import Trainer
from poise.train.launch import prepare_run
from poise.train.recipes import recipe
from poise.train.run import RunFolder
from poise.train.validation import Validator
from poise.zoo import papers


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an ablation.

    Attributes:
        name: on the command line.
        title: in tables.
        preset: of the network, also the name of its recipe and of its run's folder.
        before: name of the row that this one is compared with.
        truth_scores: rank the poses by the truth (`poise.evaluate.model.scored_by_truth`).
    """

    name: str
    title: str
    preset: str
    before: str | None
    truth_scores: bool = False


@dataclass(frozen=True, slots=True)
class Ablation:
    """A paper's table.

    Attributes:
        title: of the table.
        paper: under which conditions the paper measured; empty: there is none.
        data: the paper's data set, as in `poise.zoo.papers`.
        rows: in the paper's order.
        decided: fields of the model's settings that make the rows what they are.
    """

    title: str
    paper: str
    data: str
    rows: tuple[Row, ...]
    decided: tuple[str, ...]

    def published(self, row: Row) -> Mapping[str, float]:
        """The paper's metrics of a row, percent; empty if it has none."""
        return papers.published(row.preset, self.data, papers.TRUTH_SCORES if row.truth_scores else "")


ABLATIONS: dict[str, Ablation] = {
    "smpr": Ablation(
        title="SMPR, Tables I and II",
        paper="COCO minival (5,000 pictures), ResNet-50, 30 epochs of COCO 2017 with 32 pictures a step",
        data=papers.MINIVAL,
        rows=(
            Row("baseline", "baseline", "smpr_baseline", None),
            Row("baseline_star", "baseline*", "smpr_baseline_star", "baseline"),
            Row("refine", "+ refine", "smpr_refine", "baseline_star"),
            Row("refine_star", "+ refine*", "smpr_refine_star", "refine"),
            Row("psm", "+ PSM", "smpr_psm", "refine_star"),
            Row("heatmap", "+ heatmap", "smpr_heatmap", "psm"),
            Row("pafpn", "- FPN + PAFPN", "smpr_pafpn", "heatmap"),
            Row("psm_truth", "+ PSM, scores from the truth", "smpr_psm", "psm", truth_scores=True),
        ),
        decided=("system", "neck", "align", "psm", "heatmap", "radius", "positives", "score"),
    )
}
"""Ablations by name. Another paper's is one more entry, with its numbers in `poise.zoo.papers`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An ablation ready to run.

    Attributes:
        ablation: the paper's table.
        rows: the chosen rows, in the paper's order.
        settings: of the run of each preset.
    """

    ablation: Ablation
    rows: tuple[Row, ...]
    settings: Mapping[str, RunConfig]

    def before(self, row: Row) -> Row | None:
        """The nearest chosen row that comes before one."""
        by_name = {r.name: r for r in self.ablation.rows}
        name = row.before
        while name is not None and by_name[name] not in self.rows:
            name = by_name[name].before
        return by_name[name] if name is not None else None


Watch = Callable[[str, Trainer], AbstractContextManager[None]]
"""Called with a preset and its trainer; the run happens inside."""


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """The ablation was asked to stop; everything is saved and the same call goes on."""


def make_plan(
    name: str,
    rows: Sequence[str] = (),
    *,
    like: RunConfig | None = None,
    changes: Sequence[str] = (),
    steps: int | None = None,
    data_root: str | Path | None = None,
) -> Plan:
    """Settings of every row: the same but for the switches that make the row.

    Args:
        name: of the ablation.
        rows: names of the rows; empty: all.
        like: where everything but the rows' switches comes from; None: each row's own recipe, the paper's.
        changes: ``a.b=value`` for all runs.
        steps: length of each run; None: as the recipe says.
        data_root: folder that relative data paths start from.

    Raises:
        ValueError: there is no such ablation, row or setting, the settings set what the rows decide, or they name no
            validation data.
    """
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}{nearest(name, ABLATIONS)}")
    ablation = ABLATIONS[name]
    known = {row.name: row for row in ablation.rows}
    for wrong in (r for r in rows if r not in known):
        raise ValueError(f"ablation {name} has no row {wrong!r}{nearest(wrong, known)}")
    chosen = tuple(row for row in ablation.rows if not rows or row.name in rows)
    _refuse_decided(ablation, changes)
    if steps is not None:
        changes = [*changes, "train.epochs=null", f"train.steps={steps}"]
    settings = {row.preset: _row_settings(ablation, row, like, changes) for row in chosen}
    if data_root is not None:
        settings = {p: s.model_copy(update={"data_root": str(data_root)}) for p, s in settings.items()}
    if any(s.data.val is None for s in settings.values()):
        raise ValueError("an ablation measures: the settings must name validation data (data.val)")
    return Plan(ablation, chosen, settings)


def _refuse_decided(ablation: Ablation, changes: Sequence[str]) -> None:
    for change in changes:
        part, _, field = change.partition("=")[0].strip().partition(".")
        if part == "model" and field.partition(".")[0] in ("", *ablation.decided):
            raise ValueError(f"--set {change!r}: the rows of the ablation decide this; name the rows you want instead")


def _row_settings(ablation: Ablation, row: Row, like: RunConfig | None, changes: Sequence[str]) -> RunConfig:
    own = recipe(row.preset)
    if like is None:
        return own.override(changes)
    return like.model_copy(update={"model": _with_switches(like.model, own.model, ablation.decided)}).override(changes)


def _with_switches(model: ModelConfig, row: ModelConfig, decided: Sequence[str]) -> ModelConfig:
    """``model`` with the row's values of the decided fields, and without snapping, which no row of a paper has."""
    if model.system != row.system:
        raise ValueError(f"the ablation is of {row.system}, but the settings to be like are of {model.system}")
    switches = {field: value for field, value in row.model_dump(mode="json").items() if field in decided}
    if "snap" in type(row).model_fields:
        switches["snap"] = None
    return parse_model_config(model.model_dump(mode="json") | switches)


def run_ablation(plan: Plan, out: str | Path, *, device: str = "auto", watch: Watch | None = None) -> Table:
    """Train and measure what is not done yet; the table is written after every row.

    Args:
        plan: what to do.
        out: folder of the runs and tables.
        device: ``auto`` (a GPU, if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        watch: told of every run that starts or goes on.

    Raises:
        Stopped: Ctrl-C or SIGTERM; what is done is saved.
        ValueError: the folder holds a run with other settings; other errors as `prepare_run`.
    """
    out = Path(out)
    for preset, config in plan.settings.items():
        _refuse_other_settings(RunFolder(out / preset), config)
    paper = f"paper: {plan.ablation.paper}" if plan.ablation.paper else ""
    table = Table(plan.ablation.title, _conditions(plan), paper, ())
    for lines in _measured_lines(plan, out, device, watch or (lambda preset, trainer: nullcontext())):
        table = Table(table.title, table.measured, table.paper, tuple(lines))
        write_table(table, out)
    return table


def _measured_lines(plan: Plan, out: Path, device: str, watch: Watch) -> Iterator[list[Line]]:
    """All lines so far, after each row."""
    lines: dict[str, Line] = {}
    for row in plan.rows:
        config, folder = plan.settings[row.preset], RunFolder(out / row.preset)
        metrics = _stored_metrics(folder, row.truth_scores)
        if metrics is None:
            _train(row.preset, config, folder, device, watch)
            metrics = _measure(folder, config, row.truth_scores, device)
        before = plan.before(row)
        compared = lines[before.name] if before is not None else None
        lines[row.name] = Line(row.title, row.preset, metrics, plan.ablation.published(row), compared)
        yield list(lines.values())


def _scores_file(folder: RunFolder, truth_scores: bool) -> Path:
    return folder.path / ("truth_scores.json" if truth_scores else "scores.json")


def _stored_metrics(folder: RunFolder, truth_scores: bool) -> dict[str, float] | None:
    """Metrics of a finished run that were measured in an earlier call; None if they were not."""
    path = _scores_file(folder, truth_scores)
    if not (path.is_file() and folder.last.is_file()):
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    return dict(stored["metrics"]) if stored["step"] == read_header(folder.last).metadata["step"] else None


def _train(preset: str, config: RunConfig, folder: RunFolder, device: str, watch: Watch) -> None:
    """Bring a run to its end."""
    folder.forget_unsaved()
    trainer = prepare_run(config, folder, resume=folder.state.exists(), device=device)
    if trainer.accelerator.num_processes > 1:
        raise ValueError(
            "an ablation runs in one process: train its rows with accelerate launch $(which poise) train, "
            "each in its folder, and they will be measured"
        )
    try:
        if trainer.position.step < trainer.total or trainer.unmeasured:
            with watch(preset, trainer):
                outcome = trainer.run()
            if not outcome.finished:
                raise Stopped(f"{preset} after step {outcome.step} of {trainer.total}")
    finally:
        folder.close()


def _measure(folder: RunFolder, config: RunConfig, truth_scores: bool, device: str) -> dict[str, float]:
    """Metrics (0..1) of the newest model of a finished run, written to its folder too.

    The run itself has measured that model after its last step, unless it was stopped just then.
    """
    header = read_header(folder.last).metadata
    metrics: dict[str, float] = {} if truth_scores else header["metrics"]
    if not metrics:
        val = config.located_data().val
        assert val is not None
        model = load_checkpoint(folder.last).model
        if truth_scores:
            metrics = evaluate_model(Predictor(model, device), val.annotations, val.images, truth_scores=True)
        else:
            metrics = Validator(val, model)(model)
    write_text(_scores_file(folder, truth_scores), json.dumps({"step": header["step"], "metrics": metrics}))
    return metrics


def _refuse_other_settings(folder: RunFolder, config: RunConfig) -> None:
    """``ValueError`` if a run was saved here with other settings, places of data aside."""
    if not (folder.state.exists() and folder.settings.exists()):
        return
    there = _flat(RunConfig.from_yaml(folder.settings).model_dump(mode="json", exclude={"data_root"}))
    wanted = _flat(config.model_dump(mode="json", exclude={"data_root"}))
    for key in sorted(there.keys() | wanted.keys()):
        if there.get(key) != wanted.get(key):
            raise ValueError(
                f"{folder.path} holds a run with {key} = {there.get(key)!r}, not {wanted.get(key)!r}: "
                "choose another --out, or the same settings"
            )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _conditions(plan: Plan) -> str:
    """What the measured numbers are numbers of, in one line."""
    config = next(iter(plan.settings.values()))
    data, train = config.located_data(), config.train
    assert data.val is not None
    pictures = len(read_truth(data.val.annotations)["images"])
    length = f"{train.steps} steps" if train.steps is not None else f"{train.epochs} epochs"
    network = getattr(config.model, "backbone", config.model.system)
    return (
        f"measured: {pictures} pictures of {Path(data.val.annotations).name}, {network}, {length} "
        f"of {data.batch * train.accumulate} pictures, seed {train.seed}"
    )
