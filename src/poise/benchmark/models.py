"""A model ready to be measured: its tasks at any size and with any number of people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from poise.benchmark.clock import Task
from poise.benchmark.counting import predicted_macs
from poise.benchmark.pictures import crowd, write_picture
from poise.benchmark.subjects import PER_PERSON, Subject, class_bias, set_class_bias, spread_classes
from poise.benchmark.tasks import CropTask, ExportedTask, Scene, WholeTask
from poise.data.images import read_image
from poise.data.views import collate, whole_view
from poise.geometry.affine import fit
from poise.predict.boxes import Boxes
from poise.predict.devices import Running
from poise.predict.predictor import MIN_SCORE, Predictor
from poise.predict.topdown import TopDownPredictor
from poise.predict.views import scaled, scaled_specs
from poise.runtime import ExportedModel
from poise.skeletons import Skeleton
from poise.types import ViewSpec

Size = tuple[int, int]
"""(height, width)."""
PICTURE: Size = (480, 640)
"""Of pictures, if no size is asked for."""
PEOPLE = 5
"""In a picture, if their number is not what is measured."""


class Bench:
    """A model, what it runs on, and the pictures it is shown.

    Args:
        subject: the model.
        how: where and how it runs.
        folder: for pictures.
        size: (height, width) of pictures and of the network's input; None: pictures of `PICTURE`, which the model sees
            at its own sizes.
        once: look at the first of several sizes only, as exported files do.

    Attributes:
        subject: as given.
        predictor: runs the model.

    Raises:
        ValueError: a size is given for a model of crops, or is out of bounds.
    """

    def __init__(
        self, subject: Subject, how: Running, folder: Path, size: Size | None = None, *, once: bool = False
    ) -> None:
        self.subject, self._folder = subject, folder
        self._picture, self._macs = size or PICTURE, dict[Size, int]()
        view = subject.model.view
        options: dict[str, Any] = {"half": how.half, "compile": how.compiled}
        self.predictor: Predictor | TopDownPredictor
        if subject.sees_people:
            if size is not None:
                raise ValueError(f"{subject.name} looks at crops; a size is for models of whole pictures")
            self._specs = [view]
            nobody = Boxes({}, where="the benchmark")
            self.predictor = TopDownPredictor(subject.model, nobody, how.device, subject.metadata, **options)
            return
        self._specs = [view if size is None else scaled(view, (max(size), min(size)))]
        if not subject.trained:
            spread_classes(subject.model, self._images(PEOPLE, self._specs[0]))
        self.predictor = Predictor(subject.model, how.device, subject.metadata, **options)
        if size is None:
            self._specs = scaled_specs(view, self.predictor.scales)[: 1 if once else None]

    def task(self, copies: int = 1, people: int = PEOPLE, scale: float = 1.0) -> Task:
        """What is measured.

        Args:
            copies: pictures that run together; of a model of crops, people.
            people: in the picture; a model of crops looks at ``copies`` of them instead.
            scale: factor of the sides of the input.
        """
        if isinstance(self.predictor, TopDownPredictor):
            return CropTask(self.predictor, self._scene(copies))
        specs = [_scaled(spec, scale) for spec in self._specs]
        bias = None
        if not self.subject.trained:
            images = self._images(people, specs[0]).to(self.predictor.device)
            bias = class_bias(self.predictor.model, images, PER_PERSON * people)
        return WholeTask(self.predictor, self._scene(people, copies), specs, bias)

    def exported(self, runtime: str, copies: int = 1, threads: int = 0) -> Task:
        """The same as `task`, run by another runtime with the decoding in the graph; its file is written first.

        Args:
            runtime: ``onnx`` or ``openvino``.
            copies: as `task`; pictures run one after the other, as exported files of whole pictures have them.
            threads: of the processor; 0 lets the runtime decide.

        Raises:
            MissingLibraryError: a library of the extra ``export`` is missing.
        """
        from poise.export.description import describe
        from poise.export.graph import pose_graph
        from poise.export.writers import SUFFIXES, WRITERS

        model = self.subject.model
        path = self._folder / f"{re.sub(r'[^0-9A-Za-z]+', '_', self.subject.name)}{SUFFIXES[runtime]}"
        if not path.is_file():
            if not self.subject.trained and not self.subject.sees_people:
                set_class_bias(model, class_bias(model, self._images(PEOPLE, self._specs[0]), PER_PERSON * PEOPLE))
            canvas = None if self.subject.sees_people else self.input_sizes()[0]
            description = describe(model, self.subject.metadata, canvas, "float32", self.subject.name)
            description["view"] = self._specs[0].model_dump(mode="json")
            WRITERS[runtime](pose_graph(model), canvas, path, description)
        device = "cuda" if self.predictor.device.type == "cuda" and runtime == "onnx" else "cpu"
        scene = self._scene(copies) if self.subject.sees_people else self._scene(PEOPLE, copies)
        least = self.predictor.min_score if self.subject.trained else 0.0
        return ExportedTask(ExportedModel(path, device, threads), scene, model.skeleton, least)

    def input_sizes(self, scale: float = 1.0) -> tuple[Size, ...]:
        """(height, width) of the network's input, each time it looks at a picture."""
        return tuple(self._input_size(_scaled(spec, scale)) for spec in self._specs)

    def macs(self, copies: int = 1, scale: float = 1.0) -> int:
        """Multiply-adds of a turn of `task`."""
        sizes = self.input_sizes(scale)
        for size in set(sizes) - set(self._macs):
            self._macs[size] = predicted_macs(self.subject.model, size)
        return copies * sum(self._macs[size] for size in sizes)

    def _scene(self, people: int, copies: int = 1) -> Scene:
        return Scene(picture_file(self._folder, people, self._picture), crowd(people, self._picture), copies)

    def _input_size(self, spec: ViewSpec) -> Size:
        if spec.size is not None:
            return spec.size
        _, (height, width) = fit(self._picture, spec)
        return -(-height // spec.stride) * spec.stride, -(-width // spec.stride) * spec.stride

    def _images(self, people: int, spec: ViewSpec) -> torch.Tensor:
        view = whole_view(read_image(picture_file(self._folder, people, self._picture)), spec)
        return collate([view], spec.stride).images


class FileBench:
    """A file that ``poise export`` wrote: what is not in it, such as the number of its multiply-adds, is not known.

    Args:
        path: the file.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of the processor; 0 lets the runtime decide.
        folder: for pictures.
        size: (height, width) of the pictures; None: `PICTURE`.

    Attributes:
        name: of the file.
        runtime: what runs it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be used.
    """

    def __init__(self, path: str, device: str, threads: int, folder: Path, size: Size | None = None) -> None:
        self.name, self._folder, self._picture = path, folder, size or PICTURE
        self._exported = ExportedModel(path, device, threads)
        self.runtime = self._exported.running
        description = self._exported.description
        self._skeleton = Skeleton.from_dict(description["skeleton"])
        least = description["min_score"]
        everybody = 0.0 if self.sees_people else MIN_SCORE  # who is in a box is drawn
        self._least = everybody if least is None else float(least)

    @property
    def sees_people(self) -> bool:
        """Whether it looks at one person at a time."""
        return self._exported.looks_at_people

    def task(self, copies: int = 1, people: int = PEOPLE) -> Task:
        """As `Bench.task`."""
        people, copies = (copies, 1) if self.sees_people else (people, copies)
        scene = Scene(picture_file(self._folder, people, self._picture), crowd(people, self._picture), copies)
        return ExportedTask(self._exported, scene, self._skeleton, self._least)

    def input_sizes(self) -> tuple[Size, ...]:
        """(height, width) of the network's input for such a picture, at which it looks once."""
        fixed = self._exported.description["view"]["size"] if self.sees_people else None
        feeds = {} if self.sees_people else self._exported.whole_feeds(crowd(0, self._picture).image)
        height, width = fixed or feeds["image"].shape[1:3]
        return ((int(height), int(width)),)


def _scaled(spec: ViewSpec, scale: float) -> ViewSpec:
    if scale == 1.0:
        return spec
    sides = spec.long_side, spec.short_side or spec.long_side
    return scaled(spec, (max(32, round(sides[0] * scale)), max(32, round(sides[1] * scale))))


def picture_file(folder: Path, people: int, size: Size) -> Path:
    """The file of the picture of that (height, width) with so many people; it is made if it is not there."""
    path = folder / f"{people}_{size[0]}x{size[1]}.jpg"
    return path if path.is_file() else write_picture(crowd(people, size).image, path)
