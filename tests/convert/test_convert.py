"""`python -m fastfcn_jax.convert`: files as the references write them, there and back again."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import oracle
import pytest
import small
import torch
from flax import traverse_util

from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.convert import backbone, convert, fit, official_names, pth
from fastfcn_jax.errors import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name, strict=True)


def to_torch(tensors) -> OrderedDict:
    return OrderedDict((name, torch.as_tensor(tensor)) for name, tensor in tensors.items())


@pytest.fixture(scope="module")
def enc():
    """A real mmseg model, with the counters of 8 000 training steps."""
    model = small.mmseg_model("enc", "jpu")
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(8000)
    return model


def published(path: Path, model) -> Path:
    """As mmsegmentation 0.x publishes weights."""
    meta = {"mmseg_version": "0.18.0", "CLASSES": ("road",), "PALETTE": [[1, 2, 3]]}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, path)
    return path


def test_mmseg_file_to_folder_and_back(tmp_path, enc):
    file = published(tmp_path / "enc.pth", enc)
    config = small.config("enc", "jpu")
    report = convert.to_folder(file, config, tmp_path / "folder")
    assert (report.step, report.reset, report.stubbed) == (8000, (), ())
    assert "enc with SE branch, auxiliary head, 19 classes" in str(report)
    loaded = model_folder.load_model(tmp_path / "folder")
    assert loaded.config.model.to_dict() == config.model.to_dict()
    assert loaded.info.class_names[:2] == ("road", "sidewalk")
    assert loaded.step == 8000
    assert not list(tmp_path.glob("*.partial"))

    convert.to_file(tmp_path / "folder", tmp_path / "back.pth", "mmseg")
    content = torch.load(tmp_path / "back.pth", weights_only=True)
    assert content["meta"]["dataset_meta"]["classes"] == loaded.info.class_names
    back = {name: tensor.numpy() for name, tensor in content["state_dict"].items()}
    assert_equal(back, {name: t.numpy() for name, t in enc.state_dict().items()})


def test_a_model_trained_here_runs_in_mmseg(tmp_path, enc):
    """New weights, written back: the real model loads them strictly and computes our logits."""
    config = small.config("enc", "jpu")
    variables = small.variables(config.model, 19, seed=7)
    card = model_folder.model_card(
        config, model_folder.DatasetInfo("x", ("a",) * 19, np.zeros((19, 3))), {}
    )
    model_folder.save_model(tmp_path / "trained", variables, card, step=42)
    convert.to_file(tmp_path / "trained", tmp_path / "trained.pth", "mmseg")

    content = torch.load(tmp_path / "trained.pth", weights_only=True)
    enc.load_state_dict(content["state_dict"], strict=True)
    images = np.random.default_rng(0).normal(size=(1, 97, 131, 3)).astype(np.float32)
    with torch.no_grad():
        wanted, wanted_se = enc.decode_head(enc.neck(enc.backbone(oracle.to_torch(images))))
    outputs = jax.jit(models.build(config.model, 19).apply)(variables, images)
    scale = float(wanted.abs().max())
    np.testing.assert_allclose(outputs.logits, oracle.to_numpy(wanted), atol=1e-5 * scale + 1e-6)
    np.testing.assert_allclose(outputs.se, wanted_se, atol=1e-5 * float(wanted_se.abs().max()))


@pytest.mark.parametrize("neck", ["jpu", "jpu_x"])
def test_official_file_to_folder_and_back(tmp_path, neck):
    """The `.pth.tar` of 2019, a legacy stream with optimizer and a NumPy score."""
    tensors = dict(small.official_tensors("psp", neck))
    content = {
        "epoch": 80,
        "state_dict": to_torch(tensors),
        "optimizer": {"state": {}, "param_groups": []},
        "best_pred": np.float64(0.5),
    }
    file = tmp_path / "model_best.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=False)
    config = small.config("psp", neck, "official", "pascal_context")
    report = convert.to_folder(file, config, tmp_path / "folder")
    assert report.ignored["weights of the unused ImageNet classifier"] == official_names.IGNORED
    assert any("multiarray" in name for name in report.stubbed)

    convert.to_file(tmp_path / "folder", tmp_path / "back.pth", "official")
    back = dict(pth.read(tmp_path / "back.pth").tensors)
    for name in official_names.IGNORED:
        assert not back.pop(name).any()
        del tensors[name]
    assert_equal(back, tensors)
    with pytest.raises(UserError, match="the mmseg code cannot load; pass --to official"):
        convert.to_file(tmp_path / "folder", tmp_path / "other.pth", "mmseg")


def test_nothing_is_overwritten_and_nothing_left_behind(tmp_path, enc):
    file = published(tmp_path / "enc.pth", enc)
    with pytest.raises(UserError, match=r"enc\.pth: another model than the configured"):
        convert.to_folder(file, small.config("psp", "jpu"), tmp_path / "folder")
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="already exists"):
        convert.to_folder(file, small.config("enc", "jpu"), tmp_path / "here")
    with pytest.raises(UserError, match="does not exist"):
        convert.to_folder(file, small.config("enc", "jpu"), tmp_path / "a" / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enc.pth", "here"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "FILE", "--config", "configs/jpu_psp_cityscapes.py"], "not a PyTorch file"),
        (["--input", "absent.pth", "--config", "configs/demo.py"], "no such file or folder"),
        (["--input", "FILE"], "not a PyTorch file"),
        (["--input", "FILE", "--config.seed=1"], "give --config FILE as well"),
        (["--input", "FOLDER"], "pass --to mmseg, official or paddleseg"),
        (["--input", "FOLDER", "--to", "mmseg"], "is not a checkpoint folder"),
    ],
)
def test_bad_command_lines(tmp_path, arguments, message):
    (tmp_path / "FILE").write_text("accuracy: 79.26\n")
    (tmp_path / "FOLDER").mkdir()
    arguments = [str(tmp_path / a) if a in ("FILE", "FOLDER") else a for a in arguments]
    run = subprocess.run(
        [sys.executable, "-m", "fastfcn_jax.convert", *arguments, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


# Backbones.


def imagenet_file(path: Path, tensors) -> Path:
    classifier = {"fc.weight": np.zeros((1000, 8)), "fc.bias": np.zeros(1000)}
    torch.save(to_torch({**tensors, **classifier}), path)
    return path


def backbone_of(variables) -> dict:
    flat = traverse_util.flatten_dict(variables)
    return {path: x for path, x in flat.items() if path[1] == "backbone"}


def test_backbone_of_mmsegs_imagenet_file(tmp_path, enc):
    file = imagenet_file(tmp_path / "resnet50_v1c.pth", enc.backbone.state_dict())
    model = small.config("psp", "jpu").model
    loaded = backbone.load(file, model)
    wanted = fit.to_variables(
        pth.read(published(tmp_path / "enc.pth", enc)), small.config("enc", "jpu").model, 19
    )
    assert_equal(backbone_of(loaded.variables), backbone_of(wanted.variables))
    assert loaded.notes == []
    # The backbone of a whole model is taken as well.
    whole = backbone.load(tmp_path / "enc.pth", model)
    assert_equal(backbone_of(whole.variables), backbone_of(wanted.variables))


def test_deep_base_backbone_of_the_official_code(tmp_path):
    tensors = small.official_tensors("psp", "jpu")
    own = {
        name.removeprefix("pretrained."): tensor
        for name, tensor in tensors.items()
        if name.startswith("pretrained.") and name not in official_names.IGNORED
    }
    file = imagenet_file(tmp_path / "resnet50-ebb6acbb.pth", own)
    loaded = backbone.load(file, small.config("enc", "jpu_x", "official").model)
    wanted = fit.to_variables(
        pth.ReadResult(tensors, "", ()), small.config("psp", "jpu", "official").model, 59
    )
    assert_equal(backbone_of(loaded.variables), backbone_of(wanted.variables))
    # mmseg's stem is half as wide.
    with pytest.raises(UserError, match=r"Of another shape .*backbone/layer1_0/conv1/kernel"):
        backbone.load(file, small.config("psp", "jpu").model)


def test_a_stem_of_another_kind_is_left_out_and_the_same_kind_is_not(tmp_path):
    """mmseg's plain ResNet has torchvision's names and its 7x7 stem."""
    oracle.import_mmseg()
    from mmseg.models.backbones import ResNet

    plain = ResNet(50, base_channels=8, stem_channels=8)
    oracle.randomize(plain)
    file = imagenet_file(tmp_path / "resnet50-0676ba61.pth", plain.state_dict())
    loaded = backbone.load(file, small.config("psp", "jpu").model)
    (note,) = loaded.notes
    assert note.startswith("warning: the file's stem is plain, and config.model.stem is deep; ")
    assert "--config.model.stem=plain takes the file as it is" in note
    assert "Now stem_0, stem_1, stem_3, stem_4, stem_6, stem_7 start from random weights" in note
    params = loaded.variables["params"]["backbone"]
    assert not any(name.startswith(("stem", "conv1", "bn1")) for name in params)
    whole = backbone.load(file, small.config("psp", "jpu", stem="plain").model)
    assert whole.notes == []
    stem = whole.variables["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(stem, plain.conv1.weight.detach().numpy().transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        params["layer3_2"]["conv2"]["kernel"],
        plain.layer3[2].conv2.weight.detach().numpy().transpose(2, 3, 1, 0),
    )


def test_backbones_that_do_not_fit(tmp_path, enc):
    tensors = dict(enc.backbone.state_dict())
    file = imagenet_file(tmp_path / "a.pth", tensors)
    deeper = small.config("psp", "jpu", backbone="resnet101").model
    with pytest.raises(UserError, match=r"is resnet50, and config.model.backbone is resnet101; "):
        backbone.load(file, deeper)
    averaging = small.config("psp", "jpu", average_downsample=True).model
    with pytest.raises(UserError, match=r"--config.model.average_downsample=False takes the file"):
        backbone.load(file, averaging)
    del tensors["layer2.1.bn2.running_mean"]
    tensors["layer2.1.se.weight"] = np.zeros(3)
    file = imagenet_file(tmp_path / "b.pth", tensors)
    with pytest.raises(UserError) as caught:
        backbone.load(file, small.config("psp", "jpu").model)
    assert "Missing from the file: backbone/layer2_1/bn2/mean." in str(caught.value)
    assert "Left over in the file: backbone/layer2_1/se/scale." in str(caught.value)
    file = imagenet_file(tmp_path / "c.pth", {"features.0.weight": np.zeros(3)})
    with pytest.raises(UserError, match="not a known ResNet"):
        backbone.load(file, small.config("psp", "jpu").model)
