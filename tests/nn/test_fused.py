"""Convolutions with their activation compute what they compute apart."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from poise.models import build_model, preset
from poise.nn import fused as room
from poise.nn.fold import fold_batch_norm, folded_pairs
from poise.nn.fused import FusedConv2d, added, fuse_activations
from poise.nn.mobilenet import Block
from poise.predict.devices import Running
from poise.predict.predictor import prepared

CPU = torch.device("cpu")


class NormAct(nn.BatchNorm2d):
    """A norm with an activation of its own, as timm's."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.act = act
        self.running_mean.normal_(generator=torch.Generator().manual_seed(1))
        self.running_var.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))

    def forward(self, input):
        return self.act(super().forward(input))


def folded(act, *, side=1, stride=1, groups=1, **how):
    torch.manual_seed(0)
    how.setdefault("padding", side // 2)
    plain = nn.Sequential(nn.Conv2d(8, 16, side, stride, groups=groups, **how), NormAct(16, act)).eval()
    with torch.no_grad():
        return plain, fold_batch_norm(plain, torch.randn(1, 8, 12, 10))


@pytest.mark.parametrize(
    "act", [nn.ReLU(inplace=True), nn.ReLU6(), nn.Identity(), nn.SiLU(), nn.Hardtanh(-1, 1)], ids=str
)
@pytest.mark.parametrize(("side", "stride", "groups"), [(1, 1, 1), (3, 2, 1), (3, 1, 8), (1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_same_numbers(act, side, stride, groups, layout):
    plain, quick = folded(act, side=side, stride=stride, groups=groups)
    assert fuse_activations(quick) == 1
    assert type(quick[0]) is FusedConv2d
    images = 4 * torch.randn(3, 8, 12, 10).contiguous(memory_format=layout)
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), plain(images), rtol=1e-4, atol=1e-4)


def test_known_activations_are_no_pass_of_their_own():
    _, quick = folded(nn.ReLU6())
    fuse_activations(quick)
    assert quick[0].epilogue == ("hardtanh", [0.0, 6.0])
    assert type(folded_pairs(quick)[0][1]._modules["act"]) is nn.Identity
    _, other = folded(nn.SiLU())
    fuse_activations(other)
    assert other[0].epilogue == ("none", [])
    assert type(folded_pairs(other)[0][1]._modules["act"]) is nn.SiLU


@pytest.mark.parametrize("how", [{"padding": "same"}, {"padding_mode": "reflect"}])
def test_other_convolutions_stay_as_they_are(how):
    plain, quick = folded(nn.ReLU(), side=3, **({"padding": 1} | how))
    assert fuse_activations(quick) == 0
    images = torch.randn(1, 8, 12, 10)
    torch.testing.assert_close(quick(images), plain(images), rtol=1e-4, atol=1e-4)


def test_another_precision_stays_as_it_is():
    plain, _ = folded(nn.ReLU())
    assert fuse_activations(fold_batch_norm(plain.double(), torch.randn(1, 8, 4, 4, dtype=torch.float64))) == 0


def test_another_torch_goes_without(monkeypatch):
    def missing():
        raise AttributeError("no such operator")

    plain, quick = folded(nn.ReLU())
    monkeypatch.setattr(room, "pointwise_operator", missing)
    assert fuse_activations(quick) == 0
    monkeypatch.setattr(room, "pointwise_operator", lambda: SimpleNamespace(default=lambda *_: torch.zeros(1, 8, 4, 4)))
    assert fuse_activations(quick) == 0
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert fuse_activations(quick) == 0
    images = torch.randn(1, 8, 12, 10)
    torch.testing.assert_close(quick(images), plain(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "groups"), [(1, 1), (3, 1), (3, 8)])
def test_under_autocast_the_numbers_are_those_of_its_precision(side, groups):
    plain, quick = folded(nn.ReLU6(), side=side, groups=groups)
    fuse_activations(quick)
    images = torch.randn(1, 8, 12, 10)
    with torch.inference_mode():
        wide = quick(images)
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = quick(images), plain(images)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, expected.to(torch.bfloat16), rtol=2e-2, atol=5e-2)
        torch.testing.assert_close(found.float(), wide, rtol=2e-2, atol=5e-2)
        torch.testing.assert_close(quick(images), wide)  # filters of both precisions are kept apart
    kinds = {torch.float32, torch.bfloat16} if room._computes(torch.bfloat16) else {torch.float32}
    assert {kind for kind, _ in quick[0].laid_out} == kinds


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), nn.ReLU6(), nn.Identity()], ids=str)
def test_a_processor_without_bfloat16_goes_the_ordinary_way(act, monkeypatch):
    monkeypatch.setattr(room, "_computes", lambda kind: kind == torch.float32)
    plain, quick = folded(act)
    fuse_activations(quick)
    images = 4 * torch.randn(1, 8, 12, 10)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = quick(images)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, plain(images).to(torch.bfloat16), rtol=2e-2, atol=5e-2)


