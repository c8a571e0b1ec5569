"""Labels and peaks against OpenCV's blur and against a plain loop over cells."""

import math

import cv2
import numpy as np
import pytest
import torch

from poise.geometry.heatmaps import (
    blur,
    draw_labels,
    gaussian_kernel,
    inside,
    keypoint_cells,
    log_parabola,
    second_peak,
    sign_offset,
)

SIZE = (24, 20)
KERNELS = (5, 7, 9, 11, 15)


@pytest.mark.parametrize("size", [1, 3, *KERNELS, 21])
def test_kernels_are_those_of_opencv(size: int) -> None:
    np.testing.assert_allclose(gaussian_kernel(size), cv2.getGaussianKernel(size, 0)[:, 0], atol=1e-9)


@pytest.mark.parametrize("size", [0, 4, -1])
def test_even_kernels_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        gaussian_kernel(size)


def blurred_impulse(x: int, y: int, kernel: int) -> np.ndarray:
    impulse = np.zeros(SIZE)
    impulse[y, x] = 1
    return cv2.GaussianBlur(impulse, (kernel, kernel), 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_labels_are_blurred_impulses(kernel: int) -> None:
    """At every cell of the map, so also next to all borders, where the mass is reflected."""
    cells = [(x, y) for y in range(SIZE[0]) for x in range(SIZE[1])]
    drawn = torch.ones(len(cells), dtype=torch.bool)
    by_maximum = draw_labels(torch.tensor(cells), drawn, SIZE, kernel, "maximum").numpy()
    by_keypoint = draw_labels(torch.tensor(cells), drawn, SIZE, kernel, "keypoint").numpy()
    for i, (x, y) in enumerate(cells):
        expected = blurred_impulse(x, y, kernel)
        np.testing.assert_allclose(by_maximum[i], 255 * expected / expected.max(), atol=1e-3)
        np.testing.assert_allclose(by_keypoint[i], 255 * expected / expected[y, x], atol=1e-3)


def test_labels_keep_leading_shape_and_leave_out_what_is_not_drawn() -> None:
    cells = torch.tensor([[[3, 4], [99, -7]], [[5, 6], [0, 0]]])
    drawn = torch.tensor([[True, False], [True, False]])
    labels = draw_labels(cells, drawn, SIZE, 7, "maximum")
    assert labels.shape == (2, 2, *SIZE)
    assert labels[:, 1].abs().sum() == 0
    assert labels[1, 0, 6, 5] == 255


def test_no_keypoints_at_all() -> None:
    labels = draw_labels(torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), SIZE, 7, "maximum")
    assert labels.shape == (0, *SIZE)


def test_a_map_below_the_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="7 x 9"):
        draw_labels(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, dtype=torch.bool), (7, 9), 15, "maximum")


def test_cells_are_truncated_toward_zero() -> None:
    points = torch.tensor([[7.99, 8.0], [-3.9, -4.0]])
    assert keypoint_cells(points).tolist() == [[1, 2], [0, -1]]


def test_bounds() -> None:
    points = torch.tensor([[0.0, 0.0], [79.0, 95.0], [79.5, 3.0], [-0.1, 3.0], [3.0, 95.5], [80.0, 3.0], [3.0, -4.0]])
    assert inside(points, SIZE, "pixel").tolist() == [True, True, False, False, False, False, False]
    assert inside(points, SIZE, "cell").tolist() == [True, True, True, True, True, False, False]


@pytest.mark.parametrize(("kernel", "margin"), [(5, 0), (9, 4), (9, 10)])
def test_blur_is_that_of_opencv_in_a_frame_of_zeros(kernel: int, margin: int) -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, *SIZE))
    found = blur(torch.from_numpy(maps), kernel, margin).numpy()
    for i in range(2):
        for k in range(3):
            framed = cv2.GaussianBlur(np.pad(maps[i, k], margin + kernel), (kernel, kernel), 0)
            inner = framed[kernel:-kernel, kernel:-kernel]
            np.testing.assert_allclose(found[i, k], inner, atol=1e-12)


def one_second_peak(heatmap: np.ndarray, kernel: int) -> tuple[float, float, float]:
    """The official rule, cell by cell."""
    framed = cv2.GaussianBlur(np.pad(heatmap.astype(np.float64), 10), (kernel, kernel), 0)
    y, x = np.unravel_index(framed.argmax(), framed.shape)
    framed[y, x] = 0
    other_y, other_x = np.unravel_index(framed.argmax(), framed.shape)
    dx, dy = float(other_x) - float(x), float(other_y) - float(y)
    length = math.hypot(dx, dy)
    px, py = float(x) - 10, float(y) - 10
    if length > 1e-3:
        px, py = px + 0.25 * dx / length, py + 0.25 * dy / length
    px, py = min(max(px, 0), heatmap.shape[1] - 1), min(max(py, 0), heatmap.shape[0] - 1)
    return 4 * px + 2, 4 * py + 2, float(heatmap[round(py), round(px)]) / 255


