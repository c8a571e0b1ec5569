"""Reading, computing and writing at the same time: one thread each, with short queues between them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
_PATIENCE = 0.1
"""Seconds after which a waiting thread looks whether anybody still wants its work."""


class _End:
    """Ends a queue; carries the error that ended the work, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], size: int = 4) -> Iterator[Item]:
    """The same items in the same order, made in a thread while the caller works on earlier ones.

    An error comes up where its item would have come. When the caller stops early, the thread stops, too, and
    ``items`` is closed if it is a generator.

    Args:
        items: what to iterate over; only the thread touches it.
        size: at most so many items wait.
    """
    waiting: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        iterator = iter(items)
        end = _End()
        try:
            for item in iterator:
                if not put(item):
                    break
        except BaseException as error:  # brought to the caller, whatever it is
            end = _End(error)
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
        put(end)

    thread = threading.Thread(target=work, name="poise-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join(timeout=5)


class Behind(Generic[Item]):
    """Calls a function on items in a thread, one after the other in order, while the caller goes on.

    Use it in a ``with`` block: when the block ends, also with Ctrl-C or an error, what was given is worked off first.
    An error of the function is raised by the next call of `put`, or at the end of the block; what waits is dropped.

    Args:
        function: called on each item, in the thread.
        size: `put` waits while so many items wait.
    """

    def __init__(self, function: Callable[[Item], object], size: int = 4) -> None:
        self._function = function
        self._waiting: queue.Queue[Any] = queue.Queue(size)
        self._error: BaseException | None = None
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name="poise-behind", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item."""
        self._raise()
        self._waiting.put(item)

    def _work(self) -> None:
        while not isinstance(item := self._waiting.get(), _End):
            if self._error is None and not self._dropped:
                try:
                    self._function(item)
                except BaseException as error:  # brought to the caller by `put`, whatever it is
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            self._dropped = True
            raise error

    def __enter__(self) -> Behind[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._waiting.put(_End())
        self._thread.join()
        if kind is None:
            self._raise()
