"""What the rest of Poise may know of a model: the interface that all three systems share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from poise.settings import Settings
from poise.skeletons import Skeleton
from poise.types import Persons, Poses, ViewSpec


@runtime_checkable
class PoseModel(Protocol):
    """A pose network. Every implementation is also an ``nn.Module``.

    Attributes:
        config: the frozen settings it was built from.
        skeleton: its keypoints.
        view: what the data room must produce for it.
    """

    config: Settings
    skeleton: Skeleton
    view: ViewSpec

    def forward(self, images: Tensor) -> Any:
        """Raw output tensors (a NamedTuple) of images (B, 3, H, W); H and W multiples of ``view.stride``."""
        ...

    def loss(self, outputs: Any, persons: Sequence[Persons]) -> dict[str, Tensor]:
        """Named, weighted scalar losses of a batch; ``persons[b]`` is the truth of image b in input px."""
        ...

    def decode(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """Candidate poses of every view, in input px, before `suppress`.

        ``sizes[b]`` is the (height, width) of image b without its padding.
        """
        ...

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        """``decode(forward(images), sizes)``, without the work that cannot change the result."""
        ...

    def suppress(self, poses: Poses) -> Poses:
        """The final poses of one picture out of the candidates of all its views, in image px, best first."""
        ...


@runtime_checkable
class Imitator(Protocol):
    """What a model has, too, that can learn from the outputs of another one (distillation)."""

    def check_teacher(self, teacher: object) -> None:
        """``ValueError`` if that model's outputs are nothing to learn from."""
        ...

    def imitation(self, outputs: Any, example: Any) -> dict[str, Tensor]:
        """Named, weighted scalar losses between its own raw outputs and the teacher's, of the same images."""
        ...
