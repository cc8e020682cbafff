"""Benchmarks: counts of arithmetic, GPU programs, and agreement of both implementations."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import narrow
import numpy as np
import pytest
import small
import tiny

from fastfcn_jax import models
from fastfcn_jax.bench import macs, measure, parts
from fastfcn_jax.config import base

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import contenders
import hlo
import versus_mmseg

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """HloModule jit_f, is_scheduled=true

%fused (p0: f32[8,4], p1: s32[]) -> f32[2,4] {
  %p0 = f32[8,4]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %s = f32[2,4]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={2,4}
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %y = f32[8,4]{1,0} copy(%x)
  ROOT %next = (s32[], f32[8,4]{1,0}) tuple(%i, %y)
}

ENTRY %main (a: bf16[2,6,6,16], w: bf16[32,3,3,16], x: f32[8,4], i: s32[]) -> f32[2,4] {
  %a = bf16[2,6,6,16]{3,2,1,0} parameter(0)
  %w = bf16[32,3,3,16]{3,2,1,0} parameter(1)
  %x = f32[8,4]{1,0} parameter(2)
  %i = s32[] parameter(3)
  %start = f32[8,4]{1,0} all-reduce-start(%x), to_apply=%add
  %conv = (bf16[2,4,4,32]{3,2,1,0}, u8[1000]{0}) custom-call(%a, %w), window={size=3x3}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %done = f32[8,4]{1,0} all-reduce-done(%start)
  %pair = (s32[], f32[8,4]{1,0}) tuple(%i, %done)
  %loop = (s32[], f32[8,4]{1,0}) while(%pair), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %last = f32[8,4]{1,0} get-tuple-element(%loop), index=1
  ROOT %out = f32[2,4]{1,0} fusion(%last, %i), kind=kLoop, calls=%fused
}
"""


def test_flops_count_convolutions_products_and_loops():
    def function(x, kernel, w):
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

        def body(carry, _):
            return carry @ w, None

        return jax.lax.scan(body, y.reshape(-1, 8), None, length=3)[0]

    arguments = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 8)), jnp.ones((8, 8))
    conv = 2 * 4 * 4 * 8 * 9 * 4
    loop = 3 * (2 * 4 * 4 * 8 * 8)
    assert measure.flops(function, *arguments) == 2 * (conv + loop)
    assert measure.flops(jax.jit(jax.grad(lambda *a: function(*a).sum())), *arguments) > 2 * conv


def test_depthwise_convolutions_count_one_input_channel_per_output():
    def function(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=16,
        )

    assert measure.flops(function, jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 1, 16))) == (
        2 * 4 * 4 * 16 * 9
    )


def deployed_gmacs(head: str, platform: str) -> tuple[float, float]:
    """(GMAC traced, GMAC by definition) of the network on a 512x1024 image."""
    config = base.get_config()
    config.model.head = head
    model = models.build(config.model, 19)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    images = jax.ShapeDtypeStruct((1, 512, 1024, 3), jnp.float32)
    traced = measure.flops(
        lambda v, x: model.apply(v, x).logits, variables, images, platform=platform
    )
    traced /= 2
    return traced / 1e9, sum(macs.count(model, 512, 1024, auxiliary=False).values()) / 1e9


# See docs/background/performance.md. On a CPU: Winograd's tiles, of ASPP's branches by phase.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "platform", "most"),
    [
        ("psp", "cuda", 183),
        ("aspp", "cuda", 364.8),
        ("enc", "cuda", 185.1),
        ("psp", "cpu", 114),
        ("aspp", "cpu", 215.2),
        ("enc", "cpu", 116),
    ],
)
def test_optimised_networks_compute_less_than_by_definition(head, platform, most):
    traced, defined = deployed_gmacs(head, platform)
    assert traced <= most
    assert traced <= defined


def test_gpu_program_kernels_bytes_and_arithmetic():
    kernels = {k.name: k for k in hlo.Program(PROGRAM).kernels()}
    conv = kernels["conv"]
    assert conv.kind == "conv"
    assert conv.flops == 2 * (2 * 4 * 4 * 32) * 9 * 16
    # Counts operands and the result, not the library's scratch space.
    assert conv.bytes == 2 * (2 * 6 * 6 * 16 + 32 * 9 * 16 + 2 * 4 * 4 * 32)
    # The fusion reads a slice of its operand.
    assert kernels["out"].bytes == 4 * (2 * 4) + 4 + 4 * (2 * 4)
    assert sum(k.name == "y" for k in hlo.Program(PROGRAM).kernels()) == 5
    assert kernels["start"].kind == "collective"


def test_gpu_program_overlap_counts_kernels_between_start_and_done():
    machine = hlo.Machine(flops=1e9, float32_flops=1e9, bandwidth=1e30)
    (transfer,) = hlo.Program(PROGRAM).transfers(machine)
    assert transfer.bytes == 4 * 8 * 4
    assert transfer.hidden == pytest.approx(2 * (2 * 4 * 4 * 32) * 9 * 16 / 1e9)


@pytest.mark.parametrize(
    ("target", "operands", "result"),
    [
        ("__cudnn$convBackwardInput", ("bf16[2,4,4,32]", "bf16[32,3,3,16]"), "bf16[2,6,6,16]"),
        ("__cudnn$convBackwardFilter", ("bf16[2,6,6,16]", "bf16[2,4,4,32]"), "bf16[32,3,3,16]"),
    ],
)
def test_gradients_of_a_convolution_cost_what_it_does(target, operands, result):
    text = (
        f"ENTRY %main (p: x) -> y {{\n  %a = {operands[0]}{{3,2,1,0}} parameter(0)\n"
        f"  %b = {operands[1]}{{3,2,1,0}} parameter(1)\n"
        f"  ROOT %c = ({result}{{3,2,1,0}}, u8[0]{{0}}) custom-call(%a, %b), "
        f'dim_labels=b01f_o01i->b01f, custom_call_target="{target}"\n}}\n'
    )
    (kernel,) = hlo.Program(text).kernels()
    assert kernel.flops == 2 * (2 * 4 * 4 * 32) * 9 * 16


def test_functions_take_turns_in_both_directions():
    order = []
    functions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = measure.in_turns(functions, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_a_donated_state_is_passed_from_call_to_call():
    state = jnp.zeros(8)
    program = measure.Compiled(lambda s, x: (s + x, s.sum()), state, jnp.ones(8), donate=True)
    assert [float(program()[1]) for _ in range(3)] == [0, 8, 16]
    assert state.is_deleted()


def test_unknown_bytes_of_library_calls_are_not_taken_for_zero():
    rates = measure.Rates(flops=1.0, bandwidth=1.0)
    assert rates.bound(measure.Cost(2, 1.0, 0, library_calls=0)) == "arithmetic"
    assert rates.bound(measure.Cost(2, 1.0, 0, library_calls=1)) != "arithmetic"
    assert rates.bound(measure.Cost(1, 2.0, 0, library_calls=1)) == "memory traffic"


@pytest.mark.slow
def test_bench_measures_every_part_and_names_the_slowest(tmp_path):
    command = [
        *(sys.executable, "-m", "fastfcn_jax.bench", "--config", "configs/jpu_psp_cityscapes.py"),
        *("--config.model.backbone=resnet18", "--config.model.base_width=8"),
        *("--config.model.neck_channels=8", "--config.model.head_channels=8"),
        *("--config.model.auxiliary_channels=8", "--config.data.crop_size=(64, 64)"),
        *("--batch=2", "--rounds=1", "--notwin", f"--json={tmp_path / 'found.json'}"),
    ]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert printed.strip().endswith(parts.verdict(found))
    timed = found["parts"]
    assert {"backbone", "neck", "decode_head", "auxiliary_head", "loss", "optimiser"} < set(timed)
    # A backward pass has two products for each forward one; the neck's upsampling gathers forward
    # and has a (small) product backward.
    for name, most in (("neck", 3.1), ("decode_head", 3.0)):
        ratio = timed[name]["training"]["flops"] / timed[name]["forward"]["flops"]
        assert 2.4 < ratio <= most
    assert timed["whole"]["training"]["flops"] > 2.4 * timed["whole"]["forward"]["flops"]
    found["input_seconds"] = 2 * timed["whole"]["training"]["seconds"]
    assert "input is the bottleneck" in parts.verdict(found)
    found["input_seconds"] = None
    timed["loss"]["training"]["seconds"] = 1e3
    assert parts.verdict(found).startswith("The loss is the bottleneck: 100%")
    assert "not measured" in parts.table(found)


def test_the_timed_step_is_that_of_the_training(monkeypatch):
    monkeypatch.setattr(models, "build", tiny.build)
    config = tiny.config(ema_decay=0.9, ema_warmup=True, accumulate=2)
    config.loss.update(terms=("cross_entropy", "dice:2"), ohem_threshold=0.7)
    leaves, metrics = parts.whole(parts.Network(config))["training"]()
    assert {"loss_decode", "loss_dice"} <= set(metrics)
    assert config.train.accumulate == 2
    config.train.ema_decay = 0.0
    fewer, _ = parts.whole(parts.Network(config))["training"]()
    assert len(leaves) - len(fewer) == 10  # the average of the model's arrays


def test_twin_is_the_dilated_model():
    other = parts.twin(narrow.config())
    assert (other.model.neck, other.model.output_stride) == ("none", 8)
    assert parts.twin(other) is None
    assert narrow.config().model.neck == "jpu"


@pytest.fixture
def narrow_sides(monkeypatch):
    """Both networks at an eighth of their width, with a learning rate that suits this width."""

    def mmseg_model(job):
        model = small.mmseg_model(job.head, "jpu", job.num_classes)
        model.data_preprocessor.size, model.data_preprocessor.size_divisor = None, 1
        model.decode_head.dropout = model.auxiliary_head.dropout = None
        return model

    monkeypatch.setattr(contenders, "_mmseg_model", mmseg_model)
    monkeypatch.setattr(contenders, "LR", 4e-6)
    monkeypatch.setattr(base, "get_config", lambda: small.config("enc", "jpu"))


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_sides")
def test_both_sides_of_the_comparison_train_alike(tmp_path):
    """mmseg as published, mmseg tuned, and ours: equal losses before and after a step."""
    job = contenders.Job("enc", "train", 64, 96, 2, 19, False, str(tmp_path / "w.npz"))
    contenders.write_weights(job)
    shipped, tuned, ours = (
        contenders.build(name, job).evidence for name in ("mmseg", "mmseg+channels_last", "ours")
    )
    # Rounding alone makes mmseg in NCHW and in NHWC differ by 0.5 % of the second step's gain,
    # because layer4's BatchNorm has only 12 values per channel here.
    assert shipped[0] - shipped[1] > 0.1
    for losses in (tuned, ours):
        np.testing.assert_allclose(losses[0], shipped[0], rtol=2e-5)
        np.testing.assert_allclose(losses[0] - losses[1], shipped[0] - shipped[1], rtol=0.02)
    assert versus_mmseg.disagreement("train", ours, shipped)["of_largest"] < 5e-3


def test_a_contender_that_crashes_is_named(monkeypatch):
    monkeypatch.setattr(contenders, "write_weights", print)
    job = contenders.Job("psp", "train", 64, 96, 2, 19, False, "")
    with pytest.raises(RuntimeError, match="nobody died, exit status 1"):
        versus_mmseg.compare(job, ["nobody"], 1, 1)
