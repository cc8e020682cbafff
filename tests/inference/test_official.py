"""The official evaluation protocol, compared with its algorithm in PyTorch; also extreme logits."""

import math

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.models.segmentor import Outputs

torch = pytest.importorskip("torch")
interpolate = torch.nn.functional.interpolate

CLASSES, BASE, CROP = 6, 52, 48
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


class Tiny(nn.Module):
    """A convolution of stride 8; `loudness` multiplies its logits."""

    loudness: float = 1.0

    @nn.compact
    def __call__(self, images, *, train=False, size=None):
        conv = nn.Conv(CLASSES, (7, 7), strides=8, padding=[(3, 3), (3, 3)], name="conv")
        return Outputs(conv(images) * jnp.float32(self.loudness), None, None)


@pytest.fixture(scope="module")
def variables():
    return Tiny().init(jax.random.key(1), jnp.zeros((1, 16, 16, 3), jnp.float32))


def reference(model, variables, image, ratios, flip):
    """wuhuikai/FastFCN's `MultiEvalModule.forward` in float64, written from its description."""

    def network(x):
        logits = model.apply(variables, jnp.asarray(x.float().permute(0, 2, 3, 1).numpy())).logits
        small = torch.from_numpy(np.array(logits)).permute(0, 3, 1, 2)
        return interpolate(small, x.shape[2:], mode="bilinear", align_corners=True).double()

    def windows(x):
        output = network(x)
        if flip:
            output = output + network(x.flip(3)).flip(3)
        return output.exp()

    def black(x, height, width):
        canvas = (-MEAN / STD).expand(1, 3, height, width).clone()
        canvas[:, :, : x.shape[2], : x.shape[3]] = x
        return canvas

    own = image.shape[:2]
    normal = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - MEAN) / STD
    total = 0
    for ratio in ratios:
        long = math.ceil(BASE * ratio)
        height, width = own
        if height > width:
            height, width = long, int(1.0 * width * long / height + 0.5)
        else:
            height, width = int(1.0 * height * long / width + 0.5), long
        x = interpolate(normal, (height, width), mode="bilinear", align_corners=True)
        x = black(x, max(height, CROP), max(width, CROP))
        sums = torch.zeros(1, CLASSES, *x.shape[2:], dtype=torch.float64)
        count = torch.zeros(1, 1, *x.shape[2:], dtype=torch.float64)
        stride = int(CROP * 2 / 3)
        for top in range(0, max(x.shape[2] - CROP + stride - 1, 0) // stride * stride + 1, stride):
            for left in range(
                0, max(x.shape[3] - CROP + stride - 1, 0) // stride * stride + 1, stride
            ):
                cut = x[:, :, top : top + CROP, left : left + CROP]
                part = windows(black(cut, CROP, CROP))[:, :, : cut.shape[2], : cut.shape[3]]
                sums[:, :, top : top + CROP, left : left + CROP] += part
                count[:, :, top : top + CROP, left : left + CROP] += 1
        scores = (sums / count)[:, :, :height, :width]
        total = total + interpolate(scores, own, mode="bilinear", align_corners=True)
    return total[0].permute(1, 2, 0).numpy()


def image_of(height, width):
    rng = np.random.default_rng(height)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "size"), [("official", (37, 50)), ("official_ms", (70, 31)), ("official_ms", (40, 41))]
)
def test_equals_the_reference(variables, name, size):
    ratios = (0.5, 1.0, 1.75)
    protocol = protocols.build(name, test_scale=(0, 0), ratios=ratios, base_size=BASE, window=CROP)
    predictor = Predictor(Tiny(), variables, protocol=protocol, align_corners=True, batch_size=2)
    image = image_of(*size)
    multi = name == "official_ms"
    expected = reference(Tiny(), variables, image, ratios if multi else (1.0,), flip=multi)
    scores = predictor.scores(image)
    np.testing.assert_allclose(
        scores, expected / expected.sum(-1, keepdims=True), rtol=2e-3, atol=1e-6
    )
    assert (predictor(image) == expected.argmax(-1)).mean() > 0.999


def test_pixels_with_large_and_small_logits_are_both_exact(variables):
    """With logits of several hundred, exp overflows float32; one shift per image is not enough."""
    protocol = protocols.build("official", test_scale=(0, 0), base_size=BASE, window=CROP)
    loud = Tiny(loudness=60.0)
    predictor = Predictor(loud, variables, protocol=protocol, align_corners=True)
    image = image_of(37, 50)
    image[:, :25] //= 16  # small logits on the left
    expected = reference(loud, variables, image, (1.0,), flip=False)
    assert np.isfinite(expected).all()
    assert np.log(expected.max()) > 89  # overflows float32
    assert (predictor(image) == expected.argmax(-1)).mean() > 0.999
