"""Every experiment and variant builds; the recipes equal mmseg's configs, field by field."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import oracle
import pytest
import yaml

from fastfcn_jax.config import experiment, schema
from fastfcn_jax.convert import fit
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.models import segmentor

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if path.stem != "__init__")


def variants(path: Path) -> list[str]:
    """The variants of a file, taken from the error message for an unknown variant."""
    with pytest.raises(UserError) as caught:
        experiment.load(f"{path}:no-such-variant")
    return re.findall(r":(\w+)", str(caught.value).partition("known variants")[2])


SPECS = [
    f"{path}{variant}" for path in FILES for variant in ["", *map(":{}".format, variants(path))]
]
BY_NAME = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: Path(spec).name)


@functools.cache
def shapes_of(model: str) -> int:
    """Shapes of the model's variables, cached for experiments that share a model."""
    config = experiment.load(str(CONFIGS / "demo.py"))
    config.model.update(json.loads(model))
    return len(fit.template(config.model, 19))


@BY_NAME
def test_every_variant_builds(spec):
    config = experiment.load(spec)
    assert shapes_of(json.dumps(config.model.to_dict(), sort_keys=True)) > 100
    assert config.data.name in datasets.DATASETS
    assert config.train.steps % config.train.eval_every == 0  # the last step is evaluated


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstring_says_the_command_and_every_variant(path):
    text = path.read_text()
    docstring = text.split('"""')[1]
    assert f"python train.py --config configs/{path.name}" in docstring
    if experiment.load(str(path)).published.source:
        assert "Published" in docstring
    combined = [v for v in variants(path) if "_" in v and v != "jpu_x"]  # combinations of variants
    for variant in set(variants(path)) - set(combined):
        assert f":{variant}" in docstring, variant


# mmseg's names for our experiments.
HEADS = ("aspp", "psp", "enc")
D8 = {"aspp": "deeplabv3", "psp": "pspnet", "enc": "encnet"}
TAILS = {
    "cityscapes": "4xb2-80k_cityscapes-512x1024",
    "cityscapes:4x4": "4xb4-80k_cityscapes-512x1024",
    "ade20k": "4xb4-80k_ade20k-512x512",
    "ade20k:160k": "4xb4-160k_ade20k-512x512",
}
PAIRS = [
    (f"{neck}_{head}_{data}", f"{folder}_{tail}")
    for head in HEADS
    for data, tail in TAILS.items()
    for neck, folder in (
        ("jpu", f"fastfcn/fastfcn_r50-d32_jpu_{head}"),
        ("dilated", f"{D8[head]}/{D8[head]}_r50-d8"),
    )
    if (neck, data) != ("dilated", "cityscapes:4x4")  # mmseg has none
]


def load(name: str):
    stem, _, variant = name.partition(":")
    return experiment.load(f"{CONFIGS / stem}.py" + (f":{variant}" if variant else ""))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours for ours, _ in PAIRS])
def test_recipe_equals_mmsegs(ours, theirs):
    reference = oracle.mmseg_config(theirs)
    config = load(ours)
    wanted = {**_model(reference.model), **_data(reference), **_schedule(reference, theirs)}
    values = dict(schema.flatten(config))
    assert {key: values[key] for key in wanted} == wanted
    info = datasets.info(config.data.name, "")
    for head in (reference.model.decode_head, reference.model.auxiliary_head):
        assert head.num_classes == info.num_classes
    preprocessor = reference.model.data_preprocessor
    np.testing.assert_array_equal(preprocessor.mean, segmentor.MEAN)
    np.testing.assert_array_equal(preprocessor.std, segmentor.STD)
    assert preprocessor.size == config.data.crop_size


