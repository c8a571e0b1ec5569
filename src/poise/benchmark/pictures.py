"""Pictures with a given number of people: a portrait, many times over.

Frames: image px.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np

from poise.data.images import read_image
from poise.types import FloatArray, ImageArray

PORTRAIT = "sample_data/grace_hopper.jpg"
"""A photograph in the public domain that comes with matplotlib."""
GROUND = 96
QUALITY = 92


class Crowd(NamedTuple):
    """A picture and the people pasted on it."""

    image: ImageArray
    """(H, W, 3) RGB."""
    boxes: FloatArray
    """(N, 4) float32 xyxy: the portraits."""


def crowd(people: int, size: tuple[int, int]) -> Crowd:
    """A picture of that (height, width) with so many people in rows, each as large as there is room.

    The ground is faint noise. The same arguments give the same picture.

    Raises:
        ValueError: a number is out of bounds.
    """
    if people < 0 or min(size) < 8:
        raise ValueError(f"a picture of {size[0]}x{size[1]} with {people} people cannot be made")
    noise = np.random.default_rng(people).normal(GROUND, 6, (*size, 3))
    image = np.clip(noise, 0, 255).astype(np.uint8)
    boxes = np.zeros((people, 4), np.float32)
    portrait = _portrait()
    rows, columns = _grid(people, size, portrait.shape[0] / portrait.shape[1])
    for number in range(people):
        row, column = divmod(number, columns)
        top, bottom = (round(k * size[0] / rows) for k in (row, row + 1))
        left, right = (round(k * size[1] / columns) for k in (column, column + 1))
        factor = min((bottom - top) / portrait.shape[0], (right - left) / portrait.shape[1])
        height, width = (max(1, int(side * factor)) for side in portrait.shape[:2])
        small = cv2.resize(portrait, (width, height), interpolation=cv2.INTER_AREA)
        top, left = top + (bottom - top - height) // 2, left + (right - left - width) // 2
        image[top : top + height, left : left + width] = small
        boxes[number] = (left, top, left + width - 1, top + height - 1)
    return Crowd(image, boxes)


def write_picture(image: ImageArray, path: Path) -> Path:
    """Write an RGB picture as JPEG."""
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return path


def _grid(people: int, size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Rows and columns that leave most room to portraits of that height / width."""
    choices = [(math.ceil(people / c), c) for c in range(1, max(1, people) + 1)]
    return max(choices, key=lambda g: min(size[0] / max(1, g[0]), size[1] / g[1] * aspect))


@lru_cache(maxsize=1)
def _portrait() -> ImageArray:
    return read_image(Path(mpl.get_data_path()) / PORTRAIT)
