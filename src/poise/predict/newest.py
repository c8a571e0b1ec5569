"""Sources that do not wait: whoever is too slow for them goes on with the newest item and misses the others."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


def newest(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The items in order, made in a thread, without those that are out of date when the caller asks for the next one.

    The last item always comes, and an error comes up behind it. When the caller stops early, the thread stops with the
    item that it waits for; ``items`` is closed in the thread if it is a generator.

    Args:
        items: what to iterate over; only the thread touches it.
    """
    slot: _Slot[Item] = _Slot()
    thread = threading.Thread(target=slot.fill, args=(items,), name="poise-newest", daemon=True)
    thread.start()
    try:
        while slot.wait():
            yield slot.take()
        if slot.error is not None:
            raise slot.error
    finally:
        slot.stop()
        thread.join(timeout=5)


class _Slot(Generic[Item]):
    """Room for one item; a newer one takes the place of one that nobody has taken."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._items: list[Item] = []
        self._ended = self._stopped = False
        self._changed = threading.Condition()

    def fill(self, items: Iterable[Item]) -> None:
        """Put in one item after the other, until they end or nobody wants them any more."""
        iterator = iter(items)
        try:
            for item in iterator:
                with self._changed:
                    if self._stopped:
                        break
                    self._items[:] = [item]
                    self._changed.notify()
        except BaseException as error:  # brought to the caller, whatever it is
            self.error = error
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify()

    def wait(self) -> bool:
        """Wait until there is an item (True), or there will be none any more (False)."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            return bool(self._items)

    def take(self) -> Item:
        """The item that is there."""
        with self._changed:
            return self._items.pop()

    def stop(self) -> None:
        """Want no more items."""
        with self._changed:
            self._stopped = True
