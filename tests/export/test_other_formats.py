"""Formats beside ONNX, smaller weights, and the model that comes with Poise."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SYSTEMS, loaded, noise, small_model, three_photos
from typer.testing import CliRunner

from poise.checkpoints import LoadedCheckpoint, save_checkpoint
from poise.cli.main import app
from poise.data.images import read_image
from poise.export.exporting import Plan, export_model
from poise.export.graph import pose_graph
from poise.export.quantise import Pictures, has_eight_bit_products, last_convolutions, read_unrounded
from poise.export.writers import LARGE, MOST_OF_EIGHT_BITS, SUFFIXES, as_stored
from poise.geometry.affine import fit
from poise.predict.boxes import Boxes, PersonBoxes
from poise.predict.people import People
from poise.runtime import KEPT_GRAPHS, ExportedModel
from poise.zoo import DEFAULT, shipped

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_photos(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize(
    ("suffix", "system"),
    [
        *(("torchscript", system) for system in SYSTEMS),
        pytest.param("pt2", "directpose", marks=pytest.mark.slow),
        pytest.param("pt2", "smpr", marks=pytest.mark.slow),
        ("pt2", "rsn"),
    ],
)
def test_files_for_torch(system: str, suffix: str, photos: Path, tmp_path: Path) -> None:
    report = export_model(loaded(system), tmp_path / f"a.{suffix}", Plan(suffix, photographs=photos))
    assert report.parity.poses >= 2
    assert report.parity.keypoints < 0.01
    assert ExportedModel(report.path, threads=1).description["system"] == system


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_openvino(system: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    report = export_model(loaded(system), tmp_path / "a.xml", Plan("openvino", photographs=photos))
    assert report.parity.poses >= 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    assert report.size == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert report.parity.boxes < 0.1
    with pytest.raises(ValueError, match="CUDA"):
        ExportedModel(report.path, "cuda")


def test_compiled_graphs_are_kept(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    cache = tmp_path / "cache"
    path = export_model(loaded("rsn"), tmp_path / "a.xml", Plan("openvino", photographs=photos)).path
    assert not cache.exists()
    monkeypatch.setenv("POISE_CACHE", str(cache))
    image = np.random.default_rng(0).integers(0, 255, (120, 140, 3), np.uint8)
    boxes = PersonBoxes.of([[10, 10, 100, 110]], [1.0])
    first = ExportedModel(path).find(image, boxes.boxes, boxes.scores)
    for damage in (False, True):
        (blob,) = cache.glob("openvino/*.blob")
        if damage:
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes()[:1000])
        again = ExportedModel(path).find(image, boxes.boxes, boxes.scores)
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
    for number in range(KEPT_GRAPHS + 3):
        (cache / "openvino" / f"{number}.blob").touch()
    ExportedModel(path)
    assert len(list(cache.glob("openvino/*.blob"))) <= KEPT_GRAPHS + 1
    monkeypatch.setenv("POISE_CACHE", str(path))  # a file: nothing can be kept there
    ExportedModel(path)


def test_threads_share_no_results(photos: Path, tmp_path: Path) -> None:
    """OpenVINO's results lie where the next request puts its own."""
    pytest.importorskip("openvino")
    model = ExportedModel(export_model(loaded("rsn"), tmp_path / "a.xml", Plan("openvino", photographs=photos)).path)
    images = [np.random.default_rng(n).integers(0, 255, (120, 140, 3), np.uint8) for n in range(4)]
    box = PersonBoxes.of([[10, 10, 100, 110]], [1.0])
    alone = [model.find(image, box.boxes, box.scores).keypoints for image in images]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = list(pool.map(lambda image: model.find(image, box.boxes, box.scores).keypoints, images))
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one, other)


