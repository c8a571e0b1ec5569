"""The numbers of a data set as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from poise.data.records import PoseDataset
from poise.data.stats import DatasetStatistics, dataset_statistics, person_shares
from poise.types import ImageArray

Colour = tuple[int, int, int]

_WIDTH = 1200
_ROW = 26
_MARGIN = 40
_PANEL = 240
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT: Colour = (40, 40, 45)
_FAINT: Colour = (225, 225, 230)
_VISIBLE: Colour = (35, 120, 200)
_OCCLUDED: Colour = (250, 165, 60)
_BINS = 20
_MOST = 12
"""People a picture that still have a bar of their own."""


def plot_statistics(dataset: PoseDataset) -> ImageArray:
    """Bars of how often each keypoint is visible and occluded, of people a picture and of their sizes.

    Returns:
        (H, 1200, 3) uint8 RGB.
    """
    numbers = dataset_statistics(dataset)
    top = 2 * _MARGIN + 20
    bars = top + _ROW * len(numbers.keypoints)
    canvas = np.full((bars + 2 * _MARGIN + _PANEL + _MARGIN, _WIDTH, 3), 255, np.uint8)
    title = f"{numbers.name}: {numbers.people} people in {numbers.pictures} pictures"
    _write(canvas, title, (_MARGIN, _MARGIN), 0.8)
    _keypoints(canvas, numbers, top)
    half = (_WIDTH - 3 * _MARGIN) // 2
    low = bars + _MARGIN + 20
    counts = numbers.people_a_picture
    more = [sum(counts[_MOST:])] if len(counts) > _MOST else []
    labels = [*(str(i) for i in range(min(len(counts), _MOST))), *([f"{_MOST}+"] if more else [])]
    _columns(canvas, [*counts[:_MOST], *more], labels, "pictures by number of people", (_MARGIN, low), half)
    shares = np.histogram(np.clip(person_shares(dataset), 0, 1), bins=_BINS, range=(0, 1))[0]
    marks = [f"{i / _BINS:.1f}" if i % 4 == 0 else "" for i in range(_BINS)]
    _columns(canvas, shares.tolist(), marks, "people by size of box / picture", (2 * _MARGIN + half, low), half)
    return canvas


def _keypoints(canvas: ImageArray, numbers: DatasetStatistics, top: int) -> None:
    left, right = 260, _WIDTH - 200
    _write(canvas, "visible", (left, top - 14), 0.5, _VISIBLE)
    _write(canvas, "occluded", (left + 90, top - 14), 0.5, _OCCLUDED)
    _write(canvas, "share of people", (left + 190, top - 14), 0.5)
    for row, counts in enumerate(numbers.keypoints):
        y = top + row * _ROW
        people = max(1, numbers.people)
        first = left + round((right - left) * counts.visible / people)
        second = left + round((right - left) * counts.labelled / people)
        cv2.rectangle(canvas, (left, y), (right, y + _ROW - 8), _FAINT, -1)
        if counts.occluded:
            cv2.rectangle(canvas, (first, y), (second, y + _ROW - 8), _OCCLUDED, -1)
        if counts.visible:
            cv2.rectangle(canvas, (left, y), (first, y + _ROW - 8), _VISIBLE, -1)
        _write(canvas, counts.name[:24], (_MARGIN, y + _ROW - 11), 0.5)
        percent = f"{100 * counts.labelled / people:.0f} %  ({counts.labelled})"
        _write(canvas, percent, (right + 12, y + _ROW - 11), 0.5)


def _columns(
    canvas: ImageArray, values: Sequence[int], labels: Sequence[str], title: str, corner: tuple[int, int], width: int
) -> None:
    x0, y0 = corner
    floor = y0 + _PANEL
    _write(canvas, title, (x0, y0 - 6), 0.5)
    cv2.line(canvas, (x0, floor), (x0 + width, floor), _TEXT, 1)
    if not values:
        return
    step = width / len(values)
    highest = max(1, *values)
    for i, (value, label) in enumerate(zip(values, labels, strict=True)):
        left, right = round(x0 + i * step + 0.1 * step), round(x0 + (i + 1) * step - 0.1 * step)
        if value:
            height = max(1, round((_PANEL - 30) * value / highest))
            cv2.rectangle(canvas, (left, floor - height), (right, floor), _VISIBLE, -1)
            if step > 24:
                _write(canvas, str(value), (left, floor - height - 5), 0.4)
        _write(canvas, label, (left, floor + 16), 0.4)


def _write(canvas: ImageArray, text: str, at: tuple[int, int], size: float, colour: Colour = _TEXT) -> None:
    # the font knows ASCII alone
    plain = text.encode("ascii", "replace").decode("ascii")
    cv2.putText(canvas, plain, at, _FONT, size, colour, 1, cv2.LINE_AA)
