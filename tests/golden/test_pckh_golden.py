"""PCKh equals what the two published evaluators print (see rsn/README.md, case pckh)."""

from __future__ import annotations

import numpy as np
import pytest
from golden_case import Case

from poise.evaluate.mpii import GROUPS, head_sizes, joint_rates, pckh


@pytest.fixture
def arguments() -> tuple[Case, tuple[np.ndarray, ...]]:
    case = Case("rsn", "pckh")
    boxes = case["headboxes"].reshape(4, -1).T
    sizes = head_sizes([None] * len(boxes), boxes)
    return case, (case["pred"] + 1, case["gt"].transpose(2, 0, 1), 1 - case["missing"].T, sizes)


def test_official(arguments: tuple[Case, tuple[np.ndarray, ...]]) -> None:
    case, values = arguments
    found, expected = pckh(*values, formula="official"), case.settings["official"]
    for name in (*GROUPS, "Mean"):
        assert 100 * found[name] == pytest.approx(expected[name], abs=1e-6), name
    assert 100 * found["Mean@0.11"] == pytest.approx(expected["Mean@0.1"], abs=1e-6)


def test_mmpose(arguments: tuple[Case, tuple[np.ndarray, ...]]) -> None:
    case, values = arguments
    found, expected = pckh(*values, formula="mmpose"), case.settings["mmpose"]
    assert 100 * found["Mean"] == pytest.approx(expected["PCK"], abs=1e-6)
    assert 100 * found["Mean@0.1"] == pytest.approx(expected["PCK@0.1"], abs=1e-6)
    np.testing.assert_allclose(100 * joint_rates(*values, formula="mmpose"), expected["per_joint"], atol=1e-6)
