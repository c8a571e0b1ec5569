"""Time a whole SMPR on CPU: densely with torchvision's operator, and as `detect` does it, taking turns.

    python benchmarks/smpr.py --preset smpr_r50 --threads 1 --rounds 3 --candidates 300

Weights are random; the bias of the class is set so that as many locations pass the threshold as in a picture with
people. Backbone, neck and head are timed, batch norms folded; suppression is not. Processor time is what to compare
where the machine has other work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from poise.models import PRESETS, build_model
from poise.models.smpr import SMPR, FeatureAlignment
from poise.nn.fold import fold_batch_norm
from poise.predict.predictor import prepared as predicting


class Reference(FeatureAlignment):
    """Alignment by torchvision's operator, once for each of the two maps."""

    def forward(self, pose: Tensor, person: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """As `FeatureAlignment.forward`."""
        offsets = self.offset(initial)
        aligned = (
            deform_conv2d(x, offsets, w, padding=1) for x, w in ((pose, self.pose.weight), (person, self.person.weight))
        )
        first, second = (F.relu(a) for a in aligned)
        return first, second


def prepared(name: str) -> tuple[SMPR, SMPR]:
    """The preset as the predictor runs it, and the same weights as the reference computes them."""
    torch.manual_seed(0)
    model = cast(SMPR, build_model(PRESETS[name]()))
    # poses and scores that differ as much as those of a trained model: there, too, the locations just below the
    # threshold that might outrank a candidate are about as many as the candidates
    torch.nn.init.normal_(model.head.initial.weight, std=0.05)
    torch.nn.init.normal_(model.head.logits.weight, std=0.4)
    ours = cast(SMPR, predicting(model, torch.device("cpu")))
    theirs = cast(SMPR, fold_batch_norm(model, torch.randn(1, 3, 64, 64)))
    if theirs.head.align is not None:
        theirs.head.align.__class__ = Reference
    theirs.head.heatmap = None
    return ours, theirs


def set_candidates(models: tuple[SMPR, ...], images: Tensor, count: int) -> None:
    """Let ``count`` locations pass the threshold, by the bias of the class."""
    logits = torch.cat([m.flatten() for m in models[0](images).logits]).sort(descending=True).values
    wanted = torch.tensor(models[0].config.score_threshold).logit()
    for model in models:
        assert model.head.logits.bias is not None
        model.head.logits.bias += wanted - (logits[count - 1] + logits[count]) / 2


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
    parser.add_argument("--preset", default="smpr_r50", choices=[n for n in PRESETS if n.startswith("smpr")])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--size", type=int, nargs=2, action="append", metavar=("HEIGHT", "WIDTH"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ours, theirs = prepared(options.preset)
    print(f"{'':14}{'processor ms':>38}{'wall ms':>38}")
    names = ("torchvision", "dense", "lazy")
    print(
        f"{'':14}" + "".join(f"{n:>12}" for n in names) + f"{'':>2}" + "".join(f"{n:>12}" for n in names) + "   ratios"
    )
    for height, width in options.size or [(480, 640), (800, 1088)]:
        row = compare(ours, theirs, (height, width), options.candidates, options.rounds)
        print(f"{height:5}x{width:<8}{row}", flush=True)


@torch.inference_mode()
def compare(ours: SMPR, theirs: SMPR, size: tuple[int, int], candidates: int, rounds: int) -> str:
    """A row of the table."""
    images = torch.randn(1, 3, *size)
    nhwc = images.to(memory_format=torch.channels_last)
    set_candidates((ours, theirs), nhwc, candidates)
    measured = times(
        {
            "torchvision": lambda: theirs.decode(theirs(images), [size]),
            "dense": lambda: ours.decode(ours(nhwc), [size]),
            "lazy": lambda: ours.detect(nhwc, [size]),
        },
        rounds,
    )
    processor, wall = ([measured[n][i] for n in measured] for i in (0, 1))
    row = "".join(f"{v:12.0f}" for v in processor) + "  " + "".join(f"{v:12.0f}" for v in wall)
    return f"{row}   {processor[0] / processor[2]:.2f}x {wall[0] / wall[2]:.2f}x"


if __name__ == "__main__":
    main()
