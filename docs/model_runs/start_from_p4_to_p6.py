"""The start of run 10 of ``smpr_mobilenetv2``: the weights of run 9, of which only P4 to P6 predict poses any more.

    python docs/model_runs/start_from_p4_to_p6.py RUN_9.safetensors OUT.safetensors

All levels share their layers. What belongs to P3 or P7 alone is left out: two factors each, and the convolution that
made P7.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from safetensors.torch import load_file

from poise.checkpoints import save_checkpoint
from poise.models import preset
from poise.models.smpr import SMPR, SMPRConfig

_FACTOR = re.compile(r"(head\.(?:initial|refined)_scales\.)(\d+)(\.scale)")


def moved(name: str) -> str | None:
    """What a tensor is called where the first level is P4; None: it is of P3 or P7 alone."""
    factor = _FACTOR.fullmatch(name)
    if factor is None:
        return None if name.startswith("pyramid.extra.1.") else name
    level = int(factor[2])
    return f"{factor[1]}{level - 1}{factor[3]}" if 0 < level < 4 else None


def main(source: Path, target: Path) -> None:
    """Write the file."""
    config = preset("smpr_mobilenetv2")
    assert isinstance(config, SMPRConfig)
    model = SMPR(config)
    tensors = {moved(name): tensor.float() for name, tensor in load_file(source).items()}
    tensors.pop(None, None)
    model.load_state_dict(tensors)
    save_checkpoint(target, model)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
