"""The process's memory: keeping what was freed, and how much is in use."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SWITCH = "POISE_KEEP_MEMORY"
"""Environment variable; 0 leaves the allocator as the system has it."""

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of ``mallopt`` (glibc's malloc.h)."""
_TUNABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let the allocator of glibc keep freed memory for the next request instead of handing it to the system.

    A network frees and asks for the same large arrays at every step. By default glibc maps each of them anew, and every
    page is then cleared by the kernel when it is first touched, which may cost more than the arithmetic. With this,
    the process stays as large as it once was. Worker processes inherit it. To be called before torch runs.

    Returns:
        Whether something was changed: not on other systems than Linux with glibc, not if the environment sets
        ``POISE_KEEP_MEMORY=0``, and not if it gives glibc's allocator settings of its own.
    """
    wanted = os.environ.get(SWITCH, "1") not in ("0", "false", "no", "off")
    if not wanted or not sys.platform.startswith("linux") or any(name in os.environ for name in _TUNABLES):
        return False
    library = ctypes.CDLL(None)
    if not (hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt")):
        return False
    # -1 is the largest size there is: never give back
    return bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, -1))


@contextmanager
def without_collection() -> Iterator[None]:
    """Within the block Python looks for no unreachable objects.

    Loading torch makes hundreds of thousands of objects, all of which stay; looking through them again and again takes
    a tenth of the time that the import takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def resident_bytes() -> int:
    """Memory of this process that is in RAM, in bytes; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return _peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    """The most memory the process had so far, where only that is known (macOS, in bytes); 0 elsewhere."""
    if sys.platform != "darwin":
        return 0
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
