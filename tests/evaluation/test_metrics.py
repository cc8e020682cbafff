"""Confusion matrices and scores, compared with manual counts and mmsegmentation's IoUMetric."""

import numpy as np
import pytest

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
    assert str(found) == "mIoU -  mAcc -  aAcc -"


def test_sums_stay_exact_far_beyond_float32():
    matrix = np.array([[2**40 + 1, 1], [0, 2**40]])
    assert scores(matrix).aacc < 100
    assert scores(matrix).iou[0] == 100 * (2**40 + 1) / (2**40 + 2)
