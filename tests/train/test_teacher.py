"""Distillation: a model learns from a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poise.checkpoints import read_header, save_checkpoint
from poise.geometry.heatmaps import place_scores
from poise.models.dense import precise
from poise.models.rsn import RSN, RSNConfig, RSNOutputs
from poise.models.rsn_loss import imitation_terms
from poise.skeletons import COCO17, MPII16
from poise.train.config import RunConfig, TrainConfig
from poise.train.engine import Trainer
from poise.train.launch import prepare_run
from poise.train.run import RunFolder
from poise.train.teacher import Teacher
from poise.types import ViewSpec
from tiny import TinyBatches, tiny_model
from tiny_set import write_tiny_set

VIEW = ViewSpec(kind="crop", size=(64, 64), half_pixel=False)


def config(**changes: object) -> RSNConfig:
    small = {"depth": 10, "stem": 8, "planes": (8, 8, 8, 8), "branch_ratio": (1, 2), "unit_channels": 8, "view": VIEW}
    return RSNConfig.model_validate({**small, "kernels": (7, 7, 7, 5, 5), **changes})


def maps(seed: int, levels: int = 4, scale: float = 16.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(2, 3, 6, 5, generator=generator) for _ in range(levels)]


def test_terms_of_places_are_the_cross_entropies_by_hand() -> None:
    own, example = maps(0, levels=8), maps(1)
    terms = imitation_terms(config(objective="place", plain_weight=0.5), own, example)

    def chances(tensor: torch.Tensor) -> np.ndarray:
        values = np.exp(tensor.double().numpy().reshape(2, 3, 30) / 16)
        chance: np.ndarray = values / values.sum(-1, keepdims=True)
        return chance

    sure = np.minimum(chances(example[3]).max(-1) / 0.375**2, 1)  # a label of kernel 5 has 0.375 squared at its peak
    assert sure.min() < 1
    levels = [
        float((sure * -(chances(w) * np.log(chances(m))).sum(-1)).mean()) for m, w in zip(own[4:], example, strict=True)
    ]
    assert float(terms["teacher_finest"]) == pytest.approx(levels[3], rel=1e-5)
    assert float(terms["teacher_plain"]) == pytest.approx(0.5 * sum(levels[:3]), rel=1e-5)


def test_terms_of_heights_are_mean_squared_errors() -> None:
    own, example = maps(0), maps(1)
    terms = imitation_terms(config(objective="height"), own, example)
    errors = [float(((m - w) ** 2).mean()) for m, w in zip(own, example, strict=True)]
    assert float(terms["teacher_finest"]) == pytest.approx(errors[3], rel=1e-5)
    assert float(terms["teacher_plain"]) == pytest.approx(0.25 * sum(errors[:3]), rel=1e-5)


@pytest.mark.parametrize("objective", ["place", "height"])
def test_nothing_is_left_to_learn_from_oneself(objective: str) -> None:
    own = [m.requires_grad_() for m in maps(0)]
    terms = imitation_terms(config(objective=objective), own, [m.detach() for m in own])
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), own)
    assert max(float(g.abs().max()) for g in gradients) < 1e-7


def test_what_the_teacher_does_not_know_is_hardly_taught() -> None:
    own = [m.requires_grad_() for m in maps(0)]
    flat = [torch.zeros_like(m) for m in own]
    sharp = [m.detach().clone() for m in flat]
    for level in sharp:
        level[..., 2, 3] = 200.0
    settings = config(objective="place")
    taught = torch.autograd.grad(imitation_terms(settings, own, sharp)["teacher_finest"], own[3])[0].abs().sum()
    hardly = torch.autograd.grad(imitation_terms(settings, own, flat)["teacher_finest"], own[3])[0].abs().sum()
    assert hardly < 0.25 * taught


def test_a_student_comes_to_see_what_its_teacher_sees() -> None:
    torch.manual_seed(0)
    student = RSN(config(objective="place", output_gain=20), COCO17)
    teacher = RSN(config(objective="place", output_gain=60, planes=(16, 16, 16, 16)), COCO17)
    lesson = Teacher(teacher, student)
    images = torch.randn(4, 3, 64, 64)

    def distance() -> float:
        with torch.no_grad():
            ours, theirs = student(images).heatmaps[-1], teacher(images).heatmaps[-1]
        return float((place_scores(precise(ours)).exp() - place_scores(precise(theirs)).exp()).abs().sum(-1).mean())

    before = distance()
    optimiser = torch.optim.Adam(student.parameters(), 3e-3)
    weights = [p.clone() for p in teacher.parameters()]
    for _ in range(60):
        terms = lesson.terms(student(images), images, torch.autocast("cpu", enabled=False))
        optimiser.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
    assert distance() < 0.5 * before
    assert not teacher.training
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), weights, strict=True))


def test_the_weight_scales_the_terms() -> None:
    student, teacher = RSN(config(), COCO17), RSN(config(), COCO17)
    outputs, images = RSNOutputs(tuple(torch.ones(1, 17, 16, 16) for _ in range(4))), torch.zeros(1, 3, 64, 64)
    plain = Teacher(teacher, student).terms(outputs, images, torch.autocast("cpu", enabled=False))
    double = Teacher(teacher, student, 2.0).terms(outputs, images, torch.autocast("cpu", enabled=False))
    assert {k: float(v) for k, v in double.items()} == pytest.approx({k: 2 * float(v) for k, v in plain.items()})


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda: RSN(config(objective="place"), COCO17), "same objective: not place for height"),
        (lambda: RSN(config(), MPII16), "same keypoints"),
        (lambda: RSN(config(kernels=(9, 7, 7, 5, 5)), COCO17), "same kernels"),
        (lambda: RSN(config(view=ViewSpec(kind="crop", size=(64, 96), half_pixel=False)), COCO17), "same view"),
        (tiny_model, "not of a"),
    ],
)
def test_a_teacher_that_means_something_else_is_refused(teacher: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"train\.teacher: .*{message}"):
        Teacher(teacher(), RSN(config(), COCO17))


def test_a_system_that_cannot_learn_so_says_it() -> None:
    settings = TrainConfig(steps=1)
    with pytest.raises(ValueError, match=r"train.teacher: .* learns from labels only"):
        Trainer(tiny_model(), TinyBatches(), settings, teacher=tiny_model(), device="cpu")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_set(tmp_path_factory.mktemp("data"))


def run_settings(root: Path, teacher: Path | str | None, **train: Any) -> RunConfig:
    source = {"annotations": "tiny.json", "images": "pictures"}
    return RunConfig.parse(
        {
            "model": config(objective="place").model_dump(mode="json"),
            "data": {"sources": [source], "pipeline": "crop", "batch": 2, "workers": 0},
            "train": {"steps": 4, "log_every": 1, "save_every": 2, "samples": 0, "optimiser": {"lr": 0.005},
                      "schedule": {"kind": "constant"},
                      "teacher": None if teacher is None else str(teacher)} | train,
            "data_root": str(root),
        }
    )  # fmt: skip


def test_a_run_learns_from_its_teacher_and_resumes_to_the_bit(tmp_path: Path, data_root: Path) -> None:
    torch.manual_seed(1)
    file = tmp_path / "secret_folder" / "larger.safetensors"
    save_checkpoint(file, RSN(config(objective="place", depth=18), COCO17))
    settings = run_settings(data_root, file, teacher_weight=0.5)
    whole = prepare_run(settings, RunFolder(tmp_path / "whole"), device="cpu")
    whole.run()

    trainer = prepare_run(settings, RunFolder(tmp_path / "parts"), device="cpu")
    trainer.total = 2
    trainer.run()
    again = prepare_run(settings, RunFolder(tmp_path / "parts"), device="cpu", resume=True)
    again.run()
    alone = prepare_run(run_settings(data_root, None), RunFolder(tmp_path / "alone"), device="cpu")
    alone.run()

    def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
        return trainer.model.state_dict()  # type: ignore[attr-defined, no-any-return]

    assert all(torch.equal(weights(again)[name], tensor) for name, tensor in weights(whole).items())
    assert not all(torch.equal(weights(alone)[name], tensor) for name, tensor in weights(whole).items())
    assert '"teacher_finest"' in (tmp_path / "whole" / "metrics.jsonl").read_text(encoding="utf-8")
    header = read_header(tmp_path / "whole" / "checkpoints" / "last.safetensors")
    assert header.metadata["recipe"]["train"]["teacher"] == "larger.safetensors"
    assert "secret_folder" not in str(header.metadata)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train.teacher: there is no file 'gone.safetensors'"):
        prepare_run(run_settings(data_root, "gone.safetensors"), RunFolder(tmp_path / "run"), device="cpu")
    assert not (tmp_path / "run").exists()


def test_the_weight_is_positive(data_root: Path) -> None:
    with pytest.raises(ValueError, match="teacher_weight"):
        run_settings(data_root, None, teacher_weight=0)
