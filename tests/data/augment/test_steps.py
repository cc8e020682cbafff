"""The steps of data.augment: equal to mmsegmentation's and torchvision's given the same draws."""
# ruff: noqa: NPY002 - mmseg draws from the global generator

import cv2
import numpy as np
import oracle
import pytest
from in_memory import InMemory
from layouts import sentence
from mmseg_transforms import mmseg_pipeline, scene

from fastfcn_jax.config import augment_steps, base, schema
from fastfcn_jax.data import pipeline
from fastfcn_jax.data.augment import geometric, mosaic, pixel_values

SIZE = (90, 160)


class Draws(oracle.GlobalDraws):
    """NumPy's global generator, from which mmseg draws too; the first integers as given."""

    def __init__(self, indices=()):
        self.indices = list(indices)

    def integers(self, low, high):
        return self.indices.pop(0) if self.indices else super().integers(low, high)


def config(*steps, **data):
    c = base.get_config()
    c.data.update(augment=steps, crop_size=(48, 64), resize_scale=(200, 110), base_size=60, **data)
    schema.check(c)
    return c


def built(*steps, source=None, **data):
    return pipeline.build_augment(config(*steps, **data).data, source)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mmseg", {}),
        ("mmseg", {"photometric": False}),
        ("mmseg", {"crop_first": True}),
        ("official", {"rotation": 10.0, "padding_label": 0}),
        ("official", {"blur": False}),
    ],
)
def test_the_named_lists_are_the_augmentations_bit_by_bit(name, data):
    listed = built(name, augmentation=name, **data)
    spelt = built(*augment_steps.NAMED[name], augmentation=name, **data)
    known = built(augmentation=name, **data)
    for seed in range(20):
        image, label = scene(seed % 5, SIZE if seed % 3 else (131, 77))
        expected = known(image, label, np.random.default_rng(seed))
        for augment in (listed, spelt):
            found = augment(image, label, np.random.default_rng(seed))
            np.testing.assert_array_equal(found.image, expected.image)
            np.testing.assert_array_equal(found.label, expected.label)
            assert found.size == expected.size


