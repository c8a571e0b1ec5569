"""Named training runs: the papers' recipes and those of the models that come with Poise.

Data paths are relative to the data root (``--data``, ``POISE_DATA``, or ``./data``). The papers' recipes expect COCO as
it is distributed in ``coco/``: ``coco/annotations/person_keypoints_train2017.json``, ``coco/train2017`` and the same
for ``val2017``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from poise.data.config import AugmentConfig, DataConfig, PaperConfig, SourceConfig
from poise.models import preset
from poise.settings import nearest
from poise.train.config import OptimiserConfig, ParameterRule, RunConfig, ScheduleConfig, TrainConfig
from poise.train.recipes_rsn import RSN_RECIPES


def directpose_r50() -> RunConfig:
    """DirectPose with ResNet-50 as its authors train it (DirectPose spec 10, column O)."""
    return _directpose_paper("directpose_r50")


def directpose_r101() -> RunConfig:
    """DirectPose with ResNet-101 as its authors train it (DirectPose spec 10, column O)."""
    return _directpose_paper("directpose_r101")


def directpose_r50_gluoncv() -> RunConfig:
    """DirectPose with ResNet-50 as GluonCV trains it (DirectPose spec 10, column G): no multipliers, no clipping."""
    optimiser = OptimiserConfig(kind="sgd", lr=0.01, rules=(ParameterRule(kind="norm", decay_factor=0.0),))
    return RunConfig(
        model=preset("directpose_r50_gluoncv"),
        data=_coco2017(min_keypoints=1),
        train=TrainConfig(
            steps=180_000, optimiser=optimiser, schedule=_PAPER_SCHEDULE, sync_batch_norm=True, eval_every=10_000
        ),
        init="timm",
    )


def directpose_mobilenetv2() -> RunConfig:
    """The small DirectPose that comes with Poise, for a few hundred COCO pictures and Leeds Sports Pose Extended.

    Made for a processor without an accelerator: small canvases, the first stages and all batch norms of the backbone
    frozen. Expects ``coco/train``, ``coco/val``, ``lspet/images`` and ``negatives``, with annotations in
    ``coco/annotations/{train,val}.json`` and ``lspet/annotations/train.json``.
    """
    optimiser = OptimiserConfig(
        kind="adamw",
        lr=1e-3,
        weight_decay=0.02,
        rules=(
            ParameterRule(pattern="^backbone", kind="norm", lr_factor=0.3, decay_factor=0.0),
            ParameterRule(pattern="^backbone", lr_factor=0.3),
            ParameterRule(kind="norm", decay_factor=0.0),
            ParameterRule(kind="bias", decay_factor=0.0),
        ),
    )
    data = DataConfig(
        sources=(
            SourceConfig(annotations="coco/annotations/train.json", images="coco/train", weight=0.55),
            SourceConfig(annotations="lspet/annotations/train.json", images="lspet/images", weight=0.45),
        ),
        negatives=("negatives",),
        val=SourceConfig(annotations="coco/annotations/val.json", images="coco/val"),
        pipeline="compose",
        augment=AugmentConfig(
            single=0.5,
            mosaic=0.3,
            paste=0.2,
            person_size=(0.15, 0.85),
            single_scale=(0.9, 2.5),
            background_p=0.7,
            rotation=15.0,
            rotation_p=0.3,
        ),
        sizes=(256,),
        batch=8,
        workers=1,
        cache_mb=1500,
    )
    train = TrainConfig(
        steps=10_000,
        optimiser=optimiser,
        schedule=ScheduleConfig(kind="cosine", warmup=150),
        clip_norm=10.0,
        ema=0.998,
        freeze=(r"^backbone\.body\.(conv_stem|bn1)\.", r"^backbone\.body\.blocks\.[01]\."),
        freeze_batch_norm=("^backbone",),
        eval_every=2000,
        save_every=200,
        channels_last=True,
    )
    return RunConfig(model=preset("directpose_mobilenetv2"), data=data, train=train, init="timm")


def smpr_r50() -> RunConfig:
    """SMPR with ResNet-50 and PAFPN as its authors train it (SMPR spec 8).

    The weights to start from are those of Detectron's "MSRA R-50" (``resnet50_caffe`` in model zoos), as safetensors
    under the names of torchvision; timm has none for strides in the 1x1 convolutions and BGR pixels.
    """
    return _smpr_resnet("smpr_r50", (800, 800))


def smpr_r50_fpn() -> RunConfig:
    """The same with an FPN: the neck of the paper's ablations."""
    return _smpr_resnet("smpr_r50_fpn", (800, 800))


