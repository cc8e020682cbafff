"""What the doctor finds, and the configuration it writes for a folder of photos."""

import functools
import json
import shutil

import cv2
import numpy as np
import pytest
from layouts import photo, sentence, write_png
from PIL import Image

from fastfcn_jax.config import experiment
from fastfcn_jax.config.base import get_config
from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import camvid
from fastfcn_jax.doctor import adopt, checks, configuration, examine, words
from fastfcn_jax.training.class_weights import label_frequencies

COLORS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))


def lay(root, labels, classes, split="train"):
    """A folder data set with one photo per label."""
    for i, label in enumerate(labels):
        write_png(root / "images" / split / f"p{i}.png", photo(i, label.shape[:2]))
        write_png(root / "labels" / split / f"p{i}.png", label)
    (root / "classes.json").write_text(json.dumps(classes))
    return datasets.load("folder", str(root), split)


def found(source, crop_size=(8, 8)):
    return checks.findings(source, checks.survey(source, threads=2), crop_size)


def problem(source):
    problems = [f for f in found(source) if f.level == "problem" and "repair or" not in f.remedy]
    return problems[-1]


def values(*choice):
    return np.random.default_rng(0).choice(np.array(choice, np.uint8), (12, 20))


def test_a_sound_data_set_has_no_problem(tmp_path):
    source = lay(tmp_path, [values(0, 1, 2)] * 3, {"classes": ["a", "b", "c"]})
    assert {f.level for f in found(source)} == {"ok"}


@pytest.mark.parametrize(
    ("stored", "classes", "text", "remedy"),
    [
        ((0, 255), ["no", "yes"], "only 0 and 255", '"value": 255'),
        ((1, 2, 3), ["a", "b", "c"], "count from 1", '"value": 1 to 3'),
        ((0, 1, 2, 3), ["a", "b", "c"], "one value more", '"ignore": [0]'),
        ((0, 1, 77), ["a", "b", "c"], "not classes: 77", "under ignore"),
    ],
)
def test_label_patterns_are_named_with_their_remedy(tmp_path, stored, classes, text, remedy):
    finding = problem(lay(tmp_path, [values(*stored)] * 2, {"classes": classes}))
    assert text in finding.text
    assert remedy in finding.remedy


def test_the_remedy_for_a_binary_mask_works(tmp_path):
    classes = [{"name": "no"}, {"name": "yes", "value": 255}]
    source = lay(tmp_path, [values(0, 255)] * 2, {"classes": classes})
    assert sorted(np.unique(source[0].label)) == [0, 1]
    assert {f.level for f in found(source)} == {"ok"}


def test_void_as_class_and_absent_classes_are_noted(tmp_path):
    label = np.zeros((60, 60), np.uint8)
    label[0, 0] = 1
    names = ["road", "car", "void", "bus"]
    texts = [f.text for f in found(lay(tmp_path, [label], {"classes": names}))]
    assert any("'void' will be trained" in t for t in texts)
    assert any("2 classes do not occur in the sample: void, bus" in t for t in texts)


def test_every_kind_of_bad_file_is_named_and_the_rest_is_still_read(tmp_path):
    good = values(0, 1, 2)
    lay(tmp_path, [good] * 7, {"classes": ["a", "b", "c"]})
    labels, images = tmp_path / "labels/train", tmp_path / "images/train"
    (labels / "p0.png").write_bytes((labels / "p0.png").read_bytes()[:60])  # truncated
    Image.fromarray(good.astype(np.uint16)).save(labels / "p1.png")  # 16 bits
    write_png(labels / "p2.png", photo())  # RGB
    write_png(labels / "p3.png", np.kron(good, np.ones((2, 2), np.uint8)))  # larger
    (images / "p4.png").write_bytes(b"")  # empty
    survey = checks.survey(datasets.load("folder", str(tmp_path), "train"), threads=2)
    assert len(survey.sizes) == 2
    words = ("truncated", "16-bit", "colour picture", "40x24", "empty")
    for word, text in zip(words, survey.errors, strict=True):
        assert word in text
    (labels / "p6.png").unlink()
    assert "p6.png: no label" in sentence(lambda: datasets.load("folder", str(tmp_path), "train"))


