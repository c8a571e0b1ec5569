"""Names, files and presets: which model `poise.load` gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._pytree import tree_leaves

import poise
from poise.checkpoints import save_checkpoint
from poise.models import PRESETS, build_model, parse_model_config
from poise.predict import loading
from poise.skeletons import LSP14
from poise.zoo import DEFAULT, ShippedModel, shipped

SMALL = {
    "system": "directpose", "backbone": "mobilenetv2_035", "anti_alias": False, "channels": 32, "group_channels": 4,
    "cls_depth": 1, "keypoint_depth": 1, "heatmap": None, "view": {"long_side": 64, "short_side": None},
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(parse_model_config(SMALL), LSP14)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "small.safetensors"
    save_checkpoint(path, model, metadata={"min_score": 0.125})
    return path


@pytest.fixture
def zoo(checkpoint, monkeypatch):
    """A package with one shipped model."""
    card = checkpoint.with_suffix(".md")
    card.write_text("\n# A small model\n\nMore.\n")
    checkpoint.with_suffix(".json").write_text('{"AP": 0.5}')
    monkeypatch.setattr(loading, "shipped", lambda: shipped(checkpoint.parent))
    return checkpoint.parent


@pytest.mark.parametrize("kind", [str, lambda p: p], ids=["text", "path"])
def test_a_checkpoint(checkpoint, model, kind):
    found = poise.load(kind(checkpoint), device="cpu")
    assert isinstance(found, poise.Predictor)
    assert found.skeleton == LSP14
    assert found.min_score == 0.125
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pairs = list(
            zip(tree_leaves(found.model.forward(images)), tree_leaves(model.eval().forward(images)), strict=True)
        )
    assert len(pairs) > 3
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert found.predict(picture)[0].image_size == (48, 64)


def test_shipped_models(zoo, monkeypatch):
    models = shipped(zoo)
    assert list(models) == ["small"]
    assert models["small"] == ShippedModel("small", zoo / "small.safetensors", zoo / "small.md", {"AP": 0.5})
    assert models["small"].title == "A small model"
    assert loading.load_model("small").model.skeleton == LSP14
    monkeypatch.setattr(loading, "DEFAULT", "small")
    assert loading.load_model("default").metadata == {"min_score": 0.125}
    with pytest.raises(ValueError, match="unknown model 'smal'; did you mean 'small'"):
        loading.load_model("smal")


def test_a_package_without_weights(tmp_path, monkeypatch):
    assert shipped(tmp_path) == {}
    monkeypatch.setattr(loading, "shipped", dict)
    with pytest.raises(ValueError, match=f"built without its model '{DEFAULT}'"):
        loading.load_model("default")
    with pytest.raises(ValueError, match="unknown model 'xyz'; none comes with this copy"):
        loading.load_model("xyz")
    with pytest.raises(ValueError, match=r"'directpose_r50' is a preset without .*: poise train directpose_r50"):
        loading.load_model("directpose_r50")


def test_every_shipped_model_loads_and_has_a_card():
    for model in shipped().values():
        assert model.title
        assert poise.load(model.name, device="cpu").predict(np.zeros((64, 64, 3), np.uint8))[0].image_size == (64, 64)


@pytest.fixture
def small_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "small_preset", lambda: parse_model_config(SMALL))


@pytest.mark.usefixtures("small_preset")
def test_a_preset_with_weights(checkpoint, model, tmp_path, monkeypatch):
    found = loading.load_model("small_preset", checkpoint)
    assert found.model.skeleton == LSP14
    assert found.metadata == {"min_score": 0.125}
    for name, value in found.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
    plain = tmp_path / "plain.safetensors"
    coco = build_model(parse_model_config(SMALL))
    save_file(coco.state_dict(), plain)
    assert loading.load_model("small_preset", plain).metadata == {}
    other = SMALL | {"score_threshold": 0.3, "view": {"long_side": 256, "short_side": None}}
    monkeypatch.setitem(PRESETS, "small_preset", lambda: parse_model_config(other))
    with pytest.raises(
        ValueError,
        match=r"small\.safetensors has .* 'small_preset' \(score_threshold = 0.05, not 0.3; view.*name the",
    ):
        loading.load_model("small_preset", checkpoint)
    assert loading.load_model("small_preset", plain).metadata == {}
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.safetensors does not exist"):
        poise.load("small_preset", weights=tmp_path / "checkpoint.safetensors")
    with pytest.raises(ValueError, match=r"does not fit the preset 'directpose_mobilenetv2': .*missing"):
        loading.load_model("directpose_mobilenetv2", plain)
    with pytest.raises(ValueError, match=r"'small_prset' is none; did you mean 'small_preset'"):
        loading.load_model("small_prset", plain)


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors does not exist"):
        poise.load("nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="runs/best does not exist"):
        poise.load("runs/best")
    text = tmp_path / "text.safetensors"
    text.write_text("no weights at all")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a safetensors file"):
        poise.load(text)
    (tmp_path / "no_suffix").write_text("no weights at all")
    with pytest.raises(ValueError, match="no_suffix is not a safetensors file"):
        poise.load(str(tmp_path / "no_suffix"))