def test_small_convolutions_without_a_norm_keep_their_filters_laid_out_and_large_ones_do_not():
    torch.manual_seed(0)
    plain, _ = folded(nn.ReLU())
    net = nn.Sequential(plain, nn.Conv2d(16, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.Conv2d(64, 256, 3)).eval()
    images = torch.randn(1, 8, 12, 10)
    quick = fold_batch_norm(net, images)
    assert quick[3].weight.numel() > room.SMALL
    assert fuse_activations(quick) == 1
    assert [type(quick[i]) for i in (1, 3)] == [FusedConv2d, nn.Conv2d]
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), net(images), rtol=1e-4, atol=1e-4)


def test_the_small_models_are_fused_on_a_processor():
    model = build_model(preset("smpr_mobilenetv2"))
    images = torch.randn(1, 3, 128, 96, generator=torch.Generator().manual_seed(0))
    quick = prepared(model, CPU)
    assert sum(type(part) is FusedConv2d for part in quick.modules()) > 40
    assert any(type(part) is FusedConv2d for part in prepared(model, Running(CPU, torch.bfloat16)).modules())
    meta = prepared(model, Running(torch.device("meta")))
    assert not any(type(part) is FusedConv2d for part in meta.modules())
    with torch.inference_mode():
        expected = model.eval()(images)
        found = quick(images.contiguous(memory_format=torch.channels_last))
    for a, b in zip(expected.initial, found.initial, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)


def test_filters_are_laid_out_once_a_size_and_sizes_do_not_push_each_other_out():
    plain, quick = folded(nn.ReLU(), side=3)
    fuse_activations(quick)
    first = [(12, 10), (7, 5), (3, 3), (1, 9), (40, 40), (2, 2), (4, 9), (5, 5)]
    assert len(first) == 2 * room.KEPT_SIZES
    later = [(8, 5), (9, 9), (9, 5)]

    def run(height, width):
        images = torch.randn(1, 8, height, width)
        torch.testing.assert_close(quick(images), plain(images), rtol=1e-4, atol=1e-4)

    with torch.inference_mode():
        for size in [*first, *later, *later]:
            run(*size)
        assert [shape[2:] for _, shape in quick[0].laid_out] == first
        kept = quick[0].laid_out[torch.float32, (1, 8, 2, 2)]
        run(2, 2)
        assert quick[0].laid_out[torch.float32, (1, 8, 2, 2)] is kept
        for size in later * (room.PATIENCE // 3 + 1):
            run(*size)
        assert {shape[2:] for _, shape in quick[0].laid_out} == set(later)


def test_a_network_that_was_used_can_be_copied_and_pickled():
    plain, quick = folded(nn.ReLU(), side=3)
    fuse_activations(quick)
    images = torch.randn(1, 8, 6, 6)
    quick(images)
    for twin in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):  # noqa: S301  (our own bytes)
        assert not twin[0].laid_out
        torch.testing.assert_close(twin(images), plain(images), rtol=1e-4, atol=1e-4)


def block_of(shortcut: bool = True):
    torch.manual_seed(0)
    block = Block(8, 8 if shortcut else 16, 6, 1).eval()
    for norm in (block.bn1, block.bn2, block.bn3):
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.normal_(norm.running_mean)
    return block, fold_batch_norm(block, torch.randn(1, 8, 12, 10))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_block_adds_to_its_input(kind):
    block, quick = block_of()
    fuse_activations(quick)
    assert type(quick) is not type(block)
    images = torch.randn(2, 8, 12, 10).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = block(images)
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            found = quick(images.clone(memory_format=torch.preserve_format))
    tolerance = 1e-4 if kind == torch.float32 else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_a_block_without_a_shortcut_stays_what_it_is():
    block, quick = block_of(shortcut=False)
    fuse_activations(quick)
    assert type(quick) is Block
    images = torch.randn(1, 8, 12, 10)
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), block(images), rtol=1e-4, atol=1e-4)


def test_sums_of_a_pyramid_are_made_in_place_where_that_is_quicker():
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, 1)
    quick = copy.deepcopy(plain).requires_grad_(False)
    room._fuse(quick, room._EPILOGUES[nn.Identity])
    images, sums = torch.randn(1, 8, 6, 5), torch.randn(1, 16, 6, 5)
    with torch.no_grad():
        expected = added(plain, sums, images)
        torch.testing.assert_close(expected, sums + plain(images))
        found = added(quick, sums, images)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, sums)
