"""What people in a picture add to the time of SMPR on CPU: the part of the network that looks at candidates only.

    python benchmarks/people.py --preset smpr_r50 --people 1,50 --threads 1 --rounds 9

Backbone, pyramid, towers and class are the same work for every picture. They run twice, are timed, and their results
kept. Then candidates, refined poses, quality and suppression are computed again and again, for different numbers of
people in turn: 40 candidates a person, those where a random network's class is highest. Processor time is what to
compare where the machine has other work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import cast

import torch
from rsn import times

from poise.benchmark.pictures import crowd
from poise.benchmark.subjects import PER_PERSON, spread_classes
from poise.data.views import collate, whole_view
from poise.models import PRESETS, build_model
from poise.models.smpr import SMPR, CellReader
from poise.models.smpr_lazy import LazyHead
from poise.predict.predictor import prepared

PEOPLE = 50
"""In the picture."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="smpr_r50", choices=[n for n in PRESETS if n.startswith("smpr")])
    parser.add_argument("--people", default="1,50")
    parser.add_argument("--size", default="800x1088")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    height, width = (int(side) for side in options.size.split("x"))
    model = cast(SMPR, build_model(PRESETS[options.preset]()).eval())
    view = whole_view(crowd(PEOPLE, (height, width)).image, model.view)
    images = collate([view], model.view.stride).images.to(memory_format=torch.channels_last)
    spread_classes(model, images)
    network = prepared(model, torch.device("cpu"))
    measure(network, images, [int(n) for n in options.people.split(",")], options.rounds)


@torch.inference_mode()
def measure(network: SMPR, images: torch.Tensor, people: list[int], rounds: int) -> None:
    """Print a line for each number of people."""
    spent = []
    for _ in range(2):
        start = time.process_time()
        lazy = LazyHead(network.head, network.pyramid(network.backbone(images)))
        spent.append(1e3 * (time.process_time() - start))
    everywhere = min(spent)
    best = torch.cat([maps.flatten() for maps in lazy.logits]).sort(descending=True).values
    threshold = torch.logit(torch.tensor(network.config.score_threshold))
    size = images.shape[-2], images.shape[-1]

    def finds(count: int) -> Callable[[], int]:
        limit = best[min(PER_PERSON * count, len(best) - 1)]
        logits = [maps - limit + threshold for maps in lazy.logits]

        def find() -> int:
            lazy._aligned.clear()
            found = network._collect(logits, CellReader(lazy.pose, lazy.quality), [size], None)[0]
            network.suppress(network._poses(found, size))
            return len(found.scores)

        return find

    functions = {str(count): finds(count) for count in people}
    found = {name: function() for name, function in functions.items()}
    measured = times(dict(functions), rounds)
    print(f"every location: {everywhere:.0f} ms of processor time")
    print(f"{'people':>8}{'candidates':>12}{'processor ms':>14}{'growth':>10}")
    least = measured[str(people[0])][0]
    for name, (processor, _) in measured.items():
        growth = 100 * (processor - least) / (everywhere + least)
        print(f"{name:>8}{found[name]:12}{processor:14.0f}{growth:9.1f} %")


if __name__ == "__main__":
    main()
