import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from poise.nn.sampling import conv3x3_at, gather_patches, sample_bilinear, sample_groups


def test_equals_a_1x1_deformable_convolution() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 5, 6, 7)
    dx, dy = torch.randn(2, 6, 7) * 3, torch.randn(2, 6, 7) * 3
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    ours = sample_bilinear(features, columns + dx, rows + dy)
    theirs = deform_conv2d(features, torch.stack([dy, dx], 1), torch.eye(5).reshape(5, 5, 1, 1))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_far_outside_is_zero() -> None:
    features = torch.ones(1, 2, 4, 4)
    x = torch.tensor([[[-1.0, 4.0, 100.0, 1e6]]])
    y = torch.tensor([[[0.0, 0.0, -50.0, 1e6]]])
    assert sample_bilinear(features, x, y).abs().max() == 0


def test_gradients_of_features_and_positions() -> None:
    torch.manual_seed(1)
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    x = (torch.rand(1, 2, 3, dtype=torch.float64) * 3 + 0.3).requires_grad_()
    y = (torch.rand(1, 2, 3, dtype=torch.float64) * 2 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(sample_bilinear, (features, x, y))


def test_groups_read_at_places_of_their_own() -> None:
    torch.manual_seed(3)
    features = torch.randn(6, 5, 8)
    x, y = torch.rand(7, 3) * 12 - 2, torch.rand(7, 3) * 9 - 2
    x[0], y[1] = torch.tensor([-1.0, 8.0, 1e9]), torch.tensor([-1e9, 5.0, -0.5])
    groups = [2, 0, 2]
    found = sample_groups(features, x, y, groups, 3)
    whole = features.unflatten(0, (3, 2))[groups]
    expected = sample_bilinear(whole, x.T[:, None], y.T[:, None])[:, :, 0].permute(2, 0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    nowhere = sample_groups(features, torch.full((1, 1), torch.nan), torch.zeros(1, 1), [1], 3)
    assert nowhere.tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("mixed", [False, True])
def test_half_precision_features_are_read_at_exact_places(mixed: bool) -> None:
    """Beyond column 256 bfloat16 knows every second cell alone."""
    torch.manual_seed(4)
    features = torch.randn(1, 8, 3, 400).bfloat16()
    x, y = torch.rand(1, 3, 400) * 400, torch.rand(1, 3, 400) * 2
    exact = sample_bilinear(features.float(), x, y)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        low = sample_bilinear(features, x, y)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_sparse_convolution_equals_the_dense_one(groups: int, bias: bool) -> None:
    torch.manual_seed(2)
    convolution = nn.Conv2d(6, 9, 3, padding=1, groups=groups, bias=bias)
    features = torch.randn(6, 5, 8)
    rows, columns = torch.tensor([0, 0, 4, 4, 2]), torch.tensor([0, 7, 0, 7, 3])
    dense = convolution(features[None])[0][:, rows, columns].T
    torch.testing.assert_close(conv3x3_at(convolution, features, rows, columns), dense, atol=1e-6, rtol=1e-5)
    nhwc = features[None].to(memory_format=torch.channels_last)[0]
    torch.testing.assert_close(conv3x3_at(convolution, nhwc, rows, columns), dense, atol=1e-6, rtol=1e-5)
    few = conv3x3_at(convolution, nhwc, rows[:2], columns[:2])
    torch.testing.assert_close(few, dense[:2], atol=1e-6, rtol=1e-5)
    none = conv3x3_at(convolution, features, rows[:0], columns[:0])
    assert none.shape == (0, 9)


def test_padding_is_zero_whatever_the_map_holds() -> None:
    features = torch.full((2, 3, 3), torch.nan)
    features[:, 1:, 1:] = 1.0
    patches = gather_patches(features, torch.tensor([2]), torch.tensor([2]))
    assert patches.shape == (1, 9, 2)
    assert patches[0, :, 0].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
