"""Settings of a training run: optimiser, schedule, loop."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from poise.checkpoints import read_header
from poise.data.config import DataConfig, SourceConfig
from poise.models import ModelConfig, preset
from poise.settings import Settings
from poise.zoo import shipped

DATA_VARIABLE = "POISE_DATA"
"""Environment variable with the folder that relative data paths start from."""


class ParameterRule(Settings):
    """Learning-rate and weight-decay factors of some parameters; of all rules that fit a parameter the first wins."""

    pattern: str = "."
    """Regular expression, searched in the parameter's full name."""
    kind: Literal["any", "bias", "norm"] = "any"
    """``norm``: weights and biases of normalisation layers. ``bias``: every bias, also of normalisation layers."""
    lr_factor: float = Field(default=1.0, ge=0)
    decay_factor: float = Field(default=1.0, ge=0)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return checked_pattern(pattern)


class OptimiserConfig(Settings):
    """Which optimiser, and how it treats which parameters."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam and AdamW only."""
    weight_decay: float = Field(default=1e-4, ge=0)
    rules: tuple[ParameterRule, ...] = ()


class ScheduleConfig(Settings):
    """The learning rate over the run, as a factor of the optimiser's; see `poise.train.schedule.lr_factor`."""

    kind: Literal["constant", "linear", "poly", "step", "cosine"] = "poly"
    power: float = Field(default=1.0, gt=0)
    """Exponent of ``poly``."""
    milestones: tuple[float, ...] = ()
    """Of ``step``: where the rate falls, as fractions of the whole run (epochs 80 and 90 of 100: 0.8, 0.9)."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """Of ``step``: the factor at each milestone."""
    final_factor: float = Field(default=0.0, ge=0, le=1)
    """Where ``linear``, ``poly`` and ``cosine`` end."""
    warmup: int = Field(default=0, ge=0)
    """Steps of warm-up."""
    warmup_factor: float = Field(default=0.001, ge=0, le=1)
    """Factor at step 0."""
    warmup_kind: Literal["linear", "constant"] = "linear"
    decay_from: Literal["start", "warmup"] = "start"
    """``start``: the decay runs from step 0 and is multiplied with the warm-up (DirectPose). ``warmup``: it begins
    when the warm-up ends (RSN)."""

    @field_validator("milestones")
    @classmethod
    def _fractions(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < m < 1 for m in milestones) or list(milestones) != sorted(milestones):
            raise ValueError("milestones are rising fractions of the run, between 0 and 1")
        return milestones


class TrainConfig(Settings):
    """The training loop. A step is one update of the weights."""

    steps: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    """Length of the run: exactly one of ``steps`` and ``epochs``."""
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest L2 norm of the gradient of all parameters together."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per step; their gradients are averaged."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast type of the network; losses are float32 in any case."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of the weights that is evaluated and saved; None: the weights themselves are."""
    patience: int | None = Field(default=None, ge=1)
    """Evaluations in a row without a better ``best_by`` after which the run ends early; None: it never does."""
    best_by: str = "AP"
    """The metric that decides which model is the best; larger is better."""
    freeze: tuple[str, ...] = ()
    """Regular expressions of parameter names that are not trained."""
    freeze_batch_norm: tuple[str, ...] = ()
    """Regular expressions of module names whose batch norms keep their statistics (``["."]``: all of them). Their
    weights are trained unless ``freeze`` names them too."""
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=20, ge=1)
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; None: only after the last step."""
    save_every: int = Field(default=1000, ge=1)
    """Steps between saves of the state to resume from; the last step is always saved."""
    trackers: tuple[str, ...] | None = None
    """Who gets the numbers besides ``metrics.jsonl``, by the names that accelerate knows (tensorboard, wandb, mlflow,
    comet_ml, aim, clearml, dvclive ...); None: tensorboard, if it is installed."""
    samples: int = Field(default=8, ge=0)
    """Pictures on which predictions and truth are drawn after the last step."""
    keep: int = Field(default=0, ge=0)
    """How many numbered checkpoints stay in the run folder, besides ``last`` and ``best``."""
    sync_batch_norm: bool = False
    """Batch norms of several processes share their statistics (GPUs only); one process needs nothing for that."""
    checkpoint_activations: tuple[str, ...] = ()
    """Regular expressions of module names whose activations are computed once more in the backward pass instead of
    being kept: less memory for more time (``[backbone]``: the whole backbone; ``[stages]``: each
    stage of an RSN). A list of modules stands for the modules in it."""
    channels_last: bool = False
    teacher: str | None = None
    """A larger model whose maps the model learns besides the labels (distillation): a shipped model's name or a
    checkpoint. It sees the same views, and also teaches keypoints that are not labelled, as far as it is sure of them.
    Only RSN learns so, from an RSN with the same view, objective and keypoints."""
    teacher_weight: float = Field(default=1.0, gt=0)
    """Of what the teacher teaches, against the labels."""
    compile: bool = False
    """Let ``torch.compile`` make the parts that do the work faster; the first step then takes minutes."""
    deterministic: bool = False
    """Only deterministic operators, at some cost; without it runs on a GPU differ in the last bits."""

    @field_validator("freeze", "freeze_batch_norm", "checkpoint_activations")
    @classmethod
    def _compile_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checked_pattern(p) for p in patterns)

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations: give eval_every, too")
        if self.compile and self.checkpoint_activations:
            raise ValueError("compile and checkpoint_activations exclude each other: choose one")
        return self

    def total_steps(self, batches_per_epoch: int) -> int:
        """Length of the run in steps; an epoch that does not fill a whole step is rounded down, to at least one."""
        if self.steps is not None:
            return self.steps
        return max(1, (self.epochs or 0) * batches_per_epoch // self.accumulate)


class RunConfig(Settings):
    """Everything that decides a training run."""

    model: ModelConfig
    """Settings of the network. A string stands for the settings of a shipped model, of a preset or of a checkpoint."""
    data: DataConfig
    train: TrainConfig
    skeleton: str = "coco17"
    """What the model predicts: a built-in skeleton's name, or ``data``: as the first source's annotations say."""
    init: str | None = None
    """Weights to start from: a shipped model's name, or a safetensors file: a Poise checkpoint of whatever skeleton, or
    a backbone (names of timm or torchvision). ``timm``: timm fetches the backbone's ImageNet weights; None: random."""
    data_root: str | None = None
    """Folder that relative paths of ``data`` start from; None: the environment's ``POISE_DATA``, else ``data``."""

    @field_validator("model", mode="before")
    @classmethod
    def _named_model(cls, model: Any) -> Any:
        return named_model(model) if isinstance(model, str) else model

    @property
    def root(self) -> Path:
        """The folder that relative data paths start from."""
        return Path(self.data_root or os.environ.get(DATA_VARIABLE) or "data")

    def located_data(self) -> DataConfig:
        """``data`` with every path below `root`; absolute paths stay."""

        def located(source: SourceConfig) -> SourceConfig:
            paths = {"annotations": str(self.root / source.annotations), "images": str(self.root / source.images)}
            return source.model_copy(update=paths)

        data = self.data
        return data.model_copy(
            update={
                "sources": tuple(located(source) for source in data.sources),
                "negatives": tuple(str(self.root / folder) for folder in data.negatives),
                "val": located(data.val) if data.val is not None else None,
            }
        )


def named_model(name: str) -> Any:
    """The settings of a shipped model, a preset, or the model in a checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is no checkpoint, or the name is unknown.
    """
    models = shipped()
    if name in models:
        return read_header(models[name].path).model
    if name.endswith(".safetensors"):
        return read_header(name).model
    return preset(name)


def checked_pattern(pattern: str) -> str:
    """``pattern``, if it is a regular expression; else ``ValueError``."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern
