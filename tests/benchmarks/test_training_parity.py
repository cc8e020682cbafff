"""Training steps of mmsegmentation and of this package from the same weights, in float64.

The short form of `benchmarks/training_parity.py`, which runs 50 steps and float32 as well.
PSP has the published widths; the others are narrow, because a step in float64 is expensive.
"""

import sys
from pathlib import Path

import oracle
import pytest
import small

from fastfcn_jax.config import base

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import training_parity

PARTS = {"loss", "loss_decode", "loss_auxiliary", "accuracy"}


@pytest.fixture
def narrow(monkeypatch, head):
    """Narrow models for both sides, just wide enough for every optimised form."""
    build = oracle.build_mmseg
    parts = small.mmseg_parts(head, "jpu", training_parity.CLASSES, width=16, channels=64)
    config = small.config(head, "jpu")
    config.model.update(base_width=16, neck_channels=64, head_channels=64, auxiliary_channels=16)
    monkeypatch.setattr(oracle, "build_mmseg", lambda shipped, **_: build(shipped, **parts))
    monkeypatch.setattr(base, "get_config", lambda: config.copy_and_resolve_references())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "steps", "forms"),
    [("enc", 3, "cpu"), ("psp", 1, "cpu"), ("aspp", 1, "cpu"), ("aspp", 1, "gpu")],
)
def test_steps_equal_mmsegs(head, steps, forms, request):
    if forms == "gpu":
        request.getfixturevalue("gpu_forms")
    if head != "psp":
        request.getfixturevalue("narrow")
    recipe = training_parity.Recipe(head, steps=steps, size=(33, 40), precision="float64")
    result = training_parity.compare(recipe, with_twin=False)
    assert result["ours"].keys() == (PARTS | {"loss_se"} if head == "enc" else PARTS)
    for name, errors in result["ours"].items():
        # mmseg's SE loss is always computed in float32, because its target is float32.
        assert max(errors) < (5e-7 if name == "loss_se" else 1e-7), name
    assert result["after"].keys() == {"parameters", "change", "momenta", "statistics"}
    for group, error in result["after"].items():
        assert error < 1e-6, group
