"""Flip and distortion within the training step: the host's random numbers, the host's pixels."""

import shutil

import jax
import numpy as np
import pytest
from in_memory import InMemory
from tiny import config, losses

from fastfcn_jax import models
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.config import schema
from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import pipeline, pixel_type
from fastfcn_jax.data.augment import mmseg
from fastfcn_jax.data.augment.device_draws import DeviceDraws
from fastfcn_jax.doctor import examine
from fastfcn_jax.errors import UserError
from fastfcn_jax.training import device_augment, loop, optim, step, strategy
from fastfcn_jax.training import state as states

SCENES = InMemory()
augment = jax.jit(device_augment.augment)


def batch(**data):
    """A batch of 32 samples; scaled by 0.5, the scenes are smaller than the crop."""
    c = get_config()
    c.data.update(crop_size=(48, 64), resize_scale=(80, 48), **data)
    c.train.batch_size = 32
    schema.check(c)
    made = next(pipeline.build_train(c, SCENES))
    return {name: made[name] for name in made if name != "index"}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"crop_first": True},
        {"photometric": False},
        {"augment": ("resize", "crop", "photometric"), "crop_first": False},
        {"augment": ("resize", "rotate degrees=20", "crop", "flip", "photometric")},
    ],
    ids=str,
)
def test_the_batch_is_the_hosts_but_for_rounding(data):
    """One random number more or fewer, in another order, would change most of the pixels."""
    host, raw = batch(**data), batch(device_augmentation=True, **data)
    assert ("distortion" in raw) == data.get("photometric", True)
    assert (raw["image"] != host["image"]).mean() > 0.2
    device = {name: np.asarray(x) for name, x in augment(raw).items()}
    assert device.keys() == host.keys()
    assert (host["size"] != (48, 64)).any()
    for name in ("label", "size"):
        np.testing.assert_array_equal(device[name], host[name])
    difference = np.abs(device["image"].astype(int) - host["image"])
    assert difference.max() <= 5
    assert (difference > 0).mean() < 3e-2
    whole = (host["size"] == (48, 64)).all(1)  # in narrow images OpenCV rounds the last columns up
    assert difference[whole].max() <= 3
    assert (difference[whole] > 0).mean() < 1e-3
    assert device["image"].dtype == np.uint8


def test_distorted_noise_is_the_hosts_but_for_a_value_in_a_thousand():
    image = np.random.default_rng(0).integers(0, 256, (64, 320, 3), np.uint8)
    draws, distort = DeviceDraws(None, photometric=True), jax.jit(device_augment.distort)
    changes = np.zeros(5)
    for seed in range(100):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        host, drawn = mmseg.photometric_distortion(image, rngs[0]), draws(rngs[1])["distortion"]
        assert rngs[0].random() == rngs[1].random()
        device = np.asarray(distort(image, drawn))
        difference = np.abs(device.astype(int) - host)
        assert difference.max() <= 3, seed
        assert (difference > 0).mean() < 1e-3, seed
        np.testing.assert_allclose(device.mean((0, 1)), host.mean((0, 1)), atol=1e-3)
        np.testing.assert_allclose(device.std((0, 1)), host.std((0, 1)), atol=1e-3)
        changes += ~np.isnan(drawn)
    share = changes / 100
    assert np.abs(share - [0.5, 0.25, 0.5, 0.5, 0.25]).max() < 0.15  # contrast is in one of two


def test_samples_to_which_nothing_is_done_and_their_padding_stay():
    raw = batch(device_augmentation=True)
    image, label = (raw[name].copy() for name in ("image", "label"))
    nothing = DeviceDraws(0.5, photometric=True).nothing(32)
    found = augment(raw | nothing)
    np.testing.assert_array_equal(found["image"], image)
    np.testing.assert_array_equal(found["label"], label)
    height, width = next(size for size in raw["size"] if tuple(size) != (48, 64))
    place = int(np.argmax((raw["size"] == (height, width)).all(1)))
    everything = {
        "flip": np.ones(32, bool),
        "distortion": np.full((32, 5), [30, 1.5, 1.5, 17, 1.5], np.float32),
    }
    found = {name: np.asarray(x)[place] for name, x in augment(raw | everything).items()}
    inside = np.zeros((48, 64), bool)
    inside[:height, :width] = True
    assert (found["image"][~inside] == 0).all()
    assert (found["label"][~inside] == 255).all()
    np.testing.assert_array_equal(
        found["label"][:height, :width], label[place, :height, :width][:, ::-1]
    )


