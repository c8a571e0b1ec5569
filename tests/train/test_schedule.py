"""The learning rate against the numbers of the reference codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from poise.train.config import ScheduleConfig
from poise.train.schedule import lr_factor

GOLDEN = Path(__file__).parents[1] / "golden" / "directpose" / "misc.npz"

WARMUP_LINEAR_LR = {
    0: 1.00000000e-05, 1: 1.99898889e-05, 10: 1.09893894e-04, 500: 4.99109722e-03, 999: 9.93456544e-03,
    1000: 9.94444444e-03, 1001: 9.94438889e-03, 60000: 6.66666667e-03, 90000: 5.00000000e-03, 179999: 5.55555556e-08,
}  # fmt: skip
"""GluonCV WarmupLinearLR: base 0.01, 180000 iterations, linear warm-up of 1000 from 0.001."""

RSN_SOLVER = {
    0: 0.1, 1: 0.100375, 1200: 0.55, 2399: 0.999625, 2400: 1.0, 2401: 0.9999893162393162, 48000: 0.5128205128205128,
    95999: 1.0683760683805055e-05, 96000: 0.0,
}  # fmt: skip
"""RSN18.coco: 96000 iterations, linear warm-up of 2400 from 0.1, then linear to 0."""


@pytest.mark.parametrize("kind", ["poly", "linear"])
def test_directpose_schedule_is_warmup_times_decay(kind: str) -> None:
    config = ScheduleConfig.parse({"kind": kind, "warmup": 1000, "warmup_factor": 0.001})
    for step, expected in WARMUP_LINEAR_LR.items():
        assert 0.01 * lr_factor(step, config, 180_000) == pytest.approx(expected, rel=1e-5)


def test_directpose_schedule_against_the_golden_file() -> None:
    if not GOLDEN.exists():
        pytest.skip("tests/golden/directpose/misc.npz is not here")
    arrays = np.load(GOLDEN)
    config = ScheduleConfig(kind="poly", power=1.0, warmup=1000, warmup_factor=0.001)
    got = [0.01 * lr_factor(int(step), config, 180_000) for step in arrays["lr_iterations"]]
    np.testing.assert_allclose(got, arrays["lr_values"], rtol=1e-5)


def test_rsn_schedule_decays_after_the_warmup() -> None:
    config = ScheduleConfig(kind="linear", warmup=2400, warmup_factor=0.1, decay_from="warmup")
    for step, expected in RSN_SOLVER.items():
        assert lr_factor(step, config, 96_000) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_smpr_schedule_has_a_constant_warmup_and_two_steps() -> None:
    per_epoch = 1770
    total = 100 * per_epoch
    config = ScheduleConfig(
        kind="step", milestones=(0.8, 0.9), gamma=0.1, warmup=500, warmup_factor=1 / 3, warmup_kind="constant"
    )
    expected = {0: 1 / 3, 499: 1 / 3, 500: 1.0, 80 * per_epoch - 1: 1.0, 80 * per_epoch: 0.1, 90 * per_epoch: 0.01}
    for step, factor in expected.items():
        assert lr_factor(step, config, total) == pytest.approx(factor, rel=1e-12)


def test_cosine_starts_at_one_and_ends_at_the_final_factor() -> None:
    config = ScheduleConfig(kind="cosine", final_factor=0.1)
    assert lr_factor(0, config, 200) == pytest.approx(1.0)
    assert lr_factor(100, config, 200) == pytest.approx(0.55)
    assert lr_factor(200, config, 200) == pytest.approx(0.1)


def test_poly_takes_its_power() -> None:
    assert lr_factor(50, ScheduleConfig(kind="poly", power=2.0), 100) == pytest.approx(0.25)


def test_constant_stays() -> None:
    assert {lr_factor(step, ScheduleConfig(kind="constant"), 10) for step in range(11)} == {1.0}


def test_a_warmup_longer_than_the_run_is_only_a_warmup() -> None:
    config = ScheduleConfig(kind="cosine", warmup=100, warmup_factor=0.0, decay_from="warmup")
    assert [lr_factor(step, config, 10) for step in (0, 5, 9)] == pytest.approx([0.0, 0.05, 0.09])


@pytest.mark.parametrize("milestones", [(0.9, 0.8), (0.0,), (1.0,), (80.0, 90.0)])
def test_milestones_are_rising_fractions(milestones: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rising fractions"):
        ScheduleConfig.parse({"kind": "step", "milestones": milestones})
