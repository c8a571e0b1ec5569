"""The learning rate over a run, as a pure function."""

from __future__ import annotations

import math

from poise.train.config import ScheduleConfig


def lr_factor(step: int, config: ScheduleConfig, total: int) -> float:
    """Factor of the base learning rate at update ``step``, counted from 0, of ``total``.

    Warm-up times decay. With ``decay_from="start"`` the decay counts from step 0, as GluonCV's ``WarmupLinearLR``
    does: lr = base * warm(t) * (1 - t/T). With ``"warmup"`` it counts from the end of the warm-up (RSN's solver).
    """
    return _warmup(step, config) * _decay(step, config, total)


def _warmup(step: int, config: ScheduleConfig) -> float:
    if step >= config.warmup:
        return 1.0
    if config.warmup_kind == "constant":
        return config.warmup_factor
    progress = step / config.warmup
    return config.warmup_factor * (1 - progress) + progress


def _decay(step: int, config: ScheduleConfig, total: int) -> float:
    if config.kind == "constant":
        return 1.0
    if config.kind == "step":
        return config.gamma ** sum(step >= round(m * total) for m in config.milestones)
    start = config.warmup if config.decay_from == "warmup" else 0
    progress = min(max((step - start) / max(total - start, 1), 0.0), 1.0)
    if config.kind == "cosine":
        shape = (1 + math.cos(math.pi * progress)) / 2
    else:
        shape = (1 - progress) ** (config.power if config.kind == "poly" else 1.0)
    return config.final_factor + (1 - config.final_factor) * shape
