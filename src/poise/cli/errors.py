"""A user's mistake is one line on stderr and exit code 1, never a traceback."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_Arguments = ParamSpec("_Arguments")


def guarded(verb: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """The verb with its errors told in one line. ``POISE_DEBUG=1`` in the environment lets tracebacks through."""

    @functools.wraps(verb)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            verb(*args, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
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