def smpr_r50_multi() -> RunConfig:
    """SMPR with ResNet-50 at shorter sides of 640 to 800, the authors' second settings for it (SMPR spec 9, 11)."""
    return _smpr_resnet("smpr_r50", (640, 800))


def smpr_hrnet_w32() -> RunConfig:
    """SMPR with HRNet-W32 as its authors train it (SMPR spec 8)."""
    return _smpr_hrnet("smpr_hrnet_w32", (800, 800), 32)


def smpr_hrnet_w48() -> RunConfig:
    """SMPR with HRNet-W48 as its authors train it: four pictures a GPU, on four GPUs (SMPR spec 8)."""
    return _smpr_hrnet("smpr_hrnet_w48", (640, 800), 16)


def smpr_mobilenetv2() -> RunConfig:
    """The small SMPR, on the data of `directpose_mobilenetv2`, with fewer athletes and larger canvases.

    AP is three times as high on the people trained on as on others. Still, more steps with these changes, milder than
    those at first, went on helping; the model's card and ``docs/model_runs`` have the runs that made it.
    """
    run = directpose_mobilenetv2()
    shares = (0.74, 0.26)
    sources = tuple(s.model_copy(update={"weight": w}) for s, w in zip(run.data.sources, shares, strict=True))
    augment = AugmentConfig(
        single=0.6,
        mosaic=0.25,
        paste=0.15,
        person_size=(0.08, 0.95),
        single_scale=(0.8, 2.1),
        negative_p=0.05,
        background_p=0.7,
        rotation=15.0,
        rotation_p=0.3,
        erase_p=0.15,
        noise_p=0.05,
        brightness=0.25,
        contrast=0.25,
        saturation=0.35,
        hue=0.03,
        grey_p=0.05,
        blur_p=0.1,
    )
    data = run.data.model_copy(
        update={"sources": sources, "augment": augment, "sizes": (320, 384, 448, 512), "batch": 5, "cache_mb": 1500}
    )
    return run.model_copy(update={"model": preset("smpr_mobilenetv2"), "data": data})


def _smpr_ablation(name: str) -> Callable[[], RunConfig]:
    """A row of the paper's ablation: 30 epochs, the rate falls after 25 and 28 (SMPR spec 8, 12)."""

    def make() -> RunConfig:
        run = _smpr_resnet(name, (800, 800))
        schedule = run.train.schedule.model_copy(update={"milestones": (25 / 30, 28 / 30)})
        return run.model_copy(update={"train": run.train.model_copy(update={"epochs": 30, "schedule": schedule})})

    return make


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "directpose_r50": directpose_r50,
    "directpose_r101": directpose_r101,
    "directpose_r50_gluoncv": directpose_r50_gluoncv,
    "directpose_mobilenetv2": directpose_mobilenetv2,
    "smpr_r50": smpr_r50,
    "smpr_r50_fpn": smpr_r50_fpn,
    "smpr_r50_multi": smpr_r50_multi,
    "smpr_hrnet_w32": smpr_hrnet_w32,
    "smpr_hrnet_w48": smpr_hrnet_w48,
    "smpr_mobilenetv2": smpr_mobilenetv2,
    "smpr_baseline": _smpr_ablation("smpr_baseline"),
    "smpr_baseline_star": _smpr_ablation("smpr_baseline_star"),
    "smpr_refine": _smpr_ablation("smpr_refine"),
    "smpr_refine_star": _smpr_ablation("smpr_refine_star"),
    "smpr_psm": _smpr_ablation("smpr_psm"),
    "smpr_heatmap": _smpr_ablation("smpr_heatmap"),
    "smpr_pafpn": _smpr_ablation("smpr_pafpn"),
    **RSN_RECIPES,
    "mini_directpose": directpose_mobilenetv2,
    "mini_smpr": smpr_mobilenetv2,
    "mini_rsn": RSN_RECIPES["rsn_small"],
}
"""Recipes by name; ``mini_*`` are other names of those of the shipped models."""


