"""What all writers of poses have in common: they take picture after picture and leave a whole file or none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from poise.files import replacing
from poise.skeletons import Skeleton
from poise.types import Poses


class PoseSink:
    """Takes the poses of one picture after the other; use it in a ``with`` block.

    When the block ends, also with Ctrl-C, the file is finished and takes its name. When it ends with another error
    there is no file, and one that was there before is left as it was.

    Attributes:
        path: the file, or the folder.
        skeleton: of all poses.
    """

    def __init__(self, path: str | Path, skeleton: Skeleton) -> None:
        self.path, self.skeleton = Path(path), skeleton
        self.pictures = 0
        self._stack = ExitStack()
        self._open = True

    def add(self, poses: Poses, **more: Any) -> None:
        """Take the poses of one picture (image px).

        Raises:
            ValueError: they have another skeleton, or lack what the format needs.
        """
        if not self._open:
            raise ValueError(f"{self.path} is finished; nothing can be added")
        if poses.skeleton != self.skeleton:
            raise ValueError(
                f"{self.path} holds poses of skeleton {self.skeleton.name!r}; these have {poses.skeleton.name!r}"
            )
        self._write(poses, **more)
        self.pictures += 1

    def close(self) -> None:
        """Finish the file and give it its name; does nothing a second time."""
        if self._open:
            self._open = False
            with self._stack:
                self._finish()

    def discard(self) -> None:
        """Leave no file."""
        if self._open:
            self._open = False
            self._stack.__exit__(_Discarded, _Discarded(), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        else:
            self.discard()

    def _write(self, poses: Poses, **more: Any) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what stands at the end of the file."""

    def _temporary(self, path: Path) -> Path:
        """A file that takes the place of ``path`` when the writer is closed."""
        return self._stack.enter_context(replacing(path))


class _Discarded(Exception):  # noqa: N818  (never seen by anybody)
    """Makes the context managers of a discarded writer clean up."""
