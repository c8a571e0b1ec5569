"""Time RSN on CPU: as the network is written, and as the predictor runs it, taking turns.

    python benchmarks/rsn.py --preset rsn18 --batch 8 --threads 1 --rounds 5

``naive`` computes the heatmaps of all levels with batch norms of their own, channels first in memory. Then one thing
after the other is added: ``folded`` batch norms, only the ``final`` heatmaps, and channels last, which is what the
predictor does (``ours``). Weights are random; what they are does not change the time. Processor time is what to compare
where the machine has other work. ``--profile`` tells which operators ours spends its time in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch

from poise.models import PRESETS, build_model
from poise.models.rsn import RSN
from poise.nn.fold import fold_batch_norm
from poise.predict.predictor import prepared


def times(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median (processor, wall) milliseconds of each function, after one round that does not count."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            processor, wall = time.process_time(), time.perf_counter()
            function()
            measured[name].append((1e3 * (time.process_time() - processor), 1e3 * (time.perf_counter() - wall)))
    return {
        name: (statistics.median(p for p, _ in values[1:]), statistics.median(w for _, w in values[1:]))
        for name, values in measured.items()
    }


@torch.inference_mode()
def compare(naive: RSN, folded: RSN, ours: RSN, images: torch.Tensor, rounds: int) -> None:
    """Print a line for each way, after all of them gave the same heatmaps."""
    nhwc = images.to(memory_format=torch.channels_last)
    functions: dict[str, Callable[[], torch.Tensor]] = {
        "naive": lambda: naive(images).heatmaps[-1],
        "folded": lambda: folded(images).heatmaps[-1],
        "final": lambda: folded.heatmaps(images),
        "ours": lambda: ours.heatmaps(nhwc),
    }
    expected = functions["naive"]()
    for name, function in functions.items():
        torch.testing.assert_close(function(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()), msg=name)
    measured = times(dict(functions), rounds)
    print(f"{'':8}{'processor ms':>14}{'wall ms':>10}{'naive / this':>14}")
    for name, (processor, wall) in measured.items():
        print(f"{name:8}{processor:14.0f}{wall:10.0f}{measured['naive'][0] / processor:13.2f}x")


@torch.inference_mode()
def profile(ours: RSN, images: torch.Tensor) -> None:
    """Print the operators that take longest."""
    nhwc = images.to(memory_format=torch.channels_last)
    ours.heatmaps(nhwc)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        ours.heatmaps(nhwc)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=8))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rsn18", choices=[n for n in PRESETS if n.startswith("rsn")])
    parser.add_argument("--batch", type=int, default=8, help="crops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    naive = cast(RSN, build_model(PRESETS[options.preset]())).eval().requires_grad_(False)
    ours = prepared(naive, torch.device("cpu"))
    assert naive.view.size is not None
    images = torch.randn(options.batch, 3, *naive.view.size)
    folded = cast(RSN, fold_batch_norm(naive, images[:1]))
    compare(naive, folded, ours, images, options.rounds)
    if options.profile:
        profile(ours, images)


if __name__ == "__main__":
    main()
