"""Products of gathered columns with kernels, differentiable without keeping the columns.

Letters: B images, P positions of an image, T taps, G offset groups, q = P T G sampled rows, R rows of a table,
c channels of such a row (C / G), O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from poise.nn.products import matrix_product

COLUMN_BYTES = 24 << 20
"""The most memory for gathered columns; below 32 MiB, where common allocators go on reusing memory already mapped."""

TOGETHER_BYTES = 8 << 20
"""Images are taken together while their columns take no more than this: more does not fit into caches."""


def gathered_products(
    tables: Sequence[Tensor], rows: Tensor, weights: Tensor, matrices: Sequence[Tensor]
) -> list[Tensor]:
    """Columns of several maps, gathered at the same places, each times its kernel.

    Works in pieces, so that columns never take more than `COLUMN_BYTES`. The backward pass gathers them again.

    Args:
        tables: of each map, (B, R, c).
        rows: (B, P, T, G, 4) int32, rows of the image's table.
        weights: (B, P, T, G, 4), in the precision of the tables.
        matrices: of each map, (groups, T C / groups, O / groups); the products are made in their precision, or
            autocast's.

    Returns:
        Of each map, (B P, O).
    """
    device = rows.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        matrices = [m.to(torch.get_autocast_dtype(device)) for m in matrices]
    bytes_each = sum(t.element_size() * m.shape[0] * m.shape[1] for t, m in zip(tables, matrices, strict=True))
    chunk = max(1, COLUMN_BYTES // bytes_each)
    images = max(1, min(COLUMN_BYTES, TOGETHER_BYTES) // (bytes_each * rows.shape[1]))
    pieces = [
        _Products.apply(some_rows, some_weights, *parts, *matrices)
        for parts, all_rows, all_weights in _by_images(tables, rows, weights, images)
        for some_rows, some_weights in zip(all_rows.split(chunk), all_weights.split(chunk), strict=True)
    ]
    return [found[0] if len(found) == 1 else torch.cat(found) for found in zip(*pieces, strict=True)]


def _by_images(
    tables: Sequence[Tensor], rows: Tensor, weights: Tensor, count: int
) -> list[tuple[list[Tensor], Tensor, Tensor]]:
    """Tables (n R, c), rows and weights (n P, T, G, 4) of ``count`` images together, or fewer at the end.

    Views are taken by split because their gradients are assembled once, not once per view.
    """
    steps = torch.arange(count, dtype=rows.dtype, device=rows.device).view(-1, 1, 1, 1, 1) * tables[0].shape[1]
    parts = zip(*(t.split(count) for t in tables), strict=True)
    return [
        ([t.flatten(0, 1) for t in some], (r + steps[: len(r)]).flatten(0, 1), w.flatten(0, 1))
        for some, r, w in zip(parts, rows.split(count), weights.split(count), strict=True)
    ]


class _Products(torch.autograd.Function):
    """From rows (P, T, G, 4), weights, then n tables (R, c) and n matrices to n products (P, O)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rows, weights, *tensors)
        half = len(tensors) // 2
        sampled = (weighted_rows(table, rows, weights) for table in tensors[:half])
        return tuple(product(s, m, rows.shape[:2]) for s, m in zip(sampled, tensors[half:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights, *tensors = ctx.saved_tensors
        half = len(tensors) // 2
        widths = [table.shape[1] for table in tensors[:half]]
        table = torch.cat(tensors[:half], 1) if half > 1 else tensors[0]
        with torch.enable_grad():
            leaf = weights.detach().requires_grad_()
            sampled = weighted_rows(table, rows, leaf)
        to_matrices, to_sampled = [], []
        for part, matrix, gradient in zip(sampled.detach().split(widths, 1), tensors[half:], gradients, strict=True):
            by_group = gradient.view(len(rows), len(matrix), -1).transpose(0, 1)
            to_matrices.append(torch.bmm(_columns(part, matrix, rows.shape[:2]).transpose(1, 2), by_group))
            to_columns = _by_group(by_group, matrix.transpose(1, 2))
            to_sampled.append(_as_sampled(to_columns, rows.shape[1], part.shape[1]).to(part.dtype))
        joined = torch.cat(to_sampled, 1) if half > 1 else to_sampled[0]
        to_weights = torch.autograd.grad(sampled, leaf, joined)[0] if ctx.needs_input_grad[1] else None
        to_table = _scattered(joined, rows, weights, len(table)) if any(ctx.needs_input_grad[2 : 2 + half]) else None
        to_tables = [None] * half if to_table is None else to_table.split(widths, 1)
        return (None, to_weights, *to_tables, *to_matrices)


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum (q, c) of four weighted rows of a table (R, c); rows and weights (P, T, G, 4)."""
    return F.embedding_bag(rows.view(-1, 4), table, mode="sum", per_sample_weights=weights.reshape(-1, 4))


def product(sampled: Tensor, matrix: Tensor, size: Sequence[int]) -> Tensor:
    """Sampled rows (q, c) of ``size`` (P, T) as columns, times a kernel (groups, T C / groups, O / groups): (P, O)."""
    outputs = matrix.shape[0] * matrix.shape[2]
    return _by_group(_columns(sampled, matrix, size), matrix).transpose(0, 1).reshape(size[0], outputs)


def _by_group(columns: Tensor, matrices: Tensor) -> Tensor:
    """``torch.bmm``; a single group takes the quickest way where no graph is recorded."""
    if len(matrices) > 1 or torch.compiler.is_compiling() or torch._C._is_tracing():
        return torch.bmm(columns, matrices)
    return matrix_product(columns[0], matrices[0])[None]


def _columns(sampled: Tensor, matrix: Tensor, size: Sequence[int]) -> Tensor:
    """(groups, P, T C / groups), in the matrix's precision."""
    groups, depth = matrix.shape[:2]
    split = sampled.to(matrix.dtype).reshape(*size, groups, depth // size[1])
    return split.permute(2, 0, 1, 3).reshape(groups, size[0], depth)


def _as_sampled(columns: Tensor, taps: int, width: int) -> Tensor:
    """The reverse of `_columns`: (q, ``width``)."""
    groups, positions, depth = columns.shape
    return columns.view(groups, positions, taps, depth // taps).permute(1, 2, 0, 3).reshape(-1, width)


def _scattered(gradient: Tensor, rows: Tensor, weights: Tensor, count: int) -> Tensor:
    """Gradient (``count``, c) of a table: each row gathers what was made of it. Of sampled rows (q, c).

    The same bags as in the forward pass, with rows and samples exchanged: much faster than scattering.
    """
    order = torch.sort(rows.reshape(-1), stable=True)
    first = torch.searchsorted(order.values, torch.arange(count, dtype=rows.dtype, device=rows.device))
    samples = order.indices >> 2
    return F.embedding_bag(samples, gradient, first, mode="sum", per_sample_weights=weights.reshape(-1)[order.indices])
