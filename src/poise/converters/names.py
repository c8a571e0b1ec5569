"""Renaming the entries of a state dict, and loading it with every problem listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from poise.checkpoints import state_problems


def rename(
    state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]], drop: Iterable[str] = ()
) -> dict[str, Tensor]:
    """New names for all entries.

    Args:
        state: entries by old name.
        rules: (pattern, replacement), tried in order from the start of the name; the first that matches at the start
            wins, except that a pattern ending in ``$`` may match anywhere and lets later rules run too. A field
            ``{0-n}`` in a replacement becomes the first group minus n.
        drop: patterns (searched) of entries that the architecture defines and that are left out.

    Returns:
        Entries by new name; a name that no rule matches is kept, so that loading reports it.
    """
    rules, drop = tuple(rules), tuple(drop)
    renamed = {}
    for name, value in state.items():
        if any(re.search(pattern, name) for pattern in drop):
            continue
        renamed[_new_name(name, rules)] = value
    return renamed


def _new_name(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        if pattern.endswith("$"):
            name = re.sub(pattern, replacement, name)
            continue
        match = re.match(pattern, name)
        if match:
            field = re.search(r"\{0-(\d)\}", replacement)
            if field:
                number = str(int(match.group(1)) - int(field.group(1)))
                return replacement.replace(field.group(0), number) + name[match.end() :]
            return match.expand(replacement) + name[match.end() :]
    return name


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every entry.

    ``num_batches_tracked`` may be absent: old codes did not write it.

    Raises:
        ValueError: missing, unexpected or wrongly shaped names, all listed.
    """
    own = model.state_dict()
    given = dict(state)
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, value)
    problems = state_problems(
        {k: tuple(v.shape) for k, v in given.items()}, {k: tuple(v.shape) for k, v in own.items()}
    )
    if problems:
        raise ValueError(f"not a {what} checkpoint: {problems}")
    model.load_state_dict(given)
