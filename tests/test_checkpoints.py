"""Checkpoints: what goes in comes out, nothing half written stays, and every damage is explained."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from poise import checkpoints
from poise.checkpoints import (
    CheckpointError,
    is_checkpoint,
    load_checkpoint,
    read_header,
    read_tensors,
    save_checkpoint,
)
from poise.models import DirectPose, DirectPoseConfig
from poise.skeletons import CROWDPOSE14, Skeleton
from tiny import PAIR, TinyConfig, TinyModel, tiny_model


@pytest.fixture(autouse=True)
def _tiny_system(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Checkpoints of the tiny model are built as such; tests marked ``real`` use the real systems."""
    if "real_system" not in request.fixturenames:
        monkeypatch.setattr(
            checkpoints, "_build", lambda header: TinyModel(TinyConfig.parse(header.model, "model"), header.skeleton)
        )


@pytest.fixture
def real_system() -> None:
    """Build what the checkpoint names."""


def moved_model(**settings: Any) -> TinyModel:
    """A tiny model with statistics that differ from the initial ones."""
    model = tiny_model(**settings)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(3) if tensor.dtype == torch.int64 else tensor.mul_(1.25).add_(0.1)
    return model


def rewrite(path: Path, change: Any) -> None:
    """Change the JSON of a checkpoint's header."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    data = json.loads(header["__metadata__"]["poise"])
    change(data)
    header["__metadata__"]["poise"] = json.dumps(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def test_round_trip(tmp_path: Path) -> None:
    model = moved_model(width=3)
    path = tmp_path / "deep" / "model.safetensors"
    save_checkpoint(path, model, metadata={"metrics": {"AP": 0.5}, "step": 7})
    loaded = load_checkpoint(path)
    assert loaded.metadata == {"metrics": {"AP": 0.5}, "step": 7}
    assert loaded.model.config == model.config
    assert loaded.model.skeleton == PAIR
    assert not loaded.model.training
    state = loaded.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_metadata_is_optional(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", tiny_model())
    assert load_checkpoint(tmp_path / "m.safetensors").metadata == {}


def test_header_says_what_is_inside(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", tiny_model(width=3))
    header = read_header(tmp_path / "m.safetensors")
    assert header.model["system"] == "tiny"
    assert header.skeleton == PAIR
    assert header.view == TinyConfig().view
    assert header.tensors["backbone.0.weight"] == (3, 3, 3, 3)
    assert header.version


def test_half_precision_halves_filters_and_spares_vectors(tmp_path: Path) -> None:
    model = moved_model(width=64)
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(whole, model)
    save_checkpoint(half, model, half=True)
    stored = load_file(half)
    assert stored["backbone.0.weight"].dtype == torch.float16
    assert stored["backbone.1.running_var"].dtype == torch.float32
    assert stored["seen"].dtype == torch.int64
    assert half.stat().st_size < whole.stat().st_size - 2 * 64 * 27 + 100
    loaded = load_checkpoint(half).model.state_dict()
    for name, value in model.state_dict().items():
        assert loaded[name].dtype == value.dtype
        expected = value.half().float() if value.ndim >= 2 else value
        assert torch.equal(loaded[name], expected)


def test_half_precision_keeps_what_float16_cannot_hold(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    save_checkpoint(tmp_path / "m.safetensors", model, half=True)
    assert load_checkpoint(tmp_path / "m.safetensors").model.head.weight[0, 0].item() == 1e6


def test_channels_last_weights_are_stored_plain(tmp_path: Path) -> None:
    model = moved_model().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "m.safetensors", model)
    assert torch.equal(load_checkpoint(tmp_path / "m.safetensors").model.head.weight, model.head.weight)


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": float("nan")}])
def test_metadata_must_be_json(tmp_path: Path, metadata: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_checkpoint(tmp_path / "m.safetensors", tiny_model(), metadata=metadata)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_last_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, tiny_model(), metadata={"step": 1})

    def cut_off(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "save_file", cut_off)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, tiny_model(), metadata={"step": 2})
    assert load_checkpoint(path).metadata == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file(tmp_path: Path) -> None:
    for read in (load_checkpoint, read_header, is_checkpoint, read_tensors):
        with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors does not exist"):
            read(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"PK\x03\x04 a zip file, as torch.save writes it, and then some",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 4) + b"[1]]",
        struct.pack("<Q", 6) + b"nojson",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 23) + b'{"__metadata__": "text"}'[:23],
    ],
)
def test_not_a_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(path)


def test_a_header_beyond_the_bound_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "m.safetensors", tiny_model())
    monkeypatch.setattr(checkpoints, "MAX_HEADER", 64)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(tmp_path / "m.safetensors")


def test_a_cut_off_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_not_a_poise_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert not is_checkpoint(path)
    with pytest.raises(CheckpointError, match="not a Poise checkpoint"):
        load_checkpoint(path)


def test_a_future_format(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data.update(format=2, poise="9.1"))
    assert is_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"has format 2, .* reads up to 1; it was written by Poise 9\.1"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["format", "model", "skeleton", "view", "metadata", "poise"])
def test_a_header_that_lacks_something(tmp_path: Path, key: str) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data.pop(key))
    with pytest.raises(CheckpointError, match="header is damaged"):
        load_checkpoint(path)


def test_a_model_that_cannot_be_built(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data["model"].update(widht=3))
    with pytest.raises(CheckpointError, match=r"cannot be built: .*widht.*width"):
        load_checkpoint(path)


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "[]", "null"])
def test_a_format_that_is_no_number(tmp_path: Path, number: str) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data.update(format=json.loads(number)))
    with pytest.raises(CheckpointError, match="header is damaged"):
        read_header(path)


@pytest.mark.usefixtures("real_system")
@pytest.mark.parametrize(
    "model",
    [
        {"system": "rsn", "unit_channels": 10**9},
        {"system": "rsn", "unit_channels": 10**30},
        {"system": "rsn", "unit_channels": 2_000},
        {"system": "smpr", "backbone": "mobilenetv2_035", "stride_in_1x1": False, "tower_depth": 10**9},
    ],
)
def test_a_small_file_asks_for_little_memory(tmp_path: Path, model: dict[str, Any]) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data.update(model=model))
    with pytest.raises(CheckpointError, match=r"cannot be built: it would be many times larger than the file") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_what_torch_cannot_make_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    monkeypatch.setattr(checkpoints, "_build", lambda header: torch.zeros(2, -1))
    with pytest.raises(CheckpointError, match=r"m\.safetensors: the model it describes cannot be built: .*negative"):
        load_checkpoint(path)


def test_another_view(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    rewrite(path, lambda data: data["view"].update(channels="bgr"))
    with pytest.raises(CheckpointError, match=r"was made for .*bgr"):
        load_checkpoint(path)


def test_wrong_tensors_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    text = read_metadata(path)
    tensors = load_file(path)
    del tensors["scale"]
    tensors["extra"] = torch.zeros(1)
    tensors["head.bias"] = torch.zeros(9)
    save_file(tensors, path, metadata={"poise": text})
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert "missing: scale;" in message
    assert "unexpected: extra;" in message
    assert "wrong shape: head.bias has (9,) instead of (5,)" in message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, tiny_model())
    text = read_metadata(path)
    save_file(load_file(path) | {f"extra{i:02}": torch.zeros(1) for i in range(13)}, path, metadata={"poise": text})
    with pytest.raises(CheckpointError, match=r"unexpected: extra00, .*extra09 and 3 more$"):
        load_checkpoint(path)


def read_metadata(path: Path) -> str:
    raw = path.read_bytes()
    return str(json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]["poise"])


@pytest.mark.usefixtures("real_system")
@pytest.mark.parametrize("skeleton", [CROWDPOSE14, PAIR])
def test_a_real_system_round_trip(tmp_path: Path, skeleton: Skeleton) -> None:
    config = DirectPoseConfig(backbone="mobilenetv2_035", anti_alias=False, channels=64, group_channels=8)
    model = DirectPose(config, skeleton).eval()
    save_checkpoint(tmp_path / "m.safetensors", model)
    loaded = load_checkpoint(tmp_path / "m.safetensors").model
    assert (loaded.config, loaded.skeleton) == (config, skeleton)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(_tensors(model(images)), _tensors(loaded.forward(images)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("real_system")
def test_an_unknown_system(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", tiny_model())
    with pytest.raises(CheckpointError, match="unknown system 'tiny'"):
        load_checkpoint(tmp_path / "m.safetensors")


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in value if part is not None for t in _tensors(part)] if isinstance(value, tuple | list) else []
