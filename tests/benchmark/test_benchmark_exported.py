"""The comparison of exported files: each is timed alone, and in turns."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import poise

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/exported.py"


@pytest.fixture
def exported() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_alone(exported: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    predictor = SimpleNamespace(predict=lambda image: seen.append(image.shape))
    monkeypatch.setattr(poise, "load", {"a.xml": predictor}.__getitem__)
    assert exported.alone("a.xml") >= 0
    assert seen == [(480, 640, 3)] * exported.CALLS


def test_turns(exported: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        called.append(command[-1])
        return SimpleNamespace(stdout=f"{len(called)}.5\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert exported.in_turns(["default", "a.xml"], 2) == [[1.5, 2.5], [3.5, 4.5]]
    assert called == ["default", "a.xml"] * 2
