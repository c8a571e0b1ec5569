"""Time deformable convolution on CPU against torchvision's operator, both in the same run, taking turns.

    python benchmarks/deformable.py --threads 1 --rounds 5

The layer is that of SMPR's head on the finest level: 256 to 256 channels, 3x3, 4 offset groups. Processor time is what
to compare where the machine has other work; it counts all threads together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d as torchvision_operator

from poise.nn.deformable import deform_conv2d, deform_conv2d_at, deformable_convolution, sampling_plan, sampling_plan_at


def contenders(
    channels: int, height: int, width: int, images: int, positions: int
) -> dict[str, dict[str, Callable[[], object]]]:
    """What to time, as task -> {name: function}; torchvision comes first in each."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(images, channels, height, width, generator=generator) for _ in range(2))
    offsets = 2 * torch.randn(images, 72, height, width, generator=generator)
    weight = 0.02 * torch.randn(channels, channels, 3, 3, generator=generator)
    rows = torch.randint(height, (positions,), generator=generator)
    columns = torch.randint(width, (positions,), generator=generator)

    def pair() -> None:
        plan = sampling_plan(offsets, 3, 1, 1, 1, (height, width))
        deform_conv2d(x, weight, plan)
        deform_conv2d(y, weight, plan)

    def torchvision_pair() -> None:
        torchvision_operator(x, offsets, weight, padding=1)
        torchvision_operator(y, offsets, weight, padding=1)

    def chosen() -> None:
        some = offsets[0][:, rows, columns].T
        taps = sampling_plan_at(some, rows, columns, 3, 1, 1, 1, (height, width))
        deform_conv2d_at(x[0], weight, taps)

    def step(operator: Callable[..., Tensor]) -> Callable[[], object]:
        tensors = [t.clone().requires_grad_() for t in (x, offsets, weight)]
        return lambda: torch.autograd.grad(operator(*tensors, padding=1).sum(), tensors)

    return {
        "one layer": {
            "torchvision": torch.no_grad()(lambda: torchvision_operator(x, offsets, weight, padding=1)),
            "poise": torch.no_grad()(lambda: deformable_convolution(x, offsets, weight, padding=1)),
        },
        "two layers, same offsets": {"torchvision": torch.no_grad()(torchvision_pair), "poise": torch.no_grad()(pair)},
        f"one layer, {positions} positions": {
            "torchvision": torch.no_grad()(lambda: torchvision_operator(x[:1], offsets[:1], weight, padding=1)),
            "poise": torch.no_grad()(chosen),
        },
        "one layer, forward and backward": {
            "torchvision": step(torchvision_operator),
            "poise": step(deformable_convolution),
        },
    }


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--size", type=int, nargs=2, default=(100, 136), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--positions", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'':36}{'processor ms':>24}{'wall ms':>24}{'ratio':>14}")
    print(f"{'':36}{'torchvision':>14}{'poise':>10}{'torchvision':>14}{'poise':>10}{'processor':>10}{'wall':>6}")
    height, width = options.size
    tasks = contenders(options.channels, height, width, options.images, options.positions)
    for task, functions in tasks.items():
        (theirs, their_wall), (ours, our_wall) = times(functions, options.rounds).values()
        ratios = f"{theirs / ours:>9.1f}x{their_wall / our_wall:>5.1f}x"
        print(f"{task:36}{theirs:14.0f}{ours:10.0f}{their_wall:14.0f}{our_wall:10.0f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
