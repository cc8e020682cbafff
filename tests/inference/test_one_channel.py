"""Predictions of one-channel models, compared with those of mmsegmentation."""

import functools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mmengine")

import mmseg_inference
import torch

from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.predictor import Predictor

pytestmark = pytest.mark.slow
SCALE = (192, 128)


@functools.cache
def pair():
    """Equal models whose bias puts the median of the photograph's pixels at the threshold."""
    reference, ours, variables = mmseg_inference.pair("enc", 2, out_channels=1, threshold=0.3)
    assert ours.threshold == 0.3
    protocol = protocols.build("single", test_scale=SCALE)
    median = np.median(Predictor(ours, variables, protocol=protocol).scores(photo())[..., 1])
    shift = float(np.log(0.3 / 0.7) - median)
    variables["params"]["decode_head"]["conv_seg"]["bias"] += shift
    reference.decode_head.conv_seg.bias.data += shift
    return reference, ours, variables


def photo(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (16, 22, 3), np.uint8).repeat(6, 0).repeat(6, 1)


def assert_same(found, expected):
    """The labels agree, and both classes occur."""
    assert found.shape == expected.shape
    assert (found == expected).mean() >= 0.9999
    assert 0.02 < expected.mean() < 0.98


def test_labels_are_mmsegs():
    reference, *network = pair()
    theirs = mmseg_inference.infer(reference, photo(), SCALE)
    predictor = Predictor(*network, protocol=protocols.build("single", test_scale=SCALE))
    labels, sure = predictor.predict(photo(), confidence=True)
    assert_same(labels, theirs)
    # The confidence is the probability of what is predicted: of the second class above 0.3.
    scores = predictor.scores(photo())
    assert not scores[..., 0].any()
    odds = 1 / (1 + np.exp(-scores[..., 1]))
    np.testing.assert_allclose(sure, np.where(labels == 1, odds, 1 - odds), atol=1e-5)


def test_multi_scale_is_mmsegs_with_one_sigmoid():
    """mmseg takes the sigmoid of what is a sigmoid already: above 0.5, so everything is class 1."""
    reference, *network = pair()
    resizes = [{"scale_factor": 0.5}]
    assert mmseg_inference.infer_tta(reference, photo(), resizes).all()
    original = type(reference).postprocess_result

    def with_logits(self, *arguments):
        samples = original(self, *arguments)
        for sample in samples:
            sample.seg_logits.data = torch.logit(sample.seg_logits.data.double()).float()
        return samples

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(reference), "postprocess_result", with_logits)
        theirs = mmseg_inference.infer_tta(reference, photo(), resizes)
    protocol = protocols.build("ms_flip", test_scale=SCALE, ratios=(0.5,))
    assert_same(Predictor(*network, protocol=protocol)(photo()), theirs)


def test_the_official_protocol_takes_the_threshold_too():
    _, *network = pair()
    protocol = protocols.build("official", test_scale=SCALE, base_size=128, window=64)
    predictor = Predictor(*network, protocol=protocol)
    labels, sure = predictor.predict(photo(), confidence=True)
    odds = predictor.scores(photo())[..., 1]
    np.testing.assert_array_equal(labels, odds > 0.3)
    np.testing.assert_allclose(sure, np.where(labels == 1, odds, 1 - odds), atol=1e-6)
    assert 0.02 < labels.mean() < 0.98