def test_activations_and_gathering_read_what_was_not_rounded() -> None:
    helper = onnx_helper()
    node = helper.make_node

    def rounded(name: str) -> list[Any]:
        return [
            node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]),
            node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_d"]),
        ]

    graph = helper.make_graph(
        [
            *rounded("image"), node("Conv", ["image_d", "w"], ["a"]),
            *rounded("a"), node("Clip", ["a_d"], ["b"]),
            *rounded("b"), node("Conv", ["b_d", "w"], ["c"]), node("Transpose", ["b_d"], ["out"]),
            *rounded("c"), node("Add", ["c_d", "b_d"], ["sum"]),
            node("DequantizeLinear", ["stored", "s", "z"], ["w"]),
        ],
        "g", [], [helper.make_tensor_value_info(name, 1, None) for name in ("sum", "out")],
    )  # fmt: skip
    read_unrounded(graph)
    reads = {node.output[0]: list(node.input) for node in graph.node}
    assert reads["b"] == ["a"]
    assert reads["out"] == ["b"]
    assert reads["c"] == ["b_d", "w"]
    assert reads["sum"] == ["c_d", "b_d"]
    assert reads["w"] == ["stored", "s", "z"]
    assert not {"a_q", "a_d"} & set(reads)  # nobody reads it
    assert {"image_q", "image_d", "b_q", "b_d", "c_q", "c_d"} <= set(reads)


def test_coordinates_that_a_later_layer_refines_keep_their_precision() -> None:
    """An initial pose is moved by a step, and steers the sampling of a deformable convolution, as SMPR's."""
    node = onnx_helper().make_node
    graph = onnx_helper().make_graph(
        [
            node("Conv", ["image", "w"], ["features"], name="trunk"),
            node("Conv", ["features", "w"], ["initial"], name="initial"),
            node("Sigmoid", ["initial"], ["offsets"]),
            node("Conv", ["offsets", "w"], ["step"], name="step"),
            node("Conv", ["features", "w"], ["tower"], name="tower"),
            node("MatMul", ["tower", "v"], ["score"]),
            node("Conv", ["features", "w"], ["hidden"], name="hidden"),
            node("Conv", ["hidden", "w"], ["heatmaps"], name="heatmaps"),
            node("Add", ["initial", "step"], ["pose"]),
            node("Mul", ["pose", "heatmaps"], ["keypoints"]),
        ],
        "g", [], [onnx_helper().make_empty_tensor_value_info(name) for name in ("keypoints", "score")],
    )  # fmt: skip
    assert sorted(last_convolutions(graph)) == ["heatmaps", "initial", "step", "tower"]


def onnx_helper() -> Any:
    return pytest.importorskip("onnx").helper


def people(photos: Path) -> People:
    """Boxes by name; the numbers are those of another data set."""
    box = PersonBoxes.of([[10, 10, 100, 120], [30, 0, 120, 140]], [1.0, 0.8])
    return Boxes(dict.fromkeys((139, 285, 1000), box), {139: "2.png", 285: "0.png", 1000: "1.png"})


@pytest.mark.parametrize("system", [pytest.param("directpose", marks=pytest.mark.slow), "rsn"])
def test_eight_bits(system: str, photos: Path, tmp_path: Path) -> None:
    import onnx

    source = people(photos) if system == "rsn" else None
    pictures = Pictures.of(photos, people=source)
    assert len(pictures) == 3
    plan = Plan(int8=True, pictures=pictures, photographs=photos)
    report = export_model(loaded(system, min_score=0.05), tmp_path / "a.onnx", plan)
    loss = report.loss
    assert loss is not None
    assert 0 <= loss.after <= loss.before <= 1
    assert loss.before > 0.1
    assert report.description["weights"] == "int8"
    graph = onnx.load(str(report.path)).graph
    types = [node.op_type for node in graph.node]
    assert types.count("QuantizeLinear") > 5
    filters = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    largest = [int(np.abs(f.astype(int)).max()) for f in filters if f.ndim == 4]
    assert len(largest) > 5
    assert max(largest) in {63, 64}, "two products of eight bits must not overflow sixteen"
    assert set(largest) <= {0, 63, 64}, "each filter uses the whole range, but for one of zeros"
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    found = ExportedModel(report.path)
    assert found.description["system"] == system


def test_pictures_to_calibrate_with(photos: Path, tmp_path: Path) -> None:
    assert len(Pictures.of(photos)) == 3
    with pytest.raises(FileNotFoundError):
        Pictures.of(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="annotation file"):
        Pictures.of(photos, tmp_path / "nowhere.json")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.slow
