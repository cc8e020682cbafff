"""Conversion without a configuration, and whose class names count."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import small
import torch

from fastfcn_jax import api
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.convert import auto, convert, detect, fit, pth
from fastfcn_jax.convert.file_meta import FileMeta
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError

CITYSCAPES = datasets.info("cityscapes", "")
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def tensors():
    """A state dict of 19 classes, mmsegmentation's names."""
    config = small.config("psp", "jpu", backbone="resnet18")
    return fit.to_tensors(small.variables(config.model, 19), "mmseg", step=80)


def write(path, tensors, meta=None, **content):
    state = OrderedDict((name, torch.as_tensor(tensor)) for name, tensor in tensors.items())
    torch.save({"state_dict": state, "meta": meta or {}, **content}, path)
    return path


@pytest.mark.parametrize(
    ("lineage", "neck", "head", "changes"),
    [
        ("mmseg", "jpu", "psp", {}),
        ("mmseg", "jpu", "enc", {"stem": "plain"}),
        ("mmseg", "none", "aspp", {"average_downsample": True}),
        ("mmseg", "jpu", "psp", {"backbone": "resnet18", "average_downsample": True}),
        ("mmseg", "none", "psp", {"backbone": "resnext50_32x4d", "base_width": 16}),
        ("official", "jpu_x", "aspp", {}),
        ("official", "jpu", "fcn", {"backbone": "wide_resnet50_2", "stem": "plain"}),
        ("official", "none", "enc", {"stem": "plain", "average_downsample": True}),
    ],
)
def test_every_model_is_recognised(lineage, neck, head, changes):
    """The configuration built from shapes has the same model as the one that gave the shapes."""
    wanted = small.config(head, neck, lineage).model
    wanted.update(changes)
    tensors = fit.to_tensors(small.variables(wanted, 59), lineage)
    config, notes = auto.configuration(detect.of_tensors(tensors), FileMeta())
    differing = {k for k, value in wanted.items() if config.model[k] != value}
    assert differing <= {"neck_channels"}
    assert neck == "none" or not differing
    assert config.data.name == "pascal_context"
    assert "does not name its 59 classes: assumed to be those of pascal_context" in notes[0]


def test_a_file_alone_becomes_a_folder(tmp_path, tensors):
    """As written by mmengine in training: custom classes with colours, the configuration's text."""
    names = tuple(f"own {k}" for k in range(19))
    palette = [[k, 2 * k, 255 - k] for k in range(19)]
    text = """
model = dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    test_cfg=dict(mode='slide', crop_size=(96, 128), stride=(64, 85)))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(300, 200))]
"""
    meta = {
        "dataset_meta": {"classes": names, "palette": palette},
        "iter": 4000,
        "cfg": text,
    }
    file = write(tmp_path / "a.pth", tensors, meta, message_hub={})
    report = convert.to_folder(file, None, tmp_path / "a")
    assert "iteration 4000 of its training" in str(report)
    loaded = model_folder.load_model(tmp_path / "a")
    assert loaded.info.class_names == names
    assert loaded.info.palette.tolist() == palette
    assert loaded.config.data.name == "folder"
    assert loaded.config.data.test_scale == (300, 200)
    tested = loaded.config.eval
    assert (tested.protocol, tested.crop_size, tested.stride) == ("slide", (96, 128), (64, 85))


def test_the_same_classes_in_another_order_keep_the_files_names(tmp_path, tensors):
    """mmsegmentation 0.x; names, and with them colours, belong to the outputs."""
    names = CITYSCAPES.class_names[::-1]
    file = write(tmp_path / "a.pth", tensors, {"CLASSES": names})
    config = small.config("psp", "jpu", backbone="resnet18")
    for converted in (convert.read(file, config), convert.read(file)):
        assert converted.info.class_names == names
        np.testing.assert_array_equal(converted.info.palette, CITYSCAPES.palette[::-1])
        assert (
            "the file names the classes of cityscapes in another order, and its names are taken: "
            "class 0 is 'bicycle', not 'road'" in str(converted.report)
        )
    # ... so that nothing is evaluated against labels of the other order.
    with pytest.raises(UserError, match="in another order"):
        model_folder.compare_classes(tmp_path, converted.info, CITYSCAPES)


def test_names_as_the_data_set_has_them_need_no_note(tmp_path, tensors):
    file = write(tmp_path / "a.pth", tensors, {"CLASSES": CITYSCAPES.class_names})
    converted = convert.read(file)
    assert (converted.info.name, converted.config.data.name) == ("cityscapes", "cityscapes")
    assert converted.report.notes == ()
    np.testing.assert_array_equal(converted.info.palette, CITYSCAPES.palette)


