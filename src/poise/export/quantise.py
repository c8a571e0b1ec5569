"""Convolutions with whole numbers of eight bits: ranges read off pictures, and what that costs.

Frame: image px.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poise.data.images import read_image
from poise.evaluate.coco import evaluate_keypoints, read_truth
from poise.evaluate.model import category_of_results
from poise.extras import needs
from poise.predict.exported import ExportedPredictor
from poise.predict.people import People
from poise.predict.sources import Named, find_pictures
from poise.runtime import CROPS_AT_ONCE, KEY, Array, ExportedModel
from poise.types import Poses

EIGHT_BIT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
"""What Linux calls such instructions, of x86 and of ARM."""
MOST_PICTURES = 100
"""Pictures that ranges are read off; more hardly change them."""


_WEIGHTED = ("Conv", "DeformConv", "Gemm", "MatMul")
_UNROUNDED = ("Clip", "Gather", "ReduceMean", "Relu", "Reshape", "Sub", "Transpose")
"""What reads a convolution's own values: activations, whose result is rounded again anyway, norms, and gathering."""


def has_eight_bit_products(told: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether this processor multiplies and adds eight bits in one step; None where the system does not tell."""
    try:
        text = told.read_text(encoding="utf-8")
    except OSError:
        return None
    marks = {word for line in text.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return bool(marks & EIGHT_BIT_PRODUCTS) if marks else None


class Loss(NamedTuple):
    """What quantising cost."""

    before: float
    """Average precision (0..1) of the model in single precision."""
    after: float
    """Of the quantised model."""
    truth: str
    """What both were compared with."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a model is quantised with.

    Attributes:
        paths: the pictures.
        annotations: COCO keypoint file that lists some of them, to measure with; None: the poses that the model in
            single precision finds are taken for the truth.
        people: for a model that looks at one person at a time: where the people are.
    """

    paths: tuple[Path, ...]
    annotations: Path | None = None
    people: People | None = None

    @staticmethod
    def of(folder: Path, annotations: Path | None = None, people: People | None = None) -> Pictures:
        """The pictures of a folder, at most `MOST_PICTURES`, taken evenly.

        Raises:
            FileNotFoundError: there is no such folder, or no such file.
            ValueError: the folder has no pictures.
        """
        if annotations is not None and not annotations.is_file():
            raise FileNotFoundError(f"annotation file {annotations} does not exist")
        found = find_pictures(folder)
        step = max(1, len(found) / MOST_PICTURES)
        return Pictures(tuple(found[int(i * step)] for i in range(int(len(found) / step))), annotations, people)

    def __len__(self) -> int:
        """How many."""
        return len(self.paths)


def quantise(source: Path, target: Path, description: Mapping[str, Any], pictures: Pictures) -> None:
    """Write an ONNX file whose convolutions work with eight bits.

    Filters have a scale for each channel, and seven of the eight bits: processors without instructions for eight bits
    (VNNI) add two products in sixteen, which would overflow. What lies between convolutions has a scale for each
    tensor, from the smallest and largest value seen. Everything else, from the candidates on, stays in single
    precision.

    Args:
        source: ONNX file that `poise.export.writers` wrote, in single precision.
        target: the new one.
        description: what it says about itself.
        pictures: like those that the model will see.

    Raises:
        ValueError: a picture cannot be read, or nobody is there to look at.
    """
    onnx = needs("onnx", "export", "quantising")
    tools = needs("onnxruntime.quantization", "export", "quantising")
    with _silent():
        tools.quantize_static(
            str(source), str(target), _Reader(ExportedModel(source), pictures), quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"], per_channel=True, reduce_range=True, weight_type=tools.QuantType.QInt8,
            activation_type=tools.QuantType.QUInt8, nodes_to_exclude=last_convolutions(onnx.load(str(source)).graph),
        )  # fmt: skip
    proto = onnx.load(str(target))
    read_unrounded(proto.graph)
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(dict(description), allow_nan=False)
    onnx.save(proto, str(target))


def last_convolutions(graph: Any) -> list[str]:
    """Names of the convolutions of an ONNX graph whose values are coordinates or logits: eight bits are too few.

    From those no way leads to another convolution, or one leads to what the graph returns through no other layer with
    weights: poses that a later layer refines are part of what it returns.
    """
    reaches: dict[str, bool] = {}  # tensor -> whether a convolution is behind it
    returned = {output.name for output in graph.output}  # tensors from which a way without weights leads there
    last = []
    for node in reversed(graph.node):
        behind = any(reaches.get(name, False) for name in node.output)
        direct = any(name in returned for name in node.output)
        if node.op_type == "Conv" and (direct or not behind):
            last.append(node.name)
        for name in node.input:
            reaches[name] = reaches.get(name, False) or behind or node.op_type == "Conv"
        if direct and node.op_type not in _WEIGHTED:
            returned.update(node.input)
    return last


def read_unrounded(graph: Any) -> None:
    """Let some layers of a quantised ONNX graph read what was there before it was rounded for a convolution; in place.

    The quantiser rounds a tensor for all that read it. Rounding once less is more exact, and no slower: convolutions
    compute activations themselves.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    before = {}
    for node in graph.node:
        rounding = made_by.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if rounding is not None and rounding.op_type == "QuantizeLinear":
            before[node.output[0]] = rounding.input[0]
    for node in graph.node:
        if node.op_type in _UNROUNDED:
            for place, name in enumerate(node.input):
                node.input[place] = before.get(name, name)
    returned = {output.name for output in graph.output}
    while True:
        read = returned.union(*(node.input for node in graph.node))
        unread = [node for node in graph.node if read.isdisjoint(node.output)]
        if not unread:
            return
        for node in unread:
            graph.node.remove(node)


class _Reader:
    """Inputs of a graph, one after the other, as the quantiser wants to be given them."""

    def __init__(self, exported: ExportedModel, pictures: Pictures) -> None:
        self._feeds = _feeds(exported, pictures)
        first = next(self._feeds, None)
        if first is None:
            raise ValueError("nobody is in the pictures to calibrate with; name others, or tell where people are")
        self._first: dict[str, Array] | None = first

    def get_next(self) -> dict[str, Array] | None:
        """The next ones; None at the end."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return next(self._feeds, None)


def _feeds(exported: ExportedModel, pictures: Pictures) -> Iterator[dict[str, Array]]:
    if pictures.people is None:
        for path in pictures.paths:
            yield exported.whole_feeds(read_image(path))
        return
    for image, _, people in pictures.people.find(pictures.paths):
        if len(people.boxes):
            some = slice(0, CROPS_AT_ONCE)
            yield exported.crop_feeds(image, people.boxes[some], people.scores[some])


def measure_loss(before: ExportedModel, after: ExportedModel, pictures: Pictures) -> Loss:
    """Average precision before and after quantising; arguments as `quantise`."""
    first, second = (ExportedPredictor(model, pictures.people) for model in (before, after))
    if pictures.annotations is not None:
        truth = _seen_of(read_truth(pictures.annotations), pictures.paths)
        by_name = {path.name: path for path in pictures.paths}
        named = [(image["id"], by_name[Path(image["file_name"]).name]) for image in truth["images"]]
        if not any(entry.get("num_keypoints", 1) for entry in truth["annotations"]):
            raise ValueError(f"{pictures.annotations} has nobody with keypoints in the pictures to calibrate with")
        told = f"{pictures.annotations}, {len(named)} pictures"
        results = [_results(model, named, category_of_results(truth)) for model in (first, second)]
    else:
        named = list(enumerate(pictures.paths))
        truth = _own_truth(first, named)
        told = f"the poses in single precision, {len(named)} pictures"
        results = [_results(model, named, 1) for model in (first, second)]
    numbers = [evaluate_keypoints(truth, found, first.skeleton)["AP"] for found in results]
    return Loss(numbers[0], numbers[1], told)


def _seen_of(truth: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """The part of annotations that is about pictures at hand.

    Raises:
        ValueError: none is.
    """
    names = {path.name for path in paths}
    images = [image for image in truth["images"] if Path(str(image.get("file_name", ""))).name in names]
    if not images:
        raise ValueError("the annotations list none of the pictures to calibrate with")
    ids = {image["id"] for image in images}
    return {**truth, "images": images, "annotations": [a for a in truth["annotations"] if a["image_id"] in ids]}


def _results(predictor: ExportedPredictor, pictures: Sequence[tuple[Any, Path]], category: int) -> list[dict[str, Any]]:
    found = predictor.predict_iter((Named(path, path.name) for _, path in pictures), min_score=0.0)
    return [entry for (key, _), poses in zip(pictures, found, strict=True) for entry in poses.to_coco(key, category)]


def _own_truth(predictor: ExportedPredictor, pictures: Sequence[tuple[Any, Path]]) -> dict[str, Any]:
    """The poses that users would be shown, as annotations."""
    skeleton = predictor.skeleton
    found = predictor.predict(Named(path, path.name) for _, path in pictures)
    annotations = [a for (key, _), poses in zip(pictures, found, strict=True) for a in _annotations(poses, key)]
    if not annotations:
        raise ValueError("the model finds nobody in the pictures to calibrate with; name others")
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.keypoints), "skeleton": []}
    return {"images": [{"id": key} for key, _ in pictures], "annotations": annotations, "categories": [category]}


def _annotations(poses: Poses, key: Any) -> list[dict[str, Any]]:
    entries = []
    for keypoints, box in zip(poses.keypoints, poses.boxes, strict=True):
        width, height = box[2:] - box[:2]
        triples = np.concatenate([keypoints, np.full_like(keypoints[:, :1], 2)], 1)
        entries.append({
            "image_id": key, "category_id": 1, "iscrowd": 0, "keypoints": triples.reshape(-1).tolist(),
            "num_keypoints": len(keypoints), "bbox": [float(box[0]), float(box[1]), float(width), float(height)],
            "area": float(width * height),
        })  # fmt: skip
    return entries


@contextmanager
def _silent() -> Iterator[None]:
    """Without the notes of the quantiser, which it gives to everybody's logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
