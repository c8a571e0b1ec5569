"""Several processes train as one does with all their pictures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for command in ([sys.executable], launch):
        result = subprocess.run(
            [*command, str(SCRIPT), str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
    one, first, second = (torch.load(tmp_path / f"model-{name}.pt") for name in ("1-0", "2-0", "2-1"))
    for name, value in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)
    alone, together = (torch.load(tmp_path / f"reports-{world}.pt") for world in (1, 2))
    for (losses, norm, people), (others, other_norm, other_people) in zip(alone, together, strict=True):
        assert others == pytest.approx(losses, rel=1e-5)
        assert other_norm == pytest.approx(norm, rel=1e-5)
        assert other_people == people