def test_a_list_of_another_length_does_not_name_the_outputs(tmp_path, tensors):
    file = write(tmp_path / "a.pth", tensors, {"CLASSES": ("road",)})
    converted = convert.read(file, small.config("psp", "jpu", backbone="resnet18"))
    assert converted.info.class_names == CITYSCAPES.class_names
    assert "the file names 1 classes for 19 outputs: not used" in str(converted.report)


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_names_of_a_file_of_classes(tmp_path, tensors, suffix):
    names = [f"own {k}" for k in range(19)]
    path = tmp_path / f"classes{suffix}"
    path.write_text(json.dumps({"classes": names}) if suffix == ".json" else "\n".join(names))
    file = write(tmp_path / "a.pth", tensors, {"CLASSES": CITYSCAPES.class_names})
    converted = convert.read(file, class_file=path)
    assert list(converted.info.class_names) == names
    assert len({tuple(color) for color in converted.info.palette.tolist()}) == 19
    path.write_text(
        json.dumps({"classes": names[1:]}) if suffix == ".json" else "\n".join(names[1:])
    )
    with pytest.raises(UserError, match="names 18 classes, and the file's classifier has 19"):
        convert.read(file, class_file=path)


def test_a_class_count_needs_no_data_set(tmp_path):
    """config.model.num_classes is enough, and the file's class count is compared with it."""
    config = small.config("psp", "jpu", backbone="resnet18", num_classes=7)
    tensors = fit.to_tensors(small.variables(config.model, 7), "mmseg")
    file = write(tmp_path / "a.pth", tensors)
    converted = convert.read(file, config)
    assert converted.info.class_names == tuple(f"class {k}" for k in range(7))
    assert "name them with --classes FILE" in str(converted.report)
    config.model.num_classes = 8
    with pytest.raises(UserError, match="num_classes: the file has 7, the configuration 8"):
        convert.read(file, config)
    # A folder of one's own that is not there.
    config.model.num_classes = 0
    config.data.name = "folder"
    assert convert.read(file, config).info.num_classes == 7
    with pytest.raises(UserError, match="needs the classes of the new classifiers"):
        convert.read(file, config, reset_head=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("img_norm_cfg = dict(mean=[0.0, 0.0, 0.0], std=[255., 255., 255.])", "normalised by"),
        ("img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], to_rgb=False)", "takes BGR"),
    ],
)
def test_other_normalisation_is_refused(tmp_path, tensors, config, message):
    file = write(tmp_path / "a.pth", tensors, {"config": config})
    with pytest.raises(UserError, match=message):
        convert.read(file)


def test_unexpected_metadata_are_ignored(tmp_path, tensors):
    """Metadata of unexpected types are ignored."""
    meta = {
        "dataset_meta": {"classes": ["a\x1b[2J"] * 19, "palette": [[0, 0, 300]] * 19},
        "iter": "many",
        "cfg": "import os; os._exit(1)\nx = " + "(" * 3000,
    }
    assert pth.read(write(tmp_path / "a.pth", tensors, meta)).meta == FileMeta()


def test_a_head_that_is_not_known_is_described(tmp_path, tensors):
    renamed = {n.replace("psp_modules", "other_modules"): t for n, t in tensors.items()}
    with pytest.raises(UserError, match=r"under decode_head\. it has: .*other_modules\.0"):
        convert.read(write(tmp_path / "a.pth", renamed))


@pytest.mark.slow
def test_python_needs_the_file_alone(tmp_path, tensors):
    file = write(tmp_path / "a.pth", tensors)
    model = api.load_pth(file, protocol="single")
    assert repr(model).startswith(f"Model {file}\n  ")
    assert model.info.name == "cityscapes"
    assert model(IMAGE).shape == (64, 96)


@pytest.mark.slow
def test_one_channel_stands_for_two_classes(tmp_path):
    """mmsegmentation's `out_channels=1`: its SE branch still has two outputs."""
    wanted = small.config("enc", "jpu", backbone="resnet18", num_classes=1)
    tensors = fit.to_tensors(small.variables(wanted.model, 2), "mmseg")
    shapes = [tensors[f"decode_head.{name}.weight"].shape for name in ("conv_seg", "se_layer")]
    assert shapes == [(1, small.CHANNELS, 1, 1), (2, small.CHANNELS)]
    text = "model = dict(decode_head=dict(num_classes=2, out_channels=1, threshold=0.4))"
    meta = {"dataset_meta": {"classes": ("rest", "crack")}, "cfg": text}
    converted = convert.read(write(tmp_path / "a.pth", tensors, meta))
    assert (converted.config.model.num_classes, converted.config.model.threshold) == (1, 0.4)
    assert converted.info.class_names == ("rest", "crack")
    file = write(tmp_path / "b.pth", tensors, {})
    converted = convert.read(file)
    assert converted.info.class_names == ("class 0", "class 1")
    assert converted.config.model.threshold == 0.3
    assert "does not say the threshold: that of mmsegmentation, 0.3" in str(converted.report)
    wanted.data.name = "folder"
    assert convert.read(file, wanted).info.num_classes == 2
    wanted.model.num_classes = 0
    with pytest.raises(UserError, match=r"model\.num_classes=1 is one channel for two classes"):
        convert.read(write(tmp_path / "c.pth", tensors, meta), small.config("enc", "jpu"))
    convert.to_folder(file, None, tmp_path / "folder")
    convert.to_file(tmp_path / "folder", tmp_path / "back.pth", "mmseg")
    back = pth.read(tmp_path / "back.pth").tensors
    assert all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())
