"""From a model to a file that finds what the model finds, or no file at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from poise.checkpoints import LoadedCheckpoint
from poise.export.description import canvas_of, describe, looks_once
from poise.export.graph import pose_graph
from poise.export.openvino_files import onnx_to_openvino
from poise.export.parity import Parity, ParityError, Photograph, check, photographs
from poise.export.quantise import Loss, Pictures, has_eight_bit_products, measure_loss, quantise
from poise.export.writers import LEAST_CELLS, SUFFIXES, WRITERS, as_stored, write_onnx
from poise.extras import needs
from poise.files import replacing
from poise.models.base import PoseModel
from poise.runtime import ExportedModel, Size
from poise.settings import nearest

Tell = Callable[[str], None]
"""Is told what happens next."""
QUANTISED = ("onnx", "openvino")
"""Formats whose runtimes compute with eight bits; of the others weights are stored in eight."""
RUN_BY = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
}
"""What each format needs beside torch, to be written and to be checked: OpenVINO's files are made of ONNX files."""
MAX_LOSS = 5.0
"""Points of AP (0..100) that quantising may cost."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted.

    Attributes:
        format: ``onnx``, ``openvino``, ``torchscript`` or ``pt2``.
        dynamic: the input may have any size (a multiple of the stride), as the picture's shape asks for.
        size: (height, width) of an input of one size; None: what the model's view says, any if that limits both sides.
        half: store the weights in half precision.
        int8: compute convolutions with whole numbers of eight bits, their ranges read off ``pictures``; in torch's
            formats weights are stored so, and computed with in single precision.
        pictures: for ``int8``.
        photographs: a folder of pictures that the file is checked with; None: those that come with Poise.
        max_loss: points of AP that ``int8`` may cost, where ``pictures`` have annotations to measure it with.
    """

    format: str = "onnx"
    dynamic: bool = False
    size: Size | None = None
    half: bool = False
    int8: bool = False
    pictures: Pictures | None = None
    photographs: Path | None = None
    max_loss: float = MAX_LOSS

    def check(self) -> None:
        """``ValueError`` if something does not go together, or a library is missing."""
        if self.format not in WRITERS:
            raise ValueError(f"format {self.format!r} is not known{nearest(self.format, WRITERS)}")
        if self.dynamic and self.size is not None:
            raise ValueError("a size is for inputs of one size, dynamic is for any; ask for one of them")
        if self.half and self.int8:
            raise ValueError("half and int8 are two ways to make weights smaller; ask for one of them")
        if not 0 <= self.max_loss <= 100:
            raise ValueError(f"max_loss {self.max_loss} must lie in 0..100: points of AP")
        if self.int8 and self.pictures is None:
            raise ValueError("int8 needs pictures like those the model will see, to calibrate it: --calibrate DIR")
        if self.pictures is not None and not self.int8:
            raise ValueError("pictures to calibrate are for int8")
        for library in RUN_BY.get(self.format, ()):
            needs(library, "export", f"exporting to {self.format}")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        path: the file.
        size: bytes of it and of what belongs to it.
        description: what it says about itself.
        parity: how far it is from torch; of a quantised model, how far the file is from which it was made.
        loss: what quantising cost, or None.
    """

    path: Path
    size: int
    description: Mapping[str, Any]
    parity: Parity
    loss: Loss | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user of the file should know of it, as sentences."""
        free = self.description["view"]["kind"] == "whole" and self.description["canvas"] is None
        shape = "the input has the shape of the picture" if free else None
        return tuple(note for note in (looks_once(self.description), shape, self._of_eight_bits()) if note is not None)

    def _of_eight_bits(self) -> str | None:
        if self.loss is None:
            return None
        if self.path.suffix not in (SUFFIXES[format] for format in QUANTISED):
            return "weights are stored in eight bits and computed with in single precision: smaller, not quicker"
        if has_eight_bit_products() is False:
            return (
                "this processor has no instructions for eight bits (VNNI): here the file is hardly quicker, if at all"
            )
        return None


