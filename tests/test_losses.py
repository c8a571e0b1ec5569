import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from poise import losses


def _logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_focal_with_gamma_zero_is_half_the_cross_entropy() -> None:
    x, y = _logits(40), (_logits(40) > 0).double()
    expected = 0.5 * F.binary_cross_entropy_with_logits(x, y, reduction="none")
    torch.testing.assert_close(losses.sigmoid_focal(x, y, alpha=0.5, gamma=0.0), expected)


def test_focal_equals_torchvision() -> None:
    x, y = _logits(30, 4) * 4, (_logits(30, 4) > 0.5).double()
    torch.testing.assert_close(losses.sigmoid_focal(x, y), sigmoid_focal_loss(x, y))


def test_focal_is_finite_for_huge_logits() -> None:
    x = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    value = losses.sigmoid_focal(x, torch.tensor([0.0, 0.0, 1.0, 1.0])).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_equals_torch(beta: float) -> None:
    e = _logits(50)
    torch.testing.assert_close(
        losses.smooth_l1(e, beta), F.smooth_l1_loss(e, torch.zeros_like(e), beta=beta, reduction="none")
    )


@pytest.mark.parametrize("kind", ["iou", "linear_iou", "giou"])
def test_box_loss_of_equal_boxes_is_zero(kind: losses.BoxLoss) -> None:
    box = _logits(10, 4).abs() + 0.5
    torch.testing.assert_close(losses.ltrb_iou(box, box, kind), torch.zeros(10, dtype=torch.float64))


def test_box_loss_closed_form() -> None:
    """A 2x2 and a 4x2 box around one point: I = 4, U = 8, hull = 8."""
    a, b = torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[1.0, 1, 3, 1]])
    iou = 5 / 9
    assert losses.ltrb_iou(a, b, "linear_iou").item() == pytest.approx(1 - iou)
    assert losses.ltrb_iou(a, b, "iou").item() == pytest.approx(-torch.tensor(iou).log().item())
    assert losses.ltrb_iou(a, b, "giou").item() == pytest.approx(1 - iou)


def test_gaussian_focal_closed_form() -> None:
    x = torch.zeros(2)
    value = losses.gaussian_focal(x, torch.tensor([1.0, 0.5]))
    half = torch.tensor(0.5)
    torch.testing.assert_close(value, torch.stack([-(0.25 * half.log()), -(0.5**4 * 0.25 * half.log())]))


def test_gradients() -> None:
    x = _logits(6).requires_grad_()
    y = torch.tensor([0.0, 1, 0, 1, 0.3, 1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: losses.sigmoid_focal(v, y.round()), (x,))
    assert torch.autograd.gradcheck(lambda v: losses.gaussian_focal(v, y), (x,))
    assert torch.autograd.gradcheck(lambda v: losses.smooth_l1(v, 0.4), (x,))
    sides = (_logits(3, 4).abs() + 0.5).requires_grad_()
    for kind in ("iou", "linear_iou", "giou"):
        assert torch.autograd.gradcheck(lambda v, k=kind: losses.ltrb_iou(v, torch.ones(3, 4).double(), k), (sides,))


def test_empty() -> None:
    assert losses.sigmoid_focal(torch.zeros(0), torch.zeros(0)).sum() == 0
    assert losses.ltrb_iou(torch.zeros(0, 4), torch.zeros(0, 4), "giou").shape == (0,)
