"""Our MobileNetV2 against timm's."""

import pytest
import timm
import torch

from poise.nn.backbones import build_backbone
from poise.nn.mobilenet import NAME, feature_maps

STRIDES = (2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return timm.create_model(NAME, features_only=True)


def test_same_names_shapes_and_strides(theirs):
    ours = build_backbone(NAME, strides=STRIDES)
    assert {n: t.shape for n, t in ours.body.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }
    assert list(feature_maps()) == theirs.feature_info.reduction() == list(STRIDES)
    assert list(ours.channels) == theirs.feature_info.channels()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("strides", [STRIDES, (8, 16, 32), (4,)], ids=str)
def test_same_values_and_gradients(theirs, strides, train):
    ours = build_backbone(NAME, strides=strides).body.train(train)
    theirs.train(train)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in theirs.state_dict().items():  # norms that do something
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(generator=generator)
        elif "bn" in name and not name.endswith("num_batches_tracked"):
            tensor.uniform_(0.5, 1.5, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 64, 96, generator=generator)
    found, expected = ours(image), [f for f, s in zip(theirs(image), STRIDES, strict=True) if s in strides]
    assert len(found) == len(strides)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    sum(f.square().mean() for f in found).backward()
    theirs.zero_grad()
    sum(f.square().mean() for f in expected).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None or not gradients[name].any()), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name])
    if train and strides == STRIDES:
        assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in ours.state_dict().items())


def test_weights_begin_alike(theirs):
    """The same deviation in every convolution, as far as that many numbers can tell; batch norms at one and zero."""
    torch.manual_seed(3)
    ours, fresh = build_backbone(NAME).body, timm.create_model(NAME, features_only=True)
    for (name, a), (_, b) in zip(ours.named_parameters(), fresh.named_parameters(), strict=True):
        if a.dim() == 1:
            assert torch.equal(a, b), name
        else:
            assert a.std().item() == pytest.approx(b.std().item(), rel=6 / a.numel() ** 0.5), name


def test_missing_stride_and_bottlenecks_are_named():
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16, 32\], not 64"):
        build_backbone(NAME, strides=(8, 64))
    with pytest.raises(ValueError, match=f"not '{NAME}'"):
        build_backbone(NAME, anti_alias=True)
