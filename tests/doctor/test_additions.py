"""Photographs added later: lists grow, classes and the split of the old ones do not change."""

import json

import numpy as np
import pytest
from layouts import sentence
from messy import COLORS, index, lay, listed, photo, put

from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import adopt


def more(root, start, count, label=index, **options):
    for i in range(start, start + count):
        put(root / f"images/{i:03}.jpg", photo(i))
        put(root / f"masks/{i:03}.png", label(i), **options)


@pytest.fixture
def root(tmp_path):
    more(tmp_path, 0, 10)
    adopt.adopt(tmp_path)
    return tmp_path


def test_new_photographs_join_and_the_old_stay_where_they_were(root):
    train, val = listed(root, "train"), listed(root, "val")
    path = root / "classes.json"
    path.write_text(path.read_text().replace("class_1", "grass"))
    settings = root / "fastfcn_config.py"
    settings.write_text(settings.read_text() + "# mine\n")
    before = path.read_bytes(), settings.read_bytes()
    more(root, 10, 13)
    lines = adopt.adopt(root, update=True)
    assert "13 new photos, 10 to train on, 3 to validate" in lines
    assert train.items() <= listed(root, "train").items()
    assert val.items() <= listed(root, "val").items()
    assert len(listed(root, "train")) == 18
    assert len(listed(root, "val")) == 5
    assert (path.read_bytes(), settings.read_bytes()) == before
    assert not list(root.glob("*.bak"))
    assert len(datasets.load("folder", str(root), "val")) == 5


def test_nothing_new_changes_nothing(root):
    before = (root / "train.txt").read_bytes(), (root / "val.txt").read_bytes()
    assert "0 new photos, 0 to train on, 0 to validate" in adopt.adopt(root, update=True)
    assert ((root / "train.txt").read_bytes(), (root / "val.txt").read_bytes()) == before


def test_the_fifth_of_the_new_is_spread_over_the_classes(root):
    more(root, 10, 15, lambda i: index(i, classes=2))
    more(root, 25, 5)
    adopt.adopt(root, update=True)
    held = [int(p[7:10]) for p in listed(root, "val") if p >= "images/010"]
    assert len(held) == 4
    assert sum(i >= 25 for i in held) == 1


def test_a_photograph_that_is_gone_leaves_the_lists(root):
    gone = next(iter(listed(root, "train")))
    (root / gone).unlink()
    assert f"removed from the lists, as it is missing: {gone}" in adopt.adopt(root, update=True)
    assert gone not in listed(root)


def test_a_new_value_is_refused_with_the_file(root):
    more(root, 10, 2, lambda i: index(i) + np.uint8(1))
    before = (root / "train.txt").read_bytes()
    with pytest.raises(Exception, match="2 files cannot be used") as caught:
        adopt.adopt(root, update=True)
    assert "masks/010.png: 3 is not a class of classes.json" in str(caught.value)
    assert (root / "train.txt").read_bytes() == before
    assert "0 new photos" in "\n".join(adopt.adopt(root, update=True, skip_bad=True))


def test_new_labels_in_another_form_are_written_in_that_of_the_old(root):
    more(root, 10, 1, lambda i: np.repeat(index(i)[..., None], 3, 2))
    old = dict(listed(root))
    adopt.adopt(root, update=True)
    assert listed(root) == old | {"images/010.jpg": "fastfcn_labels/images/010.png"}
    source = datasets.load("folder", str(root), "train")
    np.testing.assert_array_equal(source[source.ids.index("images/010")].label, index(10))


def test_labels_written_before_stay_and_others_join(tmp_path):
    def transparent(i):
        alpha = np.where(index(i) == 0, 0, 255).astype(np.uint8)
        return np.dstack([COLORS[index(i)], alpha])

    more(tmp_path, 0, 5, transparent)
    adopt.adopt(tmp_path)
    more(tmp_path, 5, 5, transparent)
    adopt.adopt(tmp_path, update=True)
    for part, count in (("train", 8), ("val", 2)):
        source = datasets.load("folder", str(tmp_path), part)
        assert len(source) == count
        for name, sample in ((n, source[i]) for i, n in enumerate(source.ids)):
            expected = index(int(name[-3:]))
            np.testing.assert_array_equal(sample.label == 255, expected == 0)
            np.testing.assert_array_equal(
                source.info.palette[sample.label[expected > 0]], COLORS[expected[expected > 0]]
            )


def test_folders_of_a_split_say_where_new_ones_belong(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        lay(tmp_path, f"images/{part}/{part}{{}}.jpg", f"labels/{part}/{part}{{}}.png", count)
    adopt.adopt(tmp_path)
    lay(tmp_path, "images/val/new{}.jpg", "labels/val/new{}.png", 3)
    assert "3 new photos, 0 to train on, 3 to validate" in adopt.adopt(tmp_path, update=True)


def test_classes_of_several_values(root):
    content = {"classes": [{"name": "a", "value": [0, 1]}, {"name": "b", "value": 2}]}
    (root / "classes.json").write_text(json.dumps(content))
    more(root, 10, 1)
    assert "1 new photo, 1 to train on, 0 to validate" in adopt.adopt(root, update=True)


def test_a_folder_that_was_not_prepared(tmp_path):
    lay(tmp_path, "images/{}.jpg", "masks/{}.png", 2)
    text = sentence(lambda: adopt.adopt(tmp_path, update=True))
    assert "classes.json: missing; prepare the folder first, without --update" in text
