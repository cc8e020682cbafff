"""A few steps of real mmsegmentation and of this package from the same weights, batch by batch.

The short form of `benchmarks/training_parity.py`, which goes on for 50 steps and all heads.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import training_parity

STEPS = 3


@pytest.mark.xdist_group("mmseg_parity")
@pytest.mark.parametrize("head", ["enc"])
def test_three_steps_are_those_of_mmseg(head):
    result = training_parity.compare(training_parity.Recipe(head, steps=STEPS, size=(65, 97)))
    names = {"loss", "loss_decode", "loss_auxiliary", "accuracy", "loss_se"}
    assert result["ours"].keys() == names
    # Before any update the loss is equal but for rounding; after each, rounding has grown: no
    # faster than between two mmseg runs that began one rounding apart.
    for name in names - {"accuracy"}:
        ours, twin = result["ours"][name], result["twin"][name]
        assert ours[0] < 1e-5, name
        for step in range(1, STEPS):
            assert ours[step] < max(10 * twin[step], 1e-5), f"{name}, step {step + 1}"
    for group, error in result["after"].items():
        assert error < max(10 * result["after_twin"][group], 1e-5), group


@pytest.mark.xdist_group("mmseg_parity")
@pytest.mark.parametrize("head", ["psp", "aspp", "enc"])
def test_one_step_in_float64_is_that_of_mmseg(head):
    recipe = training_parity.Recipe(head, steps=1, size=(33, 40), precision="float64")
    result = training_parity.compare(recipe, with_twin=False)
    for name, (error,) in result["ours"].items():
        assert error < 1e-6, name
    for group, error in result["after"].items():
        assert error < 1e-6, group
