"""Stopping a run between two steps instead of anywhere."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_CHILD: int | None = getattr(signal, "SIGCHLD", None)
"""What says that a worker has ended; Windows has no such signal."""
_log = logging.getLogger(__name__)


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self.before: dict[int, Any] = {}
        """Handlers to put back, by the signal's number."""
        self._process = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the first signal asks, a second Ctrl-C interrupts at once.

        Forked workers inherit it; there it does nothing, so that they live until the run ends them. Batch systems and
        ``timeout`` may end them nevertheless: torch would then raise an error in the middle of the step.
        """
        if os.getpid() != self._process:
            return
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if _CHILD is not None:
            self.before.setdefault(_CHILD, signal.signal(_CHILD, _nothing))
        _log.warning("stopping after this step; Ctrl-C once more stops at once, without saving")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block Ctrl-C and SIGTERM set ``requested``; handlers are put back afterwards.

    Outside the main thread signals cannot be handled and the request stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        request.before[number] = signal.signal(number, request.handle)
    try:
        yield request
    finally:
        for changed, handler in request.before.items():
            signal.signal(changed, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler: not `signal.SIG_IGN`, with which nobody could be told how a child ended."""