def noisy_maps() -> np.ndarray:
    rng = np.random.default_rng(1)
    maps = 40 * rng.standard_normal((12, *SIZE)).astype(np.float32)
    for i, (x, y) in enumerate([(0, 0), (19, 23), (1, 12), (10, 1), (18, 22), (10, 10)]):
        maps[i, y, x] += 2000
    maps[10] = -np.abs(maps[10])
    maps[11] = 0
    single = np.zeros(SIZE, np.float32)
    single[23, 0] = 9.0
    return np.concatenate([maps, single[None], -single[None]])


@pytest.mark.parametrize("kernel", [1, 5, 9])
def test_second_peak_is_the_rule_cell_by_cell(kernel: int) -> None:
    maps = noisy_maps()
    found = second_peak(torch.from_numpy(maps), kernel)
    for i, heatmap in enumerate(maps):
        x, y, score = one_second_peak(heatmap, kernel)
        np.testing.assert_allclose(found.points[i].numpy(), [x, y], atol=1e-9, err_msg=str(i))
        assert float(found.scores[i]) == pytest.approx(score)


def one_sign_offset(heatmap: np.ndarray, kernel: int) -> tuple[float, float, float]:
    """The rule of mmpose, cell by cell; a zero map stays zero."""
    border = (kernel - 1) // 2
    framed = cv2.GaussianBlur(np.pad(heatmap.astype(np.float64), border), (kernel, kernel), 0)
    smooth = framed[border : border + heatmap.shape[0], border : border + heatmap.shape[1]]
    if smooth.max() != 0:
        smooth = smooth * (heatmap.max() / smooth.max())
    y, x = (int(v) for v in np.unravel_index(smooth.argmax(), smooth.shape))
    px, py, top = float(x), float(y), float(smooth[y, x])
    if top <= 0:
        return -4.0, -4.0, top / 255
    if 1 < x < heatmap.shape[1] - 1 and 1 < y < heatmap.shape[0] - 1:
        px += np.sign(smooth[y, x + 1] - smooth[y, x - 1]) * 0.25 + 0.5
        py += np.sign(smooth[y + 1, x] - smooth[y - 1, x]) * 0.25 + 0.5
    return 4 * px, 4 * py, top / 255


@pytest.mark.parametrize("kernel", [3, 5])
def test_sign_offset_is_the_rule_cell_by_cell(kernel: int) -> None:
    maps = noisy_maps()[:13]
    found = sign_offset(torch.from_numpy(maps), kernel)
    for i, heatmap in enumerate(maps):
        x, y, score = one_sign_offset(heatmap, kernel)
        np.testing.assert_allclose(found.points[i].numpy(), [x, y], atol=1e-9, err_msg=str(i))
        assert float(found.scores[i]) == pytest.approx(score)


def test_a_zero_map_has_a_defined_result() -> None:
    peaks = sign_offset(torch.zeros(1, *SIZE), 5)
    assert peaks.points.tolist() == [[-4.0, -4.0]]
    assert peaks.scores.tolist() == [0.0]


@pytest.mark.parametrize("read", [second_peak, sign_offset, log_parabola])
def test_what_is_drawn_is_read_again(read: object) -> None:
    """Within the cell, away from the border; decoders keep the leading shape, also of no maps."""
    assert callable(read)
    cells = torch.tensor([[[4, 5], [10, 12]], [[15, 20], [3, 3]]])
    labels = draw_labels(cells, torch.ones(2, 2, dtype=torch.bool), SIZE, 7, "maximum")
    peaks = read(labels, 5)
    assert ((peaks.points - (4 * cells + 2)).abs() <= 1.0 + 1e-9).all()
    torch.testing.assert_close(peaks.scores.float(), torch.ones(2, 2), rtol=0, atol=1e-5)
    assert read(torch.zeros(0, 2, *SIZE), 5).points.shape == (0, 2, 2)


@pytest.mark.parametrize("point", [(20.0, 30.0), (21.3, 28.9), (33.7, 17.2), (1.2, 3.0)])
def test_log_parabola_finds_the_centre_of_a_gaussian(point: tuple[float, float]) -> None:
    """To a thousandth of a cell: it is exact but for the blur's and the border's cut."""
    x, y = torch.arange(48.0), torch.arange(64.0)[:, None]
    heights = 200 * torch.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 1.5**2))
    peaks = log_parabola(heights[None], 1)
    expected = torch.tensor([[4 * point[0] + 2, 4 * point[1] + 2]], dtype=peaks.points.dtype)
    torch.testing.assert_close(peaks.points, expected, atol=0.02, rtol=0)
    blurred = log_parabola(heights[None], 5).points
    if point[0] > 4:
        torch.testing.assert_close(blurred, expected, atol=0.02, rtol=0)


def test_log_parabola_of_flat_and_empty_maps() -> None:
    empty, flat = log_parabola(torch.zeros(1, 8, 6), 5), log_parabola(torch.full((1, 8, 6), 9.0), 1)
    assert empty.points.tolist() == [[2.0, 2.0]]
    assert float(empty.scores) == 0
    assert flat.points.tolist() == [[2.0, 2.0]]
    assert float(flat.scores) == pytest.approx(9 / 255)
