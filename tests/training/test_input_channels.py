"""Weights of RGB for images of other channels, and the scaling of those images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import experiment, flags, schema
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import initial_weights
from fastfcn_jax.weights import hub

KERNEL = np.arange(12, dtype=np.float32).reshape(3, 2, 1, 2).transpose(1, 2, 0, 3)  # h w c k
# timm 1.0.31: adapt_input_conv(channels, kernel as OIHW), back in HWIO, flattened.
TIMM = {
    1: [12.0, 15.0, 18.0, 21.0],
    2: [0.0, 1.5, 6.0, 7.5, 3.0, 4.5, 9.0, 10.5],
    4: [0.0, 0.75, 3.0, 3.75, 6.0, 6.75, 0.0, 0.75, 1.5, 2.25, 4.5, 5.25, 7.5, 8.25, 1.5, 2.25],
}


@pytest.mark.parametrize("channels", TIMM)
def test_the_first_convolution_is_adapted_as_by_timm(channels):
    adapted = initial_weights.for_channels(KERNEL, channels)
    assert adapted.shape == (2, 1, channels, 2)
    np.testing.assert_allclose(adapted.ravel(), TIMM[channels])


def config(channels):
    c = small.config("fcn", "none", auxiliary=False)
    c.model.backbone = "resnet18"
    if channels != 3:
        c.data.name = "folder"
        c.data.update(channels=channels, scaling=((100.0, 50.0),) * channels)
    return c


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "rule"), [(1, "summed over RGB's"), (5, "times 3/5, of RGB")])
def test_a_checkpoint_of_rgb_starts_a_model_of_other_channels(tmp_path, channels, rule):
    rgb, other = config(3), config(channels)
    info = datasets.info("cityscapes", "")
    variables = small.variables(rgb.model, 19)
    card = model_folder.model_card(rgb, info, {})
    model_folder.save_model(tmp_path / "rgb", variables, card)
    other.init.checkpoint = str(tmp_path / "rgb")
    model = models.build(other.model, 19)
    adapted, notes = initial_weights.variables(other, model, info)
    assert rule in "\n".join(notes)
    grey = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32)
    alike = [jnp.asarray(np.repeat(grey, c, axis=3)) for c in (3, channels)]
    expected = jax.jit(models.build(rgb.model, 19).apply)(variables, alike[0])
    found = jax.jit(model.apply)(adapted, alike[1])
    if channels == 1:  # of five, red and green count twice and blue once
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-4)
    assert np.isfinite(found.logits).all()


def test_a_folder_for_the_hub_keeps_channels_and_scaling(tmp_path):
    c, info = config(5), datasets.info("cityscapes", "")
    model = models.build(c.model, 19)
    variables = initial_weights.random_variables(model, 0, 5)
    model_folder.save_model(tmp_path / "model", variables, model_folder.model_card(c, info, {}))
    written = hub.write(tmp_path / "model", tmp_path / "hub")  # reads it back, bit for bit
    said = (written / "README.md").read_text()
    assert "5 channels of 8-bit values (uint8), scaled to fit" in said
    assert "minus [100.0, 100.0, 100.0, 100.0, 100.0], divided by [50.0" in said
    assert hub.read(written).config.data.scaling == c.data.scaling


def test_normalising_by_a_measured_scaling():
    scaling = models.Scaling((10.0, 1000.0), (2.0, 500.0))
    images = np.array([[[[14, 500]]]], np.uint16)
    np.testing.assert_allclose(models.normalize(jnp.asarray(images), None, scaling), [[[[2, -1]]]])
    missing = jnp.array([[[[np.nan, np.inf]]]], jnp.float32)
    np.testing.assert_array_equal(models.normalize(missing, None, scaling), [[[[0, 0]]]])


class TestConfiguration:
    def test_it_survives_json_and_the_command_line(self):
        c = config(2)
        again = experiment.from_json(experiment.to_json(c))
        assert again.data.scaling == ((100.0, 50.0), (100.0, 50.0))
        given = flags.parse(
            "jpu_psp_folder",
            [
                "--config.data.channels=1",
                "--config.data.dtype=uint16",
                "--config.data.scaling=((512.5, 100),)",
            ],
        )
        assert models.scaling(given.data) == ((512.5,), (100,))

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({"channels": 5}, "data.scaling is empty, which is ImageNet's for 8-bit RGB"),
            ({"dtype": "uint16"}, "data.scaling is empty"),
            ({"channels": 0}, "data.channels=0 must be 1 to 16"),
            ({"channels": 17}, "must be 1 to 16"),
            ({"dtype": "int8"}, "data.dtype='int8' is not one of"),
            ({"scaling": ((1.0, 2.0),)}, "must be a pair"),
            ({"scaling": (1.0, 2.0, 3.0)}, "must be a pair"),
            ({"scaling": ((1.0, 0.0),) * 3}, "every deviation above 0"),
            ({"scaling": ((float("nan"), 1.0),) * 3}, "must be a pair"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, values, words):
        c = config(3)
        c.data.update(values)
        with pytest.raises(UserError, match=words):
            schema.check(c)

    def test_only_a_folder_has_other_channels(self):
        c = config(5)
        c.data.name = "camvid"
        with pytest.raises(UserError, match="camvid has 3 channels of 8-bit values"):
            datasets.open_split(c.data, "train")
