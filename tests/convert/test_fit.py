"""Fitting a file to the configured model: detection, round trips, and what each error says."""

import json
from pathlib import Path

import numpy as np
import pytest
import small

from fastfcn_jax.config.base import get_config
from fastfcn_jax.convert import detect, fit, official_names
from fastfcn_jax.convert.pth import ReadResult
from fastfcn_jax.errors import UserError

OFFICIAL = Path(__file__).parents[1] / "golden" / "official_state_dicts.json"
MODELS = [(head, neck) for head in ("psp", "aspp", "enc", "fcn") for neck in ("jpu", "none")]
OFFICIAL_MODELS = [*MODELS, *((head, "jpu_x") for head in ("psp", "aspp", "enc", "fcn"))]


def file_of(tensors, **fields) -> ReadResult:
    return ReadResult(dict(tensors), fields.pop("kind", "plain state dict (zip)"), (), **fields)


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name, strict=True)


def official_shapes(head: str, neck: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official code's own model."""
    parts = json.loads(OFFICIAL.read_text())
    own_head = "enc without neck" if (head, neck) == ("enc", "none") else head
    names = ["backbone", own_head, "auxiliary"] + ([neck] if neck != "none" else [])
    return {name: tuple(shape) for part in names for name, shape in parts[part].items()}


@pytest.mark.slow
@pytest.mark.parametrize(("head", "neck"), OFFICIAL_MODELS)
def test_official_models_round_trip(head, neck):
    """Every tensor survives the round trip, except for the classifier that the models never use."""
    config = small.config(head, neck, "official")
    tensors = dict(small.official_tensors(head, neck))
    fitted = fit.to_variables(file_of(tensors), config.model, 59)
    assert (
        fitted.report.ignored["weights of the unused ImageNet classifier"] == official_names.IGNORED
    )
    back = fit.to_tensors(fitted.variables, "official", step=fitted.report.step)
    for name in official_names.IGNORED:
        assert not back[name].any()
        tensors[name] = np.zeros_like(tensors[name])
    assert_equal(back, tensors)


@pytest.mark.parametrize(("head", "neck"), OFFICIAL_MODELS)
def test_written_names_are_the_official_codes(head, neck):
    """The official `load_state_dict(strict=True)` takes exactly these names."""
    tensors = small.official_tensors(head, neck)
    wanted = official_shapes(head, neck)
    assert tensors.keys() == wanted.keys()
    for name, shape in wanted.items():
        assert tensors[name].ndim == len(shape), name
        assert (tensors[name].dtype == np.int64) == name.endswith("num_batches_tracked")


@pytest.mark.parametrize(("head", "neck"), OFFICIAL_MODELS)
def test_official_models_are_recognised_by_their_shapes(head, neck):
    names = official_names.to_mmseg_names(official_shapes(head, neck))
    unknown = [n for n, ours in names.items() if ours is None]
    assert unknown == list(official_names.IGNORED)
    shapes = {names[n]: s for n, s in official_shapes(head, neck).items() if names[n]}
    assert detect.detect(shapes, "official") == detect.Detected(
        lineage="official",
        backbone="resnet50",
        stem="deep",
        average_downsample=False,
        base_width=64,
        neck=neck,
        neck_channels=0 if neck == "none" else 512,
        head=head,
        head_channels=256 if head == "aspp" else 512,
        se_branch=head == "enc",
        lateral=False,
        auxiliary=True,
        auxiliary_channels=256,
        num_classes=59,
    )


@pytest.mark.parametrize(("head", "neck"), [m for m in MODELS if m != ("fcn", "jpu")])
def test_real_mmseg_models_fit(head, neck):
    """Names, shapes and the report for the state dict of the real model."""
    model = small.mmseg_model(head, neck)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    counters = {name for name in tensors if name.endswith("num_batches_tracked")}
    for name in counters:
        tensors[name] = np.array(80_000)
    config = small.config(head, neck)
    fitted = fit.to_variables(file_of(tensors), config.model, 19)
    assert fitted.report.step == 80_000
    assert set(fitted.report.mapped) == tensors.keys() - counters
    assert set(fitted.report.ignored["step counters of BatchNorm"]) == counters
    assert_equal(fit.to_tensors(fitted.variables, "mmseg", step=80_000), tensors)


@pytest.mark.slow
def test_published_entry_counts():
    """State-dict entries of the published models: 442, 436 and 429, counters included."""
    for head, entries in (("aspp", 442), ("psp", 436), ("enc", 429)):
        model = small.config(head, "jpu").model
        assert len(fit.to_tensors(small.variables(model, 19), "mmseg")) == entries
    for head, entries in (("enc", 431), ("psp", 438), ("aspp", 450), ("fcn", 414)):
        assert len(small.official_tensors(head, "jpu")) == entries


@pytest.fixture(scope="module")
def psp() -> dict[str, np.ndarray]:
    return fit.to_tensors(small.variables(small.config("psp", "jpu").model, 19), "mmseg")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "aspp"}, "head: the file has psp, the configuration aspp"),
        ({"backbone": "resnet101"}, "backbone: the file has resnet50, the configuration resnet101"),
        ({"lineage": "official"}, "lineage: the file has mmseg, the configuration official"),
        (
            {"auxiliary": False},
            r"the file has True, the configuration False \(--config.model.auxiliary=True\)",
        ),
        ({"neck": "none", "output_stride": 8}, "neck: the file has jpu, the configuration none"),
        ({"neck_channels": 512}, "neck_channels: the file has 16, the configuration 512"),
        ({"head_channels": 64}, "head_channels: the file has 16, the configuration 64"),
        ({"base_width": 64}, "base_width: the file has 8, the configuration 64"),
    ],
)
def test_another_model_is_refused(psp, changes, message):
    config = small.config("psp", "jpu")
    config.model.update(changes)
    with pytest.raises(UserError, match=message) as caught:
        fit.to_variables(file_of(psp), config.model, 19)
    others = {"base_width": 2}.get(next(iter(changes)), 1)  # nothing else is reported as different
    assert str(caught.value).count("the configuration ") <= others