def test_photographs_of_few_bits_in_16_bit_files_are_almost_black(tmp_path):
    lay(tmp_path, [values(0, 1)] * 2, {"classes": ["a", "b"]})
    for i in range(2):  # 12 bits
        name = tmp_path / f"images/train/p{i}.png"
        cv2.imwrite(str(name), photo(i, (12, 20)).astype(np.uint16) * 16)
    (note,) = [
        f for f in found(datasets.load("folder", str(tmp_path), "train")) if f.level == "note"
    ]
    assert "the brightest value of all images is 15 of 255, almost black" in note.text
    assert "data.scaling" in note.remedy


def test_images_far_smaller_than_the_crop_get_a_crop_size_that_fits(tmp_path):
    source = lay(tmp_path, [values(0, 1)] * 2, {"classes": ["a", "b"]})
    (note,) = [f for f in found(source, (512, 512)) if f.level == "note"]
    assert note.remedy == '--config.data.crop_size="(8, 16)"'


def test_frequencies_are_shares_of_valid_pixels(tmp_path):
    label = np.full((10, 10), 255, np.uint8)
    label[0, :3], label[1, 0] = 0, 1
    source = lay(tmp_path, [label, label], {"classes": ["a", "b", "c"]})
    np.testing.assert_allclose(label_frequencies(source), [0.75, 0.25, 0])


def small(root):
    config = get_config()
    config.data.update(name="folder", root=str(root), crop_size=(32, 32), resize_scale=(40, 24))
    config.model.update(
        backbone="resnet18", base_width=8, neck_channels=8, head_channels=8, auxiliary_channels=8
    )
    config.train.batch_size = 2
    return config


@pytest.mark.slow
def test_the_whole_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(examine, "loading", functools.partial(examine.loading, seconds=0.1))
    for split in ("train", "val"):
        lay(tmp_path, [values(0, 1, 2, 255)] * 4, {"classes": ["a", "b", "c"]}, split)
    config = small(tmp_path)
    status = examine.report(examine.examine(config, samples=10))
    text = capsys.readouterr().out
    assert status == 0, text
    for part in (
        "train: 4 images",
        "GiB on each device",
        "checkpoints take",
        "samples per second",
        "b  ",
    ):
        assert part in text
    examine.draw(config, tmp_path / "drawn", 3)
    pictures = sorted((tmp_path / "drawn").iterdir())
    assert len(pictures) == 3
    assert np.array(Image.open(pictures[0])).shape[1] == 64  # sample beside label
    # A list without a flip, which the host alone does not crop first.
    config.data.update(augment=("resize", "crop", "photometric"), crop_first=True)
    config.data.device_augmentation = True
    examine.draw(config, tmp_path / "device", 1)
    assert len(list((tmp_path / "device").iterdir())) == 1
    config.model.num_classes = 5
    assert examine.report(
        examine.class_count(config, datasets.load("folder", str(tmp_path), "val"))
    )


def test_a_missing_root_is_a_finding_and_status_1(tmp_path, capsys):
    config = small(tmp_path / "nowhere")
    assert examine.report(examine.examine(config, samples=10)) == 1
    assert "nowhere: no such folder" in capsys.readouterr().out


def test_a_first_image_that_is_bad_is_one_finding_among_the_others(tmp_path, capsys):
    for split in ("train", "val"):
        lay(tmp_path, [values(0, 1, 2)] * 3, {"classes": ["a", "b", "c"]}, split)
    (tmp_path / "images/train/p0.png").write_bytes(b"")
    assert examine.report(examine.examine(small(tmp_path), samples=10)) == 1
    text = capsys.readouterr().out
    assert "1 of 3 samples cannot be used" in text
    assert "p0.png: an empty file" in text
    assert "val: 3 images" in text
    assert "no decoded cache is set" in text


