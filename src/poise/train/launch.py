"""From the settings of a run to a trainer that is ready to start or to go on."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch

from poise.checkpoints import load_checkpoint
from poise.data.config import DataConfig
from poise.data.loader import build_train_loader, read_source
from poise.files import write_text
from poise.models import build_model
from poise.models.base import PoseModel
from poise.settings import nearest
from poise.skeletons import SKELETONS, Skeleton
from poise.train.config import RunConfig, TrainConfig
from poise.train.devices import join_processes
from poise.train.engine import Trainer
from poise.train.initial import load_initial_weights
from poise.train.patience import unknown_metric
from poise.train.run import RunFolder
from poise.train.validation import Validator
from poise.zoo import DEFAULT, shipped

_log = logging.getLogger(__name__)

SKELETON_OF_DATA = "data"
"""Value of ``RunConfig.skeleton`` that takes the skeleton from the annotations."""
TIMM = "timm"
"""Value of ``RunConfig.init`` that lets timm fetch the backbone's weights."""


def prepare_run(
    config: RunConfig,
    folder: RunFolder,
    *,
    resume: bool = False,
    device: str = "auto",
    tell: Callable[[str], None] = _log.info,
) -> Trainer:
    """Build model, data and trainer; make the run's folder, or go on with the one that is there.

    The global generators of Python, numpy and torch are seeded with ``config.train.seed``. All processes of the run
    call this alike; the main one writes the folder.

    Args:
        config: of the run.
        folder: of the run.
        resume: go on with the run that is there; one that stopped before its first save starts from its beginning.
        device: ``auto`` (a GPU, if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        tell: is told what was taken from the weights to start from, what skeleton was found in the data, and if there
            was nothing to go on from.

    Raises:
        FileExistsError: the folder already holds a run and ``resume`` is not given.
        FileNotFoundError: data or initial weights are missing, or there is no state to resume.
        ValueError: the settings do not fit each other, the data or the saved state.
    """
    place = join_processes(device)
    again = resume and folder.never_saved
    if not resume:
        folder.refuse_existing()
    place.wait_for_everyone()  # the main process makes the folder further down
    seed_everything(config.train)
    data = config.located_data()
    skeleton = run_skeleton(config.skeleton, data)
    notes: list[str] = []
    model = initial_model(config, skeleton, load=not resume or again, tell=notes.append)
    batches = build_train_loader(
        data, model.view, skeleton, config.train.seed, place.process_index, place.num_processes
    )
    trainer = Trainer(
        model,
        batches,
        config.train,
        state=folder.state,
        evaluate=_validator(config.train, data, model),
        watchers=[folder],
        teacher=_teacher(config.train),
        device=device,
    )
    if resume and not again:
        trainer.resume()
    if place.is_main_process:
        _open_folder(folder, config, trainer, resume, notes)
        if again:
            tell(f"{folder.path}: nothing was saved, so the run starts from its beginning")
        if config.skeleton == SKELETON_OF_DATA:
            tell(_described(skeleton))
        for note in notes:
            tell(note)
    return trainer


def _validator(config: TrainConfig, data: DataConfig, model: PoseModel) -> Validator | None:
    """What measures the model, if there is something to measure it on; ``ValueError`` if it lacks ``best_by``."""
    if data.val is None:
        return None
    validator = Validator(data.val, model)
    if config.best_by not in validator.metrics:
        raise unknown_metric(config.best_by, validator.metrics)
    return validator


def _teacher(config: TrainConfig) -> PoseModel | None:
    """The model that ``train.teacher`` names; ``FileNotFoundError`` or ``ValueError`` if there is none."""
    if config.teacher is None:
        return None
    return load_checkpoint(weights_file(config.teacher, "train.teacher")).model


def _described(skeleton: Skeleton) -> str:
    """What the data say about the skeleton, in one line."""
    pairs = len(skeleton.flip_pairs)
    sigmas = ", ".join(f"{name} {s:.3f}" for name, s in zip(skeleton.keypoints, skeleton.sigmas, strict=True))
    return (
        f"skeleton {skeleton.name} of the data: {len(skeleton)} keypoints, {pairs} {'pair' if pairs == 1 else 'pairs'} "
        f"of left and right; sigmas {sigmas}"
    )


def _open_folder(folder: RunFolder, config: RunConfig, trainer: Trainer, resume: bool, notes: list[str]) -> None:
    if resume:
        folder.reopen(config, trainer.position.step, measured=not trainer.unmeasured)
    else:
        folder.create(config)
    if notes:
        write_text(folder.start, "".join(f"{note}\n" for note in notes))


def run_skeleton(name: str, data: DataConfig) -> Skeleton:
    """The built-in skeleton of that name, or for ``data`` the one that the first source's annotations describe.

    Raises:
        FileNotFoundError: there is no such annotation file.
        ValueError: the name is unknown, or the file describes no skeleton.
    """
    if name == SKELETON_OF_DATA:
        return read_source(data.sources[0]).skeleton
    if name not in SKELETONS:
        raise ValueError(f"unknown skeleton {name!r}{nearest(name, [*SKELETONS, SKELETON_OF_DATA])}")
    return SKELETONS[name]


def initial_model(
    config: RunConfig, skeleton: Skeleton, *, load: bool = True, tell: Callable[[str], None] = _log.info
) -> PoseModel:
    """The model of a run with the weights that ``config.init`` names.

    Args:
        config: of the run.
        skeleton: of the model.
        load: False leaves the weights random, for a state that is going to replace them.
        tell: is told in one line what was taken from a file and what was made anew.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights do not fit the model, or timm cannot fetch them.
    """
    if not load or config.init is None:
        return cast(PoseModel, build_model(config.model, skeleton))
    if config.init == TIMM:
        return _with_timm_weights(config, skeleton)
    model = cast(PoseModel, build_model(config.model, skeleton))
    tell(str(load_initial_weights(model, weights_file(config.init))))
    return model


def weights_file(name: str, setting: str = "init") -> Path:
    """The file of a shipped model, or the path itself; ``setting`` is what an error names.

    Raises:
        FileNotFoundError: it is neither.
    """
    models = shipped()
    found = models.get(DEFAULT if name == "default" else name)
    if found is not None:
        return found.path
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"{setting}: there is no file {name!r} and no shipped model of that name ({', '.join(models) or 'none'})"
        )
    return Path(name)


def seed_everything(config: TrainConfig) -> None:
    """Seed the global generators, which layers such as dropout and the initial weights draw from."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 (other libraries draw from it)
    torch.manual_seed(config.seed)
    if config.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)


def _with_timm_weights(config: RunConfig, skeleton: Skeleton) -> PoseModel:
    try:
        return cast(PoseModel, build_model(config.model, skeleton, pretrained=True))
    except ValueError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"timm cannot fetch the backbone's weights ({reason}): give a file with --set init=PATH, "
            "or start from random weights with --set init=null"
        ) from None
