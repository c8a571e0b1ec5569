"""Named training runs of RSN: the official code's, mmpose's, and that of the small model (RSN spec 12).

The paper's own training framework is not public; its tables come from models as `rsn50_paper` describes them. A batch
of 256 people is the references' 8 processes of 32 each; with fewer processes, raise ``data.batch``.
"""

from __future__ import annotations

from collections.abc import Callable

from poise.data.config import DataConfig, SourceConfig
from poise.data.crop_config import CropConfig, crop_mmpose, crop_official, crop_official_mpii
from poise.models import preset
from poise.train.config import OptimiserConfig, ParameterRule, RunConfig, ScheduleConfig, TrainConfig


def rsn_small() -> RunConfig:
    """The small RSN, for a few hundred COCO pictures and Leeds Sports Pose Extended.

    Made for one core of a processor without an accelerator: the first layers and all batch norms of the trunk, which
    starts from ImageNet, are frozen. Keypoints that are not labelled (all faces of Leeds Sports Pose) take no part in
    the loss, and most athletes are turned upright. The 754 people of COCO are known by heart, and yet more steps with
    these changes, milder than those at first, went on helping; the model's card and ``docs/model_runs`` have the runs
    that made it. Expects the same folders as `directpose_mobilenetv2`, but for the pictures without
    people.
    """
    data = DataConfig(
        sources=(
            SourceConfig(annotations="coco/annotations/train.json", images="coco/train", weight=0.65),
            SourceConfig(annotations="lspet/annotations/train.json", images="lspet/images", weight=0.35),
        ),
        val=SourceConfig(annotations="coco/annotations/val.json", images="coco/val"),
        pipeline="crop",
        crop=CropConfig(
            half_body_p=0.2,
            scale=(0.75, 1.3),
            rotation=35.0,
            rotation_p=0.55,
            shift_p=0.4,
            shift=0.05,
            upright_p=0.92,
            extension_jitter=(0.1, 0.1),
            recolour_p=0.5,
            erase_p=0.3,
            erase_patches=(1, 3),
        ),
        batch=16,
        workers=1,
        cache_mb=3000,
    )
    optimiser = OptimiserConfig(
        kind="adamw",
        lr=1.2e-3,
        weight_decay=0.1,
        rules=(
            ParameterRule(pattern="^backbone", kind="norm", lr_factor=0.3, decay_factor=0.0),
            ParameterRule(pattern="^backbone", lr_factor=0.3),
            ParameterRule(pattern=r"\.output\.norm\.", lr_factor=20.0, decay_factor=0.0),
            ParameterRule(kind="norm", decay_factor=0.0),
        ),
    )
    train = TrainConfig(
        steps=16_000,
        optimiser=optimiser,
        schedule=ScheduleConfig(kind="cosine", warmup=200),
        ema=0.998,
        freeze=(r"^backbone\.body\.(conv_stem|bn1)\.", r"^backbone\.body\.blocks\.[01]\."),
        freeze_batch_norm=("^backbone",),
        eval_every=1000,
        save_every=200,
        channels_last=True,
    )
    return RunConfig(model=preset("rsn_small"), data=data, train=train, init="timm")


def rsn_medium() -> RunConfig:
    """The small RSN on a ResNet-50 in caffe style, for the same data: stem and first layer of the trunk are frozen.

    In bfloat16, which halves the time of a step where the processor has arithmetic for it. timm has no weights of
    that style: ``init`` names a file with some.
    """
    small = rsn_small()
    train = small.train.model_copy(
        update={
            "steps": 6000,
            "precision": "bf16",
            "freeze": (r"^backbone\.body\.(conv1|bn1)\.", r"^backbone\.body\.layer1\."),
        }
    )
    return small.model_copy(update={"model": preset("rsn_medium"), "train": train, "init": None})


def _official(name: str) -> Callable[[], RunConfig]:
    """The official code on COCO: 96000 steps, linear warm-up of 2400, then linear to 0."""

    def make() -> RunConfig:
        return RunConfig(model=preset(name), data=_coco2017(crop_official()), train=_official_training(96_000))

    return make


def _official_mpii(name: str) -> Callable[[], RunConfig]:
    """The official code on MPII: 28800 steps."""

    def make() -> RunConfig:
        data = DataConfig(
            sources=(SourceConfig(annotations="mpii/annotations/train.json", images="mpii/images", kind="mpii"),),
            val=SourceConfig(annotations="mpii/annotations/valid.json", images="mpii/images", kind="mpii"),
            pipeline="crop",
            crop=crop_official_mpii(),
            batch=32,
            workers=8,
        )
        train = _official_training(28_800).model_copy(update={"best_by": "Mean"})
        return RunConfig(model=preset(name), data=data, train=train, skeleton="mpii16")

    return make


def _mmpose(name: str, lr: float, milestones: tuple[int, ...]) -> Callable[[], RunConfig]:
    """The configs of mmpose on COCO: 210 epochs, the rate falls to a tenth after those in ``milestones``."""

    def make() -> RunConfig:
        train = TrainConfig(
            epochs=210,
            optimiser=OptimiserConfig(kind="adam", lr=lr, weight_decay=0.0),
            schedule=ScheduleConfig(
                kind="step", milestones=tuple(m / 210 for m in milestones), warmup=500, warmup_factor=0.001
            ),
            eval_every=5000,
        )
        return RunConfig(model=preset(name), data=_coco2017(crop_mmpose()), train=train)

    return make


def _official_training(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        optimiser=OptimiserConfig(kind="adam", lr=4e-3, weight_decay=1e-5),
        schedule=ScheduleConfig(kind="linear", warmup=2400, warmup_factor=0.1, decay_from="warmup"),
        eval_every=4800,
    )


def _coco2017(crop: CropConfig) -> DataConfig:
    """COCO 2017, 32 people a batch in each process."""
    return DataConfig(
        sources=(
            SourceConfig(
                annotations="coco/annotations/person_keypoints_train2017.json",
                images="coco/train2017",
                min_keypoints=1,
            ),
        ),
        val=SourceConfig(annotations="coco/annotations/person_keypoints_val2017.json", images="coco/val2017"),
        pipeline="crop",
        crop=crop,
        batch=32,
        workers=8,
    )


RSN_RECIPES: dict[str, Callable[[], RunConfig]] = {
    "rsn_small": rsn_small,
    "rsn_medium": rsn_medium,
    "rsn18": _official("rsn18"),
    "rsn50": _official("rsn50"),
    "rsn101": _official("rsn101"),
    "rsn18x4": _official("rsn18x4"),
    "rsn50x2": _official("rsn50x2"),
    "rsn50x3": _official("rsn50x3"),
    "rsn50x4": _official("rsn50x4"),
    "rsn50x4_384x288": _official("rsn50x4_384x288"),
    "rsn50_paper": _official("rsn50_paper"),
    "rsn50x4_paper": _official("rsn50x4_paper"),
    "rsn18_mpii": _official_mpii("rsn18_mpii"),
    "rsn50x4_mpii": _official_mpii("rsn50x4_mpii"),
    "rsn18_mmpose": _mmpose("rsn18_mmpose", 2e-2, (170, 190, 200)),
    "rsn50_mmpose": _mmpose("rsn50_mmpose", 5e-3, (170, 200)),
    "rsn50x2_mmpose": _mmpose("rsn50x2_mmpose", 5e-3, (170, 200)),
    "rsn50x3_mmpose": _mmpose("rsn50x3_mmpose", 5e-3, (170, 200)),
}
"""Recipes of RSN by name."""
