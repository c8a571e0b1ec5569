"""The commands that go on from a run: resume it, measure its model, use it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from poise.data.config import SourceConfig

ENVIRONMENT = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What launchers tell the processes of a run."""


def next_commands(
    run: Path, model: Path, val: SourceConfig | None, device: str = "auto", *, true_boxes: bool = False
) -> dict[str, str]:
    """Command lines by what they do, ready to be pasted into a shell in any folder.

    Args:
        run: the run's folder.
        model: the checkpoint to use.
        val: what to measure it on; None: there is no such command.
        device: of the run.
        true_boxes: measure a top-down model as the run did, on the annotated boxes.
    """
    on = [] if device == "auto" else ["--device", device]
    checkpoint = str(model.resolve())
    commands = {}
    if val is not None:
        truth = str(Path(val.annotations).resolve())
        files = ["--annotations", truth, "--images", str(Path(val.images).resolve())]
        files += ["--boxes", truth] if true_boxes else []
        files += [] if val.split is None else ["--split", val.split]
        commands["evaluate"] = ["poise", "evaluate", "--model", checkpoint, *files, *on]
    commands["predict"] = ["poise", "predict", "PICTURE", "--model", checkpoint, *on]
    commands["export"] = ["poise", "export", checkpoint]
    return {"resume": resume_command(run, device)} | {what: shlex.join(words) for what, words in commands.items()}


def resume_command(run: Path, device: str = "auto") -> str:
    """The command that goes on with a run, in as many processes as it has."""
    on = [] if device == "auto" else ["--device", device]
    return shlex.join([*launcher(os.environ), "poise", "train", "--resume", "--run", str(run.resolve()), *on])


def as_script(commands: Mapping[str, str]) -> str:
    """The commands as a text to read and to paste from."""
    return "".join(f"# {what}\n{command}\n" for what, command in commands.items())


def launcher(environment: Mapping[str, str]) -> list[str]:
    """What stands before ``poise`` to start as many processes as this run has; nothing for a single one.

    On several machines the same is started on each of them, with its own ``--node_rank``.
    """
    world = int(environment.get("WORLD_SIZE", "1"))
    if world == 1:
        return []
    local = int(environment.get("LOCAL_WORLD_SIZE", str(world)))
    words = ["torchrun", f"--nproc_per_node={local}"]
    if world > local:
        words += [
            f"--nnodes={world // local}",
            "--node_rank=0",
            f"--master_addr={environment.get('MASTER_ADDR', 'HOST')}",
            f"--master_port={environment.get('MASTER_PORT', '29500')}",
        ]
    return [*words, "--no-python", "--"]  # without the dashes torchrun takes options such as --run for its own
