"""Several data sets mixed, repeated and balanced; the step number is still the whole state."""

import itertools
import math

import numpy as np
import pytest
from layouts import label_of, photo, sentence, write_jpg, write_png
from mmengine.dataset import BaseDataset, ClassBalancedDataset

from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import pipeline, sets


@pytest.fixture
def roots(tmp_path):
    """Two folders of VOC's layout with three and two photographs, in a path with a space."""
    made = []
    for number, count in enumerate((3, 2)):
        base = tmp_path / f"voc {number}"
        for i in range(count):
            write_jpg(base / f"JPEGImages/{i}.jpg", photo(10 * number + i))
            write_png(base / f"SegmentationClass/{i}.png", label_of(range(21), 10 * number + i))
        lists = base / "ImageSets/Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("\n".join(map(str, range(count))))
        made.append(base)
    return made


def settings(*entries, **changes):
    d = get_config().data
    d.update(sets=entries, threads=2, crop_size=(8, 8), resize_scale=(20, 12), **changes)
    return d


def test_an_epoch_has_every_image_as_often_as_it_is_asked_for(roots):
    said = []
    d = settings(f"pascal_voc train 1 {roots[0]}", f"pascal_voc train 4 {roots[1]}")
    source = sets.load_training(d, say=said.append)
    assert len(source) == 3 + 4 * 2
    assert source.ids[:4] == [f"pascal_voc/{i}" for i in (0, 1, 2, 0)]
    assert said[1] == "  pascal_voc train: 2 images, 4 times"
    first = [np.asarray(source[i].image).tobytes() for i in range(11)]
    assert len(set(first)) == 5
    assert first[3:5] == first[5:7] == first[7:9] == first[9:]
    plain = sets.load_training(settings(name="pascal_voc", root=str(roots[1])))
    np.testing.assert_array_equal(source[4].image, plain[1].image)
    np.testing.assert_array_equal(source[4].label, plain[1].label)


def test_batches_depend_on_the_step_alone(roots):
    c = get_config()
    entries = (f"pascal_voc train 1 {roots[0]}", f"pascal_voc train 4 {roots[1]}")
    c.data = settings(*entries, balance_below=0.9)
    c.train.batch_size = 4

    def batches(start):
        source = sets.load_training(c.data, say=str)
        return itertools.islice(pipeline.build_train(c, source, start_step=start), 6 - start)

    whole = list(batches(0))
    for ours, again in zip(whole[3:], batches(3), strict=True):
        assert ours.keys() == again.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], again[name])


class Labels(BaseDataset):
    """mmengine's data set of images that are known by their classes alone."""

    def __init__(self, shown):
        self.shown = shown
        super().__init__(metainfo={"classes": tuple("abcd")}, serialize_data=False)

    def load_data_list(self):
        return [{} for _ in self.shown]

    def get_cat_ids(self, i):
        return np.flatnonzero(self.shown[i]).tolist()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
def test_rare_classes_are_repeated_as_by_mmengine(threshold):
    shown = np.random.default_rng(0).random((40, 4)) < (0.9, 0.5, 0.1, 0.03)
    shown[:, 0] |= ~shown.any(1)  # mmengine's rule needs a class in every image
    reference = ClassBalancedDataset(Labels(shown), oversample_thr=threshold)
    times = sets.repeat_times(shown, threshold)
    assert np.repeat(np.arange(40), times).tolist() == reference.repeat_indices
    assert (times.max() > 1) == (threshold > 0.05)


def test_classes_that_are_absent_and_images_without_a_class():
    shown = np.array([[True, False, False], [True, True, False], [False, False, False]])
    times = sets.repeat_times(shown, 1.0)
    assert times.tolist() == [math.ceil((3 / 2) ** 0.5), math.ceil(3**0.5), 1]


def test_a_balanced_source_counts_labels(roots):
    write_png(roots[0] / "SegmentationClass/1.png", np.full((12, 20), 255, np.uint8))
    write_png(roots[0] / "SegmentationClass/2.png", np.full((12, 20), 20, np.uint8))
    source = sets.load_training(settings(name="pascal_voc", root=str(roots[0])))
    shown = sets.classes_shown(source)
    assert shown.sum(1).tolist() == [21, 0, 1]
    found = sets.balanced(source, 1.0)
    assert found.index.tolist() == [0, 0, 1, 2, 2]
    assert found.ids == ["0", "0", "1", "2", "2"]


@pytest.mark.parametrize(
    "entry", ["", "pascal_voc", "pascal_voc train 1", "pascal_voc train 0 x", "x y z /data"]
)
def test_an_entry_of_another_form(entry):
    assert "is not 'NAME SPLIT REPEAT ROOT'" in sentence(lambda: sets.parse(entry))


def test_a_set_of_other_classes(roots, camvid_root):
    d = settings(f"pascal_voc train 1 {roots[0]}", f"camvid train 1 {camvid_root}")
    text = sentence(lambda: sets.load_training(d, say=str))
    assert "camvid has other classes than pascal_voc" in text


def test_each_set_is_cached_by_itself(roots, tmp_path):
    d = settings(*(f"pascal_voc train 2 {root}" for root in roots), cache=str(tmp_path / "cache"))
    source = sets.load_training(d, cached=True, say=str)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    plain = sets.load_training(settings(*d.sets), say=str)
    for i in range(10):
        np.testing.assert_array_equal(source[i].image, plain[i].image)
