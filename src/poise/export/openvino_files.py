"""ONNX graphs as OpenVINO's files: an operator that its reader lacks, and layouts chosen for its processors.

Nothing here checks what a file computes: `poise.export.parity` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from poise.extras import needs
from poise.runtime import KEY, refuse_old_openvino

LARGE = 1024
"""Tensors with fewer values stay in single precision."""
LARGE_MAPS = 8 * 2**20
"""Bytes that a depthwise convolution reads and writes from which OpenVINO computes it with the one before it."""
BLOCK = 8
"""Channels that lie together in memory."""
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_AVX512 = (
    "brgconv_avx512_amx_1x1", "brgconv_avx512_amx", "jit_avx512_amx_dw", "jit_avx512_amx_1x1", "jit_avx512_amx",
    "brgconv_avx512_1x1", "brgconv_avx512", "jit_avx512_dw", "jit_avx512_1x1", "jit_avx512",
)  # fmt: skip
_IN_BLOCKS = ("jit_avx2_dw", "jit_avx2_1x1", "jit_avx2")
_WANTED = ",".join(f"cpu:{name}" for name in (*_AVX512, *_IN_BLOCKS))
"""Ways to compute a convolution, the best first: with AVX-512 those that OpenVINO would take anyway."""


def onnx_to_openvino(source: Path, path: Path, description: Mapping[str, Any]) -> None:
    """An ONNX file as ``.xml`` and ``.bin``.

    Args:
        source: that `poise.export.writers` or `poise.export.quantise` wrote.
        path: the ``.xml`` file.
        description: of `poise.export.description.describe`; its ``weights`` say whether they are stored in half.

    Raises:
        MissingLibraryError: a library of the extra ``export`` is missing.
        ValueError: OpenVINO is too old.
    """
    openvino = needs("openvino", "export", "exporting to OpenVINO")
    refuse_old_openvino(openvino.__version__)
    frontend = needs("openvino.frontend.onnx", "export", "exporting to OpenVINO")
    translations = {"DeformConv": _deformable_convolution, "GridSample": _grid_sample}
    extensions = [frontend.ConversionExtension(name, way) for name, way in translations.items()]
    model = openvino.convert_model(str(source), extension=extensions)
    if description["weights"] == "float16":
        _store_in_half(model)
    model.set_rt_info(json.dumps(description, allow_nan=False), KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    if description["weights"] != "int8":  # whose steps are all of the other kind
        _want(path, before_large_maps(model))


def _store_in_half(model: Any) -> None:
    """Make constants that lose nothing by it half precision, and single again when the file is opened; in place.

    OpenVINO's own way (``compress_to_fp16``) rounds what is small as well, as biases, which moves poses.
    """
    operators = needs("openvino.opset8", "export", "exporting to OpenVINO")
    for constant in [op for op in model.get_ops() if op.get_type_name() == "Constant"]:
        values = constant.data
        if values.dtype != np.float32 or values.ndim < 2 or values.size < LARGE:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            constant.output(0).replace(operators.convert(operators.constant(half), "f32").output(0))


def before_large_maps(model: Any) -> set[str]:
    """Names of the convolutions of an OpenVINO graph up to the last large maps of a depthwise one, and its readers.

    With AVX2 alone OpenVINO computes a pointwise and a depthwise convolution in one step where maps are large. That
    step holds channels in blocks of eight, and what lies before and after it would hold them last: each map would be
    copied there and back.
    """
    ends = [op for op in model.get_ordered_ops() if _is_depthwise(op) and _is_large(op)]
    if not ends:
        return set()
    waiting, seen = [ends[-1]], {ends[-1].get_friendly_name()}
    chosen = {reader.get_friendly_name() for reader in _next_convolutions(ends[-1]) if _fills_blocks(reader)}
    while waiting:
        op = waiting.pop()
        if _fills_blocks(op):
            chosen.add(op.get_friendly_name())
        for value in op.input_values():
            maker = value.get_node()
            if maker.get_friendly_name() not in seen:
                seen.add(maker.get_friendly_name())
                waiting.append(maker)
    return chosen


def _is_depthwise(op: Any) -> bool:
    """Whether it is a convolution of each channel alone."""
    return op.get_type_name() == "GroupConvolution" and tuple(op.input_value(1).get_shape()[1:3]) == (1, 1)


def _fills_blocks(op: Any) -> bool:
    """Whether it can be computed in blocks of channels: of the convolutions that cannot, some have no quick way."""
    plain = op.get_type_name() == "Convolution"
    return (plain or _is_depthwise(op)) and op.input_value(1).get_shape()[0] % BLOCK == 0


def _is_large(op: Any) -> bool:
    """Whether maps of one known size, at least one of them large, go through a convolution."""
    count = 0
    for shape in (op.input_value(0).get_partial_shape(), op.output(0).get_partial_shape()):
        if shape.is_dynamic:
            return False
        size = 4
        for side in shape.to_shape():
            size *= side
        count += size
    return count > LARGE_MAPS


def _next_convolutions(op: Any) -> list[Any]:
    """Convolutions that are reached from the output of one through no other."""
    found, waiting = [], [op]
    while waiting:
        for target in waiting.pop().output(0).get_target_inputs():
            reader = target.get_node()
            if reader.get_type_name() in _CONVOLUTIONS:
                found.append(reader)
            elif reader.get_output_size() == 1:
                waiting.append(reader)
    return found


def _want(path: Path, chosen: set[str]) -> None:
    """Say in a file how some of its layers are to be computed: OpenVINO reads that of files, not of graphs."""
    tree = ET.parse(path)  # noqa: S314 - written here, a moment ago
    for layer in tree.iter("layer"):
        if layer.get("name") in chosen and layer.get("type") in _CONVOLUTIONS:
            notes = layer.find("rt_info")
            if notes is None:
                notes = ET.Element("rt_info")
                layer.insert(1, notes)
            ET.SubElement(notes, "attribute", name="primitives_priority", version="0", value=_WANTED)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _deformable_convolution(node: Any) -> list[Any]:
    """ONNX's DeformConv in OpenVINO's operators."""
    operators = needs("openvino.opset8", "export", "exporting to OpenVINO")
    image, weight, offset = (node.get_input(place) for place in range(3))
    pads = node.get_attribute("pads")
    bias, mask = _given(node, 3), _given(node, 4)
    made = operators.deformable_convolution(
        image, offset, weight, node.get_attribute("strides"), pads[:2], pads[2:], node.get_attribute("dilations"),
        mask, auto_pad="EXPLICIT", group=node.get_attribute("group"),
        deformable_group=node.get_attribute("offset_group"), bilinear_interpolation_pad=True,
    )  # fmt: skip
    if bias is not None and not _is_zero(bias):
        made = operators.add(made, operators.reshape(bias, [1, -1, 1, 1], special_zero=False))
    return [made.output(0)]


def _grid_sample(node: Any) -> list[Any]:
    """ONNX's GridSample in OpenVINO's operators, whose reader did not know all names of modes up to version 2026.2."""
    operators = needs("openvino.opset9", "export", "exporting to OpenVINO")
    mode = node.get_attribute("mode", "linear")
    attributes = {
        "align_corners": bool(node.get_attribute("align_corners", 0)),
        "mode": {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        "padding_mode": node.get_attribute("padding_mode", "zeros"),
    }
    return [operators.grid_sample(node.get_input(0), node.get_input(1), attributes).output(0)]


def _given(node: Any, place: int) -> Any:
    """An input that may be left out, or None."""
    value = node.get_input(place) if place < node.get_input_size() else None
    return None if value is None or value.get_node().get_type_name() == "NullNode" else value


def _is_zero(value: Any) -> bool:
    """Whether an input is known to be zero: torch writes such a bias where there is none."""
    maker = value.get_node()
    return maker.get_type_name() == "Constant" and not maker.data.any()
