"""Writing graphs as files: ONNX, OpenVINO and torch's own formats.

Nothing here checks what a file computes: `poise.export.parity` does.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.parametrize import register_parametrization

from poise.export.description import Weights
from poise.export.graph import (
    CropGraph,
    CropPoses,
    WholeGraph,
    WholePoses,
    with_direct_pyramids,
    with_operator,
    with_spread_norms,
)
from poise.export.openvino_files import LARGE, onnx_to_openvino
from poise.extras import needs
from poise.runtime import KEY, Size

EXAMPLE_CELLS = (6, 8)
"""Rows and columns of strides in the example that a graph for any size is recorded with: no level has a side of 1."""
LEAST_CELLS = 5
"""Strides of a side with which no level has a side of 1: torch.export wants that promised, and ``pt2`` asks for it."""
MOST_CELLS = 512
MOST_PEOPLE = 4096
MOST_OF_EIGHT_BITS = 127
OPSET = 20
"""Version of ONNX's operators in the files."""

Graph = WholeGraph | CropGraph
Write = Callable[[Graph, Size | None, Path, Mapping[str, Any]], None]


def write_onnx(
    graph: Graph, canvas: Size | None, path: Path, description: Mapping[str, Any], spread: bool = False
) -> None:
    """One ``.onnx`` file with everything in it.

    Args:
        graph: of `poise.export.graph.pose_graph`.
        canvas: (height, width) of the input; None: any. The number of crops is always free.
        path: where it is written.
        description: of `poise.export.description.describe`; its ``weights`` say whether they are stored in half.
        spread: norms as OpenVINO likes them, see `poise.export.graph.SpreadGroupNorm`.

    Raises:
        MissingLibraryError: a library of the extra ``export`` is missing.
        ValueError: the libraries at hand cannot write it, or no operators of `OPSET`.
    """
    onnx = needs("onnx", "export", "exporting to ONNX")
    needs("onnxscript", "export", "exporting to ONNX")
    needs("onnxruntime", "export", "exporting to ONNX")
    proto = _simplified(_translated(graph, canvas, spread), onnx)
    written = [entry.version for entry in proto.opset_import if not entry.domain]
    if written != [OPSET]:  # a failed conversion is but logged
        raise ValueError(
            f"torch {torch.__version__} writes ONNX opset {written}, not {OPSET}: pip install -U torch onnxscript"
        )
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # lines of source code, a third of the file
        node.ClearField("doc_string")
    if description["weights"] == "float16":
        _store_in_half(proto.graph, onnx)
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(description, allow_nan=False)
    proto.producer_name, proto.producer_version = "poise", description["poise"]
    onnx.save(proto, str(path))


