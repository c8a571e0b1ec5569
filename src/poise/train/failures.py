"""What can go wrong in a run, and what to tell its user.

An exception's message says what happened and where; `explain` adds what to do about it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

import torch

from poise.data.loader import DataWorkerError
from poise.train.config import RunConfig
from poise.train.state import Position

LISTED = 12
"""How many pictures a message names before it only counts."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


class NonFiniteLoss(ArithmeticError):  # noqa: N818 (named for what it is)
    """A loss term or the gradient became infinite or not a number.

    Attributes:
        step: updates done before.
        terms: all loss terms of the batch that was noticed.
        pictures: what was in the step, as far as it is to blame, usually files.
    """

    def __init__(self, position: Position, terms: Mapping[str, float], pictures: Sequence[str], what: str) -> None:
        self.step = position.step
        self.terms = dict(terms)
        self.pictures = list(pictures)
        values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
        names = ", ".join(self.pictures[:LISTED])
        more = f" and {len(self.pictures) - LISTED} more" if len(self.pictures) > LISTED else ""
        super().__init__(f"{what} is not finite at step {position.step}: {values}; pictures: {names}{more}")


class SaveFailed(OSError):  # noqa: N818 (named for what it is)
    """The state of a run could not be written; what was saved before is still there."""


def explain(error: BaseException, config: RunConfig) -> str | None:
    """What happened to a run and what to do, in one line; None for errors that say enough or are unexpected."""
    if isinstance(error, NonFiniteLoss):
        return f"{error}. {_calmer(config)}"
    if isinstance(error, DataWorkerError):
        return f"{error}. --set data.workers=0 prepares batches in the training process, where errors show in full"
    if is_out_of_memory(error):
        return f"out of memory: {_smaller(config)}"
    if isinstance(error, OSError) and (error.errno in _FULL or isinstance(error, SaveFailed)):
        return f"{error}. Free some space; files that were complete before are untouched"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or in RAM."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_ALLOCATOR)


def _calmer(config: RunConfig) -> str:
    """How to keep a loss finite."""
    ways = [f"a lower --set train.optimiser.lr= (now {config.train.optimiser.lr:g})"]
    if config.train.clip_norm is None:
        ways.append("--set train.clip_norm=10")
    if config.train.schedule.warmup == 0:
        ways.append("--set train.schedule.warmup=500")
    if config.train.precision == "fp16":
        ways.append("--set train.precision=bf16")
    if config.train.precision == "bf16":
        ways.append("--set train.precision=no")
    return f"Look at those pictures and their annotations; if they are right, try {', '.join(ways)}"


def _smaller(config: RunConfig) -> str:
    """How to need less memory, the ways that change least first."""
    data, train = config.data, config.train
    half, again = max(1, data.batch // 2), 2 * train.accumulate
    ways = []
    if data.batch > 1:
        ways.append(
            f"--set data.batch={half} --set train.accumulate={again} (as many pictures a step as now, "
            f"{data.batch * train.accumulate})"
        )
    if not (train.checkpoint_activations or train.compile):
        parts = "stages" if config.model.system == "rsn" else "backbone"
        ways.append(f"--set train.checkpoint_activations=[{parts}]")
    if train.precision == "no":
        ways.append("--set train.precision=bf16")
    ways += _smaller_pictures(config)
    pictures = "picture" if data.batch == 1 else "pictures"
    return f"a batch has {data.batch} {pictures}; try " + ("; ".join(ways) or "a smaller model")


def _smaller_pictures(config: RunConfig) -> list[str]:
    data = config.data
    if data.pipeline == "compose":
        return [f"smaller data.sizes (now {list(data.sizes)})"]
    if data.pipeline in ("paper", "paper_smpr"):
        return [f"smaller data.paper.short_sides (now {list(data.paper.short_sides)})"]
    return _smaller_crops(config)


def _smaller_crops(config: RunConfig) -> list[str]:
    """Crops of about three quarters of the sides, if the model can have them."""
    view = config.model.view
    if view.size is None:
        return []
    height, width = (max(view.stride, side * 3 // 4 // view.stride * view.stride) for side in view.size)
    change = f"model.view.size=[{height},{width}]"
    try:
        smaller = config.override([change])
    except ValueError:
        return []
    return [f"--set {change} (now {list(view.size)})"] if smaller != config else []
