"""Parameters and multiply-accumulates, compared with those of both references."""

import jax
import jax.numpy as jnp
import pytest

from fastfcn_jax import models
from fastfcn_jax.bench import macs
from fastfcn_jax.config.base import get_config

pytestmark = pytest.mark.slow

PARTS = ("stem", "layer1", "layer2", "layer3", "layer4", "neck", "decode_head", "auxiliary_head")


def mmseg(head, neck="jpu", num_classes=19):
    config = get_config().model
    stride = 32 if neck == "jpu" else 8
    config.update(head=head, neck=neck, output_stride=stride, se_branch=head == "enc")
    return models.build(config, num_classes)


def official(head, neck, depth):
    config = get_config().model
    config.update(
        lineage="official",
        backbone=f"resnet{depth}",
        head=head,
        neck=neck,
        output_stride=8 if neck == "none" else 32,
        head_channels=256 if head == "aspp" else 512,
        se_branch=head == "enc",
    )
    return models.build(config, 59)


def parameters(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return macs.parameters(shapes)


@pytest.mark.parametrize(
    ("head", "num_classes", "in_head", "auxiliary", "total", "total_d8"),
    [
        ("aspp", 19, 42_221_075, 2_364_691, 87_848_582, 68_113_030),
        ("aspp", 150, 42_288_278, 2_398_358, 87_949_452, 68_213_900),
        ("psp", 19, 23_083_539, 2_364_691, 68_711_046, 48_975_494),
        ("psp", 150, 23_150_742, 2_398_358, 68_811_916, 49_076_364),
        ("enc", 19, 10_000_006, 2_364_691, 55_627_513, 35_891_961),
        ("enc", 150, 10_134_412, 2_398_358, 55_795_586, 36_060_034),
    ],
)
def test_parameters_of_mmseg(head, num_classes, in_head, auxiliary, total, total_d8):
    parts = parameters(mmseg(head, num_classes=num_classes))
    assert tuple(parts[part] for part in PARTS) == (
        *(28_768, 215_808, 1_219_584, 7_098_368, 14_964_736, 19_735_552),
        in_head,
        auxiliary,
    )
    assert sum(parts.values()) == total
    assert sum(parameters(mmseg(head, "none", num_classes)).values()) == total_d8


@pytest.mark.parametrize(
    ("head", "neck", "num_classes", "size", "expected"),
    [
        ("aspp", "jpu", 19, (512, 1024), "3.737 6.979 10.737 15.301 8.456 60.046 337.236 4.842"),
        ("aspp", "none", 19, (512, 1024), "3.737 6.979 10.737 57.982 122.407 0 337.236 19.367"),
        ("psp", "jpu", 19, (512, 1024), "3.737 6.979 10.737 15.301 8.456 60.046 154.751 4.842"),
        ("psp", "none", 19, (512, 1024), "3.737 6.979 10.737 57.982 122.407 0 154.751 19.367"),
        ("enc", "jpu", 19, (512, 1024), "3.737 6.979 10.737 15.301 8.456 60.046 79.805 4.842"),
        ("enc", "none", 19, (512, 1024), "3.737 6.979 10.737 57.982 122.407 0 79.805 19.367"),
        (
            *("psp", "jpu", 19, (1024, 2048)),
            "14.948 27.917 42.950 61.203 33.823 240.183 618.846 19.367",
        ),
        ("aspp", "jpu", 150, (512, 512), "1.869 3.490 5.369 7.650 4.228 30.023 168.893 2.455"),
        ("psp", "jpu", 150, (512, 512), "1.869 3.490 5.369 7.650 4.228 30.023 77.676 2.455"),
        ("enc", "none", 150, (512, 512), "1.869 3.490 5.369 28.991 61.203 0 40.178 9.821"),
    ],
)
def test_macs_of_mmseg(head, neck, num_classes, size, expected):
    parts = macs.count(mmseg(head, neck, num_classes), *size)
    assert [round(parts.get(part, 0) / 1e9, 3) for part in PARTS] == [
        float(x) for x in expected.split()
    ]


def test_macs_to_the_last_digit():
    """PyTorch's FLOP counter gives 132.759683 G for this model."""
    assert (
        round(sum(macs.count(mmseg("psp", num_classes=150), 512, 512).values()) / 1e3) == 132759683
    )


@pytest.mark.parametrize(
    ("head", "depth", "gigamacs", "millions"),
    [
        ("enc", 50, (64.08, 71.27, 146.74), (45.02, 45.00, 33.67)),
        ("psp", 50, (135.94, 143.13, 184.23), (66.47, 66.46, 46.74)),
        ("aspp", 50, (122.41, 129.60, 170.70), (59.51, 59.49, 39.77)),
        ("fcn", 50, (97.23, 104.43, 145.53), (52.84, 52.82, 33.10)),
        ("enc", 101, (83.48, 90.67, 224.31), (64.01, 63.99, 52.66)),
        ("psp", 101, (155.34, 162.53, 261.81), (85.46, 85.45, 65.73)),
    ],
)
def test_official_models_deployed(head, depth, gigamacs, millions):
    for neck, expected, size in zip(("jpu", "jpu_x", "none"), gigamacs, millions, strict=True):
        model = official(head, neck, depth)
        work = sum(macs.count(model, 512, 512, auxiliary=False).values())
        assert round(work / 1e9, 2) == expected
        parts = parameters(model)
        assert (sum(parts.values()) - parts["auxiliary_head"]) / 1e6 == pytest.approx(
            size, abs=0.011
        )


def test_official_necks():
    assert parameters(official("fcn", "jpu", 50))["neck"] == 19_735_552
    assert parameters(official("fcn", "jpu_x", 50))["neck"] == 19_719_168
