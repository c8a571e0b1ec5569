"""Deformable convolution (v1, arXiv 1703.06211) in plain torch: torchvision's values, fast on CPU, exportable.

Letters: B images, C input channels, O output channels, G offset groups, T kernel taps (kernel height x width),
H W input map, h w output map, P output positions of an image, n chosen positions, R rows of a table.

The input becomes a table with one row per cell and offset group (C / G channels side by side in memory), surrounded
by cells of zeros. A tap reads the weighted sum of four rows, which `embedding_bag` does in one pass; the columns so
gathered meet the kernel in a matrix product (`poise.nn.gathered`). Which rows, and with which weights, depends on the
offsets alone: this plan is made once and serves every convolution with the same offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.nn.gathered import gathered_products, product

IntOrPair: TypeAlias = int | tuple[int, int]


class Grid(NamedTuple):
    """Where an undeformed convolution reads: kernel size and its steps, each as (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    input_size: tuple[int, int]


class Corners(NamedTuple):
    """The first of the four cells that each tap reads in one image's table, and where between them it reads.

    What graphs are recorded from: stacked as `Taps`, rows and weights would be copied, and copied apart again.

    Attributes:
        grid: the undeformed convolution.
        rows: (..., T, G) int32, row of the table of the cell above and to the left.
        down: (..., T, G) at least float32, how far below it, 0..1.
        right: (..., T, G) likewise, how far to the right of it.
    """

    grid: Grid
    rows: Tensor
    down: Tensor
    right: Tensor

    def cells(self) -> Iterator[tuple[int, Tensor]]:
        """How many rows each of the four cells lies behind the first, and its bilinear weight (..., T, G)."""
        groups = self.rows.shape[-1]
        below = (self.grid.input_size[1] + 4) * groups
        up, back = 1 - self.down, 1 - self.right
        yield 0, up * back
        yield groups, up * self.right
        yield below, self.down * back
        yield below + groups, self.down * self.right


class Taps(NamedTuple):
    """The four cells that each tap reads in one image's table, and their bilinear weights.

    Attributes:
        grid: the undeformed convolution.
        rows: (..., T, G, 4) int32, rows of the table.
        weights: (..., T, G, 4) at least float32, differentiable with respect to the offsets.
    """

    grid: Grid
    rows: Tensor
    weights: Tensor


class SamplingPlan(NamedTuple):
    """What the convolutions sharing one map of offsets have in common.

    Attributes:
        grid: the undeformed convolution.
        offsets: (B, 2 G T, h, w) as given.
        taps: shaped (B, P, T, G, 4), or corners (B, P, T, G) where a graph is recorded, or None where torchvision's
            operator does the work (CUDA).
    """

    grid: Grid
    offsets: Tensor
    taps: Taps | Corners | None


def sampling_plan(
    offsets: Tensor,
    kernel: IntOrPair,
    stride: IntOrPair,
    padding: IntOrPair,
    dilation: IntOrPair,
    input_size: tuple[int, int],
) -> SamplingPlan:
    """Work out which cells every output position reads.

    Args:
        offsets: (B, 2 G T, h, w) in cells of the input, added to the regular grid; channels by offset group, then tap
            (row-major), then (dy, dx). Far outside is allowed and reads zero.
        kernel: height and width, or one number for both (also below).
        stride: cells between neighbouring outputs.
        padding: cells of zeros around the input.
        dilation: cells between neighbouring taps.
        input_size: (H, W) of the maps to be convolved.

    Raises:
        ValueError: the channels or the size of the offsets do not fit the convolution.
    """
    grid = _grid(kernel, stride, padding, dilation, input_size)
    groups = _offset_groups(offsets, grid)
    height, width = offsets.shape[-2:]
    if not _traced() and (height, width) != _output_size(grid):
        raise ValueError(
            f"offsets of size {(height, width)} given, but the convolution's output is {_output_size(grid)}"
        )
    if offsets.is_cuda and not _traced():
        return SamplingPlan(grid, offsets, None)
    planar = offsets.reshape(-1, groups, grid.kernel[0] * grid.kernel[1], 2, height, width)
    rows = torch.arange(height, device=offsets.device)[:, None]
    columns = torch.arange(width, device=offsets.device)
    corners = _corners(planar.permute(3, 0, 4, 5, 2, 1), rows, columns, grid)
    return SamplingPlan(grid, offsets, _taps(Corners(grid, *(part.flatten(1, 2) for part in corners[1:]))))


def sampling_plan_at(
    offsets: Tensor,
    rows: Tensor,
    columns: Tensor,
    kernel: IntOrPair,
    stride: IntOrPair,
    padding: IntOrPair,
    dilation: IntOrPair,
    input_size: tuple[int, int],
) -> Taps | Corners:
    """Like `sampling_plan`, for some output positions of one image.

    Args:
        offsets: (n, 2 G T), channels ordered as in `sampling_plan`.
        rows: (n,) integer rows of the output map.
        columns: (n,) integer columns of the output map.
        kernel: height and width, or one number for both (also below).
        stride: cells between neighbouring outputs.
        padding: cells of zeros around the input.
        dilation: cells between neighbouring taps.
        input_size: (H, W) of the maps to be convolved.

    Returns:
        Taps shaped (n, T, G, 4), or corners (n, T, G) where a graph is recorded.

    Raises:
        ValueError: the channels of the offsets do not fit the kernel.
    """
    grid = _grid(kernel, stride, padding, dilation, input_size)
    groups = _offset_groups(offsets, grid)
    planar = offsets.reshape(-1, groups, grid.kernel[0] * grid.kernel[1], 2)
    return _taps(_corners(planar.permute(3, 0, 2, 1), rows, columns, grid))


def deform_conv2d(x: Tensor, weight: Tensor, plan: SamplingPlan, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Deformable convolution with a plan made beforehand; bilinear, zero outside, without modulation.

    On CUDA torchvision's operator is called: which of the two is faster there has not been measured. Elsewhere, and
    wherever a model is exported or compiled, plain torch. Cells are read in the offsets' precision, float32 at least;
    the product is made in that of `weight`, or autocast's. Training gathers the columns again in the backward pass
    instead of keeping them.

    Args:
        x: (B, C, H, W), C divisible by G and by `groups`.
        weight: (O, C / groups, kernel height, kernel width).
        plan: of the offsets, for the same kernel and input size.
        bias: (O,).
        groups: groups of the convolution, independent of the offset groups.

    Returns:
        (B, O, h, w), channels last in memory unless on CUDA.

    Raises:
        ValueError: x or weight do not fit the plan.
    """
    return _convolutions([x], [weight], plan, bias, groups)[0]


def deform_convolutions(maps: Sequence[Tensor], weights: Sequence[Tensor], plan: SamplingPlan) -> list[Tensor]:
    """Several deformable convolutions that share a plan, as `deform_conv2d`; faster together, above all in training.

    Args:
        maps: each (B, C, H, W); C may differ.
        weights: of each map, (O, C, kernel height, kernel width).
        plan: of the offsets.

    Returns:
        Of each map, (B, O, h, w).

    Raises:
        ValueError: maps or weights do not fit the plan.
    """
    return _convolutions(maps, weights, plan, None, 1)


def deform_conv2d_at(
    features: Tensor, weight: Tensor, taps: Taps | Corners, bias: Tensor | None = None, groups: int = 1
) -> Tensor:
    """The output of a deformable convolution at some positions only.

    Args:
        features: (C, H, W) input map of one image.
        weight: (O, C / groups, kernel height, kernel width).
        taps: from `sampling_plan_at`.
        bias: (O,).
        groups: groups of the convolution.

    Returns:
        (n, O), equal to the dense output up to float rounding.

    Raises:
        ValueError: features or weight do not fit the taps.
    """
    batch: Taps | Corners
    if isinstance(taps, Corners):
        batch = Corners(taps.grid, taps.rows[None], taps.down[None], taps.right[None])
    else:
        batch = Taps(taps.grid, taps.rows[None], taps.weights[None])
    _check_fit(features.shape, weight, groups, taps.grid, _groups_of(batch))
    return _products([_tables(features[None], batch)], [weight], batch, bias, groups)[0]


def deformable_convolution(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntOrPair = (1, 1),
    padding: IntOrPair = (0, 0),
    dilation: IntOrPair = (1, 1),
) -> Tensor:
    """Deformable convolution for offsets used once; arguments as in `torchvision.ops.deform_conv2d`, without a mask."""
    kernel = (weight.shape[2], weight.shape[3])
    plan = sampling_plan(offset, kernel, stride, padding, dilation, (input.shape[2], input.shape[3]))
    return deform_conv2d(input, weight, plan, bias, groups=max(1, input.shape[1] // weight.shape[1]))


def _traced() -> bool:
    """Whether a model is being exported or compiled: sizes may be symbols, and only common operators are wanted."""
    return torch.compiler.is_compiling() or torch._C._is_tracing()


def _pair(value: IntOrPair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _grid(
    kernel: IntOrPair, stride: IntOrPair, padding: IntOrPair, dilation: IntOrPair, input_size: tuple[int, int]
) -> Grid:
    return Grid(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), (input_size[0], input_size[1]))


def _output_size(grid: Grid) -> tuple[int, int]:
    def along(axis: int) -> int:
        reach = grid.dilation[axis] * (grid.kernel[axis] - 1) + 1
        return (grid.input_size[axis] + 2 * grid.padding[axis] - reach) // grid.stride[axis] + 1

    return along(0), along(1)


def _offset_groups(offsets: Tensor, grid: Grid) -> int:
    groups, rest = divmod(int(offsets.shape[1]), 2 * grid.kernel[0] * grid.kernel[1])
    if rest or not groups:
        raise ValueError(
            f"offsets have {offsets.shape[1]} channels; a {grid.kernel} kernel needs a multiple of "
            f"{2 * grid.kernel[0] * grid.kernel[1]}"
        )
    return groups


def _check_fit(shape: torch.Size, weight: Tensor, groups: int, grid: Grid, offset_groups: int) -> None:
    channels = shape[0]
    if tuple(weight.shape[2:]) != grid.kernel:
        raise ValueError(f"weight of kernel {tuple(weight.shape[2:])} given, but the plan is for {grid.kernel}")
    if channels != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(f"weight {tuple(weight.shape)} with {groups} groups does not fit {channels} input channels")
    if channels % offset_groups:
        raise ValueError(f"{channels} input channels cannot be split into {offset_groups} offset groups")
    if not _traced() and tuple(shape[1:]) != grid.input_size:
        raise ValueError(f"input of size {tuple(shape[1:])} given, but the plan is for {grid.input_size}")


def _corners(offsets: Tensor, rows: Tensor, columns: Tensor, grid: Grid) -> Corners:
    """Corners of positions of any arrangement.

    Args:
        offsets: (2, ..., T, G), dy before dx.
        rows: integer, broadcastable to (...).
        columns: integer, broadcastable to (...).
        grid: the undeformed convolution.
    """
    wide = offsets.dtype if offsets.dtype == torch.float64 else torch.float32
    offsets = offsets.to(wide).contiguous()
    shift = torch.arange(grid.kernel[0] * grid.kernel[1], device=offsets.device)
    top = rows[..., None] * grid.stride[0] + (shift // grid.kernel[1] * grid.dilation[0] - grid.padding[0])
    left = columns[..., None] * grid.stride[1] + (shift % grid.kernel[1] * grid.dilation[1] - grid.padding[1])
    row, down = _cell(offsets[0] + top[..., None], grid.input_size[0])
    column, right = _cell(offsets[1] + left[..., None], grid.input_size[1])
    groups = offsets.shape[-1]
    group = torch.arange(groups, dtype=torch.int32, device=offsets.device)
    below = (grid.input_size[1] + 4) * groups
    return Corners(grid, row * below + column * groups + group, down, right)


def _taps(corners: Corners) -> Taps | Corners:
    """All four cells side by side, as `embedding_bag` wants them; recorded graphs take one after the other."""
    if _traced() or corners.rows.numel() == 0:
        return corners
    steps, weights = zip(*corners.cells(), strict=True)
    rows = torch.stack([corners.rows + step for step in steps], dim=-1)
    return Taps(corners.grid, rows, torch.stack(weights, dim=-1))


def _groups_of(taps: Taps | Corners) -> int:
    return int(taps.rows.shape[-1] if isinstance(taps, Corners) else taps.rows.shape[-2])


def _cell(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The cell before a coordinate, as an index into the padded axis, and the fraction beyond it.

    The axis is padded by two zeros at each end, so coordinates may be clamped to -2 .. size, where both neighbours are
    zeros and no gradient flows; at -1 itself one may. Indices are clamped once more because a NaN must reach the output
    as a value, never as an address. They fit int32: 2^31 rows would be 8 GB of features at least.
    """
    bounded = coordinate.clamp(-2, size)
    before = bounded.detach().floor()
    return before.to(torch.int32).clamp(-2, size) + 2, bounded - before


def _tables(x: Tensor, taps: Taps | Corners) -> Tensor:
    """(B, C, H, W) as tables (B, R, C / G), R = (H + 4) (W + 4) G, in the precision of the taps' weights."""
    groups = _groups_of(taps)
    dtype = taps.down.dtype if isinstance(taps, Corners) else taps.weights.dtype
    padded = F.pad(x.to(dtype).permute(0, 2, 3, 1), (0, 0, 2, 2, 2, 2))
    return padded.reshape(x.shape[0], padded.shape[1] * padded.shape[2] * groups, x.shape[1] // groups)


def _convolutions(
    maps: Sequence[Tensor], weights: Sequence[Tensor], plan: SamplingPlan, bias: Tensor | None, groups: int
) -> list[Tensor]:
    """The convolution of each map, (B, O, h, w)."""
    offset_groups = _offset_groups(plan.offsets, plan.grid)
    for x, weight in zip(maps, weights, strict=True):
        if not _traced() and len(x) != len(plan.offsets):
            raise ValueError(f"{len(x)} images given, but the plan is of {len(plan.offsets)}")
        _check_fit(x.shape[-3:], weight, groups, plan.grid, offset_groups)
    if plan.taps is None:
        return [_torchvision(x, weight, plan, bias) for x, weight in zip(maps, weights, strict=True)]
    products = _products([_tables(x, plan.taps) for x in maps], weights, plan.taps, bias, groups)
    height, width = plan.offsets.shape[-2:]
    return [p.view(-1, height, width, p.shape[1]).permute(0, 3, 1, 2) for p in products]


def _products(
    tables: Sequence[Tensor], weights: Sequence[Tensor], taps: Taps | Corners, bias: Tensor | None, groups: int
) -> list[Tensor]:
    """The convolutions of all images, each (B P, O)."""
    matrices = [_matrices(weight, groups) for weight in weights]
    if isinstance(taps, Corners):
        products = [_recorded_product(table, taps, m) for table, m in zip(tables, matrices, strict=True)]
    else:
        products = gathered_products(tables, taps.rows, taps.weights, matrices)
    return products if bias is None else [p + bias.to(p.dtype) for p in products]


def _matrices(weight: Tensor, groups: int) -> Tensor:
    """(groups, T C / groups, O / groups) of a kernel (O, C / groups, ...)."""
    outputs, width = weight.shape[:2]
    by_group = weight.reshape(groups, outputs // groups, width, -1)
    return by_group.permute(0, 3, 2, 1).reshape(groups, -1, outputs // groups)


def _recorded_product(tables: Tensor, corners: Corners, matrices: Tensor) -> Tensor:
    """(B P, O) by common operators and for any sizes: recorded graphs take all positions at once."""
    images = torch.arange(tables.shape[0], dtype=torch.int32, device=tables.device).view(-1, 1, 1, 1)
    rows = (corners.rows + images * tables.shape[1]).flatten(0, 1)
    table = tables.flatten(0, 1)
    parts = [table.index_select(0, (rows + step).flatten()) * weight.reshape(-1, 1) for step, weight in corners.cells()]
    return product(parts[0] + parts[1] + parts[2] + parts[3], matrices, rows.shape[:2])


def _torchvision(x: Tensor, weight: Tensor, plan: SamplingPlan, bias: Tensor | None) -> Tensor:
    """torchvision's operator, in the precisions that `deform_conv2d` promises."""
    from torchvision.ops import deform_conv2d as operator

    dtype = torch.promote_types(plan.offsets.dtype, torch.float32)
    _, stride, padding, dilation, _ = plan.grid
    wide_bias = None if bias is None else bias.to(dtype)
    result: Tensor = operator(
        x.to(dtype),
        plan.offsets.to(dtype),
        weight.to(dtype),
        wide_bias,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    return result.to(weight.dtype)