def recipe(name: str) -> RunConfig:
    """The named recipe; ``ValueError`` with the nearest name if there is none."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]()


_PAPER_SCHEDULE = ScheduleConfig(kind="poly", power=1.0, warmup=1000, warmup_factor=0.001)
"""Poly of power 1 times a warm-up (DirectPose spec 10). The official warm-up is not known; this is GluonCV's."""


def _directpose_paper(name: Literal["directpose_r50", "directpose_r101"]) -> RunConfig:
    """SGD with ten times the rate for the head and heatmap branch; biases twice the rate and no decay; clip 5.

    The two multipliers are multiplied. The base rate is the one of FCOS: the official file is not available.
    """
    head = r"^head\.(?!.*scale)"
    rules = (
        ParameterRule(pattern=head, kind="bias", lr_factor=20.0, decay_factor=0.0),
        ParameterRule(pattern=head, lr_factor=10.0),
        ParameterRule(kind="bias", lr_factor=2.0, decay_factor=0.0),
    )
    return RunConfig(
        model=preset(name),
        data=_coco2017(min_keypoints=10),
        train=TrainConfig(
            steps=180_000,
            optimiser=OptimiserConfig(kind="sgd", lr=0.01, rules=rules),
            schedule=_PAPER_SCHEDULE,
            clip_norm=5.0,
            sync_batch_norm=True,
            eval_every=10_000,
        ),
        init="timm",
    )


_SMPR_RULES = (
    ParameterRule(pattern="^head", kind="norm"),
    ParameterRule(pattern=r"^backbone\..*\bbn\d\."),
    ParameterRule(kind="bias", lr_factor=2.0, decay_factor=0.0),
)
"""Biases learn twice as fast without decay, but for those of norms; norms without a name of their own (shortcuts,
HRNet's fusion) count as ordinary layers, as the authors' patterns have it (SMPR spec 8)."""


def _smpr_resnet(name: str, short_sides: tuple[int, int]) -> RunConfig:
    """Stem, first layer and the weights of all batch norms stay as they are; batch norms keep their statistics."""
    run = _smpr_paper(name, short_sides, 32)
    frozen = (r"^backbone\.body\.(conv1|layer1)\.", r"^backbone\..*(\bbn\d|downsample\.1)\.")
    return run.model_copy(
        update={
            "init": "resnet50_caffe.safetensors",
            "train": run.train.model_copy(update={"freeze": frozen, "clip_norm": 35.0}),
        }
    )


def _smpr_hrnet(name: str, short_sides: tuple[int, int], batch: int) -> RunConfig:
    """Everything is trained, no clipping; batch norms keep their statistics."""
    return _smpr_paper(name, short_sides, batch).model_copy(update={"init": "timm"})


def _smpr_paper(name: str, short_sides: tuple[int, int], batch: int) -> RunConfig:
    data = _coco2017(min_keypoints=1).model_copy(
        update={
            "pipeline": "paper_smpr",
            "paper": PaperConfig(short_sides=short_sides, long_side=1333, crop=800),
            "batch": batch,
        }
    )
    return RunConfig(
        model=preset(name),
        data=data,
        train=TrainConfig(
            epochs=100,
            optimiser=OptimiserConfig(kind="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, rules=_SMPR_RULES),
            schedule=ScheduleConfig(
                kind="step", milestones=(0.8, 0.9), gamma=0.1, warmup=500, warmup_factor=1 / 3, warmup_kind="constant"
            ),
            freeze_batch_norm=("^backbone",),
            eval_every=10_000,
        ),
    )


def _coco2017(min_keypoints: int) -> DataConfig:
    """COCO 2017, the papers' pipeline, 32 pictures a batch (divide by the number of processes)."""
    return DataConfig(
        sources=(
            SourceConfig(
                annotations="coco/annotations/person_keypoints_train2017.json",
                images="coco/train2017",
                min_keypoints=min_keypoints,
                unlabelled="background",
            ),
        ),
        val=SourceConfig(annotations="coco/annotations/person_keypoints_val2017.json", images="coco/val2017"),
        pipeline="paper",
        batch=32,
        workers=8,
    )
