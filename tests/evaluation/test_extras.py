"""Calibration error, boundary IoU and paired comparison, by their definitions."""

import dataclasses
import html
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import ndimage, stats

from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets
from fastfcn_jax.evaluation import run
from fastfcn_jax.evaluation.boundaries import RATIO, BoundaryIoU, inner_band
from fastfcn_jax.evaluation.calibration import BINS, Calibration
from fastfcn_jax.evaluation.evaluate import Result
from fastfcn_jax.evaluation.report import document, paired, statistics
from fastfcn_jax.inference.prediction import Prediction

NAMES = ("a", "b & c", "d")


def predictions(count=3, shape=(50, 70)):
    """Labels with ignored pixels and blobs, and predictions right at about their confidence."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        noise = ndimage.gaussian_filter(rng.random((3, *shape)), (0, 4, 4))
        label = noise.argmax(0).astype(np.uint8)
        confidence = rng.uniform(0.34, 1, shape).astype(np.float32)
        wrong = rng.random(shape) > confidence**2
        guess = np.where(wrong, (label + 1) % 3, label).astype(np.uint8)
        label[:5] = 255
        yield label, Prediction(guess, confidence)


def test_calibration_error_is_the_mean_gap_of_the_bins():
    pairs = list(predictions())
    found = Calibration(3)
    for label, prediction in pairs:
        found.add(label, prediction)
    label = np.concatenate([x.ravel() for x, _ in pairs])
    guess = np.concatenate([p.labels.ravel() for _, p in pairs])[label < 255]
    sure = np.concatenate([p.confidence.ravel() for _, p in pairs]).astype(float)[label < 255]
    right = guess == label[label < 255]
    expected = 0.0
    for i in range(BINS):
        inside = (sure > i / BINS) & (sure <= (i + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(100 * expected)
    assert found.error > 10
    assert found.metrics()["ECE"] == found.error


def test_certain_and_right_is_calibrated_and_nothing_labelled_has_no_error():
    found = Calibration(3)
    label = np.zeros((4, 5), np.uint8)
    found.add(label + 255, Prediction(label, np.ones((4, 5), np.float32)))
    assert found.metrics() == {"ECE": None}
    assert found.section()[1] == ""
    found.add(label, Prediction(label, np.ones((4, 5), np.float32)))
    assert found.error == 0


def test_the_band_is_as_wide_as_the_chessboard_distance():
    label = next(predictions())[0]
    mask = label == 1
    mask[:, :3] = True  # at the image's border
    outside = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
    for width in (1, 3):
        np.testing.assert_array_equal(inner_band(mask, width), mask & (outside <= width))


def test_boundary_iou_sums_the_bands_over_the_images():
    pairs = [(label, Prediction(np.roll(label, 1, 1), None)) for label, _ in predictions()]
    found = BoundaryIoU(("a", "b", "c", "never"))
    both, either = np.zeros((2, 4))
    for label, prediction in pairs:
        found.add(label, prediction)
        width = round(RATIO * np.hypot(*label.shape))
        for k in range(3):
            bands = [
                (d > 0) & (d <= width)
                for x in (label, prediction.labels)
                for d in [
                    ndimage.distance_transform_cdt(np.pad((x == k) & (label < 255), 1))[1:-1, 1:-1]
                ]
            ]
            both[k] += (bands[0] & bands[1]).sum()
            either[k] += (bands[0] | bands[1]).sum()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.iou, 100 * both / either)
    metrics = found.metrics()
    assert metrics["boundary_IoU"]["never"] is None
    assert metrics["mBoundaryIoU"] == pytest.approx(np.mean(found.iou[:3]))
    assert 0 < metrics["mBoundaryIoU"] < 100


def result(quality, seed, images=40):
    """Counts of images that differ in difficulty; `seed` decides the noise of one model."""
    difficult = np.random.default_rng(7).uniform(0, 0.5, images)
    rng = np.random.default_rng(seed)
    counts = np.zeros((images, 3, 3), np.int64)
    for image, hard in zip(counts, difficult, strict=True):
        right = np.clip(quality - hard + rng.normal(0, 0.01, 3), 0, 1)
        image[0] = 1000 * right
        image[1:] = 1000
    ids = tuple(f"image {i}" for i in range(images))
    matrix = np.diag(counts[:, 0].sum(0))
    return Result("single", NAMES, matrix, ids, counts, images)


def test_pairing_finds_a_small_difference_that_the_images_hide(tmp_path):
    better, worse = result(0.9, 0), result(0.89, 1)
    paired.save(tmp_path, worse)
    found = paired.compare(better, paired.read(tmp_path / "metrics.json"))
    miou = [100 * (r.counts[:, 0].sum(0) / (2 * 40_000 - r.counts[:, 0].sum(0))).mean()
            for r in (better, worse)]  # fmt: skip
    assert found.value == pytest.approx(miou[0] - miou[1])
    assert found.low > 0
    assert found.worse == 0

    def gap(index):
        right = [r.counts[index, 0].sum(0) for r in (better, worse)]
        iou = [100 * r / (2000 * len(index) - r) for r in right]
        return iou[0].mean() - iou[1].mean()

    expected = stats.bootstrap(
        (np.arange(40),), gap, vectorized=False, n_resamples=2000, method="percentile", rng=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.05)
    assert found.high - found.low < 0.6
    alone = np.subtract(*statistics.bootstrap(better.counts)[::-1])
    assert (alone > 4).all()  # without pairing, the interval is far wider
    assert paired.compare(better, paired.Counts(better.ids, better.counts)).value == 0


def test_images_are_matched_by_name_and_others_left_out():
    one = result(0.9, 0)
    order = np.random.default_rng(0).permutation(40)[:30]
    other = paired.Counts(tuple(one.ids[i] for i in order), one.counts[order])
    found = paired.compare(one, other)
    assert (found.images, found.value, found.low, found.high) == (30, 0, 0, 0)
    assert paired.compare(one, paired.Counts(("x",), one.counts[:1])) is None
    assert paired.compare(one, paired.Counts(one.ids, one.counts[..., :2])) is None


def test_counts_survive_the_file_and_a_damaged_one_is_none(tmp_path):
    one = result(0.9, 0)
    paired.save(tmp_path, one)
    stored = paired.read(tmp_path)
    assert stored.ids == one.ids
    np.testing.assert_array_equal(stored.counts, one.counts)
    (tmp_path / paired.NAME).write_bytes(b"damaged")
    assert paired.read(tmp_path) is None
    assert paired.read(tmp_path / "absent.json") is None


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
def test_the_other_run_is_read_before_its_folder_is_written_again(tmp_path, capsys):
    c = tiny.config()
    c.data.test_scale = (48, 32)
    model, info = tiny.build(c.model, 9), datasets.info("synthetic", "")
    card = model_folder.model_card(c, info, {})
    for seed in (0, 1):
        variables = dict(model.init(jax.random.key(seed), jnp.zeros((1, 32, 48, 3))))
        model_folder.save_model(tmp_path / str(seed), jax.tree.map(np.asarray, variables), card)
    one, two, output = tmp_path / "0", tmp_path / "1", tmp_path / "scores"
    first = run.evaluate_folder(one, output=output)
    second = run.evaluate_folder(two, output=output, compare=output, calibration=True)
    gap = second.scores.miou - first.scores.miou
    assert gap != 0
    said = capsys.readouterr().out
    assert f"mIoU {gap:+.2f}, 95 % interval" in said
    assert "paired bootstrap over 64 images" in said
    assert 0 < json.loads((output / "metrics.json").read_text())["ECE"] < 100
    (output / paired.NAME).unlink()
    run.evaluate_folder(two, output=output, compare=output)
    assert "no counts.npz beside it" in capsys.readouterr().out


def test_extras_are_in_metrics_summary_and_report(tmp_path):
    calibration, boundary = Calibration(3), BoundaryIoU(NAMES)
    for label, prediction in predictions():
        calibration.add(label, prediction)
        boundary.add(label, prediction)
    both = dataclasses.replace(result(0.9, 0), extras=(calibration, boundary))
    metrics = json.loads(json.dumps(both.metrics()))
    assert metrics["ECE"] == calibration.error
    assert set(metrics["boundary_IoU"]) == set(NAMES)
    assert f"ECE {calibration.error:.2f}  mBoundaryIoU {boundary.mean:.2f}" in both.summary()
    palette = np.zeros((3, 3), np.uint8)
    document.write(tmp_path / "r.html", "x", both, palette=palette, comparison="better by < 1")
    words = html.unescape((tmp_path / "r.html").read_text())
    assert f"calibration error: {calibration.error:.2f} %" in words
    assert "Boundary IoU" in words
    assert "better by < 1" in words
