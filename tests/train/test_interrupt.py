"""Signals ask a run to stop; they do not stop it anywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from poise.train.interrupt import StopRequest, stop_on_signals
from poise.train.state import read_state
from tiny_set import write_tiny_set


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_handlers_are_put_back(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before
    assert "stopping after this step" in caplog.text


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_forked_workers_ignore_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    stop.handle(signal.SIGINT, None)
    assert not stop.requested


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="no such signal here")
def test_workers_that_end_after_it_raise_nothing() -> None:
    def raises(number: int, frame: object) -> None:
        raise RuntimeError("a worker is killed")

    before = signal.signal(signal.SIGCHLD, raises)
    try:
        with stop_on_signals() as stop:
            with pytest.raises(RuntimeError, match="killed"):
                os.kill(os.getpid(), signal.SIGCHLD)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGCHLD)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
        assert signal.getsignal(signal.SIGCHLD) is raises
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no groups of processes here")
def test_a_run_all_of_whose_processes_are_told_to_end_saves_its_last_step(tmp_path: Path) -> None:
    """As ``timeout`` and batch systems do."""
    write_tiny_set(tmp_path)
    source = {"annotations": "tiny.json", "images": "pictures"}
    network = {
        "system": "directpose",
        "backbone": "mobilenetv2_035",
        "anti_alias": False,
        "channels": 64,
        "group_channels": 8,
        "cls_depth": 1,
        "keypoint_depth": 1,
        "view": {"long_side": 96, "short_side": None},
    }
    settings = {"model": network, "data": {"sources": [source], "sizes": [96], "batch": 2, "workers": 1},
                "train": {"steps": 5000, "log_every": 1, "optimiser": {"lr": 0.001}}}  # fmt: skip
    (tmp_path / "a.yaml").write_text(json.dumps(settings), encoding="utf-8")
    log, run = tmp_path / "run" / "metrics.jsonl", str(tmp_path / "run")
    poise = str(Path(sys.executable).with_name("poise"))
    command = [poise, "train", str(tmp_path / "a.yaml"), "--data", str(tmp_path), "--run", run]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (log.exists() and log.read_text(encoding="utf-8").count("\n") > 2):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    steps = len(log.read_text(encoding="utf-8").splitlines())
    assert "error" not in told, told
    assert read_state(tmp_path / "run" / "state.pt")[0].step == steps, told


def test_other_threads_cannot_be_asked() -> None:
    seen: list[bool] = []

    def run() -> None:
        with stop_on_signals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