def export_model(
    loaded: LoadedCheckpoint, path: str | Path, plan: Plan, name: str = "", tell: Tell = lambda text: None
) -> Report:
    """Write a model as one file (OpenVINO: two), after it was checked against torch on photographs.

    Args:
        loaded: the model and its metadata.
        path: the file, with the suffix of the format (`SUFFIXES`); one that is there is replaced.
        plan: what is wanted.
        name: of the model, for the file's description.
        tell: is told what happens.

    Raises:
        ParityError: the file would find something else than torch, or quantising costs too much; nothing is written.
        ValueError: ``plan`` cannot be followed, or a library is missing.
    """
    plan.check()
    path = Path(path)
    suffix = SUFFIXES[plan.format]
    if path.suffix.lower() != suffix:
        raise ValueError(f"a file of the format {plan.format} ends with {suffix}, and {path} does not")
    model = loaded.model
    canvas = canvas_of(model.view, plan.size, plan.dynamic)
    pictures = photographs(plan.photographs)
    least_side = LEAST_CELLS * model.view.stride if plan.format == "pt2" else 0
    description = describe(model, loaded.metadata, canvas, "float16" if plan.half else "float32", name, least_side)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        made = Path(folder) / f"model{suffix}"
        quantised = plan.int8 and plan.format in QUANTISED
        first = Path(folder) / ("single.onnx" if quantised else f"single{suffix}") if plan.int8 else made
        graph = pose_graph(model)
        tell(f"recording {name or 'the model'} as {plan.format}")
        if quantised:
            write_onnx(graph, canvas, first, description, spread=plan.format == "openvino")
        else:
            WRITERS[plan.format](graph, canvas, first, description)
        tell(f"comparing with torch on {len(pictures)} photographs")
        # what rounding the weights changes is wanted, and no fault of the file
        expected = cast(PoseModel, as_stored(graph, "float16")) if plan.half else model
        parity = check(ExportedModel(first), expected, pictures)
        loss = None
        if plan.int8:
            small = {**description, "weights": "int8"}
            if quantised:
                _quantise(first, made, small, plan, tell)
            else:
                WRITERS[plan.format](graph, canvas, made, small)
                check(ExportedModel(made), cast(PoseModel, as_stored(graph, "int8")), pictures)
            loss = _loss(first, made, plan, tell)
        description = ExportedModel(made).description
        size = _put(made, path)
    return Report(path, size, description, parity, loss)


def _quantise(first: Path, made: Path, description: Mapping[str, Any], plan: Plan, tell: Tell) -> None:
    """Make the quantised file out of the checked ONNX file."""
    assert plan.pictures is not None
    tell(f"calibrating with {len(plan.pictures)} pictures")
    if plan.format == "onnx":
        quantise(first, made, description, plan.pictures)
        return
    small = first.with_name("small.onnx")
    quantise(first, small, description, plan.pictures)
    onnx_to_openvino(small, made, description)


def _loss(first: Path, made: Path, plan: Plan, tell: Tell) -> Loss:
    """What eight bits cost, if that is tolerable."""
    assert plan.pictures is not None
    tell("measuring average precision before and after")
    loss = measure_loss(ExportedModel(first), ExportedModel(made), plan.pictures)
    if plan.pictures.annotations is not None:
        _tolerable(loss, plan.max_loss)
    return loss


def _tolerable(loss: Loss, most: float) -> None:
    """``ParityError`` if quantising cost more than ``most`` points of AP; NaN is more."""
    before, after = 100 * loss.before, 100 * loss.after
    if not before - after <= most:
        raise ParityError(
            f"int8 costs {before - after:.1f} points of AP ({before:.1f} before, {after:.1f} after; {loss.truth}), "
            f"more than the {most:g} of --max-loss; calibrate with more pictures, or leave int8 out"
        )


def _put(made: Path, path: Path) -> int:
    """Move the file, and what belongs to it, where it shall be, the main file last; their size in bytes."""
    total = 0
    parts = [made.with_suffix(".bin"), made] if made.suffix == ".xml" else [made]
    for part in parts:
        total += part.stat().st_size
        with replacing(path.with_suffix(part.suffix) if part is not made else path) as temporary:
            part.replace(temporary)
    return total


__all__ = ["ParityError", "Photograph", "Plan", "Report", "export_model"]
