"""Both sides of `benchmarks/camvid_parity.py` have the same model and the same samples."""
# ruff: noqa: NPY002 - mmseg draws from the global generator

import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

pytest.importorskip("torch")
pytest.importorskip("mmengine")

import oracle

from fastfcn_jax import models
from fastfcn_jax.config import experiment
from fastfcn_jax.convert import mmseg_names
from fastfcn_jax.data import datasets, pipeline
from fastfcn_jax.data.datasets import street_scene
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import initial_weights

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import camvid_mmseg
import camvid_parity

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 11
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config():
    return experiment.load(str(ROOT / "configs/jpu_psp_camvid.py:cpu"))


@pytest.fixture(scope="module")
def reference(config):
    """mmsegmentation's model for the configuration."""
    overrides = camvid_mmseg.model_overrides(config.model, CLASSES)
    return oracle.build_mmseg(oracle.mmseg_config(camvid_mmseg.SHIPPED), **overrides)


def params_of(variables):
    return traverse_util.flatten_dict(variables["params"], sep="/")


def test_both_start_from_weights_of_the_same_distribution(config, reference):
    """Each array is the same constant on both sides, or has the same mean, deviation and tail."""
    import torch
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel("ERROR")
    model = models.build(config.model, CLASSES)
    torch.manual_seed(0)
    reference.init_weights()
    theirs = params_of(mmseg_names.to_flax(oracle.tensors_of(reference)))
    ours = params_of(initial_weights.random_variables(model, seed=0))
    assert ours.keys() == theirs.keys()
    for name in ours:
        a, b = ours[name].ravel(), theirs[name].ravel()
        if np.ptp(b) == 0:
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        # The log of the standard deviation of n normal values has a deviation of 1 / sqrt(2 n).
        assert abs(np.log(a.std() / b.std())) < 5 / np.sqrt(a.size), name
        assert abs(a.mean() - b.mean()) < 5 * b.std() * np.sqrt(2 / a.size), name
        # The fourth moment tells a normal from a truncated normal distribution.
        assert abs((a**4).mean() / (b**4).mean() - 1) < 25 / np.sqrt(a.size), name


def test_the_same_weights_give_the_same_logits(config, reference):
    import torch

    oracle.randomize(reference, seed=1)
    variables = jax.device_put(mmseg_names.to_flax(oracle.tensors_of(reference)))
    images = np.random.default_rng(0).normal(size=(2, 96, 128, 3)).astype(np.float32)
    with torch.no_grad():
        features = reference.extract_feat(oracle.to_torch(images))
        heads = (reference.decode_head(features), reference.auxiliary_head(features))
    model = models.build(config.model, CLASSES)
    outputs = model.apply(variables, jnp.asarray(images), auxiliary=True)
    for ours, theirs in zip((outputs.logits, outputs.auxiliary), heads, strict=True):
        np.testing.assert_allclose(ours, oracle.to_numpy(theirs), atol=1e-4)


@pytest.fixture
def camvid_root(tmp_path):
    """Four generated scenes in CamVid's layout with its list files and some void pixels."""
    root = tmp_path / "camvid"
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        lines = []
        for i in range(2):
            image, label = street_scene.Scene(np.random.default_rng(i), (90, 120)).draw()
            label[label == 255] = 11
            cv2.imwrite(str(root / split / f"{i}.jpg"), image[..., ::-1])
            cv2.imwrite(str(root / f"{split}annot" / f"{i}.png"), label)
            lines.append(f"{split}/{i}.jpg {split}annot/{i}.png")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_both_read_and_augment_the_same_samples(config, reference, camvid_root, tmp_path):
    """Compares network inputs with those of mmsegmentation's data set, pipeline, preprocessor."""
    camvid_mmseg.register()
    from mmseg.registry import DATASETS

    layout = camvid_mmseg.write_layout(camvid_root, tmp_path / "layout")
    steps = camvid_mmseg.train_pipeline(config.data)
    theirs = DATASETS.build(camvid_mmseg.dataset(layout, "train", steps))
    plain = DATASETS.build(camvid_mmseg.dataset(layout, "train", [*steps[:2], steps[-1]]))
    ours = datasets.load("camvid", str(camvid_root), "train")
    augment = pipeline.build_augment(config.data)
    preprocessor = reference.data_preprocessor
    preprocessor.size = tuple(config.data.crop_size)
    padded = 0
    for seed in range(12):
        sample = ours[seed % 2]
        stored = plain[seed % 2]["data_samples"].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(sample.label, stored)
        np.random.seed(seed)
        packed = theirs[seed % 2]
        np.random.seed(seed)
        result = augment(sample.image, sample.label, oracle.GlobalDraws())
        batch = preprocessor(
            {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}, training=True
        )
        label = batch["data_samples"][0].gt_sem_seg.data[0].numpy()
        np.testing.assert_array_equal(result.label, label)
        size = jnp.array([result.size], jnp.int32)
        normalised = models.normalize(jnp.asarray(result.image[None]), size)
        np.testing.assert_allclose(normalised, oracle.to_numpy(batch["inputs"]), atol=1e-5)
        padded += result.size != tuple(config.data.crop_size)
    assert 0 < padded < 12


def test_the_runner_is_given_the_recipe(config, camvid_root, tmp_path):
    """Schedule, optimiser and batch of the configuration; refuses keys without a translation."""
    made = camvid_mmseg.runner_config(config, camvid_root, tmp_path)
    assert made.optim_wrapper.optimizer.lr == config.optim.lr
    assert made.param_scheduler[0].end == made.train_cfg.max_iters == config.train.steps
    assert made.train_dataloader.batch_size == config.train.batch_size
    config.train.ema_decay = 0.9
    with pytest.raises(UserError, match="ema_decay"):
        camvid_mmseg.runner_config(config, camvid_root, tmp_path)
    config.train.ema_decay = 0.0


def curves(*runs):
    return [
        {"records": [{"kind": "eval", "step": s, "mIoU": v} for s, v in enumerate(values)]}
        for values in runs
    ]


def test_the_verdict_compares_means_with_the_spread_of_seeds():
    sides = {"ours": curves([10, 20], [12, 26]), "mmseg": curves([14, 22], [15, 23])}
    text = camvid_parity.verdict(sides, [0, 1])
    assert "apart by 0.50 at the end (2.00 on average" in text  # |23 - 22.5|; |11 - 14.5| before
    assert "seeds of one side by 6.00 (4.00)" in text
    assert "at 1 of 2" in text
    assert "from step 1 on: ours 23.00 (seeds 20.00 to 26.00), mmseg 22.50 (" in text
    assert "p = 0.90" in text  # t = 0.5 / sqrt(9 + 0.25), 1.06 degrees of freedom
