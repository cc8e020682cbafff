"""Predictions on real photographs and scores, compared with those of mmsegmentation."""

import functools

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mmengine")

import mmseg_inference

from fastfcn_jax.evaluation.metrics import confusion_matrix, scores
from fastfcn_jax.inference import protocols
from fastfcn_jax.inference.predictor import Predictor

RATIOS = (0.5, 1.25)
CLASSES = 150
SCALE = (1024, 256)  # half of ADE20K's scale
pytestmark = pytest.mark.slow
pair = functools.cache(mmseg_inference.pair)


@pytest.fixture(scope="module")
def photos(shared_data):
    """ADE20K (683x512 and 500x364) and CamVid (480x360)."""
    ade = shared_data / "ADEChallengeData2016/images/validation"
    files = [
        ade / "ADE_val_00000001.jpg",
        ade / "ADE_val_00000002.jpg",
        min((shared_data / "camvid/val").iterdir()),
    ]
    return [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]


def assert_same(ours, theirs):
    assert ours.shape == theirs.shape
    assert (ours == theirs).mean() >= 0.9999


@pytest.mark.parametrize("head", ["psp", "aspp", "enc"])
def test_single(head, photos):
    """Three sizes in one padded program, compared with mmsegmentation without padding."""
    reference, *network = pair(head, CLASSES)
    predictor = Predictor(*network, protocol=protocols.build("single", test_scale=SCALE))
    predictor.expect(photo.shape[:2] for photo in photos)
    for photo in photos:
        assert_same(predictor(photo), mmseg_inference.infer(reference, photo, SCALE))


def test_slide(photos):
    reference, *network = pair("psp", CLASSES)
    crop, stride = (128, 160), (85, 106)
    protocol = protocols.build("slide", test_scale=SCALE, crop_size=crop, stride=stride)
    predictor = Predictor(*network, protocol=protocol, batch_size=4)
    whole = reference.test_cfg
    reference.test_cfg = type(whole)(mode="slide", crop_size=crop, stride=stride)
    try:
        theirs = mmseg_inference.infer(reference, photos[1], SCALE)
    finally:
        reference.test_cfg = whole
    assert_same(predictor(photos[1]), theirs)


@pytest.mark.parametrize("name", ["ms_flip", "ms_flip_0x"])
def test_multi_scale(photos, name):
    reference, *network = pair("enc" if name == "ms_flip" else "psp", CLASSES)
    protocol = protocols.build(name, test_scale=SCALE, ratios=RATIOS)
    photo = photos[1]
    if name == "ms_flip":
        resizes = [{"scale_factor": ratio} for ratio in RATIOS]
    else:
        resizes = [{"scale": tuple(int(side * ratio) for side in SCALE)} for ratio in RATIOS]
    theirs = mmseg_inference.infer_tta(reference, photo, resizes)
    assert_same(Predictor(*network, protocol=protocol)(photo), theirs)


def test_scores_equal_iou_metric():
    rng = np.random.default_rng(0)
    labels, predictions = [], []
    matrix = np.zeros((19, 19), np.int64)
    for _ in range(3):
        # Classes 17 and 18 do not occur, and class 16 occurs only in predictions.
        label = rng.choice(np.r_[np.arange(16), 255].astype(np.uint8), (120, 160))
        noise = rng.integers(0, 17, label.shape, dtype=np.uint8)
        prediction = np.where((rng.random(label.shape) < 0.6) & (label < 255), label, noise)
        matrix += confusion_matrix(label, prediction, 19)
        labels.append(label)
        predictions.append(prediction)
    ours = scores(matrix)
    assert [round(ours.miou, 2), round(ours.macc, 2), round(ours.aacc, 2)] == pytest.approx(
        mmseg_inference.iou_metric(labels, predictions, 19), abs=1e-9
    )