def test_half_is_half_as_large(format: str, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    sizes = []
    for half in (False, True):
        plan = Plan(format, half=half, photographs=photos)
        report = export_model(loaded("rsn"), tmp_path / f"a{SUFFIXES[format]}", plan)
        sizes.append(report.size)
    assert report.parity.scores < 1e-5
    assert sizes[1] < 0.75 * sizes[0]  # a small model: a good part is the graph


@pytest.mark.parametrize(
    ("suffix", "system"),
    [
        ("torchscript", "rsn"),
        pytest.param("torchscript", "smpr", marks=pytest.mark.slow),
        pytest.param("pt2", "smpr", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
def test_half_for_torch(suffix: str, system: str, photos: Path, tmp_path: Path) -> None:
    """Of a small model's file the graph is the larger part, so what is stored is looked at."""
    source = loaded(system)
    report = export_model(source, tmp_path / f"a.{suffix}", Plan(suffix, half=True, photographs=photos))
    assert report.description["weights"] == "float16"
    assert report.parity.poses >= 2
    if suffix == "torchscript":
        stored = torch.jit.load(str(report.path)).state_dict()
    else:
        stored = torch.export.load(str(report.path)).state_dict
    large = [tensor for tensor in stored.values() if tensor.ndim > 1 and tensor.numel() >= LARGE]
    assert len(large) > 10
    assert {tensor.dtype for tensor in large} == {torch.float16}
    assert all(p.dtype == torch.float32 for p in source.model.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["torchscript", pytest.param("pt2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("system", ["smpr", pytest.param("directpose", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated")
def test_torch_stores_eight_bits(suffix: str, system: str, photos: Path, tmp_path: Path) -> None:
    source = loaded(system)
    plan = Plan(suffix, int8=True, pictures=Pictures.of(photos), photographs=photos)
    report = export_model(source, tmp_path / f"a.{suffix}", plan)
    assert report.description["weights"] == "int8"
    assert report.loss is not None
    assert report.loss.after > report.loss.before - 0.2
    assert any("smaller, not quicker" in note for note in report.notes)
    path = str(report.path)
    stored = torch.jit.load(path).state_dict() if suffix == "torchscript" else torch.export.load(path).state_dict
    kinds = {name: tensor.dtype for name, tensor in stored.items() if tensor.ndim > 1 and tensor.numel() >= LARGE}
    assert len(kinds) > 10
    assert set(kinds.values()) == {torch.int8}
    assert all(p.dtype == torch.float32 for p in source.model.parameters())  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == [f"a.{suffix}"]


def test_weights_of_eight_bits_are_within_half_a_step() -> None:
    graph = pose_graph(loaded("smpr").model)
    first, second, third = [p for p in graph.model.parameters() if p.ndim == 4 and p.numel() >= LARGE][:3]
    first.data[1] = 0
    second.data[0, 0, 0, 0] = torch.nan
    third.data *= torch.logspace(-6, 6, third.shape[0])[:, None, None, None]
    stored, largest = as_stored(graph, "int8"), 0.0
    for before, after in zip(graph.model.parameters(), stored.parameters(), strict=True):
        assert after.dtype == torch.float32
        if before is second or before.ndim < 2 or before.numel() < LARGE:
            assert torch.equal(before.nan_to_num(7), after.nan_to_num(7))
            continue
        step = before.abs().flatten(1).amax(1) / MOST_OF_EIGHT_BITS
        error = (before - after).abs().flatten(1).amax(1)
        assert (error <= 0.501 * step).all()
        largest = max(largest, float((error / step.clamp(min=1e-30)).max()))
    assert largest > 0.4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("Features\t: fp asimd asimddp\n", True),
        ("model name\t: avx_vnni\nflags\t\t: fpu sse avx2\n", False),
        ("", None),
    ],
)
def test_what_the_processor_can_do_is_read(text: str, expected: bool | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert has_eight_bit_products(tmp_path / "cpuinfo") is expected
    assert has_eight_bit_products(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("suffix", "int8"),
    [
        ("torchscript", False),
        *(pytest.param(suffix, False, marks=pytest.mark.slow) for suffix in ("onnx", "pt2", "xml")),
        *(pytest.param(suffix, True, marks=pytest.mark.slow) for suffix in ("onnx", "xml")),
    ],
)
@pytest.mark.parametrize("system", ["smpr", pytest.param("directpose", marks=pytest.mark.slow)])
def test_models_with_limits_of_both_sides_take_pictures_of_any_shape(
    suffix: str, system: str, int8: bool, photos: Path, tmp_path: Path
) -> None:
    """Upright and lying photographs are as large in the input as the model wants them."""
    if suffix == "xml":
        pytest.importorskip("openvino")
    config, skeleton = SYSTEMS[system]
    model = small_model(config, skeleton, view={"long_side": 224, "short_side": 160})
    pictures = Pictures.of(photos) if int8 else None
    plan = Plan({"xml": "openvino"}.get(suffix, suffix), int8=int8, pictures=pictures, photographs=photos)
    report = export_model(LoadedCheckpoint(model, {"min_score": 0.05}), tmp_path / f"a.{suffix}", plan)
    assert report.description["canvas"] is None
    assert report.notes[0] == "the input has the shape of the picture"
    assert report.parity.poses >= 2
    if report.loss is not None:
        assert 0.1 < report.loss.before <= 1
    for number in range(3):
        image = read_image(photos / f"{number}.png")
        seen = ExportedModel(report.path, threads=1).whole_feeds(image)
        assert tuple(seen["size"]) == fit(image.shape[:2], model.view)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "big"], "384x512"),
        (["--calibrate", "photos"], "only with --int8"),
        (["--format", "coreml"], "is not known"),
        (["--int8"], "--calibrate"),
        (["--max-loss", "2"], "only with --int8"),
        (["--int8", "--calibrate", ".", "--max-loss", "2"], "only with --annotations"),
        (["--int8", "--calibrate", "nowhere"], "nowhere does not exist"),
        (["--int8", "--max-loss", "101"], "100"),
    ],
)
def test_command_lines_that_make_no_sense(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", "default", *words])
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())


def test_what_a_file_does_not_do_is_told(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = loaded("smpr")
    save_checkpoint(tmp_path / "a.safetensors", source.model, metadata={"scales": [[160, 160], [96, 96]]})
    words = ["export", "a.safetensors", "--format", "torchscript", "--photos", str(photos)]
    told = "looks once, at 160 px; the model itself looks at 160 and 96 px"
    text = CliRunner().invoke(app, words)
    assert text.exit_code == 0, text.output
    assert told in text.stdout.splitlines()
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert document["notes"] == [told]
    assert document["model_scales"] == [[160, 160], [96, 96]]
    assert "scales" not in ExportedModel("a.torchscript").description["metadata"]


@pytest.mark.slow
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("suffix", ["onnx", "torchscript", "pt2"])
@pytest.mark.parametrize("name", shipped())
def test_every_shipped_model_can_be_written(
    name: str, suffix: str, any_size: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that their settings switch on, which small models do not have all at once."""
    monkeypatch.chdir(tmp_path)
    if any_size and name.startswith("rsn"):
        pytest.skip("crops have one size")
    if any_size and suffix == "onnx" and torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 writes no free sizes as ONNX")
    words = ["--dynamic"] if any_size else []
    result = CliRunner().invoke(app, ["export", name, "--format", suffix, "--json", *words])
    assert result.exit_code == 0, result.output
    parity = json.loads(result.stdout)["parity"]
    assert parity["poses"] > 3
    assert parity["keypoints"] < 0.01


@pytest.mark.slow
@pytest.mark.skipif(DEFAULT not in shipped(), reason="this copy was built without weights")
def test_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, on the free photographs: as torch to a hundredth of a pixel."""
    monkeypatch.chdir(tmp_path)
    formats: list[tuple[list[str], str]] = [([], ".onnx"), (["--format", "torchscript"], ".torchscript")]
    try:
        import openvino  # noqa: F401

        formats.append((["--format", "openvino"], ".xml"))
    except ModuleNotFoundError:
        pass
    found: list[Any] = []
    for words, suffix in formats:
        result = CliRunner().invoke(app, ["export", "default", "--json", *words])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert document["path"] == DEFAULT + suffix
        assert document["parity"]["photographs"] == 2
        assert document["parity"]["poses"] > 10
        assert document["parity"]["keypoints"] < 0.01
        assert document["parity"]["boxes"] < 0.01
        assert document["parity"]["scores"] < 1e-4
        assert document["model_scales"] is None
        assert document["notes"] == []
        found.append(ExportedModel(document["path"]).find(noise(300, 400)))
    for other in found[1:]:
        np.testing.assert_allclose(other.keypoints, found[0].keypoints, atol=0.05)
