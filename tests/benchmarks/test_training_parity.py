"""Steps of real mmsegmentation and of this package from the same weights, in float64.

The short form of `benchmarks/training_parity.py`, which goes on for 50 steps and in float32 too.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import training_parity

PARTS = {"loss", "loss_decode", "loss_auxiliary", "accuracy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "steps", "forms"),
    [("enc", 3, "cpu"), ("psp", 1, "cpu"), ("aspp", 1, "cpu"), ("aspp", 1, "gpu")],
)
def test_steps_are_those_of_mmseg(head, steps, forms, request):
    if forms == "gpu":
        request.getfixturevalue("gpu_forms")
    recipe = training_parity.Recipe(head, steps=steps, size=(33, 40), precision="float64")
    result = training_parity.compare(recipe, with_twin=False)
    assert result["ours"].keys() == (PARTS | {"loss_se"} if head == "enc" else PARTS)
    for name, errors in result["ours"].items():
        # PyTorch computes mmseg's SE loss in float32 whatever the model is in: its target is.
        assert max(errors) < (5e-7 if name == "loss_se" else 1e-7), name
    assert result["after"].keys() == {"parameters", "change", "momenta", "statistics"}
    for group, error in result["after"].items():
        assert error < 1e-6, group
