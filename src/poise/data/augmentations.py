"""The augmentations of the training pipelines, each as the settings that switch it off, on, and on in plain sight.

With them one augmentation can be drawn alone (``poise data show --augment NAME``) and measured alone (``poise ablation
augmentation``). The published pipelines of the papers are what they are, and are not taken apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from poise.data.config import DataConfig
from poise.settings import nearest

Values = Mapping[str, Any]
"""Values of a `DataConfig` by dotted field."""
NOTHING = "none"
"""Name of the pipeline with everything switched off."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One way of changing training pictures.

    Attributes:
        title: what it does, in a few words.
        off: the settings without it; empty where they depend on others.
        on: settings that switch it on, where it was off.
        shown: what else makes it plain to see in a picture.
        part: where two share a range of factors, which part is its own: what lies below 1, or above.
    """

    title: str
    off: Values
    on: Values
    shown: Values = field(default_factory=dict)
    part: Literal["all", "below", "above"] = "all"

    def own(self, value: Any) -> Any:
        """Its part of the value of one of its settings."""
        if self.part == "all":
            return value
        low, high = value
        bound = min if self.part == "below" else max
        return (bound(low, 1.0), bound(high, 1.0))


_ONE = {"augment.single": 1.0, "augment.mosaic": 0.0, "augment.paste": 0.0}
_MOSAIC = {"augment.single": 0.0, "augment.mosaic": 1.0, "augment.paste": 0.0}
_PASTE = {"augment.single": 0.0, "augment.mosaic": 0.0, "augment.paste": 1.0}

CANVAS: dict[str, Augmentation] = {
    "scale": Augmentation(
        "larger or smaller; measured alone smaller, for larger is `crop`",
        off={"augment.single_scale": (1.0, 1.0)},
        on={"augment.single_scale": (0.7, 1.0)},
        shown={"augment.single_scale": (0.4, 1.4)},
        part="below",
    ),
    "rotation": Augmentation(
        "turned to either side",
        off={"augment.rotation_p": 0.0},
        on={"augment.rotation_p": 0.5, "augment.rotation": 30.0},
        shown={"augment.rotation": 45.0},
    ),
    "translation": Augmentation(
        "moved on the canvas",
        off={"augment.translation": 0.0},
        on={"augment.translation": 1.0},
        shown={"augment.single_scale": (0.55, 0.55)},
    ),
    "flip": Augmentation(
        "mirrored; left and right change names", off={"augment.flip_p": 0.0}, on={"augment.flip_p": 0.5}
    ),
    "crop": Augmentation(
        "a part around somebody, where the picture is larger than the canvas",
        off={"augment.single_scale": (1.0, 1.0)},
        on={"augment.single_scale": (1.0, 1.8)},
        shown={"augment.single_scale": (1.6, 2.4), "augment.translation": 1.0},
        part="above",
    ),
    "colour": Augmentation(
        "brightness, contrast, saturation, hue; sometimes grey",
        off={f"augment.{name}": 0.0 for name in ("brightness", "contrast", "saturation", "hue", "grey_p")},
        on={
            "augment.brightness": 0.3, "augment.contrast": 0.3, "augment.saturation": 0.4, "augment.hue": 0.03,
            "augment.grey_p": 0.05,
        },
        shown={"augment.grey_p": 0.15, "augment.hue": 0.06},
    ),
    "blur": Augmentation(
        "out of focus",
        off={"augment.blur_p": 0.0},
        on={"augment.blur_p": 0.1},
        shown={"augment.blur_sigma": (1.0, 3.0)},
    ),
    "noise": Augmentation(
        "grain",
        off={"augment.noise_p": 0.0},
        on={"augment.noise_p": 0.2},
        shown={"augment.noise_sigma": (15.0, 40.0)},
    ),
    "dropout": Augmentation(
        "patches painted over; what is below counts as occluded",
        off={"augment.erase_p": 0.0},
        on={"augment.erase_p": 0.3},
        shown={"augment.erase_patches": (3, 6)},
    ),
    "mosaic": Augmentation(
        "four pictures in the quarters of a canvas",
        off={"augment.mosaic": 0.0},
        on={"augment.mosaic": 0.3},
        shown=_MOSAIC | {"augment.person_size": (0.3, 0.6)},
    ),
    "mixup": Augmentation(
        "two canvases laid on one another", off={"augment.mixup_p": 0.0}, on={"augment.mixup_p": 0.15}
    ),
    "paste": Augmentation(
        "people cut out and laid on another picture",
        off={"augment.paste": 0.0},
        on={"augment.paste": 0.3},
        shown=_PASTE | {"augment.person_size": (0.25, 0.5), "augment.pasted": (1, 3)},
    ),
    "multi_scale": Augmentation(
        "a canvas size drawn for each batch", off={}, on={}, shown={"sizes": (160, 224, 288, 352, 416, 480)}
    ),
}  # fmt: skip
"""Of the ``compose`` pipeline; what ``multi_scale`` is without, and with, depends on the canvas."""

CROPS: dict[str, Augmentation] = {
    "scale": Augmentation(
        "larger or smaller; measured alone smaller, for larger is `crop`",
        off={"crop.scale": (1.0, 1.0)},
        on={"crop.scale": (1.0, 1.25)},
        shown={"crop.scale": (0.75, 1.25)},
        part="above",
    ),
    "rotation": Augmentation(
        "turned to either side", off={"crop.rotation_p": 0.0}, on={"crop.rotation_p": 0.6, "crop.rotation": 40.0}
    ),
    "translation": Augmentation(
        "moved in the crop", off={"crop.shift_p": 0.0}, on={"crop.shift_p": 0.5}, shown={"crop.shift": 0.2}
    ),
    "flip": Augmentation("mirrored; left and right change names", off={"crop.flip_p": 0.0}, on={"crop.flip_p": 0.5}),
    "crop": Augmentation(
        "closer: less around the person, or a part of the person",
        off={"crop.scale": (1.0, 1.0)},
        on={"crop.scale": (0.75, 1.0)},
        shown={"crop.scale": (0.5, 0.75)},
        part="below",
    ),
    "half_body": Augmentation(
        "only the upper or the lower half of a body",
        off={"crop.half_body_p": 0.0},
        on={"crop.half_body_p": 0.3},
        shown={"crop.half_body_keypoints": 4, "crop.upper_keypoints": 2, "crop.lower_keypoints": 2},
    ),
    "upright": Augmentation(
        "turned so that the torso points up", off={"crop.upright_p": 0.0}, on={"crop.upright_p": 0.9}
    ),
    "colour": Augmentation(
        "colours, blur and noise as data.augment says", off={"crop.recolour_p": 0.0}, on={"crop.recolour_p": 0.5}
    ),
    "dropout": Augmentation("patches painted over", off={"crop.erase_p": 0.0}, on={"crop.erase_p": 0.3}),
}
"""Of the ``crop`` pipeline."""

_CALM: dict[str, Any] = {
    "augment.negative_p": 0.0, "augment.min_size": 0.0, "augment.feather_p": 1.0, "sizes": (384,),
}  # fmt: skip
"""For pictures of augmentations."""


def augmentations(config: DataConfig) -> dict[str, Augmentation]:
    """The augmentations of a pipeline by name.

    Raises:
        ValueError: it is one of the papers', whose steps belong together.
    """
    if config.pipeline == "compose":
        return CANVAS | {"multi_scale": _multi_scale(config.sizes)}
    if config.pipeline == "crop":
        return CROPS
    raise ValueError(f"data.pipeline {config.pipeline!r} is as published and has no augmentations to choose from")


def measurable(config: DataConfig) -> dict[str, Augmentation]:
    """Those of `augmentations` that can be switched off alone."""
    return {name: entry for name, entry in augmentations(config).items() if entry.off}


def is_on(config: DataConfig, name: str) -> bool:
    """Whether the pipeline has the augmentation of that name."""
    return _is_on(augmentations(config)[name], config.model_dump(mode="python"))


def only(config: DataConfig, names: Collection[str]) -> DataConfig:
    """The pipeline with no other augmentations than those named: as strong as they were, or as `Augmentation.on` says.

    Raises:
        ValueError: there is no augmentation of that name.
    """
    known = measurable(config)
    for name in names:
        if name not in known:
            raise ValueError(f"pipeline {config.pipeline!r} has no augmentation {name!r}{nearest(name, known)}")
    before = config.model_dump(mode="python")
    # somebody has to make the canvases that mosaics and pastes leave
    values: dict[str, Any] = {"augment.single": config.augment.single or 1.0}
    for entry in known.values():
        values |= entry.off
    for entry in (known[name] for name in names):
        mine = {path: entry.own(_value(before, path)) for path in entry.off} if _is_on(entry, before) else entry.on
        for path, value in mine.items():
            shared = entry.part != "all" and values[path] != entry.off[path]
            values[path] = _joined(values[path], value) if shared else value
    return replaced(config, values)


def shown(name: str, config: DataConfig) -> DataConfig:
    """The pipeline with one augmentation alone, always on and plain to see, or with none at all (`NOTHING`).

    Raises:
        ValueError: there is no augmentation of that name.
    """
    known = augmentations(config)
    if name != NOTHING and name not in known:
        raise ValueError(f"unknown augmentation {name!r}{nearest(name, [NOTHING, *known])}")
    values: dict[str, Any] = {}
    for entry in known.values():
        values |= entry.off
    values |= _CALM | _ONE
    if name != NOTHING:
        entry = known[name]
        values |= {path: _always(path, value) for path, value in entry.on.items()}
        values |= entry.shown
    return replaced(config, values)


def replaced(config: DataConfig, values: Values) -> DataConfig:
    """The settings with other values, validated."""
    data = config.model_dump(mode="json")
    for path, value in values.items():
        *parents, last = path.split(".")
        place = data
        for parent in parents:
            place = place[parent]
        place[last] = value
    return DataConfig.parse(data)


def _multi_scale(sizes: Sequence[int]) -> Augmentation:
    """Without: canvases of the middle size alone. With: also a quarter smaller and larger."""
    middle = sorted(sizes)[len(sizes) // 2]
    around = {32 * max(1, round(factor * middle / 32)) for factor in (0.75, 1.0, 1.25)} | {middle}
    return replace(CANVAS["multi_scale"], off={"sizes": (middle,)}, on={"sizes": tuple(sorted(around))})


def _is_on(entry: Augmentation, values: Values) -> bool:
    return any(entry.own(_value(values, path)) != off for path, off in entry.off.items())


def _joined(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The range around two."""
    return (min(one[0], other[0]), max(one[1], other[1]))


def _always(path: str, value: Any) -> Any:
    """Probabilities become 1, but for that of grey pictures, which would hide the other colours."""
    return 1.0 if path.endswith("_p") and path != "augment.grey_p" else value


def _value(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values
