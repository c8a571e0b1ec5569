"""A user's mistake is one line on stderr and exit code 1, never a traceback."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM, as shells have it."""

_Arguments = ParamSpec("_Arguments")


class Terminated(KeyboardInterrupt):
    """SIGTERM; what handles Ctrl-C handles it, too."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, once (some send it twice); the handler is put back afterwards.

    Outside the main thread signals cannot be handled, and nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, came = os.getpid(), False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if os.getpid() == process and not came:
            came = True
            raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(verb: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """The verb with its errors told in one line. ``POISE_DEBUG=1`` in the environment lets tracebacks through."""

    @functools.wraps(verb)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt as error:
            terminated = isinstance(error, Terminated)
            complain("terminated" if terminated else "interrupted")
            raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None
        except BrokenPipeError:
            raise  # whoever reads our output has seen enough: the command line library ends the program silently
        except Exception as error:
            if _is_ours(error) or os.environ.get("POISE_DEBUG", "0") not in ("", "0"):
                raise
            complain(explain(error))
            raise typer.Exit(1) from None

    return wrapper


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"poise: {' '.join(message.split())}", err=True)


def explain(error: Exception) -> str:
    """What to tell the user of an error, in one line."""
    if isinstance(error, ValueError | OSError):
        return str(error) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in ("torch", "torchvision"):
        return "this needs torch, which is not installed: pip install torch torchvision"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; try a smaller --batch, or smaller --scales"
    return f"internal error, please report it: {type(error).__name__}: {error} (POISE_DEBUG=1 shows where)"


def _is_ours(error: Exception) -> bool:
    """Whether the command line library raised it to end the program or to complain about usage."""
    return isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")
