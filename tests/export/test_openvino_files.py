"""What OpenVINO's files have beside the graph: an operator its reader lacks, and wishes for how layers are computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.export.openvino_files import before_large_maps, onnx_to_openvino
from poise.runtime import ExportedModel

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

Array = np.ndarray[Any, np.dtype[np.float32]]
RNG = np.random.default_rng(0)
WISH = "primitives_priority"


def noise(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def saved(path: Path, nodes: Sequence[Any], constants: dict[str, Array], inputs: dict[str, tuple[int, ...]]) -> Path:
    """An ONNX file of nodes, the last of which makes "y"."""
    single = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info(name, single, shape) for name, shape in inputs.items()],
        [onnx.helper.make_tensor_value_info("y", single, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def both(source: Path, feeds: dict[str, Array], weights: str = "float32") -> tuple[Array, Array, str]:
    """What onnxruntime makes of an ONNX file, OpenVINO of the files made of it, and the text of these."""
    target = source.with_suffix(".xml")
    onnx_to_openvino(source, target, {"weights": weights})
    compiled = openvino.Core().compile_model(str(target), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0], compiled(feeds)[0], target.read_text()


@pytest.mark.parametrize("bias", ["none", "zeros", "some"])
@pytest.mark.parametrize("masked", [False, True])
def test_deformable_convolutions_are_those_of_onnxruntime(bias: str, masked: bool, tmp_path: Path) -> None:
    feeds = {"x": noise(2, 16, 9, 7), "o": 2 * noise(2, 2 * 2 * 9, 5, 4)}
    constants = {"w": noise(8, 8, 3, 3)}
    names = ["x", "w", "o", "", ""]
    if bias != "none":
        constants["b"], names[3] = (noise(8) if bias == "some" else np.zeros(8, np.float32)), "b"
    if masked:
        feeds["m"], names[4] = noise(2, 2 * 9, 5, 4), "m"
    elif bias == "none":
        names = names[:3]
    node = onnx.helper.make_node(
        "DeformConv", names, ["y"], strides=[2, 2], pads=[1, 1, 1, 1], dilations=[1, 1], kernel_shape=[3, 3], group=2,
        offset_group=2,
    )  # fmt: skip
    path = saved(tmp_path / "d.onnx", [node], constants, {name: value.shape for name, value in feeds.items()})
    expected, found, _ = both(path, feeds)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("mode", [None, "linear", "nearest", "cubic"])
@pytest.mark.parametrize("corners", [None, 1])
def test_samples_of_grids_are_those_of_onnxruntime(mode: str | None, corners: int | None, tmp_path: Path) -> None:
    feeds = {"x": noise(2, 3, 9, 7), "g": RNG.uniform(-1.3, 1.3, (2, 5, 4, 2)).astype(np.float32)}
    given = {"mode": mode, "align_corners": corners, "padding_mode": "border" if corners else None}
    settings = {name: value for name, value in given.items() if value is not None}
    node = onnx.helper.make_node("GridSample", ["x", "g"], ["y"], **settings)
    path = saved(tmp_path / "g.onnx", [node], {}, {name: value.shape for name, value in feeds.items()})
    expected, found, _ = both(path, feeds)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def network(path: Path, side: int, expanded: int = 96) -> tuple[Path, tuple[int, ...]]:
    """Two blocks as of a MobileNetV2, a grouped and a plain convolution behind them."""
    channels = {"a": 16, "b": expanded, "c": expanded, "d": 24, "e": expanded, "f": expanded, "g": 24, "h": 16, "y": 6}
    groups = {"c": expanded, "f": expanded, "h": 8}
    strides = {"a": 2, "f": 2}
    nodes, constants, before, count = [], {}, "x", 3
    for name, many in channels.items():
        size = 3 if name in "acfhy" else 1
        group = groups.get(name, 1)
        constants[f"w{name}"] = noise(many, count // group, size, size) / (size * size * count / group) ** 0.5
        nodes.append(
            onnx.helper.make_node(
                "Conv", [before, f"w{name}"], [name], name=name, group=group, pads=[size // 2] * 4,
                strides=[strides.get(name, 1)] * 2,
            )
        )  # fmt: skip
        before, count = name, many
        if name in "bcef":
            nodes.append(onnx.helper.make_node("Relu", [before], [f"{name}r"]))
            before = f"{name}r"
    shape = (1, 3, side, side)
    return saved(path, nodes, constants, {"x": shape}), shape


def test_layouts_are_wished_for_up_to_the_last_large_maps(tmp_path: Path) -> None:
    path, shape = network(tmp_path / "n.onnx", 384)
    model = openvino.convert_model(str(path))
    assert before_large_maps(model) == {
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
        "g",
    }  # neither grouped convolutions nor those after
    expected, found, text = both(path, {"x": noise(*shape)})
    assert text.count(WISH) == 7
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("side", "weights"), [(96, "float32"), (384, "int8")])
def test_no_layouts_are_wished_for(side: int, weights: str, tmp_path: Path) -> None:
    path, shape = network(tmp_path / "n.onnx", side)
    expected, found, text = both(path, {"x": noise(*shape)}, weights)
    assert WISH not in text
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_does_not_fill_blocks_is_left_alone(tmp_path: Path) -> None:
    path, shape = network(tmp_path / "n.onnx", 384, expanded=100)
    assert before_large_maps(openvino.convert_model(str(path))) == {"a", "d", "g"}
    expected, found, _ = both(path, {"x": noise(*shape)})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_sizes_that_are_not_known_are_not_large(tmp_path: Path) -> None:
    path, _ = network(tmp_path / "n.onnx", 384)
    model = openvino.convert_model(str(path), input=[("x", [1, 3, -1, -1])])
    assert before_large_maps(model) == set()


def test_half_is_for_large_constants_that_lose_nothing(tmp_path: Path) -> None:
    exact, other, small = noise(32, 40), noise(40, 32), noise(32, 5)
    constants = {"exact": exact.astype(np.float16), "other": other, "small": small.astype(np.float16)}
    nodes = [
        onnx.helper.make_node("MatMul", [before, name], [after])
        for before, name, after in (("x", "exact", "a"), ("a", "other", "b"), ("b", "small", "y"))
    ]
    single = {name: value.astype(np.float32) for name, value in constants.items()}
    path = saved(tmp_path / "h.onnx", nodes, single, {"x": (3, 32)})
    expected, found, text = both(path, {"x": noise(3, 32)}, "float16")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert text.count('element_type="f16"') == 1
    assert path.with_suffix(".bin").stat().st_size < 2 * exact.size + 4 * (other.size + small.size) + 100


@pytest.mark.parametrize("version", ["2025.4.1-20426-82bbf0292c5", "2026.0.0", "2024.6"])
def test_an_old_openvino_is_refused(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2025.4 opens the files, and finds other scores."""
    monkeypatch.setattr(openvino, "__version__", version)
    (tmp_path / "a.xml").touch()
    with pytest.raises(ValueError, match=r"too old for these files: 2026\.1 or newer \(pip install -U openvino\)"):
        ExportedModel(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="too old"):
        onnx_to_openvino(tmp_path / "a.onnx", tmp_path / "b.xml", {"weights": "float32"})


@pytest.mark.parametrize("version", ["2026.1.0-20000-abc", "2026.10.0", "2027.0.0", "custom_build"])
def test_a_new_openvino_is_not(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets as far as reading the file, which is none."""
    monkeypatch.setattr(openvino, "__version__", version)
    (tmp_path / "a.xml").touch()
    with pytest.raises(ValueError, match="cannot be loaded"):
        ExportedModel(tmp_path / "a.xml")