ALL = ["horizontal", "vertical", "diagonal"]
CASES = {
    "flip": (
        {"type": "RandomFlip", "prob": 0.8, "direction": ALL},
        geometric.flip, {"prob": 0.8, "directions": ALL},
    ),
    "rotate": (
        {"type": "RandomRotate", "prob": 0.7, "degree": 30.0, "seg_pad_val": 7},
        geometric.rotate, {"prob": 0.7, "degrees": 30.0, "fill": 7},
    ),
    "rot90": (
        {"type": "RandomRotFlip", "rotate_prob": 0.0, "flip_prob": 1.0},
        geometric.rot90, {"prob": 1.0},
    ),
    "cutout": (
        {"type": "RandomCutOut", "prob": 0.7, "n_holes": (1, 4), "cutout_ratio": (0.3, 0.2)},
        geometric.cutout, {"prob": 0.7, "holes": (1, 4), "size": (0.3, 0.2), "fill": -1},
    ),
    "cutout of labels": (
        {"type": "RandomCutOut", "prob": 1.0, "n_holes": 2, "cutout_ratio": (0.3, 0.2),
         "seg_fill_in": 255},
        geometric.cutout, {"prob": 1.0, "holes": (2, 2), "size": (0.3, 0.2), "fill": 255},
    ),
    "resize_steps": (
        {"type": "RandomChoiceResize", "keep_ratio": True,
         "scales": [(100, 55), (150, 82), (200, 110), (250, 137), (300, 165)]},
        geometric.resize_steps, {"scale": (200, 110), "factors": (0.5, 1.5), "step": 0.25},
    ),
    "clahe": (
        {"type": "CLAHE", "clip_limit": 3.0, "tile_grid_size": (4, 6)},
        pixel_values.clahe, {"prob": 1.0, "clip": 3.0, "tiles": (4, 6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_step_equals_mmsegs_given_the_same_draws(name):
    theirs, ours, options = CASES[name]
    reference = mmseg_pipeline(theirs)
    seen = set()
    for seed in range(12):
        image, label = scene(seed % 4, SIZE if seed % 3 else (131, 77))
        before = image.copy(), label.copy()
        np.random.seed(seed)
        expected = reference(image, label)
        after = np.random.random_sample()
        np.random.seed(seed)
        if name == "rot90":
            np.random.random_sample(2)  # whether to rotate, and to turn and flip
        found = ours(image, label, Draws(), **options)
        assert np.random.random_sample() == after
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)
        for x, y in zip((image, label), before, strict=True):
            np.testing.assert_array_equal(x, y)  # a decoded image may be shared
        seen.add(found[0].tobytes() == image.tobytes())
    always = name in ("clahe", "cutout of labels", "rot90")
    assert seen == {False} if always else len(seen) == 2 or name == "resize_steps"


@pytest.mark.parametrize("value", [0.6, 1.0, 1.7])
def test_gamma_is_mmsegs(value):
    image, label = scene(0, SIZE)
    expected, _ = mmseg_pipeline({"type": "AdjustGamma", "gamma": value})(image, label)
    found, _ = pixel_values.gamma(image, label, Draws(), prob=1.0, range=(value, value))
    np.testing.assert_array_equal(found, expected)


def test_mosaic_is_mmsegs():
    source, others = InMemory(), (3, 0, 7)
    size, center = (60, 70), (0.5, 1.5)
    transform = {"type": "RandomMosaic", "prob": 0.8, "img_scale": size}
    from mmseg.registry import TRANSFORMS

    oracle.import_mmseg()
    reference = TRANSFORMS.build(transform)
    changed = 0
    for seed in range(12):
        image, label = scene(seed % 4, SIZE if seed % 2 else (131, 77))
        mixed = [{"img": source[i].image, "gt_seg_map": source[i].label} for i in others]
        given = {"img": image, "gt_seg_map": label, "seg_fields": ["gt_seg_map"]}
        np.random.seed(seed)
        expected = reference({**given, "mix_results": mixed})
        np.random.seed(seed)
        found = mosaic.mosaic(
            image, label, Draws(others), source=source, prob=0.8, size=size, center=center
        )
        np.testing.assert_array_equal(found[0], expected["img"])
        np.testing.assert_array_equal(found[1], expected["gt_seg_map"])
        changed += found[0].shape == (120, 140, 3)
    assert 0 < changed < 12


def test_erasing_is_torchvisions(monkeypatch):
    torch = pytest.importorskip("torch")
    oracle.import_torchvision()
    from torchvision.transforms import RandomErasing

    image, label = scene(0, SIZE)
    area, aspect = (0.02, 0.9), (0.3, 3.3)  # the largest do not fit, and are drawn again

    def drawn(tensor, low, high):
        return tensor.double().fill_(np.random.uniform(low, high))

    def one_of(low, high, size):
        return torch.tensor([np.random.randint(low, high)])

    monkeypatch.setattr(torch.Tensor, "uniform_", drawn)
    monkeypatch.setattr(torch, "randint", one_of)
    torch_log = torch.log
    monkeypatch.setattr(torch, "log", lambda x: torch_log(torch.tensor(aspect).double()))
    for seed in range(20):
        np.random.seed(seed)
        np.random.random_sample()  # whether it happens
        y, x, h, w, _ = RandomErasing.get_params(torch.zeros(3, *SIZE), area, aspect, [0.0])
        np.random.seed(seed)
        erased, labels = geometric.erase(
            image, label, Draws(), prob=1.0, area=area, aspect=aspect, fill=255
        )
        expected, expected_label = image.copy(), label.copy()
        expected[y : y + h, x : x + w] = 0
        expected_label[y : y + h, x : x + w] = 255
        np.testing.assert_array_equal(erased, expected)
        np.testing.assert_array_equal(labels, expected_label)


def test_scale_steps_are_paddlesegs():
    """ResizeStepScaling: one of linspace(low, high, (high - low) / step + 1), sides rounded."""
    image, label = scene(0, SIZE)
    sizes = set()
    for seed in range(30):
        found, its_label = geometric.scale_steps(
            image, label, np.random.default_rng(seed), factors=(0.5, 2.0), step=0.25
        )
        assert found.shape[:2] == its_label.shape
        sizes.add(its_label.shape)
    assert sizes == {(round(f * 90), round(f * 160)) for f in np.linspace(0.5, 2.0, 7)}


def test_blur_and_jpeg_are_opencvs():
    image, label = scene(0, SIZE)
    many = np.dstack([image, image])[..., :5].astype(np.uint16) * 200
    for pixels in (image, many):
        found, _ = pixel_values.blur(pixels, label, Draws(), prob=1.0, sigma=(1.5, 1.5))
        each = [
            cv2.GaussianBlur(pixels[..., k].copy(), (0, 0), 1.5) for k in range(pixels.shape[2])
        ]
        np.testing.assert_array_equal(found, np.dstack(each))
    errors = []
    for quality in (95, 20):
        found, same = pixel_values.jpeg(image, label, Draws(), prob=1.0, quality=(quality, quality))
        np.testing.assert_array_equal(same, label)
        errors.append(np.abs(found.astype(int) - image).mean())
    swapped = np.abs(image[..., ::-1].astype(int) - image).mean()
    assert errors[0] < 0.7 * errors[1] < swapped / 2


EVERYTHING = (
    "mosaic prob=0.5", "rot90", "resize_steps factors=0.5,1.5", "crop", "flip directions=vertical",
    "rotate", "cutout holes=1,3", "erase", "photometric", "clahe clip=2", "gamma", "blur", "jpeg",
)  # fmt: skip


def test_a_batch_depends_on_the_step_number_alone():
    c, source = config(*EVERYTHING), InMemory()
    c.train.batch_size = 4
    whole = pipeline.build_train(c, source)
    batches = [next(whole) for _ in range(3)]
    resumed = next(pipeline.build_train(c, source, start_step=2))
    halves = [next(pipeline.build_train(c, source, start_step=2, shard=(i, 2))) for i in (0, 1)]
    for name, x in batches[2].items():
        np.testing.assert_array_equal(resumed[name], x)
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), x)
    assert not np.array_equal(batches[0]["image"], batches[1]["image"])
    quarters = [next(pipeline.build_train(c, source, shard=(i, 4)))["image"] for i in range(4)]
    np.testing.assert_array_equal(np.concatenate(quarters), batches[0]["image"])


def test_other_images_get_all_steps_but_those_of_colour():
    kinds = {"channels": 5, "dtype": "uint16", "scaling": ((10.0, 2.0),) * 5}
    c = config(*EVERYTHING[1:], **kinds)
    assert pipeline.left_out(c.data) == (
        "no photometric, clahe, gamma, jpeg (data.augment), as the images have 5 channels of "
        "16-bit values (uint16)"
    )
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2**16, (*SIZE, 5), np.uint16)
    label = rng.integers(0, 3, SIZE, np.uint8)
    augment = pipeline.build_augment(c.data)
    without = built("rot90", "resize_steps factors=0.5,1.5", "crop", "flip directions=vertical",
                    "rotate", "cutout holes=1,3", "erase", "blur", **kinds)  # fmt: skip
    for seed in range(4):
        found = augment(image, label, np.random.default_rng(seed))
        assert (found.image.dtype, found.image.shape) == (np.uint16, (48, 64, 5))
        expected = without(image, label, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.image, expected.image)
    text = sentence(lambda: built("official", **kinds))
    assert "'short_side' takes 8-bit RGB alone" in text


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (("resize", "flip"), "has 0 of the steps crop and pad_crop"),
        (("crop", "mosaic"), "'mosaic' changes the size of an image; put it before 'crop'"),
        (("crop", "sharpen"), "'sharpen' is not one of: mmseg, official, resize"),
        (("crop", "flip prob=0.2"), "the options of flip are directions="),
        (("crop", "crop_size=3"), "'crop_size=3' is not one of"),
        (("crop", "rotate prob=1.5"), "prob has to be a number from 0 to 1"),
        (("crop", "rotate degrees=nan"), "degrees has to be a number from 0 to 180"),
        (("crop", "cutout holes=2"), "holes has to be two numbers from 0, whole, as 1,2"),
        (("crop", "gamma range=2,1"), "range has to be low,high"),
        (("crop", "blur sigma=0,1"), "sigma has to be above 0"),
        (("crop", "flip directions=up"), "directions are some of horizontal,vertical,diagonal"),
        (("mosaic", "crop"), "needs a data set"),
    ],
)
def test_a_list_that_cannot_be_is_one_sentence(steps, message):
    assert message in sentence(lambda: built(*steps))


def test_only_resize_crop_flip_can_crop_first():
    assert "begins with resize, crop, flip" in sentence(
        lambda: built("flip", "resize", "crop", crop_first=True)
    )