@pytest.mark.slow
def test_another_class_count():
    model = small.config("enc", "jpu").model
    tensors = fit.to_tensors(small.variables(model, 19), "mmseg")
    words = r"num_classes: the file has 19, the configuration 150 \(--reset-head initialises"
    with pytest.raises(UserError, match=words):
        fit.to_variables(file_of(tensors), model, 150)
    fitted = fit.to_variables(file_of(tensors), model, 150, reset_head=True, seed=3)
    names = {"decode_head.conv_seg", "auxiliary_head.conv_seg", "decode_head.se_layer"}
    assert {name.rpartition(".")[0] for name in fitted.report.reset} == names
    head = fitted.variables["params"]["decode_head"]
    assert head["conv_seg"]["kernel"].shape == (1, 1, 16, 150)
    assert 0.005 < head["conv_seg"]["kernel"].std() < 0.015  # N(0, 0.01), not the file's
    assert not head["conv_seg"]["bias"].any()
    assert head["se_layer"]["kernel"].shape == (16, 150)
    kept = fit.to_tensors(fitted.variables, "mmseg")
    anew = tuple(f"{name}." for name in names)
    assert_equal(
        {n: kept[n] for n in kept if not n.startswith(anew)},
        {n: tensors[n] for n in tensors if not n.startswith(anew)},
    )


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e300])
def test_weights_with_nan_or_infinity_are_refused(value):
    tensors = dict(small.official_tensors("psp", "jpu"))
    tensors["jpu.conv5.1.running_var"] = tensors["jpu.conv5.1.running_var"].astype(np.float64)
    tensors["jpu.conv5.1.running_var"][2] = value
    with pytest.raises(UserError, match=r"in 1 tensors: jpu\.conv5\.1\.running_var; its training"):
        fit.to_variables(file_of(tensors), small.config("psp", "jpu", "official").model, 59)


def test_missing_and_left_over_are_both_listed(psp):
    tensors = dict(psp)
    del tensors["backbone.layer2.1.bn2.weight"]
    del tensors["neck.conv_layers.0.0.bn.running_var"]
    tensors["neck.extra.weight"] = np.zeros(3, np.float32)
    tensors["backbone.stem.1.bias"] = np.zeros(3, np.float32)
    with pytest.raises(UserError) as caught:
        fit.to_variables(
            file_of(tensors, others=("version",)), small.config("psp", "jpu").model, 19
        )
    text = str(caught.value)
    missing = "backbone.layer2.1.bn2.weight, neck.conv_layers.0.0.bn.running_var"
    assert f"Missing from the file (2): {missing}." in text
    assert "Left over in the file (2): neck.extra.weight, version." in text
    assert "Of another shape (1): backbone/stem_1/bias: (3,) for (4,)" in text


def test_official_errors_use_official_names():
    tensors = dict(small.official_tensors("enc", "jpu"))
    del tensors["jpu.dilation2.0.bn.weight"]
    tensors["head.connect.0.0.weight"] = np.zeros((4, 4, 1, 1), np.float32)  # of `--lateral`
    with pytest.raises(UserError) as caught:
        fit.to_variables(file_of(tensors), small.config("enc", "jpu", "official").model, 59)
    assert "Missing from the file (1): jpu.dilation2.0.bn.weight." in str(caught.value)
    assert "Left over in the file (1): head.connect.0.0.weight." in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer1.0.conv1.weight", "fc.weight"], "a backbone without a segmentation head"),
        (["backbone.layer1.0.conv1.weight"], "a backbone without a segmentation head"),
        (["encoder.a", "decoder.b"], "they start with: decoder, encoder"),
    ],
)
def test_files_of_other_projects(names, message):
    tensors = {name: np.zeros((4, 4), np.float32) for name in names}
    with pytest.raises(UserError, match=message):
        fit.to_variables(file_of(tensors), get_config().model, 19)


def test_narrow_floats_become_float32(psp):
    half = {n: t.astype(np.float16) if t.dtype == np.float32 else t for n, t in psp.items()}
    fitted = fit.to_variables(file_of(half), small.config("psp", "jpu").model, 19)
    back = fit.to_tensors(fitted.variables, "mmseg")
    for name, tensor in half.items():
        np.testing.assert_array_equal(back[name], tensor.astype(psp[name].dtype), strict=True)
