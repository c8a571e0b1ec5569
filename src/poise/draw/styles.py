"""What drawn people look like."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from poise.skeletons import Skeleton, mirrored_pairs

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""
Side = Literal["left", "right", "middle"]
_GOLDEN = 0.618033988749895
"""Part of the circle of hues between one person and the next: neighbours differ, and no two are ever equal."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of a drawn person: the person's own left, right, and what is on or crosses the middle."""

    left: Colour = (255, 145, 20)
    right: Colour = (20, 165, 255)
    middle: Colour = (90, 225, 110)
    outline: Colour = (15, 15, 20)
    text: Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Style:
    """How people are drawn.

    Attributes:
        palette: colours by side of the body.
        people: every person has one colour, which goes with the id if there is one, instead of those of the sides.
        width: factor on the width of the lines, which follows the size of the person.
        limbs: draw lines between keypoints.
        points: draw the keypoints.
        outline: draw a dark rim around everything, which makes it readable on any background.
    """

    palette: Palette = field(default_factory=Palette)
    people: bool = False
    width: float = 1.0
    limbs: bool = True
    points: bool = True
    outline: bool = True


STYLES: dict[str, Style] = {
    "sides": Style(),
    "people": Style(people=True),
    "bold": Style(width=1.9),
    "thin": Style(width=0.5, outline=False),
    "lines": Style(points=False, width=1.2),
    "dots": Style(limbs=False),
    "white": Style(
        palette=Palette(left=(255, 255, 255), right=(255, 255, 255), middle=(255, 255, 255), text=(235, 235, 235)),
        points=False,
    ),
}
"""Styles by name; ``sides`` is the default."""


def person_colour(number: int) -> Colour:
    """A bright colour for the person of this number: an id, or the place among the poses."""
    hue = (0.58 + number * _GOLDEN) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.58, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


@lru_cache(maxsize=64)
def keypoint_sides(skeleton: Skeleton) -> tuple[Side, ...]:
    """For every keypoint the side of the body it is on, as its name says; what has no mirror image is in the middle."""
    sides: list[Side] = ["middle"] * len(skeleton)
    for left, right in mirrored_pairs(skeleton.keypoints) or skeleton.flip_pairs:
        sides[left], sides[right] = "left", "right"
    return tuple(sides)


def edge_side(a: Side, b: Side) -> Side:
    """The side of a limb with ends on sides ``a`` and ``b``: a limb from left to right is in the middle."""
    sides: set[Side] = {a, b} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"