def _translated(graph: Graph, canvas: Size | None, spread: bool) -> Any:
    """The graph in ONNX's operators; arguments as `write_onnx`."""
    whole = isinstance(graph, WholeGraph)
    try:
        with _quiet():
            made = torch.onnx.export(
                recorded(with_operator(with_spread_norms(graph) if spread else graph), canvas),
                opset_version=OPSET,
                dynamo=True,
                optimize=False,  # slow; `_simplified` does more
                input_names=("image", "size", "to_image") if whole else ("image", "to_image", "box_scores"),
                output_names=WholePoses._fields if whole else CropPoses._fields,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        what, way = ("an input of any size", "name a --size, or ") if whole and canvas is None else ("this model", "")
        raise ValueError(f"torch {torch.__version__} cannot write {what} as ONNX: {way}pip install -U torch") from error
    assert made is not None
    return made.model_proto


def write_openvino(graph: Graph, canvas: Size | None, path: Path, description: Mapping[str, Any]) -> None:
    """An ``.xml`` file, and the weights in a ``.bin`` file beside it; arguments and errors as `write_onnx`."""
    needs("openvino", "export", "exporting to OpenVINO")
    if canvas is not None and description["weights"] == "float32":  # rounded are the weights that the model has
        graph = with_direct_pyramids(graph)
    between = path.with_suffix(".onnx")
    write_onnx(graph, canvas, between, description, spread=True)
    onnx_to_openvino(between, path, description)
    between.unlink()


def write_pt2(graph: Graph, canvas: Size | None, path: Path, description: Mapping[str, Any]) -> None:
    """One ``.pt2`` file for ``torch.export.load``; it needs torchvision's operators. Arguments as `write_onnx`."""
    with _quiet():
        text = json.dumps(description, allow_nan=False)
        torch.export.save(recorded(graph, canvas, description["weights"]), str(path), extra_files={KEY: text})


def write_torchscript(graph: Graph, canvas: Size | None, path: Path, description: Mapping[str, Any]) -> None:
    """One ``.torchscript`` file for ``torch.jit.load``; it needs torchvision's operators. Arguments as `write_onnx`."""
    with _quiet(), torch.no_grad():
        traced = torch.jit.trace(_plain(graph, description["weights"]), _example(graph, canvas), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={KEY: json.dumps(description, allow_nan=False)})


WRITERS: dict[str, Write] = {
    "onnx": write_onnx, "openvino": write_openvino, "torchscript": write_torchscript, "pt2": write_pt2,
}  # fmt: skip
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript", "pt2": ".pt2"}
"""Of the file of each format."""


def recorded(graph: Graph, canvas: Size | None, weights: Weights = "float32") -> ExportedProgram:
    """The graph without Python in it: it is run once, and what it did is kept.

    Args:
        graph: as `write_onnx`.
        canvas: as `write_onnx`.
        weights: how large filters and matrices are kept, see `as_stored`.
    """
    shapes: Any = (None, None, None)
    if isinstance(graph, CropGraph):
        people = {0: Dim("people", min=1, max=MOST_PEOPLE)}
        shapes = people, people, people
    elif canvas is None:
        stride = graph.model.view.stride
        rows, columns = (Dim(name, min=LEAST_CELLS, max=MOST_CELLS) for name in ("rows", "columns"))
        shapes = {1: stride * rows, 2: stride * columns}, None, None
    with _quiet():
        module, example = _plain(graph, weights), _example(graph, canvas)
        return torch.export.export(module, example, dynamic_shapes=(shapes,), strict=False)


def _plain(graph: Graph, weights: Weights) -> _Plain:
    return _Plain(graph if weights == "float32" else _stored(graph, weights))


class _Plain(nn.Module):
    """A graph whose results are a plain tuple: files know no classes of Poise."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.finder = graph  # a recorded module has a graph of its own

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """As the graph's."""
        return tuple(self.finder(*arguments))


class _Single(nn.Module):
    """Weights in half precision as the layers want them."""

    def forward(self, half: Tensor) -> Tensor:
        """In single precision."""
        return half.float()


class _Scaled(nn.Module):
    """Weights of eight bits as the layers want them.

    Args:
        scale: (O, 1, ...) one for each output channel.
    """

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.scale: Tensor

    def forward(self, whole: Tensor) -> Tensor:
        """In single precision."""
        return whole.float() * self.scale


def _stored(graph: Graph, weights: Weights) -> Graph:
    """A copy whose large filters and matrices are kept small, and made single precision again whenever it runs."""
    graph = copy.deepcopy(graph)
    for module in list(graph.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            small = _small(weight, weights)
            if small is not None:
                weight.data, way_back = small
                register_parametrization(module, name, way_back, unsafe=True)
    return graph


def _small(weight: Tensor, weights: Weights) -> tuple[Tensor, nn.Module] | None:
    """How a large filter or matrix is kept, and the way back; None if it is not large, or cannot be kept so."""
    weight = weight.detach()
    if weight.dtype != torch.float32 or weight.ndim < 2 or weight.numel() < LARGE:
        return None
    if weights == "float16":
        half = weight.half()
        return (half, _Single()) if half.isfinite().all() else None
    if not weight.isfinite().all():
        return None
    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / MOST_OF_EIGHT_BITS
    return (weight / scale).round().to(torch.int8), _Scaled(scale)


def as_stored(graph: Graph, weights: Weights) -> nn.Module:
    """A copy of the graph's model, in single precision, with the weights that one of torch's files has.

    Args:
        graph: of `poise.export.graph.pose_graph`.
        weights: "float16", or "int8": whole numbers of eight bits, with a scale for each output channel.
    """
    model = copy.deepcopy(graph.model)
    for weight in model.parameters():
        small = _small(weight, weights)
        if small is not None:
            kept, way_back = small
            weight.data = way_back(kept)
    return model


def _example(graph: Graph, canvas: Size | None) -> tuple[Tensor, ...]:
    """Arguments to run a graph with."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(graph, CropGraph):
        size = graph.model.view.size
        assert size is not None
        image = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8, generator=generator)
        return image, torch.eye(2, 3).repeat(3, 1, 1), torch.ones(3)
    stride = graph.model.view.stride
    height, width = canvas or (EXAMPLE_CELLS[0] * stride, EXAMPLE_CELLS[1] * stride)
    image = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)
    return image, torch.tensor([height, width]), torch.eye(2, 3)


def _simplified(proto: Any, onnx: Any) -> Any:
    """The same graph with what is constant computed, and what is computed twice computed once: half of the nodes.

    Runtimes do that, too, whenever they open a file, but leave more behind. The operators stay those of ONNX.
    """
    runtime = needs("onnxruntime", "export", "exporting to ONNX")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        options.optimized_model_filepath = str(file)
        runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        simple = onnx.load(str(file))
    domains = {node.domain for node in simple.graph.node}
    opsets = [opset for opset in simple.opset_import if opset.domain in domains]
    del simple.opset_import[:]
    simple.opset_import.extend(opsets)
    return simple


def _store_in_half(graph: Any, onnx: Any) -> None:
    """Filters and matrices of an ONNX graph become float16, and are made float32 again when they are used.

    Runtimes do that once, when they load the file: it is half as large, and computes in single precision.
    """
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < LARGE:
            continue
        with np.errstate(over="ignore"):
            smaller = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(smaller).all():
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(smaller, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and notes of exporters about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
