"""Experiment trackers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poise.train import trackers
from poise.train.trackers import Trackers


class Remembering:
    """What accelerate's trackers have in common."""

    name = "remembering"
    requires_logging_directory = True
    made: list[Any] = []  # noqa: RUF012

    def __init__(self, run_name: str, logging_dir: str) -> None:
        self.calls: list[Any] = [(run_name, logging_dir)]
        self.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(values)

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


class Missing(Remembering):
    name = "missing"

    def start(self) -> None:
        raise ImportError("No module named 'missing'")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "LOGGER_TYPE_TO_CLASS", {"remembering": Remembering, "missing": Missing})
    Remembering.made.clear()


def test_a_tracker_by_name_gets_settings_and_numbers(tmp_path: Path) -> None:
    both = Trackers(["remembering"], tmp_path, {"train/steps": 3})
    both.log({"losses/total": 1.5}, step=2)
    both.close()
    both.close()
    (made,) = Remembering.made
    assert made.calls == [
        ("poise", str(tmp_path)), "start", {"train/steps": 3}, (2, {"losses/total": 1.5}), "finish"
    ]  # fmt: skip


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown tracker 'rememberin'; did you mean 'remembering'"):
        Trackers(["rememberin"], tmp_path, {})


def test_a_library_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing is not installed .*: pip install missing"):
        Trackers(["missing"], tmp_path, {})


def test_none_wanted_none_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for names in ((), None):
        nobody = Trackers(names, tmp_path, {})
        nobody.log({"a": 1.0}, step=1)
        nobody.close()
    assert Remembering.made == []


def test_accelerate_knows_the_names_of_the_guide() -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert {"tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive"} <= set(LOGGER_TYPE_TO_CLASS)
