"""Products of matrices by oneDNN."""

from typing import Any

import pytest
import torch

from poise.nn import gathered
from poise.nn import products as room
from poise.nn.products import LARGE, matrix_product


def operands(n: int, k: int = 864, m: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, k, generator=generator), torch.randn(m, k, generator=generator).t()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the products that oneDNN made."""
    seen: list[tuple[int, ...]] = []
    original = room._onednn_product

    def counted(a: torch.Tensor, turned: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(a.shape))
        return original(a, turned)

    assert room._works()
    monkeypatch.setattr(room, "_onednn_product", counted)
    return seen


@pytest.mark.parametrize("n", [0, 1, 64, 500, 4092])
def test_the_result_is_the_product(n: int) -> None:
    a, b = operands(n)
    torch.testing.assert_close(matrix_product(a, b).double(), a.double() @ b.double(), rtol=1e-4, atol=2e-3)


def test_matrices_lie_in_memory_in_whatever_way() -> None:
    a, b = operands(600)
    strided = torch.cat([a, a], 1)[:, :864]
    torch.testing.assert_close(matrix_product(strided, b.contiguous()), matrix_product(a, b))


def test_only_large_products_are_worth_it(calls: list[tuple[int, ...]]) -> None:
    rows = LARGE // (864 * 96) + 1
    matrix_product(*operands(rows - 1))
    assert calls == []
    matrix_product(*operands(rows))
    assert calls == [(rows, 864)]


def test_gradients_flow_where_they_are_wanted(calls: list[tuple[int, ...]]) -> None:
    a, b = operands(4092)
    a.requires_grad_()
    matrix_product(a, b).sum().backward()
    assert a.grad is not None
    torch.testing.assert_close(a.grad, b.sum(1).expand_as(a), rtol=1e-4, atol=1e-3)
    assert calls == []
    with torch.no_grad():
        matrix_product(a, b)
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_with_torch(dtype: torch.dtype, calls: list[tuple[int, ...]]) -> None:
    a, b = operands(1000)
    assert matrix_product(a.to(dtype), b.to(dtype)).dtype == dtype
    assert calls == []


def test_gathered_columns_are_multiplied_so(calls: list[tuple[int, ...]]) -> None:
    sampled, matrix = torch.randn(1000 * 9, 96), torch.randn(1, 864, 96)
    found = gathered.product(sampled, matrix, (1000, 9))
    assert calls == [(1000, 864)]
    torch.testing.assert_close(found, sampled.view(1000, 864) @ matrix[0], rtol=1e-4, atol=2e-3)


def missing() -> Any:
    raise AttributeError("no such operator")


def wrong() -> Any:
    return lambda *_: torch.zeros(5, 3)


@pytest.mark.parametrize("operator", [missing, wrong])
def test_without_the_operator_or_with_another_torch_multiplies(
    operator: Any, calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "linear_operator", operator)
    room._works.cache_clear()
    try:
        a, b = operands(1000)
        torch.testing.assert_close(matrix_product(a, b), a @ b)
        assert calls == [(5, 7)], "tried once, on the example"
    finally:
        room._works.cache_clear()
