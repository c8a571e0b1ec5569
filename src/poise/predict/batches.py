"""Views of equal size run together, results come out in order, and little waits in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from poise.types import Poses, View

PaddedSize = tuple[int, int]
Run = Callable[[Sequence[View]], list[Poses]]


def run_in_batches(pictures: Iterable[Iterable[View]], run: Run, batch: int, stride: int) -> Iterator[list[Poses]]:
    """What ``run`` finds in the views of each picture, picture by picture in order.

    Only views that are padded to the same size share a batch, so padding, and with it the result, does not depend
    on the other pictures. Besides those of the picture just taken, at most 2 * ``batch`` views wait at any
    time; and of views of one size never more than ``batch``, however many a picture has.

    Args:
        pictures: the views of each picture; both consumed as needed.
        run: gives the poses of each of up to ``batch`` views.
        batch: views a run.
        stride: sizes are padded to multiples of it.
    """
    queue = _Queue(run, batch, stride)
    for views in pictures:
        queue.add(views)
        while queue.full():
            queue.run_for_first()
        yield from queue.finished()
    while queue.pictures:
        queue.run_for_first()
        yield from queue.finished()


def padded_size(view: View, stride: int) -> PaddedSize:
    """(height, width) of the input of a batch with this view alone."""
    height, width = view.image.shape[-2:]
    return -(-height // stride) * stride, -(-width // stride) * stride


class _Picture:
    """One picture: the padded sizes of its views, and what was found in those that ran."""

    def __init__(self) -> None:
        self.sizes: list[PaddedSize] = []
        self.found: dict[int, Poses] = {}

    @property
    def done(self) -> bool:
        return len(self.found) == len(self.sizes)


class _Queue:
    """Pictures in the order they came; their views wait by padded size until a batch is full."""

    def __init__(self, run: Run, batch: int, stride: int) -> None:
        self.pictures: deque[_Picture] = deque()
        self._waiting: dict[PaddedSize, list[tuple[_Picture, int, View]]] = {}
        self._run, self._batch, self._stride = run, batch, stride

    def add(self, views: Iterable[View]) -> None:
        picture = _Picture()
        self.pictures.append(picture)
        for index, view in enumerate(views):
            size = padded_size(view, self._stride)
            picture.sizes.append(size)
            group = self._waiting.setdefault(size, [])
            group.append((picture, index, view))
            if len(group) == self._batch:
                self._run_group(size)

    def full(self) -> bool:
        """Whether too many views wait, or too many pictures for the first one."""
        views = sum(len(group) for group in self._waiting.values())
        return views > 2 * self._batch or (len(self.pictures) > 4 * self._batch and not self.pictures[0].done)

    def run_for_first(self) -> None:
        """Run the batches, full or not, that the first unfinished picture waits for."""
        first = next((picture for picture in self.pictures if not picture.done), None)
        for index, size in enumerate(first.sizes if first else ()):
            if first and index not in first.found:
                self._run_group(size)

    def finished(self) -> Iterator[list[Poses]]:
        """Take out the pictures at the head that are done."""
        while self.pictures and self.pictures[0].done:
            picture = self.pictures.popleft()
            yield [picture.found[index] for index in range(len(picture.sizes))]

    def _run_group(self, size: PaddedSize) -> None:
        group = self._waiting.pop(size)
        results = self._run([view for _, _, view in group])
        for (picture, index, _), poses in zip(group, results, strict=True):
            picture.found[index] = poses
