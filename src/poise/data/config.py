"""Settings of the data room."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from poise.data.crop_config import CropConfig, Range
from poise.settings import Settings

Way = Literal["single", "mosaic", "paste"]


class SourceConfig(Settings):
    """One annotated set of pictures."""

    annotations: str
    """The file with the annotations, of the format that ``kind`` names."""
    images: str
    """Folder of its pictures; of a YOLO data set, the folder of the part that is wanted."""
    kind: Literal["coco", "crowdpose", "mpii", "yolo", "auto"] = "coco"
    """Format of the file (see `poise.data.formats`)."""
    name: str = ""
    """Name in messages and tables; empty: the stem of ``annotations``."""
    weight: float = Field(default=1.0, gt=0)
    """How often its pictures are drawn, relative to the other sources (``compose`` and ``crop`` only)."""
    ways: tuple[Way, ...] = Field(default=("single", "mosaic", "paste"), min_length=1)
    """In which canvases its pictures take part (``compose`` only)."""
    min_keypoints: int = Field(default=0, ge=0)
    """Pictures with fewer labelled keypoints are left out."""
    unlabelled: Literal["ignore", "background"] = "ignore"
    """People without labelled keypoints become ignore regions, or background as in the papers' codes."""
    split: Literal["train", "val", "test"] | None = None
    """Part of an MPII file whose people say ``isValidation``; by default everybody in it."""

    @model_validator(mode="after")
    def _has_parts(self) -> Self:
        if self.split is not None and self.kind not in ("mpii", "auto"):
            raise ValueError(
                f"split = {self.split!r} is for MPII files, not for kind {self.kind!r}; leave it out (of a YOLO data "
                "set, images names the folder of the part)"
            )
        return self


