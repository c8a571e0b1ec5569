"""Freed memory stays in the process, where the system allows it; nothing happens elsewhere."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from poise import memory
from poise.cli import main
from poise.memory import keep_freed_memory, resident_bytes, without_collection

WORK = """
import resource, sys
import numpy as np
from poise.memory import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
for repeat in range(6):
    if repeat == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40_000_000, np.uint8)  # above the 32 MB that glibc maps anew in any case
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = sys.platform.startswith("linux") and hasattr(memory.ctypes.CDLL(None), "gnu_get_libc_version")


def run(mode: str, **environment: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "POISE_KEEP"))}
    result = subprocess.run(
        [sys.executable, "-c", WORK, mode], env=clean | environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="for glibc's allocator")
def test_arrays_of_the_same_size_do_not_fault_again() -> None:
    (plain,) = run("plain")
    done, kept = run("keep")
    assert done == "True"
    assert int(plain) > 50  # four times 40 MB; a page has 4 kB, or 2 MB where the kernel gives large ones
    assert int(kept) < int(plain) / 10


@pytest.mark.skipif(not GLIBC, reason="for glibc's allocator")
def test_the_environment_decides() -> None:
    assert run("keep", POISE_KEEP_MEMORY="0")[0] == "False"
    assert run("keep", MALLOC_MMAP_MAX_="100")[0] == "False"
    assert run("keep", POISE_KEEP_MEMORY="1")[0] == "True"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: object) -> object:
        raise AssertionError("not to be loaded")

    monkeypatch.setattr(memory.ctypes, "CDLL", no_library)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()


def test_a_library_without_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POISE_KEEP_MEMORY", *memory._TUNABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()


def test_the_command_line_asks_for_it_before_a_verb_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(main, "keep_freed_memory", lambda: asked.append(True))
    for arguments, expected in ((["--version"], 0), ([], 0), (["models"], 1)):
        asked.clear()
        assert CliRunner().invoke(main.app, arguments).exit_code == 0
        assert len(asked) == expected


def test_memory_in_use_follows_what_is_used() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 50_000_000) as block:  # not from freed memory that was kept
        block.write(bytes(50_000_000))
        assert resident_bytes() - before > 40_000_000


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_as_before_after_the_block(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with without_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ValueError, match="inside"), without_collection():
            raise ValueError("inside")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
