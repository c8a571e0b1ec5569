"""How the cost of a network grows with its stages and with the levels of its pyramid, on CPU.

    python benchmarks/growth.py --threads 1 --rounds 3

Of RSN, one to four stages on a batch of crops. Of the single-stage models at 480 x 640, the backbone, then the pyramid,
then the head on the finest level, the two finest and so on, every location computed and without the heatmaps that only
training needs. All take turns. Weights are random; what they are does not change the time. Processor time is what to
compare where the machine has other work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from rsn import times
from torch.utils.flop_counter import FlopCounterMode

from poise.benchmark.counting import predicted_macs
from poise.models import PRESETS, build_model
from poise.models.directpose import DirectPose
from poise.models.rsn import RSN, RSNConfig
from poise.models.smpr import SMPR
from poise.predict.predictor import prepared

SIZE = (480, 640)
"""Height and width of the pictures."""
CPU = torch.device("cpu")


class Part(NamedTuple):
    """What is timed, and its multiply-adds in thousands of millions."""

    run: Callable[[], object]
    macs: float


def stages(preset: str, batch: int) -> dict[str, Part]:
    """RSN with one to four stages."""

    def runs(count: int) -> Part:
        config = cast(RSNConfig, PRESETS[preset]()).model_copy(update={"stages": count})
        model = build_model(config).eval().requires_grad_(False)
        network = cast(RSN, prepared(model, CPU))
        assert network.view.size is not None
        images = torch.randn(batch, 3, *network.view.size).to(memory_format=torch.channels_last)
        # the operators that the predictor runs are not counted
        return Part(lambda: network.heatmaps(images), batch * predicted_macs(model, network.view.size) / 1e9)

    return {f"{preset}, stages: {count}": runs(count) for count in range(1, 5)}


def parts(preset: str) -> dict[str, Part]:
    """A single-stage network, one part after the other added."""
    model = build_model(PRESETS[preset]()).eval().requires_grad_(False)
    network, plain = (cast(DirectPose | SMPR, m) for m in (prepared(model, CPU), model))
    network.head.heatmap = plain.head.heatmap = None
    images = torch.randn(1, 3, *SIZE).to(memory_format=torch.channels_last)
    maps = network.backbone(images)
    features = list(network.pyramid(maps))
    first = getattr(network.head, "first", 0)  # of the levels that predict poses

    def part(run: Callable[[DirectPose | SMPR], object]) -> Part:
        # the operators that the predictor runs are not counted
        with FlopCounterMode(display=False) as counter:
            run(plain)
        return Part(lambda: run(network), counter.get_total_flops() / 2e9)

    def head(count: int) -> Part:
        return part(lambda m: m.head(features[:count]))

    return {
        f"{preset}, backbone": part(lambda m: m.backbone(images)),
        f"{preset}, pyramid": part(lambda m: m.pyramid(maps)),
        **{f"{preset}, head, levels: {n - first}": head(n) for n in range(first + 1, len(features) + 1)},
    }


@torch.no_grad()
def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rsn", default="rsn18")
    parser.add_argument("--whole", nargs="*", default=["directpose_r50", "smpr_r50"])
    parser.add_argument("--batch", type=int, default=4, help="crops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    chosen = stages(options.rsn, options.batch)
    for preset in options.whole:
        chosen |= parts(preset)
    measured = times({name: part.run for name, part in chosen.items()}, options.rounds)
    print(f"{'':32}{'GMAC':>8}{'processor ms':>14}{'wall ms':>10}")
    for name, (processor, wall) in measured.items():
        print(f"{name:32}{chosen[name].macs:8.2f}{processor:14.0f}{wall:10.0f}")


if __name__ == "__main__":
    main()
