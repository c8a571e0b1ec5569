"""Products of matrices for inference on a CPU.

torch has two libraries for them: that of its products, which on some processors reaches half of what they could, and
that of its convolutions. The latter prepares itself for each new size, which only large products are worth.

Letters: n rows, k what is summed over, m columns.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

LARGE = 1 << 25
"""Multiply-adds from which a product is made by oneDNN."""


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    """(n, m): the product of matrices (n, k) and (k, m); quickest if ``b`` is the transpose of what lies in memory."""
    if a.shape[0] * b.numel() >= LARGE and _for_onednn(a) and _for_onednn(b) and _works():
        return _onednn_product(a, b.t())
    return a @ b


def linear_operator() -> Any:
    """oneDNN's product with a transposed matrix; no part of torch's public interface."""
    return torch.ops.mkldnn._linear_pointwise


def _onednn_product(a: Tensor, turned: Tensor) -> Tensor:
    made: Tensor = linear_operator()(a.contiguous(), turned.contiguous(), None, "none", [], "")
    return made


def _for_onednn(part: Tensor) -> bool:
    wants_gradient = torch.is_grad_enabled() and part.requires_grad
    return part.dtype == torch.float32 and part.device.type == "cpu" and not wants_gradient


@cache
def _works() -> bool:
    """Whether the operator is there and computes what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=generator), torch.randn(7, 3, generator=generator)
    try:
        with torch.no_grad():
            return torch.allclose(_onednn_product(a, b.t()), a @ b, atol=1e-4)
    except (RuntimeError, AttributeError, TypeError):  # see `linear_operator`
        return False
