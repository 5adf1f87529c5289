"""The controller's arguments, and what importing it takes."""

import math

import pytest

from rs_keras import latency_budget


@pytest.mark.parametrize("wrong", [0, -1, math.inf, math.nan, "30", None, True])
def test_a_budget_that_is_no_positive_number_is_refused(wrong):
    with pytest.raises(ValueError) as error:
        latency_budget.LatencyBudget((64, 32), wrong)
    assert str(error.value) == (
        "`budget_ms` must be a positive finite number, in milliseconds. "
        f"Received: budget_ms={wrong!r}"
    )


@pytest.mark.parametrize("wrong", [0, 1, 1.5, -0.5, math.nan, "0.9", None, True])
def test_a_headroom_that_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match="`headroom` must be a number between 0 and 1"):
        latency_budget.LatencyBudget((64, 32), 30, headroom=wrong)


def test_resolutions_keep_the_rules_of_the_networks():
    with pytest.raises(ValueError, match="`resolutions` must be distinct positive"):
        latency_budget.LatencyBudget((64, 64), 30)
    assert latency_budget.LatencyBudget((32, 64), 30).resolution == 64


@pytest.mark.parametrize("wrong", [-1, math.inf, math.nan, "30", None, True])
def test_a_latency_that_is_no_finite_number_is_refused(wrong):
    budget = latency_budget.LatencyBudget((64, 32), 30)
    with pytest.raises(ValueError, match="`milliseconds` must be a finite number that"):
        budget.observe(wrong)


def test_importing_it_imports_neither_numpy_nor_a_framework(fresh_python):
    printed = fresh_python(
        "import sys, rs_keras.latency_budget; print(*sorted(sys.modules), sep='\\n')"
    ).splitlines()
    assert "rs_keras.latency_budget" in printed
    assert {"keras", "tensorflow", "numpy", "jax", "absl"}.isdisjoint(printed)
