"""Make ``three_people.jpg``: three free portraits side by side, each scaled to the same height.

Run it anywhere: ``python examples/make_three_people.py [OUTPUT]``. Where the portraits come from: ATTRIBUTION.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).resolve().parent
PORTRAITS = ("camera.png", "astronaut.png", "grace_hopper.jpg")
HEIGHT = 480


def compose() -> Image.Image:
    """The portraits from left to right, ``HEIGHT`` pixels high, aspect ratios kept, as one RGB picture."""
    parts = [Image.open(FOLDER / name).convert("RGB") for name in PORTRAITS]
    parts = [p.resize((round(p.width * HEIGHT / p.height), HEIGHT), Image.Resampling.LANCZOS) for p in parts]
    canvas = Image.new("RGB", (sum(p.width for p in parts), HEIGHT))
    left = 0
    for part in parts:
        canvas.paste(part, (left, 0))
        left += part.width
    return canvas


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "three_people.jpg"
    compose().save(target, quality=92, subsampling=0, optimize=True)
    print(target)
