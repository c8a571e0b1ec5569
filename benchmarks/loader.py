"""How much of the processor the loader's workers use: does a second one make twice as many pictures?

    OMP_NUM_THREADS=1 python benchmarks/loader.py rsn_small --data data --workers 1,2 --seconds 20

Batches are taken as fast as they come. Wall clocks tell little on a machine with other work, so this asks Linux
(``/proc/PID/schedstat``) for the time that each worker ran, and for the time it wanted to run and had to wait for a
core. What is left of the wall clock is idle time: locks, full queues, files that were not there yet.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from typing import NamedTuple

from poise.data.loader import TrainLoader, build_train_loader
from poise.models import build_model
from poise.skeletons import COCO17
from poise.train.config import RunConfig
from poise.train.recipes import recipe


class Use(NamedTuple):
    """Seconds that the workers ran and waited for a core, since they were started."""

    ran: float
    waited: float


def used() -> Use:
    """Of all workers together."""
    stats = [Path(f"/proc/{p.pid}/schedstat").read_text().split() for p in multiprocessing.active_children()]
    return Use(*(sum(int(s[i]) for s in stats) / 1e9 for i in (0, 1)))


def measure(config: RunConfig, workers: int, seconds: float) -> str:
    """One row of the table."""
    data = config.located_data().model_copy(update={"workers": workers})
    loader: TrainLoader = build_train_loader(data, build_model(config.model).view, COCO17, 0)
    stream, pictures = iter(loader), 0
    for _ in range(3 * workers + 1):  # the workers start, and fill their queues
        next(stream)
    before, start = used(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        pictures += len(next(stream).views)
    after, wall = used(), time.perf_counter() - start
    ran, waited = after.ran - before.ran, after.waited - before.waited
    return (
        f"| {workers} | {pictures / wall:.0f} | {1e3 * ran / pictures:.1f} ms | {pictures / ran:.0f} | "
        f"{100 * ran / wall / workers:.0f} % | {100 * waited / wall / workers:.0f} % | "
        f"{100 * max(0.0, 1 - (ran + waited) / wall / workers):.0f} % |"
    )


def main() -> None:
    """The table, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    config = recipe(options.recipe).override(options.set).model_copy(update={"data_root": options.data})
    print("| workers | pictures/s | processor a picture | per processor second | ran | waited for a core | idle |")
    print("|---|---|---|---|---|---|---|")
    for workers in options.workers.split(","):
        print(measure(config, int(workers), options.seconds), flush=True)


if __name__ == "__main__":
    main()
