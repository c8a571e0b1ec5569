"""Deformable convolution: torchvision's operator is the oracle, in values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d as oracle

from poise.nn import gathered
from poise.nn.deformable import (
    deform_conv2d,
    deform_conv2d_at,
    deform_convolutions,
    deformable_convolution,
    sampling_plan,
    sampling_plan_at,
)

CASES: dict[str, dict[str, object]] = {
    "smpr": {"channels": 16, "outputs": 16, "offset_groups": 4, "padding": 1},
    "one_group": {},
    "bias": {"bias": True},
    "pointwise": {"kernel": (1, 1)},
    "oblong": {"kernel": (3, 2), "stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)},
    "even_kernel": {"kernel": (2, 2), "stride": 3, "padding": 1},
    "dilated": {"kernel": (3, 3), "padding": 2, "dilation": 2, "offset_groups": 2, "bias": True},
    "grouped": {"groups": 2, "padding": 1, "bias": True},
    "grouped_both": {"channels": 12, "outputs": 6, "groups": 3, "offset_groups": 2, "padding": 1},
    "depthwise": {"channels": 8, "outputs": 8, "groups": 8, "offset_groups": 4, "padding": 1, "bias": True},
    "own_offsets_per_channel": {"channels": 4, "outputs": 2, "offset_groups": 4, "kernel": (5, 5), "padding": 2},
    "one_image": {"images": 1, "padding": 1},
    "one_cell": {"size": (1, 1), "padding": 1},
}


def make(
    *,
    images: int = 2,
    channels: int = 8,
    outputs: int = 6,
    size: tuple[int, int] = (9, 11),
    kernel: tuple[int, int] = (3, 3),
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    offset_groups: int = 1,
    bias: bool = False,
    spread: float = 2.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Tensor | None], dict[str, int | tuple[int, int]]]:
    """Tensors (input, offset, weight, bias) that need gradients, and the geometry."""
    generator = torch.Generator().manual_seed(5)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    shape = nn.Conv2d(channels, outputs, kernel, groups=groups, **geometry)  # type: ignore[arg-type]
    output = shape(torch.zeros(1, channels, *size)).shape[-2:]

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, dtype=dtype)

    offsets = spread * draw(images, 2 * offset_groups * kernel[0] * kernel[1], *output)
    tensors = [
        draw(images, channels, *size),
        offsets,
        draw(outputs, channels // groups, *kernel),
        draw(outputs) if bias else None,
    ]
    return [t if t is None else t.requires_grad_() for t in tensors], geometry


def gradients(function: Callable[..., Tensor], tensors: list[Tensor | None], geometry: dict) -> list[Tensor]:
    """The output and the gradients of a random projection of it."""
    output = function(*tensors, **geometry)
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(6)).to(output)
    wanted = [t for t in tensors if t is not None]
    return [output, *torch.autograd.grad((output * direction).sum(), wanted)]


def assert_as_torchvision(tensors: list[Tensor | None], geometry: dict) -> None:
    ours = gradients(deformable_convolution, tensors, geometry)
    for mine, theirs in zip(ours, gradients(oracle, tensors, geometry), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_torchvisions(case: str) -> None:
    assert_as_torchvision(*make(**CASES[case]))  # type: ignore[arg-type]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "COLUMN_BYTES", 5000)
    calls = []
    weighted_rows = gathered.weighted_rows
    monkeypatch.setattr(gathered, "weighted_rows", lambda *args: calls.append(len(args[1])) or weighted_rows(*args))
    tensors, geometry = make(**CASES["smpr"])  # type: ignore[arg-type]
    with torch.no_grad():
        deformable_convolution(*tensors, **geometry)
    assert len(calls) == 2 * 13
    assert sum(calls) == 2 * 9 * 11
    assert max(calls) * 9 * 16 * 4 <= 5000
    assert_as_torchvision(tensors, geometry)


def test_offsets_on_the_lattice_and_far_outside() -> None:
    tensors, geometry = make(padding=1, offset_groups=2)
    x, offsets, weight, _ = tensors
    whole = offsets.detach().round()
    whole.view(-1)[::7] = 1e9
    whole.view(-1)[1::7] = -1e9
    whole.view(-1)[2::7] = float("inf")
    # torchvision computes inf - inf here; zero is what lies outside.
    finite = whole.clamp(-1e9, 1e9).requires_grad_()
    assert_as_torchvision([x, finite, weight, None], geometry)
    ours = gradients(deformable_convolution, [x, whole.requires_grad_(), weight, None], geometry)
    for mine, theirs in zip(ours, gradients(deformable_convolution, [x, finite, weight, None], geometry), strict=True):
        assert torch.equal(mine, theirs)


def test_all_outside_is_zero_plus_bias() -> None:
    (x, offsets, weight, bias), geometry = make(padding=1, bias=True)
    output = deformable_convolution(x, torch.full_like(offsets, 1e4), weight, bias, **geometry)
    assert torch.equal(output, bias[:, None, None].expand_as(output))


def test_zero_offsets_are_a_convolution() -> None:
    (x, offsets, weight, bias), geometry = make(**CASES["grouped"])  # type: ignore[arg-type]
    output = deformable_convolution(x, torch.zeros_like(offsets), weight, bias, **geometry)
    expected = nn.functional.conv2d(x, weight, bias, groups=2, **geometry)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_nan_offsets_show_and_stay_where_they_are() -> None:
    (x, offsets, weight, _), geometry = make(padding=1)
    broken = offsets.detach().clone()
    broken[1, 4, 3, 2] = float("nan")
    output = deformable_convolution(x, broken, weight, **geometry)
    expected = torch.zeros(2, 9, 11, dtype=torch.bool)
    expected[1, 3, 2] = True
    assert torch.equal(output.isnan().all(1), expected)
    assert torch.equal(output.isnan().any(1), expected)


@pytest.mark.parametrize("case", ["oblong", "grouped_both"])
def test_gradcheck(case: str) -> None:
    small = {"images": 1, "channels": 6, "size": (3, 3), "kernel": (2, 2), "spread": 1.0, "bias": True}
    tensors, geometry = make(**{**CASES[case], **small, "dtype": torch.float64})  # type: ignore[arg-type]
    assert torch.autograd.gradcheck(lambda *t: deformable_convolution(*t, **geometry), tensors)


def test_shared_plan_equals_separate_ones() -> None:
    (x, offsets, weight, _), geometry = make(**CASES["smpr"])  # type: ignore[arg-type]
    y = x.detach().flip(1).requires_grad_()
    other = weight.detach().flip(0).requires_grad_()
    inputs = [x, y, offsets, weight, other]
    plan = sampling_plan(offsets, 3, 1, 1, 1, (9, 11))
    together = deform_conv2d(x, weight, plan).square().sum() + deform_conv2d(y, other, plan).sum()
    apart = oracle(x, offsets, weight, **geometry).square().sum() + oracle(y, offsets, other, **geometry).sum()
    pairs = zip(torch.autograd.grad(together, inputs), torch.autograd.grad(apart, inputs), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("fixed", ["nothing", "maps", "offsets", "weights"])
def test_convolutions_together_are_torchvisions(fixed: str, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of different width, some of whose inputs need no gradient, image by image or several at once."""
    (x, offsets, weight, _), _ = make(images=5, channels=8, outputs=6, padding=1, offset_groups=2)
    (other, _, other_weight, _), _ = make(images=5, channels=4, outputs=3, padding=1)
    monkeypatch.setattr(gathered, "TOGETHER_BYTES", together * 12 * 9 * 9 * 11 * 4)
    groups = {"maps": (x, other), "offsets": (offsets,), "weights": (weight, other_weight), "nothing": ()}
    for tensor in groups[fixed]:
        tensor.requires_grad_(False)
    wanted = [t for t in (x, other, offsets, weight, other_weight) if t.requires_grad]
    ours = deform_convolutions((x, other), (weight, other_weight), sampling_plan(offsets, 3, 1, 1, 1, (9, 11)))
    theirs = [oracle(m, offsets, w, padding=1) for m, w in ((x, weight), (other, other_weight))]
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
    mine = torch.autograd.grad(sum(o.square().sum() for o in ours), wanted)
    for a, b in zip(mine, torch.autograd.grad(sum(o.square().sum() for o in theirs), wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-2)


def test_gradients_in_mixed_precision() -> None:
    (x, offsets, weight, bias), geometry = make(channels=64, padding=1, offset_groups=2, bias=True)
    wanted = [x, weight, bias]
    exact = torch.autograd.grad(oracle(x, offsets, weight, bias, **geometry).sum(), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = deformable_convolution(x, offsets, weight, bias, **geometry)
    for mine, theirs in zip(torch.autograd.grad(output.sum(), wanted), exact, strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - theirs).abs().mean() < 0.02 * theirs.abs().mean()


@pytest.mark.parametrize("case", ["smpr", "oblong", "grouped_both", "depthwise"])
def test_chosen_positions_equal_the_dense_output(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, offsets, weight, bias), geometry = make(**CASES[case])  # type: ignore[arg-type]
    dense = oracle(x, offsets, weight, bias, **geometry)
    rows = torch.tensor([0, dense.shape[2] - 1, 1, 1, 2])
    columns = torch.tensor([dense.shape[3] - 1, 0, 2, 2, 1])
    kernel = tuple(weight.shape[2:])
    some = offsets[1][:, rows, columns].T
    taps = sampling_plan_at(some, rows, columns, kernel, *geometry.values(), input_size=(9, 11))
    groups = x.shape[1] // weight.shape[1]
    chosen = deform_conv2d_at(x[1], weight, taps, bias, groups)
    expected = dense[1][:, rows, columns].T
    torch.testing.assert_close(chosen, expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(gathered, "COLUMN_BYTES", 1)
    wanted = [x, offsets, weight]
    chunked = deform_conv2d_at(x[1], weight, taps, bias, groups).square().sum()
    for mine, theirs in zip(
        torch.autograd.grad(chunked, wanted), torch.autograd.grad(expected.square().sum(), wanted), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_no_positions() -> None:
    (x, offsets, weight, bias), _ = make(padding=1, bias=True)
    none = torch.zeros(0, dtype=torch.long)
    taps = sampling_plan_at(offsets[0][:, none, none].T, none, none, 3, 1, 1, 1, (9, 11))
    output = deform_conv2d_at(x[0], weight, taps, bias)
    assert output.shape == (0, 6)
    grads = torch.autograd.grad(output.sum(), [x, offsets, weight, bias])
    assert not any(g.any() for g in grads)


def test_no_images() -> None:
    (x, offsets, weight, _), geometry = make(padding=1)
    assert deformable_convolution(x[:0], offsets[:0], weight, **geometry).shape == (0, 6, 9, 11)


def test_shapes_without_values() -> None:
    """On the device of networks that are only counted."""
    x, offsets, weight = (torch.empty(*s, device="meta") for s in ((2, 8, 9, 11), (2, 36, 9, 11), (6, 8, 3, 3)))
    assert deformable_convolution(x, offsets, weight, padding=1).shape == (2, 6, 9, 11)


def test_channels_last_input() -> None:
    (x, offsets, weight, _), geometry = make(padding=1, offset_groups=2)
    last = x.detach().contiguous(memory_format=torch.channels_last)
    output = deformable_convolution(last, offsets, weight, **geometry)
    torch.testing.assert_close(output, oracle(x, offsets, weight, **geometry), rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_exact_coordinates() -> None:
    (x, offsets, weight, bias), geometry = make(channels=64, size=(3, 300), padding=1, bias=True, spread=0.3)
    # Offsets that bfloat16 can hold: what is lost can only be lost in adding the grid or in the product.
    offsets = offsets.detach().bfloat16()
    exact = oracle(x, offsets.float(), weight, bias, **geometry)
    low = deformable_convolution(x.bfloat16(), offsets, weight.bfloat16(), bias.bfloat16(), **geometry)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().mean() < 0.01 * exact.abs().mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = deformable_convolution(x, offsets, weight, bias, **geometry)
    assert mixed.dtype == torch.bfloat16
    assert (mixed.float() - exact).abs().mean() < 0.01 * exact.abs().mean()


class TwoConvolutions(nn.Module):
    """Offsets from the map itself, shared by two convolutions, as in SMPR's head."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.offsets = nn.Parameter(torch.randn(36, 8, 1, 1, generator=generator))
        self.first = nn.Parameter(torch.randn(8, 8, 3, 3, generator=generator))
        self.second = nn.Parameter(torch.randn(4, 4, 3, 3, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        plan = sampling_plan(nn.functional.conv2d(x, self.offsets), 3, 1, 1, 1, (x.shape[2], x.shape[3]))
        first = deform_conv2d(x, self.first, plan)
        return deform_conv2d(first, self.second, plan, groups=2)


def test_export_with_any_size_gives_the_same() -> None:
    model = TwoConvolutions().eval()
    example = torch.randn(2, 8, 7, 6, generator=torch.Generator().manual_seed(8))
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (example,), dynamic_shapes=(sizes,), strict=False)  # as poise.export does
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in called if not name.startswith(("aten.", "<built-in function"))]
    assert not [name for name in called if "embedding_bag" in name]
    assert "aten.index_select.default" in called
    for shape in [(2, 8, 7, 6), (1, 8, 5, 12)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(9))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(
    torch.__version__.startswith("2.6."), reason="torch.export of 2.6 refuses an open number of positions"
)
def test_export_of_chosen_positions() -> None:
    (x, offsets, weight, _), _ = make(padding=1, images=1)

    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", weight.detach())

        def forward(self, features: Tensor, offsets: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            size = (features.shape[1], features.shape[2])
            taps = sampling_plan_at(offsets, rows, columns, 3, 1, 1, 1, size)
            return deform_conv2d_at(features, self.weight, taps)

    rows, columns = torch.tensor([0, 4, 8]), torch.tensor([10, 3, 0])
    args = (x[0].detach(), offsets[0][:, rows, columns].T.detach(), rows, columns)
    many = torch.export.Dim("n", min=2)
    program = torch.export.export(Chosen(), args, dynamic_shapes=(None, {0: many}, {0: many}, {0: many}))
    output = program.module()(*(a if i == 0 else a[:2] for i, a in enumerate(args)))
    torch.testing.assert_close(output, Chosen()(*args)[:2], rtol=1e-4, atol=1e-4)


def test_training_does_not_keep_the_columns() -> None:
    (x, offsets, weight, _), geometry = make(channels=64, padding=1)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        deformable_convolution(x, offsets, weight, **geometry)
    columns_of_an_image = 9 * 64 * 9 * 11
    assert kept
    assert max(kept) < columns_of_an_image / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 17}, "multiple of 18"),
        ({"size": (8, 11)}, "convolution's output"),
        ({"input": (2, 8, 9, 10)}, "plan is for \\(9, 11\\)"),
        ({"input": (1, 8, 9, 11)}, "plan is of 2"),
        ({"input": (2, 7, 9, 11)}, "does not fit 7 input channels"),
        ({"weight": (6, 8, 3, 1)}, "kernel \\(3, 1\\)"),
        ({"offset_groups": 3}, "3 offset groups"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    channels = change.get("channels", 18 * change.get("offset_groups", 1))
    offsets = torch.zeros(2, channels, *change.get("size", (9, 11)))
    with pytest.raises(ValueError, match=message):
        deform_conv2d(
            torch.zeros(change.get("input", (2, 8, 9, 11))),
            torch.zeros(change.get("weight", (6, 8, 3, 3))),
            sampling_plan(offsets, 3, 1, 1, 1, (9, 11)),
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_cuda_equals_cpu(case: str) -> None:
    tensors, geometry = make(**CASES[case])  # type: ignore[arg-type]
    on_gpu = [t if t is None else t.detach().cuda().requires_grad_() for t in tensors]
    expected = gradients(deformable_convolution, tensors, geometry)
    for mine, theirs in zip(gradients(deformable_convolution, on_gpu, geometry), expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_chosen_positions_on_cuda() -> None:
    (x, offsets, weight, bias), geometry = make(padding=1, offset_groups=2, bias=True)
    dense = oracle(x, offsets, weight, bias, **geometry)
    rows, columns = torch.tensor([0, 8, 3]).cuda(), torch.tensor([10, 0, 4]).cuda()
    taps = sampling_plan_at(offsets.cuda()[1][:, rows, columns].T, rows, columns, 3, 1, 1, 1, (9, 11))
    chosen = deform_conv2d_at(x[1].cuda(), weight.cuda(), taps, bias.cuda())
    torch.testing.assert_close(chosen.cpu(), dense[1][:, rows.cpu(), columns.cpu()].T, rtol=1e-4, atol=1e-4)
