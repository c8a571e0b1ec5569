"""How much memory a model needs: measured in a process of its own, which does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.memory import keep_freed_memory

if TYPE_CHECKING:
    from poise.predict.devices import Half

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """What the process runs once.

    Attributes:
        name: as `poise.benchmark.subjects.find_subject`.
        size: (height, width) of the input; None is the model's own.
        batch: pictures, or people of a model that sees one at a time.
        device: as torch names it.
        threads: of the processor.
        half: in half precision, as `poise.predict.devices.running`.
        once: as `poise.benchmark.models.Bench`.
    """

    name: str
    size: tuple[int, int] | None
    batch: int
    device: str
    threads: int
    half: Half = False
    once: bool = False


def peak_memory(job: Job) -> dict[str, float] | None:
    """Megabytes of a process that imports, loads and predicts; None where the system does not tell.

    Keys: ``imports``, ``loaded`` and ``peak``, the most up to each of these points; on a GPU also ``device``, the most
    that tensors had there.

    Raises:
        ValueError: the process failed; the message is its last line.
    """
    if sys.platform == "win32":
        return None
    command = [sys.executable, "-m", "poise.benchmark.memory", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"memory of {job.name} could not be measured: {lines[-1]}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _measure(job: Job) -> dict[str, float]:
    import torch

    from poise.benchmark.clock import Stopwatch
    from poise.benchmark.models import Bench
    from poise.benchmark.subjects import find_subject
    from poise.predict.devices import running

    told = {"imports": _peak()}
    torch.set_num_threads(job.threads)
    how = running(job.device, half=job.half)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(find_subject(job.name), how, Path(folder), job.size, once=job.once)
        task = bench.task(job.batch)
        told["loaded"] = _peak()
        task(Stopwatch(how.device))
    told["peak"] = _peak()
    if how.device.type == "cuda":
        told["device"] = torch.cuda.max_memory_allocated(how.device) / MEGABYTE
    return {name: round(value, 1) for name, value in told.items()}


def _peak() -> float:
    """The most memory of this process so far, megabytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        # not what getrusage tells: on Linux that begins with what the process had that started this one
        return next(int(line.split()[1]) * 1024 / MEGABYTE for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / MEGABYTE if sys.platform == "darwin" else most * 1024 / MEGABYTE


def main(arguments: list[str]) -> None:
    """Measure the job that the first argument describes, with memory kept as the command ``poise`` keeps it."""
    keep_freed_memory()
    given: dict[str, Any] = json.loads(arguments[0])
    size = given.pop("size")
    sys.stdout.write(json.dumps(_measure(Job(size=None if size is None else (size[0], size[1]), **given))))


if __name__ == "__main__":
    main(sys.argv[1:])
