"""What a run shows."""

from __future__ import annotations

import io

from rich.console import Console

from poise.train.progress import NOBODY, ProgressDisplay
from poise.train.watching import StepReport
from tiny import tiny_model


def report(step: int, waited: float = 0.0, people: int = 12) -> StepReport:
    return StepReport(
        step, 0, {"score": 1.0, "points": 0.5, "total": 1.5}, 0.01, 2.5, 8, 2.0, waited, people, 3_500_000_000
    )


def display(terminal: bool, **settings: int) -> tuple[ProgressDisplay, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200, highlight=False)
    return ProgressDisplay(console=console, **settings), text


def test_plain_lines_elsewhere_than_on_a_terminal() -> None:
    shown, text = display(False, total=105, log_every=2)
    for step in (1, 2, 3):
        shown.stepped(report(step))
    shown.evaluated(2, {"AP": 0.5, "AR": 0.25}, tiny_model())
    shown.close()
    assert text.getvalue().splitlines() == [
        "step 2/105  loss 1.5 (score 1 points 0.5)  lr 0.01  gradient 2.5  4.0 images/s  3.5 GB  0:03:26 left",
        "evaluated after 2 steps: AP 0.5  AR 0.25",
    ]


def test_steps_without_anybody_are_warned_of_once() -> None:
    shown, text = display(False, total=1000, log_every=1000)
    for step in range(1, 2 * NOBODY):
        shown.stepped(report(step, people=0))
    (line,) = text.getvalue().splitlines()
    assert line.startswith("warning: no labelled person in 20 steps")
    shown.stepped(report(50, people=1))
    for step in range(51, 50 + NOBODY):
        shown.stepped(report(step, people=0))
    assert len(text.getvalue().splitlines()) == 1
    shown.stepped(report(99, people=0))
    assert len(text.getvalue().splitlines()) == 2


def test_the_last_step_is_always_shown() -> None:
    shown, text = display(False, total=3, log_every=2)
    for step in (1, 2, 3):
        shown.stepped(report(step))
    assert [line.split()[1] for line in text.getvalue().splitlines()] == ["2/3", "3/3"]


def test_slow_data_is_mentioned() -> None:
    shown, text = display(False, total=3, log_every=1)
    shown.stepped(report(1, waited=1.0))
    assert "50% waiting for data" in text.getvalue()


def test_a_bar_on_a_terminal() -> None:
    shown, text = display(True, total=10, start=4)
    shown.stepped(report(5))
    shown.close()
    assert "5/10" in text.getvalue()
    assert "loss 1.5" in text.getvalue()