def _model(m) -> dict:
    """Our `model` and `loss` keys from an mmseg model; asserts what our code does not configure."""
    backbone, head, auxiliary = m.backbone, m.decode_head, m.auxiliary_head
    dilated = "neck" not in m
    assert backbone.type == "ResNetV1c"
    assert tuple(backbone.strides) == ((1, 2, 1, 1) if dilated else (1, 2, 2, 2))
    assert tuple(backbone.dilations) == (1, 1, 2, 4)
    assert backbone.contract_dilation
    assert not backbone.norm_eval
    assert backbone.get("frozen_stages", -1) == -1
    assert not head.align_corners
    assert not auxiliary.align_corners
    assert m.test_cfg.mode == "whole"
    assert head.loss_decode.loss_weight == 1.0
    assert not head.loss_decode.get("avg_non_ignore", False)
    assert auxiliary.num_convs == 1
    assert not auxiliary.concat_input
    assert auxiliary.in_index == (2 if dilated else 1)
    assert auxiliary.dropout_ratio == head.dropout_ratio
    kind = {"PSPHead": "psp", "ASPPHead": "aspp", "EncHead": "enc"}[head.type]
    keys = {
        "model.lineage": "mmseg",
        "model.backbone": f"resnet{backbone.depth}",
        "model.output_stride": 8 if dilated else 32,
        "model.neck": "none" if dilated else "jpu",
        "model.head": kind,
        "model.head_channels": head.channels,
        "model.dropout": head.dropout_ratio,
        "model.se_branch": head.get("use_se_loss", False),
        "model.auxiliary": True,
        "model.auxiliary_channels": auxiliary.channels,
        "model.precision": "float32",
        "loss.normalization": "all_pixels",
        "loss.auxiliary_weight": auxiliary.loss_decode.loss_weight,
        "loss.class_weights": (),
        "loss.ohem_threshold": 0.0,
    }
    if kind == "psp":
        assert tuple(head.pool_scales) == (1, 2, 3, 6)
    if kind == "aspp":
        assert tuple(head.dilations) == (1, 12, 24, 36)
    if kind == "enc":
        assert head.num_codes == 32
        assert not head.add_lateral
        keys["loss.se_weight"] = head.loss_se_decode.loss_weight
    if not dilated:
        assert tuple(m.neck.dilations) == (1, 2, 4, 8)
        assert not m.neck.align_corners
        keys["model.neck_channels"] = m.neck.mid_channels
    return keys


def _data(reference) -> dict:
    """Our `data` keys from mmseg's pipelines."""
    steps = {step.type: step for step in reference.train_pipeline}
    assert [step.type for step in reference.train_pipeline] == [
        "LoadImageFromFile",
        "LoadAnnotations",
        "RandomResize",
        "RandomCrop",
        "RandomFlip",
        "PhotoMetricDistortion",
        "PackSegInputs",
    ]
    assert steps["PhotoMetricDistortion"].keys() == {"type"}  # we use its defaults
    tests = {step.type: step for step in reference.test_pipeline}
    assert tests["Resize"].keep_ratio
    ratios = [step.scale_factor for step in reference.tta_pipeline[1].transforms[0]]
    return {
        "data.name": {"CityscapesDataset": "cityscapes", "ADE20KDataset": "ade20k"}[
            reference.dataset_type
        ],
        "data.augmentation": "mmseg",
        "data.resize_scale": tuple(steps["RandomResize"].scale),
        "data.ratio_range": tuple(steps["RandomResize"].ratio_range),
        "data.crop_size": tuple(steps["RandomCrop"].crop_size),
        "data.cat_max_ratio": steps["RandomCrop"].cat_max_ratio,
        "data.flip": steps["RandomFlip"].prob,
        "data.photometric": True,
        "data.test_scale": tuple(tests["Resize"].scale),
        "eval.protocol": "single",
        "eval.ratios": tuple(ratios),
    }


