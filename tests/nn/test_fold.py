import pytest
import timm
import torch
from torch import nn

from poise.nn.fold import fold_batch_norm


def _shake(model: nn.Module) -> nn.Module:
    """Norm statistics and weights as after training."""
    generator = torch.Generator().manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            part.weight.data.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            part.bias.data.copy_(torch.randn(part.num_features, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_same_function_without_batch_norms(name: str) -> None:
    torch.manual_seed(0)
    model = _shake(timm.create_model(name, features_only=True))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norm(model, torch.zeros(1, 3, 64, 64))
    with torch.no_grad():
        for a, b in zip(model(x), folded(x), strict=True):
            torch.testing.assert_close(a, b, atol=5e-4, rtol=1e-3)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in model.modules())
    biased = sum(isinstance(m, nn.Conv2d) and m.bias is not None for m in folded.modules())
    assert biased == convolutions


def test_original_is_untouched() -> None:
    model = _shake(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fold_batch_norm(model, torch.zeros(1, 3, 8, 8))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], atol=0, rtol=0)


def test_norm_after_an_activation_is_left_alone() -> None:
    """The in-place activation returns the convolution's own tensor: the trace must not be fooled."""
    model = _shake(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)))
    folded = fold_batch_norm(model, torch.randn(1, 3, 8, 8))
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(x), folded(x))


class _Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


def test_refuses_to_change_the_function() -> None:
    with pytest.raises(ValueError, match="changed the network's output"):
        fold_batch_norm(_shake(_Reused()), torch.randn(1, 3, 8, 8))


def test_diverged_weights_are_told_as_such() -> None:
    model = _shake(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model[0].weight.data.fill_(float("inf"))
    with pytest.raises(ValueError, match="weights have diverged"):
        fold_batch_norm(model, torch.randn(1, 3, 8, 8))


def test_a_folded_network_stays_as_it_is() -> None:
    model = _shake(timm.create_model("mobilenetv2_035", features_only=True))
    once = fold_batch_norm(model, torch.zeros(1, 3, 64, 64))
    twice = fold_batch_norm(once, torch.zeros(1, 3, 64, 64))
    assert once.state_dict().keys() == twice.state_dict().keys()
    for name, value in once.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[name], value, atol=0, rtol=0)
