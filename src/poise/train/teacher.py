"""Distillation: a larger model that is trained already shows a smaller one what it sees (Hinton et al. 2015)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from poise.models.base import Imitator, PoseModel


class Teacher:
    """A model whose outputs another one learns besides its labels; it learns nothing itself.

    Args:
        model: the teacher.
        student: who learns.
        weight: of the teacher's terms.

    Raises:
        ValueError: the student is of a system that cannot learn so, or not from this teacher.
    """

    def __init__(self, model: PoseModel, student: PoseModel, weight: float = 1.0) -> None:
        if not isinstance(student, Imitator):
            name = type(student).__name__
            raise ValueError(f"train.teacher: a {name} learns from labels only; leave it out, or train an RSN")
        try:
            student.check_teacher(model)
        except ValueError as error:
            raise ValueError(f"train.teacher: {error}") from None
        self._network = cast(nn.Module, model).eval().requires_grad_(False)
        self._student = student
        self._weight = weight

    def to(self, device: torch.device, layout: torch.memory_format) -> None:
        """Move the teacher to where the student is trained."""
        self._network.to(device, memory_format=layout)  # type: ignore[call-overload]

    def terms(self, outputs: Any, images: Tensor, precision: AbstractContextManager[Any]) -> dict[str, Tensor]:
        """The weighted losses of the student's outputs of images (B, 3, H, W).

        ``precision`` is the context that the teacher computes in.
        """
        with torch.no_grad(), precision:
            example = self._network(images)
        return {name: self._weight * term for name, term in self._student.imitation(outputs, example).items()}
