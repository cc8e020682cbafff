"""Predictions at an image's own size, compared with PyTorch's resizing, for every merge rule."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.rescale import resize_image
from fastfcn_jax.models.segmentor import Outputs

CLASSES = 5


class Tiny(nn.Module):
    """A convolution of stride 8: logits of size ceil(side / 8)."""

    @nn.compact
    def __call__(self, images, *, train=False, size=None):
        conv = nn.Conv(CLASSES, (7, 7), strides=8, padding=[(3, 3), (3, 3)], name="conv")
        return Outputs(conv(images), None, None)


@pytest.fixture(scope="module")
def network():
    model = Tiny()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3), jnp.float32))
    return model, variables


@pytest.fixture(scope="module")
def image():
    small = np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return resize_image(small, (75, 101))


def torch_logits(network, image):
    """Logits of an RGB image at 1/8 of its size, in PyTorch's layout."""
    torch = pytest.importorskip("torch")
    model, variables = network
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    normalised = ((image - mean) / std).astype(np.float32)
    logits = model.apply(variables, jnp.asarray(normalised[None])).logits
    return torch.from_numpy(np.array(logits)).permute(0, 3, 1, 2)


def resize(x, size, align_corners=False):
    torch = pytest.importorskip("torch")
    return torch.nn.functional.interpolate(
        x, tuple(size), mode="bilinear", align_corners=align_corners
    )


def own_size(scores):
    return scores[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("align_corners", [False, True])
def test_single_resizes_twice_and_takes_the_argmax(network, image, align_corners):
    protocol = protocols.build("single", test_scale=(160, 90))
    predictor = Predictor(*network, protocol=protocol, align_corners=align_corners)
    scaled = resize_image(image, (90, 121))
    inner = resize(torch_logits(network, scaled), scaled.shape[:2], align_corners)
    expected = own_size(resize(inner, image.shape[:2], align_corners))
    np.testing.assert_allclose(predictor.scores(image), expected, atol=1e-5)
    prediction = predictor.predict(image, confidence=True)
    assert prediction.labels.dtype == np.uint8
    np.testing.assert_array_equal(prediction.labels, expected.argmax(-1))
    odds = np.exp(expected - expected.max(-1, keepdims=True))
    np.testing.assert_allclose(prediction.confidence, (1 / odds.sum(-1)), rtol=1e-4)


def test_ms_flip_averages_probabilities_of_scaled_originals_and_mirrors(network, image):
    protocol = protocols.build("ms_flip", test_scale=(160, 90), ratios=(0.5, 1.25))
    expected = 0
    for size in [(38, 51), (94, 126)]:
        scaled = resize_image(image, size)
        for flipped in (False, True):
            view = scaled[:, ::-1] if flipped else scaled
            inner = resize(torch_logits(network, view), size)
            inner = inner.flip(3) if flipped else inner
            expected = expected + own_size(resize(inner, image.shape[:2]).softmax(1)) / 4
    predictor = Predictor(*network, protocol=protocol)
    np.testing.assert_allclose(predictor.scores(image), expected, atol=1e-6)
    np.testing.assert_array_equal(predictor(image), expected.argmax(-1))


def test_ms_flip_of_mmseg_0x_scales_the_target_instead(network, image):
    new = protocols.build("ms_flip", test_scale=(200, 90), ratios=(0.5, 0.75))
    old = protocols.build("ms_flip_0x", test_scale=(200, 90), ratios=(0.5, 0.75))
    assert new.scales((75, 101)) == [(38, 51), (56, 75)]
    assert old.scales((75, 101)) == [(45, 61), (67, 90)]


def test_slide_averages_logits_over_windows_shifted_back_inside(network, image):
    protocol = protocols.build("slide", test_scale=(0, 0), crop_size=(48, 56), stride=(20, 40))
    sums = np.zeros((75, 101, CLASSES), np.float32)
    count = np.zeros((75, 101, 1), np.float32)
    for top in (0, 20, 27):
        for left in (0, 40, 45):
            window = image[top : top + 48, left : left + 56]
            part = own_size(resize(torch_logits(network, window), (48, 56)))
            sums[top : top + 48, left : left + 56] += part
            count[top : top + 48, left : left + 56] += 1
    predictor = Predictor(*network, protocol=protocol)
    np.testing.assert_allclose(predictor.scores(image), sums / count, atol=1e-5)


def test_the_stream_returns_each_prediction_with_the_key_of_its_image(network, image):
    protocol = protocols.build("single", test_scale=(0, 0))
    predictor = Predictor(*network, protocol=protocol)
    images = {i: image[: 30 + 7 * i, : 90 - 9 * i] for i in range(5)}
    answers = dict(predictor.stream(images.items()))
    for key, one in images.items():
        np.testing.assert_array_equal(answers[key].labels, predictor(one))


@pytest.mark.slow
@pytest.mark.parametrize("name", protocols.NAMES)
@pytest.mark.parametrize("size", [(1, 700), (700, 1), (1, 1)])
def test_an_image_whose_short_side_scales_to_zero_is_labelled(network, name, size):
    protocol = protocols.build(
        name,
        test_scale=(48, 32),
        ratios=(0.3, 1.0),
        crop_size=(32, 32),
        stride=(24, 24),
        base_size=64,
        window=48,
    )
    assert all(min(scale) >= 1 for scale in protocol.scales(size))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    predictor = Predictor(*network, protocol=protocol)
    prediction = predictor.predict(image, confidence=True)
    assert prediction.labels.shape == size
    assert np.isfinite(prediction.confidence).all()
