"""Convolutions of several maps at once against those of each map alone."""

import pytest
import torch
from torch import nn

from poise.nn.deformable import deform_conv2d, sampling_plan
from poise.nn.joint import (
    cells_of,
    conv3x3_around,
    joined,
    joint_deform_conv2d,
    joint_deform_conv2d_at,
    joint_plan,
    joint_table,
    parted,
)

SIZES = [(7, 9), (4, 5), (2, 2), (1, 1)]
CPU = torch.device("cpu")


def _maps(channels: int, batch: int = 2, seed: int = 0, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64) for size in SIZES]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("scale", [0.5, 3.0, 100.0])
def test_deformable_convolution_equals_that_of_each_map(groups: int, scale: float) -> None:
    """Offsets reach far outside, from which zeros are read."""
    maps, offsets = _maps(8), _maps(18 * groups, seed=1, scale=scale)
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cells = cells_of(SIZES, CPU)
    plan = joint_plan(offsets, cells)
    found = joint_deform_conv2d(maps, weight, plan)
    each = [
        deform_conv2d(m, weight, sampling_plan(o, 3, 1, 1, 1, (m.shape[2], m.shape[3])))
        for m, o in zip(maps, offsets, strict=True)
    ]
    torch.testing.assert_close(found, joined(each))
    for part, expected in zip(parted(found, SIZES), each, strict=True):
        torch.testing.assert_close(part, expected)
    index = torch.tensor([0, 62, 63, 70, 87, 83])
    table = joint_table([m[1:] for m in maps], groups, torch.float64)[0]
    torch.testing.assert_close(joint_deform_conv2d_at(table, weight, plan, 1, index), found[1, index])


def test_an_offset_that_is_no_number_spoils_its_own_cell_alone() -> None:
    maps, offsets = _maps(4, batch=1), _maps(18, batch=1, seed=1)
    weight = torch.ones(2, 4, 3, 3, dtype=torch.float64)
    cells = cells_of(SIZES, CPU)
    before = joint_deform_conv2d(maps, weight, joint_plan(offsets, cells))
    offsets[1][0, 3, 1, 2] = torch.nan
    offsets[0][0, 5, 0, 0] = torch.inf
    after = joint_deform_conv2d(maps, weight, joint_plan(offsets, cells))
    spoilt = torch.zeros(len(cells), dtype=torch.bool)
    spoilt[63 + 1 * 5 + 2] = True
    assert after[0, spoilt].isnan().all()
    spoilt[0] = True
    torch.testing.assert_close(after[0, ~spoilt], before[0, ~spoilt])


@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_convolution_at_cells_equals_the_dense_one(outputs: int, count: int, bias: bool) -> None:
    maps = _maps(5, batch=1)
    torch.manual_seed(3)
    convolution = nn.Conv2d(5, outputs, 3, padding=1, bias=bias).double()
    cells = cells_of(SIZES, CPU)
    values = torch.cat([joined(maps)[0], torch.zeros(1, 5, dtype=torch.float64)])
    index = torch.randperm(len(cells), generator=torch.Generator().manual_seed(4))[:count]
    with torch.no_grad():
        found = conv3x3_around(convolution, values, cells.around(index))
        expected = joined([convolution(m) for m in maps])[0]
    torch.testing.assert_close(found, expected[index])


def test_no_cells() -> None:
    convolution = nn.Conv2d(5, 2, 3, padding=1)
    nobody = torch.zeros(0, dtype=torch.int64)
    around = cells_of(SIZES, CPU).around(nobody)
    assert around.shape == (0, 9)
    assert conv3x3_around(convolution, torch.zeros(89, 5), around).shape == (0, 2)


def test_cells_know_their_place() -> None:
    cells = cells_of([(2, 3), (1, 2)], CPU)
    assert cells.maps.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert cells.rows.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert cells.columns.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert cells.around(torch.tensor([0, 7])).tolist() == [
        [8, 8, 8, 8, 0, 1, 8, 3, 4],
        [8, 8, 8, 6, 7, 8, 8, 8, 8],
    ]


def test_what_is_kept_for_a_size_serves_every_mode() -> None:
    sizes = [(3, 5), (2, 3)]
    offsets = [torch.randn(1, 36, *size, generator=torch.Generator().manual_seed(5)) for size in sizes]
    with torch.inference_mode():
        inside = joint_plan(offsets, cells_of(sizes, CPU))
    cells = cells_of(sizes, CPU)
    assert cells is cells_of(tuple(sizes), CPU)
    assert not cells.rows.is_inference()
    for part in offsets:
        part.requires_grad_()
    plan = joint_plan(offsets, cells)
    assert torch.equal(plan.rows, inside.rows)
    plan.weights.square().sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in offsets)
