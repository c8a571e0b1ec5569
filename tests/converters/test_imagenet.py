"""ImageNet weights under timm's names: the same network computes the same features."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from poise.converters.imagenet import (
    resnet_to_anti_aliased,
    to_timm,
    torchvision_mobilenet_v2_to_timm,
    torchvision_resnet_to_timm,
)

WEIGHTS = Path(os.environ.get("POISE_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")
MOBILENET = WEIGHTS / "mobilenet_v2_imagenet_features.safetensors"


def load(body: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Every weight of ``body`` is set, except counters; what it does not have is ignored."""
    own = body.state_dict()
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    assert missing == []
    body.load_state_dict({n: t for n, t in state.items() if n in own}, strict=False)
    return body.eval()


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.75)
    return network.eval()


def check_mobilenet(reference: nn.Module, state: dict[str, Tensor]) -> None:
    body = load(timm.create_model("mobilenetv2_100", features_only=True), torchvision_mobilenet_v2_to_timm(state))
    whole = load(timm.create_model("mobilenetv2_100", num_classes=0), torchvision_mobilenet_v2_to_timm(state))
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs, levels = images, {}
        for number, layer in enumerate(reference):
            outputs = layer(outputs)
            levels[number] = outputs
        features = body(images)
        last = whole.forward_features(images)
    for feature, number in zip(features, (1, 3, 6, 13, 17), strict=True):
        torch.testing.assert_close(feature, levels[number], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(last, levels[18], rtol=1e-4, atol=1e-4)
    assert last.abs().max() > 0.1


def test_mobilenet_v2_of_timm_and_torchvision_are_equal() -> None:
    network = randomised(torchvision.models.mobilenet_v2())
    check_mobilenet(network.features, dict(network.state_dict()))


@pytest.mark.data
@pytest.mark.skipif(not MOBILENET.is_file(), reason="no ImageNet weights (POISE_WEIGHTS)")
def test_mobilenet_v2_with_its_imagenet_weights() -> None:
    state = load_file(MOBILENET)
    network = torchvision.models.mobilenet_v2().eval()
    network.load_state_dict(state, strict=False)
    check_mobilenet(network.features, state)


def test_a_foreign_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'features\.19\.0\.weight' is not a tensor"):
        torchvision_mobilenet_v2_to_timm({"features.19.0.weight": torch.zeros(1)})


def test_resnet_of_timm_and_torchvision_are_equal() -> None:
    network = randomised(torchvision.models.resnet50())
    body = load(timm.create_model("resnet50", features_only=True), torchvision_resnet_to_timm(network.state_dict()))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = layer(x)
        torch.testing.assert_close(body(images)[-1], x, rtol=1e-4, atol=1e-4)


def test_anti_aliased_shortcuts_move_by_one() -> None:
    state = {
        "layer1.0.downsample.0.weight": torch.tensor(1.0),
        "layer2.0.downsample.0.weight": torch.tensor(2.0),
        "layer2.0.downsample.1.bias": torch.tensor(3.0),
        "layer4.0.conv3.weight": torch.tensor(4.0),
    }
    moved = resnet_to_anti_aliased(state)
    assert {name: t.item() for name, t in moved.items()} == {
        "layer1.0.downsample.0.weight": 1.0,
        "layer2.0.downsample.1.weight": 2.0,
        "layer2.0.downsample.2.bias": 3.0,
        "layer4.0.conv3.weight": 4.0,
    }
    blurred = {"layer4.0.conv3.1.weight": torch.tensor(4.0), "layer4.0.conv3.0.filt": torch.zeros(1)}
    published = {n: t for n, t in moved.items() if "conv3" not in n} | blurred
    assert resnet_to_anti_aliased(published) == moved
    filters = {"maxpool.1.filt": torch.zeros(1)}
    assert resnet_to_anti_aliased(moved | filters).keys() == moved.keys()


def test_the_source_is_recognised() -> None:
    counter = {"bn.num_batches_tracked": torch.tensor(3)}
    one = torch.zeros(1)
    assert set(to_timm({"features.0.0.weight": one, "classifier.1.weight": one} | counter)) == {"conv_stem.weight"}
    assert set(to_timm({"layer1.0.conv1.weight": one, "fc.weight": one} | counter)) == {"layer1.0.conv1.weight"}
    assert set(to_timm({"stages.0.weight": one} | counter)) == {"stages.0.weight"}