def test_a_cache_disk_that_is_too_small(tmp_path, monkeypatch):
    config = small(tmp_path)
    config.data.cache = str(tmp_path / "not" / "there" / "yet")
    sizes = [(12, 20), (16, 10)]  # 800 bytes each on average
    assert examine.disk(config, 5, sizes)[0].level == "ok"
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(examine.shutil, "disk_usage", lambda _: usage)
    assert examine.disk(config, 5, sizes)[0].level == "problem"
    assert examine.checkpoints(2, tmp_path / "run").level == "ok"
    assert examine.checkpoints(3, tmp_path / "run").level == "problem"  # four of them


class TestOwnPhotos:
    def picture(self, root, name, index, palette=COLORS):
        write_png(root / "shots" / f"{name}.png", photo(len(name), index.shape))
        write_png(root / "drawn" / f"{name}_mask.png", np.array(palette, np.uint8)[index])

    @pytest.fixture
    def root(self, tmp_path):
        rng = np.random.default_rng(0)
        for i in range(12):
            self.picture(tmp_path, f"IMG {i:02}", rng.integers(0, 3, (40, 60)))
        return tmp_path

    def test_colour_labels_anywhere_become_a_data_set_that_loads(self, root):
        lines = adopt.adopt(root)
        assert lines[0] == "12 photos with a label each"
        assert lines[-1].startswith("  fastfcn train --config ")
        train, val = (datasets.load("folder", str(root), s) for s in ("train", "val"))
        assert len(train) + len(val) == 12
        assert len(val) >= 1
        assert not set(train.ids) & set(val.ids)
        stored = np.array(Image.open(root / "drawn" / "IMG 00_mask.png"))
        source, place = (
            (train, train.ids.index("shots/IMG 00"))
            if "shots/IMG 00" in train.ids
            else (val, val.ids.index("shots/IMG 00"))
        )
        np.testing.assert_array_equal(source.info.palette[source[place].label], stored)
        config = experiment.load(str(root / configuration.NAME))
        assert config.data.root == str(root)
        assert tuple(config.data.crop_size) == (32, 32)

    def test_the_folder_can_be_moved_and_has_a_small_variant(self, root):
        lines = adopt.adopt(root)
        moved = root.rename(root.with_name("moved"))
        assert any(f"{configuration.NAME}:small" in line for line in lines)
        config = experiment.load(f"{moved / configuration.NAME}:small")
        assert config.data.root == str(moved)
        assert config.model.backbone == "resnet18"

    def test_names_of_a_colour_list_are_used(self, root):
        (root / "label_colors.txt").write_text("200 0 0 tall grass\n0 200 0\twater\n0 0 200 sky\n")
        adopt.adopt(root)
        info = datasets.load("folder", str(root), "train").info
        assert info.class_names == ("sky", "water", "tall grass")

    @pytest.mark.parametrize(("size", "is_class"), [((40, 60), True), ((4, 60), False)])
    def test_black_is_a_class_where_there_is_much_of_it(self, root, size, is_class):
        self.picture(root, "IMG 99", np.zeros(size, int), ((0, 0, 0),) * 3)
        lines = adopt.adopt(root)
        classes = json.loads((root / "classes.json").read_text())
        assert classes["ignore"] == ([] if is_class else [[0, 0, 0]])
        assert len(classes["classes"]) == 3 + is_class
        said = "is a class here: it covers 7.69 %" if is_class else "0.83 % of the pixels; list it"
        assert any("[0, 0, 0]" in line and said in line for line in lines)

    def test_a_photo_without_label_is_left_out_and_said(self, root):
        write_png(root / "shots" / "extra.png", photo(3, (40, 60)))
        lines = adopt.adopt(root)
        assert "  left out, without a partner: shots/extra.png" in lines

    def test_it_does_not_overwrite_what_was_edited(self, root):
        adopt.adopt(root)
        assert "--overwrite" in sentence(lambda: adopt.adopt(root))
        adopt.adopt(root, overwrite=True)

    def test_names_that_do_not_match(self, root):
        for i, path in enumerate(sorted((root / "drawn").iterdir())):
            path.rename(path.with_name(f"other{i}.png"))
        assert "no two share a name" in sentence(lambda: adopt.adopt(root))

    def test_nothing_is_written_when_it_fails(self, root):
        write_png(root / "drawn" / "IMG 00_mask.png", np.zeros((40, 60), np.uint8))
        assert "some index images" in sentence(lambda: adopt.adopt(root))
        assert not [n for n in adopt.WRITTEN if (root / n).exists()]

    def test_nothing_is_written_when_one_file_cannot_be(self, root):
        (root / configuration.NAME).mkdir()
        text = sentence(lambda: adopt.adopt(root, overwrite=True))
        assert f"{root}: cannot be written" in text
        assert not [p for p in root.iterdir() if p.is_file()]

    def lay(self, root, label, names, photos="images", labels="labels"):
        for name in names:
            write_png(root / photos / f"{name}.png", photo(1, label.shape[:2]))
            write_png(root / labels / f"{name}.png", label)

    @pytest.mark.parametrize(
        ("photos", "labels", "train", "val"),
        [
            ("img_dir/{}", "ann_dir/{}", "train", "val"),
            ("images/{}", "painted", "training", "validation"),
            ("{}/shots", "{}/painted", "Train", "valid"),
        ],
    )
    def test_a_split_by_folders_is_kept(self, tmp_path, photos, labels, train, val):
        for part, names in ((train, "abc"), (val, "de"), ("test", "f")):
            self.lay(tmp_path, values(0, 1), names, photos.format(part), labels.format(part))
        lines = adopt.adopt(tmp_path)
        assert "3 photos to train on, 2 to validate" in lines
        said = "  the split follows the folders train and val (--split fifth for a random one)"
        assert said in lines
        assert any("neither of the two: 1 photos" in line for line in lines)
        ids = {s: datasets.load("folder", str(tmp_path), s).ids for s in ("train", "val")}
        assert [i[-1] for i in ids["train"]] == list("abc")
        assert [i[-1] for i in ids["val"]] == list("de")

    def test_the_parts_of_a_split_may_use_the_same_names(self, tmp_path):
        for part in ("train", "val"):
            self.lay(tmp_path, values(0, 1), "ab", f"images/{part}", f"labels/{part}")
        adopt.adopt(tmp_path)
        val = datasets.load("folder", str(tmp_path), "val").read.files()
        assert len(val) == 4
        assert all("/val/" in name for name in val)

    def test_photos_in_a_folder_called_test_are_left_out(self, tmp_path):
        for part, names in (("train", "abcd"), ("test", "e")):
            self.lay(tmp_path, values(0, 1), names, f"images/{part}", f"labels/{part}")
        lines = adopt.adopt(tmp_path)
        assert any("called test: 1 photos" in line for line in lines)
        assert "images/test" not in (tmp_path / "train.txt").read_text()
        assert "images/test" not in (tmp_path / "val.txt").read_text()

    @pytest.mark.parametrize("share", [0, 0.6])
    def test_nothing_is_written_when_a_photo_is_bad(self, root, share):
        bad = root / "shots" / "IMG 07.png"
        whole = bad.read_bytes()
        bad.write_bytes(whole[: int(share * len(whole))])
        assert str(bad) in sentence(lambda: adopt.adopt(root))
        assert not [p for p in root.iterdir() if p.is_file()]
        bad.write_bytes(whole)
        adopt.adopt(root)

    def test_a_photo_and_its_label_of_different_sizes(self, root):
        write_png(root / "shots" / "IMG 07.png", photo(1, (60, 40)))
        text = sentence(lambda: adopt.adopt(root))
        assert "IMG 07_mask.png: label of 60x40 pixels" in text

    @pytest.mark.parametrize("folders", [("images", "labels"), ("shots", "painted")])
    @pytest.mark.parametrize("wrong", ["empty", "truncated", "16-bit", "JPEG"])
    def test_a_bad_label_is_named_with_what_is_bad(self, tmp_path, folders, wrong):
        self.lay(tmp_path, values(0, 1), "abc", *folders)
        label = tmp_path / folders[1] / "b.png"
        if wrong == "16-bit":  # of numbers that no byte holds
            Image.fromarray(values(0, 1).astype(np.uint16) * 300).save(label)
        elif wrong == "JPEG":
            Image.fromarray(values(0, 1)).save(label, format="JPEG")
        else:
            label.write_bytes(b"" if wrong == "empty" else label.read_bytes()[:50])
        text = sentence(lambda: adopt.adopt(tmp_path))
        assert text.startswith(str(label))
        assert wrong in text

    def test_a_photo_of_few_colours_is_told_by_its_folder(self, tmp_path):
        self.lay(tmp_path, values(0, 1), "abc", "img_dir", "ann_dir")
        write_png(tmp_path / "img_dir/b.png", values(*range(64)), [*range(192)])
        lines = adopt.adopt(tmp_path)
        assert lines[0] == "3 photos with a label each"

    @pytest.mark.parametrize("void", [255, (0, 0, 0)])
    def test_a_mask_of_two_values_has_two_classes(self, tmp_path, void):
        mask = values(0, 255)
        self.lay(tmp_path, mask if void == 255 else np.stack([mask] * 3, -1), "abc")
        lines = adopt.adopt(tmp_path)
        assert any("255 is a class here" in line for line in lines)
        assert any("converted into" in line for line in lines) == (void != 255)
        source = datasets.load("folder", str(tmp_path), "train")
        np.testing.assert_array_equal(source[0].label, mask // 255)

    def test_an_only_photo_in_both_parts_is_said(self, tmp_path):
        self.lay(tmp_path, values(0, 1), "a")
        assert any("the only photo is in both" in line for line in adopt.adopt(tmp_path))

    def test_overwriting_keeps_files_of_the_users_own(self, root):
        own = "shots/IMG 00.png\tdrawn/IMG 00_mask.png\n"
        (root / "train.txt").write_text(own)
        lines = adopt.adopt(root, overwrite=True)
        assert "kept the old file as train.txt.bak" in lines
        (root / "train.txt").write_text("")
        assert "kept the old file as train.txt.bak1" in adopt.adopt(root, overwrite=True)
        assert (root / "train.txt.bak").read_text() == own
        assert not list(root.glob("classes.json.*"))  # the same as before

    def test_real_camvid_photos_with_index_labels(self, shared_data, tmp_path):
        source = shared_data / "camvid"
        (tmp_path / "photos").mkdir()
        (tmp_path / "labels").mkdir()
        for path in sorted((source / "val").glob("*.jpg"))[::12]:
            shutil.copy(path, tmp_path / "photos")
            shutil.copy(source / "valannot" / f"{path.stem}.png", tmp_path / "labels")
        lines = adopt.adopt(tmp_path)
        assert lines[1] == "index labels, 12 classes:"
        plain = datasets.load("camvid", str(source), "val")
        adopted = datasets.load("folder", str(tmp_path), "val")
        stem = adopted.ids[0].rpartition("/")[2]
        expected = plain[plain.ids.index(stem)].label
        label = adopted[0].label
        np.testing.assert_array_equal(np.where(label == camvid.VOID, 255, label), expected)

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("a_mask.png", "a"),
            ("a.b-gt.png", "a.b"),
            ("0001TP_L.png", "0001tp"),
            ("x_gtFine_labelIds.png", "x"),
            ("pencil.png", "pencil"),
            ("mask.png", ""),
            ("mask_7.png", "7"),
        ],
    )
    def test_label_words(self, tmp_path, name, key):
        assert words.label_keys(tmp_path / name)[-1] == key
