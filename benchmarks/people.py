"""What people in a picture add to the time of SMPR on CPU: the part of the network that looks at candidates only.

    python benchmarks/people.py --preset smpr_r50 --people 1,50 --threads 1 --rounds 9

Backbone, pyramid, towers and class are the same work for every picture. They run twice, are timed, and their results
kept. Then candidates, refined poses, quality and suppression are computed again and again, for different numbers of
people in turn: 40 candidates a person, those where a random network's class is highest; with ``--trained`` instead
the candidates that the shipped SMPR, which has been trained, sees in a picture of so many people. Processor time is
what to compare where the machine has other work.
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
from poise.predict.loading import load_model
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
    parser.add_argument("--trained", action="store_true", help="candidates where the shipped SMPR sees them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    height, width = (int(side) for side in options.size.split("x"))
    model = cast(SMPR, build_model(PRESETS[options.preset]()).eval())
    view = whole_view(crowd(PEOPLE, (height, width)).image, model.view)
    images = collate([view], model.view.stride).images.to(memory_format=torch.channels_last)
    spread_classes(model, images)
    network = prepared(model, torch.device("cpu"))
    people = [int(n) for n in options.people.split(",")]
    shipped = cast(SMPR, load_model("smpr_mobilenetv2").model.eval()) if options.trained else None
    given = {n: trained_logits(shipped, n, (height, width)) for n in people} if shipped else {}
    measure(network, images, people, given, options.rounds)


@torch.inference_mode()
def trained_logits(model: SMPR, people: int, size: tuple[int, int]) -> list[torch.Tensor]:
    """Class logits of each level, above 0 where there is a candidate."""
    view = whole_view(crowd(people, size).image, model.view.model_copy(update={"long_side": max(size)}))
    logits = model(collate([view], model.view.stride).images).logits
    return [maps - torch.logit(torch.tensor(model.config.score_threshold)) for maps in logits]


@torch.inference_mode()
def measure(
    network: SMPR, images: torch.Tensor, people: list[int], given: dict[int, list[torch.Tensor]], rounds: int
) -> None:
    """Print a line for each number of people; ``given`` are logits to take for some of them."""
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
        logits = [maps + threshold for maps in given.get(count, [own - limit for own in lazy.logits])]

        def find() -> int:
            lazy.forget()
            found = network._collect(logits, CellReader(lazy.pose, lazy.quality), [size], lambda: None)[0]
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