@pytest.mark.parametrize("listed", [(), ("mmseg", "gamma"), ("crop", "photometric", "flip")])
def test_images_of_other_channels_are_flipped_alone(listed):
    """The steps that take 8-bit RGB are left out, so nothing follows the flip."""
    c = get_config()
    c.data.update(channels=5, dtype="uint16", scaling=((0.0, 1.0),) * 5)
    c.data.update(augment=listed, device_augmentation=True)
    assert pixel_type.of(c.data) != pixel_type.RGB
    schema.check(c)
    draws = pipeline.steps.device_draws(c.data)
    assert draws == DeviceDraws(0.5, photometric=False)
    image = np.random.default_rng(0).integers(0, 2**16, (1, 4, 6, 5), np.uint16)
    sample = {
        "image": image,
        "label": np.arange(24, dtype=np.uint8).reshape(1, 4, 6),
        "size": np.array([[4, 5]], np.int32),
        "flip": np.ones(1, bool),
    }
    found = augment(sample)["image"]
    np.testing.assert_array_equal(found[:, :, :5], image[:, :, 4::-1])
    np.testing.assert_array_equal(found[:, :, 5], image[:, :, 5])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"augmentation": "official"}, r"'official' is done by the host alone"),
        ({"augment": ("mmseg", "cutout")}, r"'cutout' follows 'photometric'"),
        ({"augment": ("resize", "crop", "flip", "rotate")}, r"'rotate' follows 'flip'"),
        ({"augment": ("official",)}, r"'short_side' follows 'flip'"),
        ({"augment": ("resize", "crop", "rotate")}, r"neither flip nor photometric"),
        ({"augment": ("crop", "photometric"), "photometric": False}, r"leave \(crop\); add one"),
        ({"augment": ("resize", "crop", "flip directions=vertical")}, r"horizontally alone"),
    ],
)
def test_what_the_device_does_not_do_is_named(data, message):
    c = get_config()
    c.data.update(device_augmentation=True, **data)
    with pytest.raises(UserError, match=rf"^config\.data\.device_augmentation: .*{message}"):
        schema.check(c)


def test_devices_strategies_and_accumulation_see_the_same_samples():
    """The numbers come with the sample, so they cannot depend on where it is computed."""
    raw = batch(device_augmentation=True)
    whole = augment(raw)
    parts = {name: x.reshape(2, 16, *x.shape[1:]) for name, x in raw.items()}
    for name in ("pmap", "jit"):
        plan = strategy.Strategy(name, tuple(jax.devices()[:2]))

        def both(_, micro, __):
            made = [device_augment.augment({k: x[i] for k, x in micro.items()}) for i in (0, 1)]
            gathered = [jax.lax.all_gather(m["image"], strategy.AXIS, tiled=True) for m in made]
            return jax.numpy.concatenate(gathered)

        placed = plan.put_batch(parts, accumulate=2)
        found = plan.compile(both)(np.zeros(()), placed, np.zeros(()))
        np.testing.assert_array_equal(found, whole["image"])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    c = config(steps=4, save_every=2, eval_every=0, accumulate=2)
    c.data.device_augmentation = True
    loop.train(c, tmp_path)
    alone, verified = losses(tmp_path), model_folder.verify(tmp_path, 4)
    shutil.rmtree(tmp_path / "checkpoints/4")
    loop.train(c, tmp_path)
    assert losses(tmp_path) == alone
    assert model_folder.verify(tmp_path, 4) == verified


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
def test_the_step_learns_from_the_changed_samples():
    c = config()
    c.model.dropout = 0.0
    model = models.build(c.model, SCENES.info.num_classes)
    raw = batch(device_augmentation=True)
    variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 48, 64, 3)))
    optimizer = optim.build(c, variables)
    run = step.make_train_step(model, optimizer, num_classes=SCENES.info.num_classes, loss={})
    arguments = states.create(variables, optimizer), step.numbers(optimizer, 0, 0)

    def loss(batch):
        return float(jax.jit(run)(arguments[0], batch, arguments[1])[1]["loss"])

    plain = {name: raw[name] for name in ("image", "label", "size")}
    assert loss(raw) == pytest.approx(loss(augment(raw)), rel=1e-6)
    assert loss(raw) != pytest.approx(loss(plain), rel=1e-3)


def test_doctor_saves_the_samples_that_the_device_makes(tmp_path, capsys):
    c = config()
    for name in ("host", "device"):
        c.data.device_augmentation = name == "device"
        examine.draw(c, tmp_path / name, count=2)
    assert "up to rounding as on the device" in capsys.readouterr().out
    pictures = [sorted((tmp_path / name).glob("*.png")) for name in ("host", "device")]
    for host, device in zip(*pictures, strict=True):
        assert host.read_bytes() == device.read_bytes()
