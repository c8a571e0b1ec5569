"""Settings of the ``crop`` pipeline, and those of the reference codes (RSN spec 10)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from poise.settings import Settings
from poise.skeletons import COCO17, MPII16

Range = tuple[float, float]


class CropConfig(Settings):
    """How training crops are drawn, one person each (see `poise.data.crop_augment`).

    The defaults are for a few thousand people: moderate changes of place, colours and patches. ``*_p`` are
    probabilities, ranges are (low, high). Pairs for two axes are (width, height).
    """

    min_keypoints: int = Field(default=1, ge=1)
    """People with fewer labelled keypoints are no training samples."""
    clip_boxes: bool = False
    """Boxes are cut at the picture's last row and column of pixels, as mmpose does."""
    binary_visibility: bool = False
    """Occluded and visible keypoints become the same (visibility 1), as in mmpose."""

    extension: tuple[float, float] | None = None
    """Factors on the sides of the box; None: those of the model's view."""
    extension_jitter: tuple[float, float] = (0.0, 0.0)
    """The sides are also multiplied by 1 + this x U(0, 1), each with a number of its own."""

    half_body_p: float = Field(default=0.3, ge=0, le=1)
    """How often only the upper or the lower half of the body is looked at."""
    half_body_keypoints: int = Field(default=8, ge=1)
    """Only of people with at least so many labelled keypoints."""
    upper: tuple[str, ...] | None = None
    """Names of the keypoints that make the upper half; the others make the lower half. None: by their names, hips and
    what is below make the lower half (`poise.skeletons.lower_body`)."""
    upper_p: float = Field(default=0.6, ge=0, le=1)
    """How often the upper half is preferred, where there are keypoints enough for both."""
    upper_keypoints: int = Field(default=4, ge=1)
    lower_keypoints: int = Field(default=4, ge=1)
    """Labelled keypoints that a half needs to be chosen."""
    half_body_fallback: bool = False
    """Where neither half has enough, the upper one is taken if it has at least three keypoints (official code)."""
    half_body_centre: Literal["extent", "mean"] = "extent"
    """Centre of the half's box: of the extent of its keypoints, or their mean."""
    half_body_extension: tuple[float, float] = (1.3, 1.3)
    half_body_jitter: tuple[float, float] = (0.3, 0.3)
    """As ``extension`` and ``extension_jitter``, on the extent of the half's keypoints."""

    scale: Range = (0.75, 1.25)
    """Factor on the sides; below 1 the person becomes larger and may be cut."""
    scale_base: float = Field(default=1.0, gt=0)
    """Another factor, always the same."""
    shift_p: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=0.06, ge=0, le=1)
    """Largest shift of the centre, relative to the sides of the extended box."""
    rotation_p: float = Field(default=0.6, ge=0, le=1)
    rotation: float = Field(default=40.0, ge=0, le=180)
    """Largest rotation, degrees."""
    spread: Literal["uniform", "normal"] = "uniform"
    """How scale, shift and rotation are spread over their ranges; ``normal``: standard normal numbers t, cut off at -1
    and 1, which is the whole range."""
    flip_p: float = Field(default=0.5, ge=0, le=1)

    upright_p: float = Field(default=0.0, ge=0, le=1)
    """How often a person is first turned so that the torso points up (see `poise.data.crop_upright`)."""
    torso: tuple[tuple[str, ...], tuple[str, ...]] = (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"))
    """Names of the keypoints whose means are its lower and its upper end."""

    recolour_p: float = Field(default=0.0, ge=0, le=1)
    """How often the colours are changed, as the ``augment`` settings say."""
    erase_p: float = Field(default=0.0, ge=0, le=1)
    """How often patches are painted over; what lies below stays labelled, as what is occluded does."""
    erase_patches: tuple[int, int] = (1, 3)
    erase_size: Range = (0.08, 0.3)
    """Sides of a patch, relative to those of the crop."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("scale", "erase_patches", "erase_size"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} = ({low}, {high}) must be (low, high) with 0 < low <= high")
        for name in ("extension", "half_body_extension"):
            factors = getattr(self, name)
            if factors is not None and min(factors) <= 0:
                raise ValueError(f"{name} = {factors} must be positive")
        if min(*self.extension_jitter, *self.half_body_jitter) < 0:
            raise ValueError("extension_jitter and half_body_jitter must not be negative")
        return self


def crop_official() -> CropConfig:
    """The official code on COCO."""
    return CropConfig(
        extension=(1.05, 1.05),
        extension_jitter=(0.6, 0.8),
        half_body_p=0.3,
        half_body_keypoints=4,
        upper=COCO17.keypoints[:13],
        upper_p=_OFFICIAL_UPPER_P,
        half_body_fallback=True,
        half_body_extension=(1.0, 1.0),
        half_body_jitter=(0.6, 0.8),
        scale_base=0.8,
        shift_p=0.0,
        rotation_p=0.5,
        rotation=45.0,
    )


def crop_official_mpii() -> CropConfig:
    """The official code on MPII."""
    return CropConfig(
        extension=(1.25, 1.25),
        half_body_p=0.5,
        half_body_keypoints=9,
        upper=MPII16.keypoints[7:],
        upper_p=_OFFICIAL_UPPER_P,
        half_body_fallback=True,
        half_body_extension=(1.0, 1.0),
        half_body_jitter=(0.6, 0.6),
        shift_p=0.0,
        rotation_p=0.5,
        rotation=60.0,
    )


def crop_mmpose() -> CropConfig:
    """The configs of mmpose on COCO."""
    return CropConfig(
        clip_boxes=True,
        binary_visibility=True,
        extension=(1.25, 1.25),
        half_body_p=0.3,
        half_body_keypoints=9,
        upper_p=0.7,
        upper_keypoints=2,
        lower_keypoints=3,
        half_body_centre="mean",
        half_body_extension=(1.5, 1.5),
        half_body_jitter=(0.0, 0.0),
        scale=(0.5, 1.5),
        shift_p=0.3,
        shift=0.16,
        rotation_p=0.6,
        rotation=80.0,
        spread="normal",
    )


_OFFICIAL_UPPER_P = 0.6914624612740131
"""How often a standard normal number is below 0.5: the official code draws one where a uniform one was meant."""