def _schedule(reference, name: str) -> dict:
    """Our `optim` and `train` keys from mmseg's schedule."""
    optimizer = reference.optim_wrapper.optimizer
    (schedule,) = reference.param_scheduler
    assert optimizer.type == "SGD"
    assert not optimizer.get("nesterov", False)
    assert "paramwise_cfg" not in reference.optim_wrapper  # weight decay on all parameters
    assert reference.optim_wrapper.clip_grad is None
    assert (schedule.type, schedule.begin, schedule.by_epoch) == ("PolyLR", 0, False)
    assert schedule.end == reference.train_cfg.max_iters
    devices = int(re.search(r"_(\d+)xb\d", name).group(1))
    return {
        "optim.lr": optimizer.lr,
        "optim.momentum": optimizer.momentum,
        "optim.weight_decay": optimizer.weight_decay,
        "optim.power": schedule.power,
        "optim.end_lr": schedule.eta_min,
        "optim.poly_reaches_end": True,
        "optim.head_lr_multiplier": 1.0,
        "optim.warmup_steps": 0,
        "optim.clip_norm": 0.0,
        "train.steps": reference.train_cfg.max_iters,
        "train.eval_every": reference.train_cfg.val_interval,
        "train.batch_size": devices * reference.train_dataloader.batch_size,
        "train.accumulate": 1,
        "train.ema_decay": 0.0,
        "train.ema_warmup": False,
        "train.log_every": reference.default_hooks.logger.interval,
    }


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[ours for ours, _ in PAIRS])
def test_published_figures_are_mmsegs(ours, theirs):
    """Read from mmseg's model index, which lists the 4x4 runs under the 4x2 configs."""
    mmseg = oracle.import_mmseg()
    folder, config = theirs.split("/")
    index = Path(mmseg.__file__).parent / ".mim" / "configs" / folder / "metafile.yaml"
    models = yaml.safe_load(index.read_text())["Models"]
    batch_4x4 = "cityscapes:4x4" in ours
    listed = config.replace("4xb4", "4xb2") if batch_4x4 else config
    found = [
        entry["Results"]["Metrics"]
        for entry in models
        if entry["Name"] == listed and ("4x4" in entry["Weights"]) == batch_4x4
    ]
    ((single, multi),) = [(metrics["mIoU"], metrics["mIoU(ms+flip)"]) for metrics in found]
    published = load(ours).published
    assert (published.miou, published.miou_ms_flip) == (single, multi)
    assert published.source == f"mmsegmentation 1.2.2, configs/{folder}/README.md"


# From the official code's option tables (epochs, learning rate for batch 16) and its scripts.
OFFICIAL = {
    "official_encnet_pcontext": (80, 0.001, 4998, 0.2),
    "official_psp_pcontext": (80, 0.001, 4998, 0.4),
    "official_deeplab_pcontext": (80, 0.001, 4998, 0.4),
    "official_encnet_ade20k": (120, 0.01, 20210, 0.2),
    "official_encnet_ade20k:trainval": (20, 0.001, 22210, 0.2),
    "official_fcn_pcontext": (80, 0.001, 4998, 0.2),
    "official_fcn_ade20k": (120, 0.01, 20210, 0.2),
    "official_encnet_cityscapes": (240, 0.01, 2975, 0.2),
    "official_encnet_coco": (30, 0.01, 92_500, 0.2),
    "official_encnet_voc": (50, 0.001, 11_355, 0.2),
    "official_encnet_voc:voc": (50, 0.0001, 2913, 0.2),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_recipe_equals_the_official_codes(name):
    epochs, lr, images, auxiliary_weight = OFFICIAL[name]
    wanted = {
        "model.lineage": "official",
        "model.backbone": "resnet50",
        "model.neck": "jpu",
        "model.dropout": 0.1,
        "model.head_channels": 256 if "deeplab" in name else 512,
        "model.se_branch": "encnet" in name,
        "loss.normalization": "valid_pixels",
        "loss.auxiliary_weight": auxiliary_weight,
        "loss.se_weight": 0.2,
        "optim.lr": lr,
        "optim.momentum": 0.9,
        "optim.weight_decay": 1e-4,
        "optim.power": 0.9,
        "optim.end_lr": 0.0,
        "optim.poly_reaches_end": False,
        "optim.head_lr_multiplier": 10.0,
        "train.steps": epochs * (images // 16),
        "train.batch_size": 16,
        "data.augmentation": "official",
        "data.base_size": 520,
        "data.crop_size": (480, 480),
        "data.blur": True,
        "data.flip": 0.5,
        "data.rotation": 10.0 if "cityscapes" in name else 0.0,
        "data.padding_label": 0 if name.endswith(("coco", "voc")) else 255,
        "data.train_split": "trainval" if name.endswith(("trainval", "voc")) else "train",
        "eval.protocol": "official",
    }
    values = dict(schema.flatten(load(name)))
    assert {key: values[key] for key in wanted} == wanted


def test_official_variants_change_what_they_name():
    for name in ("encnet", "psp", "deeplab"):
        stem = f"official_{name}_pcontext"
        assert load(f"{stem}:r101").model.backbone == "resnet101"
        assert load(f"{stem}:jpu_x").model.neck == "jpu_x"
        dilated = load(f"{stem}:r101_dilated").model
        assert (dilated.backbone, dilated.neck, dilated.output_stride) == ("resnet101", "none", 8)