class AugmentConfig(Settings):
    """How training canvases are composed (see `poise.data.compose`).

    Ranges are (low, high); scales and sizes are drawn log-uniformly, the rest uniformly. ``*_p`` are probabilities.
    """

    single: float = Field(default=0.4, ge=0)
    mosaic: float = Field(default=0.3, ge=0)
    paste: float = Field(default=0.3, ge=0)
    """Relative frequencies of the three ways. Without ``negatives``, people are pasted on pictures with people."""
    single_scale: Range = (0.7, 1.8)
    """Scale of a single picture, relative to the one at which it just fits the canvas."""
    translation: float = Field(default=1.0, ge=0, le=1)
    """How far a single picture strays from its middle place; 1: over all places, 0: not at all."""
    person_size: Range = (0.12, 0.95)
    """Longer side of a person's box in a mosaic or paste, relative to the canvas."""
    max_upscale: float = Field(default=3.0, ge=1)
    """No picture is enlarged more than this."""
    rotation: float = Field(default=30.0, ge=0, le=180)
    """Largest rotation, degrees."""
    rotation_p: float = Field(default=0.5, ge=0, le=1)
    flip_p: float = Field(default=0.5, ge=0, le=1)
    split: Range = (0.35, 0.65)
    """Where a mosaic is split, relative to the canvas."""
    pasted: tuple[int, int] = (1, 5)
    """Number of people pasted on a background."""
    paste_margin: Range = (0.05, 0.4)
    """Surroundings cut out with a person, relative to the longer side of the box."""
    max_overlap: float = Field(default=0.3, ge=0, le=1)
    """A pasted rectangle covers at most this share of an earlier person's box."""
    feather_p: float = Field(default=0.5, ge=0, le=1)
    """How often the edges of pasted rectangles are blended."""
    negative_p: float = Field(default=0.05, ge=0, le=1)
    """How often a single picture, or a part of a mosaic, is one without people."""
    background_p: float = Field(default=0.5, ge=0, le=1)
    """How often the ground of a mosaic is a picture without people rather than plain."""
    min_visible: int = Field(default=3, ge=1)
    """A person cut or covered to fewer keypoints becomes an ignore region."""
    min_size: float = Field(default=12.0, ge=0)
    """A person whose box has a longer side of fewer pixels becomes an ignore region."""
    brightness: float = Field(default=0.3, ge=0, lt=1)
    contrast: float = Field(default=0.3, ge=0, lt=1)
    saturation: float = Field(default=0.4, ge=0, le=1)
    """Factors are drawn from 1 - x to 1 + x."""
    hue: float = Field(default=0.03, ge=0, le=0.5)
    """Turns of the colour wheel, to either side."""
    grey_p: float = Field(default=0.05, ge=0, le=1)
    blur_p: float = Field(default=0.1, ge=0, le=1)
    blur_sigma: Range = (0.4, 1.5)
    noise_p: float = Field(default=0.0, ge=0, le=1)
    noise_sigma: Range = (2.0, 20.0)
    """Standard deviation of Gaussian noise, on the scale 0..255."""
    erase_p: float = Field(default=0.0, ge=0, le=1)
    """How often patches are painted over. Keypoints below count as occluded; a person of whom fewer than
    ``min_visible`` are left becomes an ignore region."""
    erase_patches: tuple[int, int] = (1, 6)
    erase_size: Range = (0.04, 0.16)
    """Sides of a patch, relative to the canvas."""
    mixup_p: float = Field(default=0.0, ge=0, le=1)
    """How often two canvases are laid on one another; the people of both stay labelled."""
    mixup_share: Range = (0.4, 0.6)
    """Share of the first of them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.single + self.mosaic + self.paste <= 0:
            raise ValueError("one of single, mosaic and paste must be above 0")
        for name in _RANGES:
            low, high = getattr(self, name)
            if not 0 < low <= high and not (name == "paste_margin" and 0 <= low <= high):
                raise ValueError(f"{name} = ({low}, {high}) must be (low, high) with 0 < low <= high")
        for name in ("split", "mixup_share"):
            if getattr(self, name)[1] >= 1:
                raise ValueError(f"{name} = {getattr(self, name)} must lie below 1")
        return self


_RANGES = (
    "single_scale", "person_size", "split", "pasted", "paste_margin", "blur_sigma", "noise_sigma", "erase_patches",
    "erase_size", "mixup_share",
)  # fmt: skip


class PaperConfig(Settings):
    """The numbers of the papers' pipelines; the defaults are DirectPose's (DirectPose spec 10, SMPR spec 9)."""

    short_sides: tuple[int, int] = (480, 1600)
    """Shorter side after resizing, a uniform integer, both ends included."""
    long_side: int = Field(default=2666, ge=32)
    """The longer side is at most this."""
    crop: int = Field(default=800, ge=32)
    """Side of the cropped square; a picture that is smaller is not cropped."""
    flip_p: float = Field(default=0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.short_sides
        if not 1 <= low <= high:
            raise ValueError(f"short_sides = ({low}, {high}) must be (low, high) with 1 <= low <= high")
        return self


class DataConfig(Settings):
    """What a run trains and validates on, and how training pictures are made."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    negatives: tuple[str, ...] = ()
    """Folders of pictures without people."""
    val: SourceConfig | None = None
    pipeline: Literal["compose", "paper", "paper_smpr", "crop"] = "compose"
    """``paper``: DirectPose's, crops around somebody and forgets keypoints outside. ``paper_smpr``: SMPR's, crops
    anywhere and moves keypoints outside to the border of the crop. ``crop``: one person a picture, for models whose
    view is a crop."""
    augment: AugmentConfig = AugmentConfig()
    """For the ``compose`` pipeline; its colours, blur and noise also for ``crop``."""
    crop: CropConfig = CropConfig()
    """For the ``crop`` pipeline."""
    paper: PaperConfig = PaperConfig()
    """For the ``paper`` pipelines."""
    sizes: tuple[int, ...] = Field(default=(512,), min_length=1)
    """Sides of the square training canvases in pixels; one is drawn for each batch (``compose`` only)."""
    batch: int = Field(default=16, ge=1)
    """Pictures (``crop``: people) a batch in each process."""
    samples_per_epoch: int | None = Field(default=None, ge=1)
    """Training pictures (``crop``: people) an epoch; by default as many as the sources have."""
    workers: int = Field(default=2, ge=0)
    """Processes that prepare batches; 0 prepares them in the training process."""
    cache_mb: int = Field(default=0, ge=0)
    """Decoded pictures kept in memory by each worker, in megabytes."""

    @property
    def flips(self) -> str:
        """The field that says how often pictures are mirrored; empty if they never are."""
        part = {"compose": "augment", "crop": "crop"}.get(self.pipeline, "paper")
        return f"{part}.flip_p" if getattr(self, part).flip_p else ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for size in self.sizes:
            if not 32 <= size <= 8192:
                raise ValueError(f"sizes: {size} must lie in 32..8192")
        return self
