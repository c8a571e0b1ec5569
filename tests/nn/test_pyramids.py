import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from poise.nn.pyramids import FPN, HRFPN, PAFPN, DirectFPN, make_direct

WIDTHS = (4, 6, 8)


def _maps(height: int, width: int, widths: tuple[int, ...] = WIDTHS, first: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, c, -(-height // (first * 2**i)), -(-width // (first * 2**i)), generator=generator)
        for i, c in enumerate(widths)
    ]


@pytest.mark.parametrize("size", [(64, 96), (256, 320), (32, 32), (160, 32)])
@pytest.mark.parametrize("pyramid", [FPN(WIDTHS, 8), PAFPN(WIDTHS, 8)], ids=["fpn", "pafpn"])
def test_sizes_halve_and_round_up(pyramid: nn.Module, size: tuple[int, int]) -> None:
    outputs = pyramid(_maps(*size))
    expected = [(-(-size[0] // (8 * 2**i)), -(-size[1] // (8 * 2**i))) for i in range(5)]
    assert [tuple(o.shape[1:]) for o in outputs] == [(8, *e) for e in expected]


def test_path_aggregation_is_written_out() -> None:
    """Every layer by hand, with and without the ReLUs."""
    for activation in (True, False):
        torch.manual_seed(1)
        pyramid = PAFPN(WIDTHS, 8, activation=activation)
        for convolution in pyramid.modules():
            if isinstance(convolution, nn.Conv2d):
                nn.init.normal_(convolution.bias)

        def act(x: torch.Tensor, on: bool = activation) -> torch.Tensor:
            return x.relu() if on else x

        features = _maps(64, 96)
        with torch.no_grad():
            a, b, c = (act(layer(f)) for layer, f in zip(pyramid.lateral, features, strict=True))
            b = b + F.interpolate(c, scale_factor=2)
            a = a + F.interpolate(b, scale_factor=2)
            n3, n4, n5 = (act(layer(m)) for layer, m in zip(pyramid.output, (a, b, c), strict=True))
            n4 = n4 + act(pyramid.down[0](n3))
            n5 = n5 + act(pyramid.down[1](n4))
            p4, p5 = act(pyramid.post[0](n4)), act(pyramid.post[1](n5))
            p6 = act(pyramid.extra[0](p5))
            expected = [n3, p4, p5, p6, act(pyramid.extra[1](p6.relu()))]
            for ours, theirs in zip(pyramid(features), expected, strict=True):
                torch.testing.assert_close(ours, theirs)


def test_sizes_of_the_pyramid_of_hrnets() -> None:
    """800 px: the coarsest pooling leaves a remainder out, so P7 is 6x6 and not 7x7 (SMPR spec 2)."""
    widths = (2, 3, 4, 5)
    pyramid = HRFPN(widths, 8)
    with torch.no_grad():
        outputs = pyramid(_maps(800, 800, widths, first=4))
        small = pyramid(_maps(32, 96, widths, first=4))
    assert [tuple(o.shape[2:]) for o in outputs] == [(100, 100), (50, 50), (25, 25), (13, 13), (6, 6)]
    assert [tuple(o.shape[2:]) for o in small] == [(4, 12), (2, 6), (1, 3), (1, 2), (1, 1)]


def test_pooling_of_the_pyramid_of_hrnets() -> None:
    widths = (2, 3)
    pyramid = HRFPN(widths, 4, levels=3)
    features = _maps(64, 96, widths, first=4)
    with torch.no_grad():
        doubled = F.interpolate(features[1], scale_factor=2, mode="bilinear")
        mixed = pyramid.reduction(torch.cat([features[0], doubled], 1))
        outputs = pyramid(features)
        quarter = mixed.unflatten(2, (-1, 4)).unflatten(4, (-1, 4)).mean((3, 5))
        torch.testing.assert_close(outputs[0], pyramid.output[0](mixed))
        torch.testing.assert_close(outputs[2], pyramid.output[2](quarter))


@pytest.mark.parametrize("init", ["xavier", "caffe2_xavier"])
def test_initial_weights(init: str) -> None:
    torch.manual_seed(0)
    pyramid = FPN((512, 16, 16), 64, init=init)
    bound = (6 / (512 + 64)) ** 0.5 if init == "xavier" else (3 / 512) ** 0.5
    assert pyramid.lateral[0].weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert all(not m.bias.any() for m in pyramid.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("size", [(64, 96), (16, 48), (72, 96), (64, 104)], ids=str)
@pytest.mark.parametrize("widths", [(4, 6, 8), (3, 20)], ids=str)
def test_a_direct_pyramid_has_the_same_maps(size: tuple[int, int], widths: tuple[int, ...]) -> None:
    """Also where the finest map is not twice as large as the next one, which it then is computed from as usual."""
    torch.manual_seed(0)
    plain = FPN(widths, 8)
    for convolution in plain.modules():
        if isinstance(convolution, nn.Conv2d):
            nn.init.normal_(convolution.bias)
    direct = copy.deepcopy(plain)
    assert make_direct(direct) == 1
    assert type(direct) is DirectFPN
    assert not make_direct(direct)
    features = _maps(*size, widths)
    twice = [2 * side for side in features[1].shape[2:]] == list(features[0].shape[2:])
    called = []
    direct.rising.register_forward_hook(lambda *_: called.append(True))
    with torch.no_grad():
        for ours, theirs in zip(direct(features), plain(features), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert bool(called) == twice


def test_pyramids_that_would_be_no_quicker_stay() -> None:
    for pyramid in (FPN((5, 8), 8), FPN((512, 1024), 256), FPN((2,), 8)):
        assert not make_direct(pyramid)
        assert type(pyramid) is FPN
    other = PAFPN((2, 3), 8)
    assert not make_direct(other)
    assert type(other) is PAFPN
