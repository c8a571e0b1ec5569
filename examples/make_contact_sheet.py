"""Make ``docs/images/contact_sheet.jpg``: what the shipped models find in the free photographs of this folder.

From above: the default model; ``rsn_small`` and ``rsn_medium`` on the people that it found, mirrored views included;
``directpose_mobilenetv2``.
Run it with Poise installed: ``python examples/make_contact_sheet.py [OUTPUT]``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import poise
from poise.draw import draw_poses

FOLDER = Path(__file__).resolve().parent
PICTURES = ("astronaut.png", "basketball1.png", "camera.png", "grace_hopper.jpg", "three_people.jpg")
HEIGHT = 300


def compose() -> Image.Image:
    """Rows of pictures ``HEIGHT`` pixels high, one a model."""
    default, direct = poise.load(), poise.load("directpose_mobilenetv2")
    small, medium = (
        poise.pipeline(pose=pose) for pose in ("rsn_small", FOLDER.parent / "models/rsn_medium.safetensors")
    )
    refined = [functools.partial(pipeline.predict, flip=True) for pipeline in (small, medium)]
    rows = []
    for predict in (default.predict, *refined, direct.predict):
        row = []
        for name in PICTURES:
            image = Image.open(FOLDER / name).convert("RGB")
            scale = HEIGHT / image.height
            shown = draw_poses(np.array(image), predict(FOLDER / name)[0])
            row.append(Image.fromarray(shown).resize((round(image.width * scale), HEIGHT), Image.Resampling.LANCZOS))
        rows.append(np.hstack(row))
    return Image.fromarray(np.vstack(rows))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER.parent / "docs/images/contact_sheet.jpg"
    compose().save(target, quality=88, optimize=True)
    print(target)
