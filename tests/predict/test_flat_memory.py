"""A long video needs no more memory than a short one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks/stream.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_flat_over_2000_frames():
    """Read, followed, drawn, encoded and written: after the first tenth memory grows by less than 25 MB."""
    command = [sys.executable, str(BENCHMARK), "--frames", "2000", "--size", "180", "320", "--track"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    used = json.loads(result.stdout)["memory_mb"]
    assert len(used) == 20
    assert max(used) - used[2] < 25
    assert used[-1] - used[10] < 8
