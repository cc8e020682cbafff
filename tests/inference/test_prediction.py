"""What a prediction draws, counts and writes of itself."""

import copy
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from fastfcn_jax import pictures
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.inference.prediction import SHOWN, Prediction

PALETTE = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [90, 9, 9]], np.uint8)
INFO = DatasetInfo("toy", ("sky", "road", "car", "never"), PALETTE)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 400, 3), dtype=np.uint8)
LABELS = np.zeros((40, 400), np.uint8)
LABELS[20:] = 1
LABELS[10:14, 50:60] = 2
LABELS[14, 60] = 2  # touches the car at a corner only
LABELS[12, 52:55] = 0  # a hole
LABELS[:, 399] = 255
SURE = np.full(LABELS.shape, 0.75, np.float32)


@pytest.fixture
def prediction():
    return Prediction(LABELS, SURE, image=IMAGE, info=INFO)


def as_png(data: bytes):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_it_unpacks_and_survives_copies(prediction):
    labels, confidence = prediction
    assert labels is LABELS
    assert confidence is SURE
    for other in (copy.copy(prediction), pickle.loads(pickle.dumps(prediction))):
        assert other.info.class_names == INFO.class_names
        np.testing.assert_array_equal(other.image, IMAGE)
        np.testing.assert_array_equal(other.labels, LABELS)


def test_a_notebook_shows_the_overlay_above_its_legend(prediction):
    shown = as_png(prediction._repr_png_())
    np.testing.assert_array_equal(shown[:40], prediction.overlay())
    np.testing.assert_array_equal(shown[40:], prediction.legend())
    np.testing.assert_array_equal(
        prediction.overlay(opacity=0.3), pictures.overlay(IMAGE, LABELS, PALETTE, 0.3)
    )
    colors = {tuple(pixel) for pixel in prediction.legend().reshape(-1, 3).tolist()}
    assert {tuple(PALETTE[k].tolist()) for k in (0, 1, 2)} <= colors
    assert tuple(PALETTE[3].tolist()) not in colors


@pytest.mark.parametrize(("width", "shown"), [(60, SHOWN[0]), (3000, SHOWN[1])])
def test_small_and_large_photographs_are_scaled_to_be_seen(width, shown):
    labels = np.zeros((30, width), np.uint8)
    image = np.zeros((30, width, 3), np.uint8)
    drawn = as_png(Prediction(labels, None, image=image, info=INFO)._repr_png_())
    assert drawn.shape[1] == shown
    assert drawn.shape[0] == round(30 * shown / width) + 22


def test_shares_are_percent_of_all_pixels_largest_first(prediction):
    shares = prediction.shares()
    assert list(shares) == ["road", "sky", "car"]
    cars = (LABELS == 2).sum()
    assert shares["car"] == pytest.approx(100 * cars / LABELS.size)
    assert sum(shares.values()) == pytest.approx(100 * (1 - 1 / 400))
    assert repr(prediction) == (
        "Prediction 40x400: road 49.9 %, sky 49.6 %, car 0.2 %; mean confidence 0.75"
    )


def test_polygons_enclose_exactly_the_pixels_of_each_region(prediction):
    found = prediction.polygons()
    assert list(found) == ["sky", "road", "car"]
    assert [len(found[name]) for name in found] == [2, 1, 2], "the hole in the car is sky"
    assert sorted(len(rings) for rings in found["car"]) == [1, 2]
    for name, regions in found.items():
        area = sum(_area(rings[0]) - sum(map(_area, rings[1:])) for rings in regions)
        assert area == (INFO.class_names.index(name) == LABELS).sum()
    assert len(prediction.polygons(min_pixels=2)["car"]) == 1
    (outer, hole), *_ = (rings for rings in found["car"] if len(rings) == 2)
    assert {tuple(corner) for corner in outer.tolist()} == {(50, 10), (60, 10), (60, 14), (50, 14)}
    assert {tuple(corner) for corner in hole.tolist()} == {(52, 12), (55, 12), (55, 13), (52, 13)}


def _area(ring) -> float:
    return cv2.contourArea(ring.astype(np.int32))


def test_save_writes_what_the_command_writes(prediction, tmp_path):
    written = prediction.save(tmp_path / "new" / "street.png")
    assert [path.name for path in written] == [
        "street.png",
        "street_overlay.png",
        "street_confidence.png",
    ]
    labels, overlay, sure = (np.asarray(Image.open(path)) for path in written)
    np.testing.assert_array_equal(labels, LABELS)
    seen = np.asarray(Image.open(written[0]).convert("RGB"))
    np.testing.assert_array_equal(seen, pictures.colorize(LABELS, PALETTE))
    np.testing.assert_array_equal(overlay, prediction.overlay())
    assert (sure == 191).all()
    (_, drawn) = Prediction(LABELS, image=IMAGE, info=INFO).save(tmp_path / "a.png", legend=True)
    assert np.asarray(Image.open(drawn)).shape == (62, 400, 3)
    with pytest.raises(UserError, match=r"a\.jpg: the label map has to be a PNG.* such as a\.png"):
        prediction.save(tmp_path / "a.jpg")


def test_a_bare_one_says_where_to_get_a_drawing_one():
    bare = Prediction(LABELS, SURE)
    assert bare._repr_png_() is None
    assert repr(bare) == "Prediction 40x400: mean confidence 0.75"
    with pytest.raises(UserError, match=r"get it from model\.predict\(image\)"):
        bare.overlay()
