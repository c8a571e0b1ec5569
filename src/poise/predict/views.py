"""Which views of a picture a network is shown: one, or several at other sizes and mirrored (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from poise.data.views import whole_view
from poise.geometry import affine
from poise.types import ImageArray, View, ViewSpec

ViewSource = Callable[[ImageArray, int], list[View]]
"""The views of one picture (H, W, 3) with its number; an empty list means that there is nothing to look at.

Every view knows its map from the picture, so that poses come back to image px whatever the source did.
"""


Scale = int | tuple[int, int]
"""A short side, or (limit of the long side, limit of the short side), input px.

For a model whose views have no short side, a single number is the long side."""


def whole_views(spec: ViewSpec, scales: Sequence[Scale] | None = None, flip: bool = False) -> ViewSource:
    """The whole picture at one or several sizes, each also mirrored if wanted.

    Args:
        spec: of the model.
        scales: short sides, input px; the limit of the long side grows along, unless it is given too. For a model
            whose views have no short side, they are long sides. None is the model's own size.
        flip: show each view also mirrored.

    Raises:
        ValueError: the model looks at person boxes, not at whole pictures; or a scale is out of bounds.
    """
    if spec.kind != "whole":
        raise ValueError("this model looks at one person at a time and cannot be shown whole pictures")
    specs = scaled_specs(spec, scales)

    def views(image: ImageArray, number: int) -> list[View]:
        upright = [whole_view(image, each, number) for each in specs]
        return [view for v in upright for view in ((v, mirrored(v)) if flip else (v,))]

    return views


def scaled_specs(spec: ViewSpec, scales: Sequence[Scale] | None) -> list[ViewSpec]:
    """The spec at each of the scales, or as it is if they are None; ``ValueError`` if there is none, or one is bad."""
    if scales is None:
        return [spec]
    if not scales:
        raise ValueError("scales is empty; leave it out for the model's own size")
    return [scaled(spec, side) for side in scales]


def scaled(spec: ViewSpec, side: Scale) -> ViewSpec:
    """The spec with another short side, the long side in proportion (or another long side, if it has no short one).

    A pair of limits, long side and short side, replaces both.

    Raises:
        ValueError: the size is out of bounds.
    """
    if isinstance(side, tuple):
        change = {"long_side": side[0], "short_side": side[1]}
    elif spec.short_side is None:
        change = {"long_side": side}
    else:
        change = {"short_side": side, "long_side": max(side, round(spec.long_side * side / spec.short_side))}
    return ViewSpec.parse({**spec.model_dump(), **change}, where=f"scale {side}")


def mirrored(view: View) -> View:
    """The view as in a mirror: x' = width - 1 - x. Its map then mirrors, too; truth is not carried along."""
    flipped = affine.compose(view.to_input, affine.mirror(view.size[1]))
    return replace(view, image=view.image.flip(-1), to_input=flipped, persons=None)
