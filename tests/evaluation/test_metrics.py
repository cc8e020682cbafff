"""Confusion matrices and scores, compared with manual counts and mmsegmentation's IoUMetric."""

import numpy as np
import oracle
import pytest
import torch

from fastfcn_jax.evaluation.metrics import confusion_matrix, scores


def test_rows_are_labels_columns_predictions_and_ignored_pixels_are_left_out():
    label = np.array([[0, 0, 1], [2, 255, 255]], np.uint8)
    prediction = np.array([[0, 1, 1], [0, 2, 0]], np.uint8)
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    np.testing.assert_array_equal(confusion_matrix(label, prediction, 3), expected)


def test_counts_do_not_depend_on_the_padding_of_the_pixel_count():
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (256, 256), (256, 257), (300, 700)]:
        label = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape)
        prediction = rng.integers(0, 3, shape, dtype=np.uint8)
        expected = np.zeros((3, 3), np.int64)
        valid = label < 255
        np.add.at(expected, (label[valid], prediction[valid]), 1)
        counted = confusion_matrix(label, prediction, 3)
        assert counted.dtype == np.int64
        np.testing.assert_array_equal(counted, expected)


def test_an_absent_class_is_left_out_or_counts_zero_depending_on_the_lineage():
    matrix = np.array([[3, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0]])
    ours = scores(matrix)
    np.testing.assert_allclose(ours.iou, [75, 80, 0, 0])  # class 2: predicted, never labelled
    np.testing.assert_allclose(ours.acc, [75, 100, np.nan, 0])
    assert ours.miou == pytest.approx(155 / 4)
    assert ours.macc == pytest.approx(175 / 3)
    assert ours.aacc == pytest.approx(70)
    absent = scores(np.pad(matrix, ((0, 1), (0, 1))))
    assert absent.miou == pytest.approx(155 / 4)
    official = scores(np.pad(matrix, ((0, 1), (0, 1))), absent_counts_zero=True)
    assert official.miou == pytest.approx(155 / 5)


@pytest.mark.parametrize("absent_counts_zero", [False, True])
def test_without_a_labelled_pixel_there_is_no_score(absent_counts_zero):
    found = scores(np.zeros((3, 3), np.int64), absent_counts_zero=absent_counts_zero)
    assert np.isnan([found.miou, found.macc, found.aacc, *found.iou, *found.acc]).all()
    assert np.isnan([found.mf1, found.mprecision, found.fwiou, found.kappa, *found.f1]).all()
    assert str(found) == "mIoU -  mAcc -  aAcc -"


def matrix_of(label, prediction, classes):
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (label, prediction), 1)
    return matrix


@pytest.mark.parametrize("absent", [False, True])
def test_scores_of_classes_are_mmsegmentations(absent):
    oracle.import_mmseg()
    from mmseg.evaluation import IoUMetric

    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 5, (2, 1000))
    prediction[::2] = label[::2]
    if absent:  # class 3 is nowhere, class 2 only predicted, class 1 only labelled
        label[label > 1], prediction[prediction == 1] = 0, 2
        prediction[prediction == 3] = 0
    matrix = matrix_of(label, prediction, 5)
    both, areas = np.diag(matrix), [matrix.sum(0), matrix.sum(1)]
    union = sum(areas) - both
    with np.errstate(invalid="ignore"):
        theirs = IoUMetric.total_area_to_metrics(
            *map(torch.from_numpy, (both, union, *areas)), ["mIoU", "mDice", "mFscore"]
        )
    ours = scores(matrix)
    np.testing.assert_allclose(ours.iou, 100 * theirs["IoU"], rtol=1e-6)
    np.testing.assert_allclose(ours.f1, 100 * theirs["Dice"], rtol=1e-6)
    np.testing.assert_allclose(ours.precision, 100 * theirs["Precision"], rtol=1e-6)
    np.testing.assert_allclose(ours.acc, 100 * theirs["Recall"], rtol=1e-6)
    known = ~np.isnan(theirs["Fscore"])  # theirs has none where nothing of a class is right
    np.testing.assert_allclose(ours.f1[known], 100 * theirs["Fscore"][known], rtol=1e-6)
    assert ours.mf1 == pytest.approx(100 * np.nanmean(theirs["Dice"]), rel=1e-6)
    assert ours.mprecision == pytest.approx(100 * np.nanmean(theirs["Precision"]), rel=1e-6)


def test_kappa_and_weighted_iou_by_their_definitions():
    rng = np.random.default_rng(0)
    label = rng.choice(4, 5000, p=[0.9, 0.06, 0.04, 0])
    prediction = np.where(rng.random(5000) < 0.7, label, rng.integers(0, 4, 5000))
    found = scores(matrix_of(label, prediction, 4))
    agreement = (label == prediction).mean()
    chance = (label == rng.permutation(prediction)).mean()
    assert found.kappa == pytest.approx((agreement - chance) / (1 - chance), abs=0.02)
    exact = sum((label == k).mean() * (prediction == k).mean() for k in range(4))
    assert found.kappa == pytest.approx((agreement - exact) / (1 - exact))
    weighted = 0
    for k in range(4):
        a, b = label == k, prediction == k
        weighted += a.mean() * (a & b).sum() / (a | b).sum()
    assert found.fwiou == pytest.approx(100 * weighted)
    assert scores(np.diag([3, 0, 5])).kappa == 1
    assert np.isnan(scores(np.array([[5, 0], [0, 0]])).kappa)  # chance alone agrees as well


def test_sums_stay_exact_far_beyond_float32():
    matrix = np.array([[2**40 + 1, 1], [0, 2**40]])
    assert scores(matrix).aacc < 100
    assert scores(matrix).iou[0] == 100 * (2**40 + 1) / (2**40 + 2)
