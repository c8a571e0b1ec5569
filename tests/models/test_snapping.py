"""Keypoints drawn to the peaks of heatmaps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from poise.geometry.boxes import points_extent
from poise.models.dense import Candidates, no_candidates
from poise.models.smpr import SMPR, SMPRConfig
from poise.models.snapping import FLOOR, find_peaks, snap
from poise.skeletons import Skeleton

PAIR = Skeleton("pair", ("a", "b"), (), (), (0.1, 0.1))
STRIDE = 8


def logits(*peaks: tuple[int, int, int, float]) -> Tensor:
    """Maps (2, 12, 16) that are nearly zero but at (keypoint, row, column, probability)."""
    maps = torch.full((2, 12, 16), -12.0)
    for kind, row, column, p in peaks:
        maps[kind, row, column] = torch.logit(torch.tensor(p))
    return maps


def candidates(*poses: list[list[float]]) -> Candidates:
    points = torch.tensor(poses)
    n = len(points)
    return Candidates(
        torch.full((n,), 0.5), points, torch.full((n, 2), 0.5), points_extent(points),
        torch.zeros(n, dtype=torch.int64), points[:, 0],
    )  # fmt: skip


def centre(row: int, column: int) -> list[float]:
    return [column * STRIDE + 4.0, row * STRIDE + 4.0]


def test_a_lonely_peak_lies_on_its_cell() -> None:
    peaks = find_peaks(logits((0, 5, 7, 0.9), (1, 0, 15, 0.4)), STRIDE)
    assert peaks.heights.shape == (2, 40)
    torch.testing.assert_close(peaks.heights[:, 0], torch.tensor([0.9, 0.4]))
    torch.testing.assert_close(peaks.places[:, 0], torch.tensor([centre(5, 7), centre(0, 15)]), atol=1e-2, rtol=0)


def test_a_peak_between_cells_is_found_between_them() -> None:
    peaks = find_peaks(logits((0, 5, 7, 0.8), (0, 5, 8, 0.799)), STRIDE)
    torch.testing.assert_close(peaks.places[0, 0], torch.tensor([64.0, 44.0]), atol=0.05, rtol=0)


def test_the_likeliest_peak_wins() -> None:
    """A near one of its own kind; not the far one that is higher, not that of the other kind."""
    maps = logits((0, 5, 7, 0.5), (0, 5, 15, 0.9), (1, 5, 6, 0.9), (1, 9, 9, 0.6))
    found = snap(candidates([[58.0, 40.0], [82.0, 72.0]]), maps, STRIDE, 0.3)
    goal = torch.tensor([[centre(5, 7), centre(9, 9)]])
    assert float((found.keypoints - goal).abs().max()) < 1
    squared = (torch.tensor([58.0, 40.0]) - torch.tensor(centre(5, 7))).square().sum()
    support = 0.5 * torch.exp(-squared / (2 * 0.09 * 24 * 32))
    torch.testing.assert_close(found.keypoint_scores[0, 0], support.sqrt(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.boxes, points_extent(found.keypoints))


def test_size_of_the_pose_decides_what_is_near() -> None:
    """The same peak at the same distance draws a large pose and leaves a small one alone."""
    maps = logits((0, 5, 9, 0.9))
    small = snap(candidates([[60.0, 44.0], [68.0, 52.0]]), maps, STRIDE, 0.2)
    large = snap(candidates([[60.0, 44.0], [124.0, 92.0]]), maps, STRIDE, 0.2)
    assert float(small.keypoints[0, 0, 0]) < 61
    assert float(large.keypoints[0, 0, 0]) > 70


def test_without_support_a_keypoint_stays() -> None:
    before = candidates([[30.0, 30.0], [60.0, 70.0]])
    after = snap(before, logits(), STRIDE, 0.4)
    torch.testing.assert_close(after.keypoints, before.keypoints, atol=0.2, rtol=0)
    assert float(after.keypoint_scores.max() ** 2) < FLOOR / 10
    assert torch.equal(after.scores, before.scores)


@pytest.mark.skipif(torch.__version__.startswith("2.6."), reason="torch 2.6 writes no free sizes as ONNX")
@pytest.mark.filterwarnings("ignore")
def test_peaks_of_maps_of_any_size_can_be_written_as_onnx() -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    class Finder(nn.Module):
        def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
            peaks = find_peaks(maps, 8)
            return peaks.heights, peaks.places

    def noise(height: int, width: int) -> Tensor:
        return torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))

    free = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    recorded = torch.export.export(Finder(), (noise(24, 32),), dynamic_shapes=(free,), strict=False)
    written = torch.onnx.export(recorded, dynamo=True, optimize=False, opset_version=20, verbose=False)
    assert written is not None
    session = runtime.InferenceSession(written.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((24, 32), (9, 40), (13, 7)):
        heights, places = session.run(None, {session.get_inputs()[0].name: noise(*size).numpy()})
        peaks = find_peaks(noise(*size), 8)
        torch.testing.assert_close(torch.from_numpy(heights), peaks.heights)
        real = peaks.heights > 0  # of maps with fewer peaks than are kept the rest may be anywhere
        torch.testing.assert_close(torch.from_numpy(places)[real], peaks.places[real], atol=1e-3, rtol=0)


def test_nobody() -> None:
    nobody = no_candidates(2, torch.zeros(1))
    assert snap(nobody, logits(), STRIDE, 0.3) is nobody


def test_smpr_snaps_the_same_when_lazy() -> None:
    torch.manual_seed(0)
    config = SMPRConfig(
        backbone="mobilenetv2_035", stride_in_1x1=False, neck="fpn", channels=32, tower_depth=1, heatmap_channels=16,
        score_threshold=0.001, snap=0.4, consensus=True,
    )  # fmt: skip
    model = SMPR(config).eval()
    with torch.no_grad():
        model.head.heatmap[-1].weight.mul_(300)  # type: ignore[index]
        image = torch.randn(1, 3, 128, 160)
        plain, sizes = model(image), [(128, 160)]
        dense, lazy = model.decode(plain, sizes)[0], model.detect(image, sizes)[0]
        model.config = config.model_copy(update={"snap": None})
        unsnapped = model.decode(plain, sizes)[0]
    assert len(dense) == len(lazy) == len(unsnapped) > 10
    torch.testing.assert_close(torch.tensor(lazy.keypoints), torch.tensor(dense.keypoints), atol=1e-3, rtol=0)
    assert abs(dense.keypoints - unsnapped.keypoints).max() > 1
    model.config = config
    final = model.suppress(dense)
    assert 0 < len(final) <= config.max_poses
    assert (final.scores[:-1] >= final.scores[1:]).all()


def test_snapping_needs_heatmaps() -> None:
    with pytest.raises(ValueError, match="snap needs heatmap"):
        SMPRConfig.parse({"heatmap": False, "snap": 0.3})
