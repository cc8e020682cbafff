"""Image sizes grouped by padding: few programs, every image fits, predictions do not change."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from fastfcn_jax import models
from fastfcn_jax.config.base import get_config
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.plan import MAX_WASTE, Plan
from fastfcn_jax.inference.predictor import Predictor
from fastfcn_jax.inference.rescale import resize_image


def random_sizes(count: int) -> list[tuple[int, int]]:
    """Sizes like ADE20K's: short side 512 or less, both orientations, some panoramas."""
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(count):
        short = int(rng.choice([512, 512, 512, rng.integers(200, 512)]))
        long = int(short * rng.choice([4 / 3, 1.5, 1, rng.uniform(1, 2.5)]))
        sizes.append((short, long) if rng.random() < 0.75 else (long, short))
    return sizes


@pytest.mark.parametrize(
    ("name", "limit", "waste"), [("single", 6, 1.3), ("ms_flip", 20, 2.0), ("ms_flip_0x", 20, 1.6)]
)
def test_hundreds_of_sizes_share_few_programs(name, limit, waste):
    protocol = protocols.build(name, test_scale=(2048, 512))
    sizes = random_sizes(400)
    assert len(set(sizes)) > 100
    plan = Plan(protocol, sizes, limit)
    padded = true = 0
    for size in sizes:
        group = plan.group(size)
        scales = protocol.scales(size)
        for box, inner in zip((group.output, *group.scales), (size, *scales), strict=True):
            assert box[0] >= inner[0]
            assert box[1] >= inner[1]
        padded += group.pixels
        true += sum(height * width for height, width in scales)
    assert plan.programs <= limit  # no program was added
    assert padded / true < waste


def test_one_size_is_not_padded():
    plan = Plan(protocols.build("single", test_scale=(0, 0)), [(360, 480)] * 5)
    assert plan.group((360, 480)).exact
    assert plan.group((360, 480)).scales == ((360, 480),)


def test_unplanned_sizes_open_groups_for_later_ones():
    protocol = protocols.build("single", test_scale=(0, 0))
    plan = Plan(protocol)
    assert plan.group((100, 150)).exact
    sizes = [(100 + i, 150 - i) for i in range(1, 40)]
    groups = [plan.group(size) for size in sizes]
    assert plan.programs <= 6
    for size, group in zip(sizes, groups, strict=True):
        assert group.fits(size, (size,))
        assert group.exact or group.pixels <= max(MAX_WASTE * size[0] * size[1], 128 * 192)


@pytest.fixture(scope="module")
def network():
    config = get_config().model
    config.update(backbone="resnet18", base_width=8, neck_channels=8, head_channels=8)
    model = models.build(config, 7)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)

    def draw(shape):
        if len(shape) == 4:
            return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
        return rng.uniform(0.5, 1.5, shape)

    return model, jax.tree.map(lambda leaf: draw(leaf.shape).astype(np.float32), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "ms_flip"])
def test_padded_batches_predict_what_single_images_do(network, name):
    protocol = protocols.build(name, test_scale=(160, 96), ratios=(1.25,))
    rng = np.random.default_rng(0)
    images = []
    for height, width in [(75, 100), (80, 90), (90, 120)]:
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        images.append(resize_image(coarse, (height, width)))
    alone = Predictor(*network, protocol=protocol)
    together = Predictor(*network, protocol=protocol, batch_size=2, max_programs=2)
    together.expect(image.shape[:2] for image in images)
    assert together.plan.programs <= 2
    assert not any(group.exact for group in together.plan.groups)
    answers = dict(together.stream(enumerate(images), confidence=True))
    for i, image in enumerate(images):
        alone.expect([image.shape[:2]])
        expected = alone.predict(image, confidence=True)
        assert len(np.unique(expected.labels)) > 1
        assert (answers[i].labels == expected.labels).mean() >= 0.9999
        np.testing.assert_allclose(answers[i].confidence, expected.confidence, atol=1e-4)
