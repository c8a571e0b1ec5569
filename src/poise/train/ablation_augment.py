"""The ablation of augmentation: one model trained without any, with each alone, and as the settings say.

It has no paper's numbers; the rows follow from the settings (see `poise.data.augmentations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poise.data.augmentations import NOTHING, is_on, measurable, only
from poise.settings import nearest
from poise.train.ablation import ABLATIONS, Ablation, Plan, Row, make_plan
from poise.train.config import RunConfig

AUGMENTATION = "augmentation"
"""Name of the ablation."""
ALL = "all"
"""Row with the settings as they are."""
_NEEDS_NAMES = "upright"
"""Only for skeletons that have the keypoints of ``data.crop.torso``: measured where it is on, or asked for."""


def plan_ablation(
    name: str,
    rows: Sequence[str] = (),
    *,
    like: RunConfig | None = None,
    changes: Sequence[str] = (),
    steps: int | None = None,
    data_root: str | Path | None = None,
) -> Plan:
    """The plan of a paper's ablation (`make_plan`) or of that of augmentation (`augmentation_plan`), by name."""
    if name == AUGMENTATION:
        return augmentation_plan(rows, like=like, changes=changes, steps=steps, data_root=data_root)
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}{nearest(name, [AUGMENTATION, *ABLATIONS])}")
    return make_plan(name, rows, like=like, changes=changes, steps=steps, data_root=data_root)


def augmentation_plan(
    rows: Sequence[str] = (),
    *,
    like: RunConfig | None = None,
    changes: Sequence[str] = (),
    steps: int | None = None,
    data_root: str | Path | None = None,
) -> Plan:
    """Settings of every row: none, one augmentation each, all that the settings have.

    Args:
        rows: names of the rows; empty: all.
        like: the settings; what is on is as strong as they say, what is off as `Augmentation.on` says.
        changes: ``a.b=value`` for all runs, before augmentations are taken out.
        steps: length of each run; None: as the settings say.
        data_root: folder that relative data paths start from.

    Raises:
        ValueError: there are no settings or validation data, the pipeline has no augmentations to choose from, or there
            is no such row.
    """
    if like is None:
        raise ValueError("the ablation of augmentation needs the settings of a run: --like RECIPE or --like FILE.yaml")
    if steps is not None:
        changes = [*changes, "train.epochs=null", f"train.steps={steps}"]
    config = like.override(changes)
    if data_root is not None:
        config = config.model_copy(update={"data_root": str(data_root)})
    if config.data.val is None or config.data.val.kind == "mpii":
        raise ValueError("an ablation measures AP: the settings must name validation data (data.val), not of MPII")
    known = _rows(config)
    for wrong in (r for r in rows if r not in known):
        raise ValueError(f"the ablation of augmentation has no row {wrong!r}{nearest(wrong, known)}")
    wanted = rows or [r for r in known if r != _NEEDS_NAMES or is_on(config.data, r)]
    chosen = tuple(row for name, row in known.items() if name in wanted)
    ablation = Ablation("Augmentation", "", "", tuple(known.values()), ())
    return Plan(ablation, chosen, {row.preset: _settings(config, row.name) for row in chosen})


def _rows(config: RunConfig) -> dict[str, Row]:
    rows = {NOTHING: Row(NOTHING, NOTHING, NOTHING, None)}
    for name in measurable(config.data):
        title = f"+ {name}" if is_on(config.data, name) else f"+ {name} (not in all)"
        rows[name] = Row(name, title, name, NOTHING)
    return rows | {ALL: Row(ALL, ALL, ALL, NOTHING)}


def _settings(config: RunConfig, name: str) -> RunConfig:
    if name == ALL:
        return config
    return config.model_copy(update={"data": only(config.data, () if name == NOTHING else (name,))})
