"""Each data set is read from its own layout; each possible error gives one clear sentence."""

import json
import os

import cv2
import numpy as np
import pytest
from layouts import photo, sentence, write_png
from PIL import Image

from fastfcn_jax.data import cache, datasets
from fastfcn_jax.data.datasets import camvid, cityscapes, folder
from fastfcn_jax.doctor import checks


def first_camvid(root):
    return datasets.load("camvid", str(root), "train")[0]


def test_camvid_gives_rgb_and_ignores_unlabelled_pixels(camvid_root):
    sample = first_camvid(camvid_root)
    np.testing.assert_array_equal(sample.image, photo(0))
    assert np.unique(sample.label).tolist() == [*range(11), 255]
    assert sample.id == "0"


def test_real_camvid(shared_data):
    source = datasets.load("camvid", str(shared_data / "camvid"), "train")
    assert len(source) == camvid.SPLIT_SIZES["train"]
    counts = np.zeros(256, np.int64)
    for i in range(0, len(source), 12):
        counts += np.bincount(source[i].label.ravel(), minlength=256)
    share = counts / counts.sum()
    assert 0.25 < share[3] < 0.4  # Road: 31.66 % of all train pixels
    assert 0.01 < share[255] < 0.08
    assert share[11:255].sum() == 0


def test_real_cityscapes_label_ids_and_train_ids_are_the_same_labels(shared_data, tmp_path):
    root = shared_data / "cityscapes"
    source = datasets.load("cityscapes", str(root), "train")
    assert len(source) == 6
    city = tmp_path / "gtFine" / "train" / "aachen"
    city.mkdir(parents=True)
    (tmp_path / "leftImg8bit").symlink_to(root / "leftImg8bit")
    for path in (root / "gtFine/train/aachen").glob("*_labelTrainIds.png"):
        (city / path.name).symlink_to(path)
    prepared = datasets.load("cityscapes", str(tmp_path), "train")
    np.testing.assert_array_equal(source[3].label, prepared[3].label)
    assert source[3].id == prepared[3].id == "aachen_000003_000019"
    assert set(np.unique(source[3].label)) <= {*range(19), 255}


def test_cityscapes_classes_are_those_of_cityscapesscripts():
    from cityscapesscripts.helpers import labels

    official = sorted((x for x in labels.labels if 0 <= x.trainId < 255), key=lambda x: x.trainId)
    assert cityscapes.INFO.class_names == tuple(x.name for x in official)
    assert cityscapes.INFO.palette.tolist() == [list(x.color) for x in official]
    expected = {x.id: x.trainId % 256 for x in labels.labels if x.id >= 0}
    assert {i: int(cityscapes.LABEL_IDS.table[i]) for i in range(34)} == expected


def test_missing_root(tmp_path):
    text = sentence(lambda: datasets.load("camvid", str(tmp_path / "nowhere"), "train"))
    assert "nowhere" in text
    assert "set data.root" in text
    assert "data.root is empty" in sentence(lambda: datasets.load("cityscapes", "", "train"))


def test_unknown_name():
    assert "known: " in sentence(lambda: datasets.load("kitti", "x", "train"))


def test_image_without_label(camvid_root):
    (camvid_root / "trainannot" / "1.png").unlink()
    text = sentence(lambda: datasets.load("camvid", str(camvid_root), "train"))
    assert str(camvid_root / "train" / "1.png") in text
    assert str(camvid_root / "trainannot" / "1.png") in text


def test_no_image_at_all(camvid_root):
    for path in (camvid_root / "train").iterdir():
        path.unlink()
    assert "no image" in sentence(lambda: datasets.load("camvid", str(camvid_root), "train"))


def bad_label(root, pixels):
    path = root / "trainannot" / "0.png"
    write_png(path, pixels)
    text = sentence(lambda: first_camvid(root))
    assert text.startswith(f"{path}: ")
    return text


def test_label_id_out_of_range(camvid_root):
    label = np.full((12, 20), 3, np.uint8)
    label[4, 5] = 37
    text = bad_label(camvid_root, label)
    assert "label value 37 is not a class of CamVid" in text


def test_label_larger_than_its_image(camvid_root):
    text = bad_label(camvid_root, np.zeros((24, 40), np.uint8))
    assert "40x24" in text
    assert "20x12" in text


def test_colour_picture_as_index_label(camvid_root):
    assert "colour picture" in bad_label(camvid_root, photo())


def test_16_bit_label(camvid_root):
    assert "16-bit" in bad_label(camvid_root, np.zeros((12, 20), np.uint16))


@pytest.mark.parametrize("kind", ["train", "trainannot"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.98])
def test_truncated_png(camvid_root, kind, keep):
    path = camvid_root / kind / "0.png"
    noise = np.random.default_rng(0).integers(0, 11, (12, 20), np.uint8)
    write_png(path, noise if kind == "trainannot" else photo())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    text = sentence(lambda: first_camvid(camvid_root))
    assert text.startswith(f"{path}: ")
    assert "truncated" in text


def test_truncated_jpeg(camvid_root):
    path = camvid_root / "train" / "0.jpg"
    (camvid_root / "train" / "0.png").unlink()
    data = cv2.imencode(".jpg", photo())[1].tobytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert "truncated" in sentence(lambda: first_camvid(camvid_root))


def test_damaged_png(camvid_root):
    """The file is complete, but its compressed pixels have changed."""
    path = camvid_root / "train" / "0.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in sentence(lambda: first_camvid(camvid_root))


def test_zero_byte_file(camvid_root):
    (camvid_root / "trainannot" / "0.png").write_bytes(b"")
    assert "empty file" in sentence(lambda: first_camvid(camvid_root))


def test_text_file_named_png(camvid_root):
    (camvid_root / "train" / "0.png").write_text("<html>404</html>")
    assert "not a picture" in sentence(lambda: first_camvid(camvid_root))


def test_list_that_names_a_missing_photo(camvid_root):
    (camvid_root / "train.txt").write_text("train/0.png trainannot/0.png\ntrain/7.png a.png\n")
    text = sentence(lambda: datasets.load("camvid", str(camvid_root), "train"))
    assert "line 2" in text


class TestFolder:
    CLASSES = ("grass", "water", "stone")

    def lay(self, root, labels, classes, palette=None):
        for i, label in enumerate(labels):
            write_png(root / "images" / "train" / f"p{i}.png", photo(i))
            write_png(root / "labels" / "train" / f"p{i}.png", label, palette)
        (root / "classes.json").write_text(json.dumps(classes))
        return datasets.load("folder", str(root), "train")

    @pytest.fixture
    def index(self):
        return np.random.default_rng(5).integers(0, 3, (12, 20), np.uint8)

    def test_index_labels_with_plain_names(self, tmp_path, index):
        index[0, 0] = 255
        source = self.lay(tmp_path, [index], {"classes": self.CLASSES})
        np.testing.assert_array_equal(source[0].label, index)
        assert source.info.class_names == self.CLASSES
        assert len({tuple(c) for c in source.info.palette}) == 3

    def test_index_labels_with_values_and_ignored_ones(self, tmp_path, index):
        stored = np.array([10, 20, 30, 0], np.uint8)
        index[0, :5] = 3
        classes = [{"name": n, "value": 10 * k + 10} for k, n in enumerate(self.CLASSES)]
        source = self.lay(tmp_path, [stored[index]], {"classes": classes, "ignore": [0]})
        np.testing.assert_array_equal(source[0].label, np.where(index == 3, 255, index))

    def test_palette_png_gives_its_indices(self, tmp_path, index):
        colors = [200, 0, 0, 0, 200, 0, 0, 0, 200]
        source = self.lay(tmp_path, [index], {"classes": self.CLASSES}, palette=colors)
        np.testing.assert_array_equal(source[0].label, index)

    def test_colour_labels(self, tmp_path, index):
        colors = np.array([[9, 200, 0], [0, 9, 200], [100, 90, 80], [0, 0, 0]], np.uint8)
        index[3, :] = 3
        content = {
            "labels": "color",
            "classes": [
                {"name": n, "color": c.tolist()} for n, c in zip(self.CLASSES, colors, strict=False)
            ],
            "ignore": [[0, 0, 0]],
        }
        source = self.lay(tmp_path, [colors[index]], content)
        np.testing.assert_array_equal(source[0].label, np.where(index == 3, 255, index))
        np.testing.assert_array_equal(source.info.palette, colors[:3])

    def test_a_colour_that_is_no_class(self, tmp_path, index):
        content = {"labels": "color", "classes": [{"name": "a", "color": [1, 2, 3]}]}
        source = self.lay(tmp_path, [np.full((12, 20, 3), 7, np.uint8)], content)
        assert "colour [7, 7, 7] is not a class" in sentence(lambda: source[0])

    @pytest.mark.parametrize("kind", ["color", "index"])
    def test_more_classes_than_a_label_has_room_for(self, tmp_path, kind):
        classes = [{"name": f"c{k}", "color": [k, 0, 0], "value": k} for k in range(255)]
        (tmp_path / "classes.json").write_text(json.dumps({"labels": kind, "classes": classes}))
        wrong = sentence(lambda: folder.read_classes(tmp_path / "classes.json"))
        assert "classes.json" in wrong
        assert "can hold 1 to 254" in wrong

    def test_split_files_name_pairs_anywhere_below_the_root(self, tmp_path, index):
        self.lay(tmp_path, [index, index], {"classes": self.CLASSES})
        (tmp_path / "val.txt").write_text("images/train/p1.png labels/train/p1.png\n")
        source = datasets.load("folder", str(tmp_path), "val")
        assert len(source) == 1
        np.testing.assert_array_equal(source[0].image, photo(1))

    def test_a_label_with_an_upper_case_suffix(self, tmp_path, index):
        source = self.lay(tmp_path, [index], {"classes": self.CLASSES})
        expected = source[0].label
        label = tmp_path / "labels/train/p0.png"
        label.rename(label.with_suffix(".PNG"))
        np.testing.assert_array_equal(
            datasets.load("folder", str(tmp_path), "train")[0].label, expected
        )

    def test_two_images_of_one_name(self, tmp_path, index):
        self.lay(tmp_path, [index], {"classes": self.CLASSES})
        Image.fromarray(photo(1)).save(tmp_path / "images/train/p0.jpg")
        text = sentence(lambda: datasets.load("folder", str(tmp_path), "train"))
        assert "p0.png: has the name of" in text
        assert "p0.jpg" in text

    def test_a_photo_turned_by_its_exif_tag(self, tmp_path, index):
        source = self.lay(tmp_path, [index], {"classes": self.CLASSES})
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by a quarter
        Image.fromarray(photo(0)).save(tmp_path / "images/train/p0.png", exif=exif)
        text = sentence(lambda: source[0])
        assert "label of 20x12 pixels for an image of 12x20" in text
        assert "EXIF" in text

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "expected"),
            ("[]", "expected"),
            ('{"classes": [{"nom": "a"}]}', "expected"),
            ('{"classes": ["a"], "labels": "rgb"}', '"index" or "color"'),
            ('{"classes": ["a"], "labels": "color"}', 'needs its "color"'),
            ('{"classes": [{"name": "a", "value": 300}]}', "integers 0..255"),
            ('{"classes": ["a"], "ignore": [[0, 0, 0]]}', "integers 0..255"),
            ('{"classes": [{"name": "a"}, {"name": "b", "value": 0}]}', "two classes"),
            ('{"classes": ["a", "b"], "ignore": [1]}', "ignored as well"),
            ('{"classes": "road"}', 'expected a list under "classes", not "road"'),
            ('{"classes": []}', "0 classes"),
            ('{"classes": ["a", "b", "a"]}', 'two classes are called "a"; give each a name'),
            ('{"classes": ["a"], "name": 7}', "7 is not a name for the data set"),
            ('{"classes": ["a"], "name": "../../x"}', "may have only letters"),
            ('{"classes": ["a", 7]}', "7 is not a name for a class; put it in quotes"),
            ('{"classes": ["a\\nb"]}', "in one line"),
            ('{"classes": ["  "]}', "in one line"),
            (
                '{"classes": [{"name": "a", "colour": [0, 0, 0]}]}',
                '"colour" in class "a" is unknown',
            ),
            ('{"classes": ["a"], "ignored": [0]}', '"ignored" in the file is unknown'),
            ('{"classes": [{"name": "a", "color": [300, 0, 0]}]}', "integers 0..255"),
            ('{"classes": [{"name": "a", "color": "red"}]}', '"#rrggbb", not "red"'),
            ('{"classes": [{"name": "a", "value": true}]}', "integers 0..255, not true"),
            ('{"classes": [{"name": "a", "value": []}]}', 'an empty "value"'),
            ('{"classes": {"0": 1}}', "numbers to something other than names"),
            ('{"classes": {"a": 0, "a": 1}}', '"a" occurs twice'),
            ('{"classes": [{"name": "a", "value": [0, 1]}, "b"]}', "two classes"),
            ('{"classes": [{"name": "a", "value": 1' + "0" * 5000 + "}]}", "expected"),
            ("[" * 100000, "expected"),
        ],
    )
    def test_bad_classes_file(self, tmp_path, index, content, says):
        self.lay(tmp_path, [index], {"classes": self.CLASSES})
        (tmp_path / "classes.json").write_text(content)
        text = sentence(lambda: datasets.load("folder", str(tmp_path), "train"))
        assert str(tmp_path / "classes.json") in text
        assert says in text

    @pytest.mark.parametrize(
        "classes",
        [
            {"stone": 2, "grass": 0, "water": 1},
            {"2": "stone", "0": "grass", "1": "water"},
            {"stone": {"value": 2}, "grass": {"value": 0}, "water": {"value": 1}},
        ],
    )
    def test_a_mapping_of_classes_in_both_directions(self, tmp_path, index, classes):
        source = self.lay(tmp_path, [index], {"classes": classes})
        assert source.info.class_names == self.CLASSES
        np.testing.assert_array_equal(source[0].label, index)

    def test_several_values_of_one_class(self, tmp_path, index):
        classes = [{"name": "ground", "value": [0, 2]}, {"name": "water", "value": 1}]
        source = self.lay(tmp_path, [index], {"classes": classes, "ignore": 7})
        np.testing.assert_array_equal(source[0].label, np.where(index == 1, 1, 0))

    def test_several_colours_of_one_class(self, tmp_path, index):
        colors = np.array([[9, 200, 0], [0, 9, 200], [100, 90, 80]], np.uint8)
        classes = [{"name": "ground", "color": ["#09c800", [100, 90, 80]]}]
        classes += [{"name": "water", "color": "#0009c8"}]
        content = {"labels": "color", "classes": classes, "ignore": [0, 0, 0]}
        source = self.lay(tmp_path, [colors[index]], content)
        np.testing.assert_array_equal(source[0].label, np.where(index == 1, 1, 0))
        np.testing.assert_array_equal(source.info.palette, colors[:2])

    @pytest.mark.parametrize(
        ("written", "says"),
        [
            ("a: &a [x, x]\nclasses: [*a, *a]", "aliases (*name) are not supported"),
            ("classes: [no, yes]", "false is not a name for a class; put it in quotes"),
            ("classes: {a: 0, a: 1}", '"a" occurs twice'),
            ("classes: [2024-99-99]", "expected"),
            ("classes:\n- {2024-01-01: 3}", 'expected "name"'),
        ],
    )
    def test_bad_yaml(self, tmp_path, written, says):
        (tmp_path / "classes.yaml").write_text(written)
        assert says in sentence(lambda: datasets.info("folder", str(tmp_path)))

    @pytest.mark.parametrize("name", ["/etc/hostname", "../x.png", "images/../../x.png"])
    def test_a_list_cannot_leave_the_folder(self, tmp_path, index, name):
        self.lay(tmp_path / "data", [index], {"classes": self.CLASSES})
        (tmp_path / "data" / "val.txt").write_text(f"\n{name} labels/train/p0.png\n")
        text = sentence(lambda: datasets.load("folder", str(tmp_path / "data"), "val"))
        assert f"val.txt, line 2: {name} is not a path below" in text

    def test_a_list_with_a_byte_order_mark_and_names_that_are_no_utf_8(self, tmp_path, index):
        self.lay(tmp_path, [index, index], {"classes": self.CLASSES})
        for kind in ("images", "labels"):
            path = tmp_path / kind / "train" / "p1.png"
            path.rename(path.with_name(os.fsdecode(b"stra\xdfe 1.png")))
        line = "images/train/stra\\xdfe 1.png\tlabels/train/stra\\xdfe 1.png\r\n"
        (tmp_path / "val.txt").write_text(f"\ufeff{line}", "utf-8")
        source = datasets.load("folder", str(tmp_path), "val")
        np.testing.assert_array_equal(source[0].image, photo(1))
        cached = cache.open_or_build(str(tmp_path / "cache"), source)
        assert cached.ids == tuple(source.ids)
        np.testing.assert_array_equal(cached[0].image, photo(1))

    def test_doctor_cache_and_training_refuse_the_same_files(self, tmp_path):
        label = np.random.default_rng(0).integers(0, 3, (240, 330), np.uint8)
        source = self.lay(
            tmp_path, [label] * 4, {"classes": self.CLASSES}, palette=list(range(9)) * 3
        )
        for i in range(4):
            (tmp_path / f"images/train/p{i}.png").unlink()
            Image.fromarray(photo(i, label.shape)).save(tmp_path / f"images/train/p{i}.jpg")
        source = datasets.load("folder", str(tmp_path), "train")
        flipped, holed = tmp_path / "labels/train/p1.png", tmp_path / "images/train/p2.jpg"
        data = bytearray(flipped.read_bytes())
        data[data.index(b"IDAT") + 700] ^= 4
        flipped.write_bytes(data)
        data = holed.read_bytes()
        holed.write_bytes(data[:9000] + bytes(4096) + data[13096:])
        said = checks.survey(source, threads=2).errors
        assert len(said) == 2
        for i, path in ((1, flipped), (2, holed)):
            assert said[i - 1].startswith(f"{path}: damaged")
            assert sentence(lambda i=i: source[i]) == said[i - 1]
        assert sentence(lambda: cache.open_or_build(str(tmp_path / "cache"), source)) == said[0]

    def test_hidden_files_are_skipped_and_links_followed(self, tmp_path, index, capsys):
        self.lay(tmp_path / "store", [index, index], {"classes": self.CLASSES})
        hidden = tmp_path / "store/images/train/.ipynb_checkpoints/p0-checkpoint.png"
        write_png(hidden, photo())
        (tmp_path / "store/images/train/._p0.png").write_bytes(b"\0\5\x16\7")
        os.mkfifo(tmp_path / "store/images/train/pipe.png")
        (tmp_path / "data").mkdir()
        for name in ("images", "labels", "classes.json"):
            (tmp_path / "data" / name).symlink_to(tmp_path / "store" / name)
        source = datasets.load("folder", str(tmp_path / "data"), "train")
        assert source.ids == ["images/train/p0", "images/train/p1"]
        assert "pipe.png: a pipe, not a file" in capsys.readouterr().err

    def test_classes_in_yaml(self, tmp_path, index):
        source = self.lay(tmp_path, [index], {"classes": self.CLASSES})
        (tmp_path / "classes.json").unlink()
        written = tmp_path / "classes.yaml"
        written.write_text("classes:\n- {name: grass, color: [0, 160, 0]}\n- water\n- stone\n")
        again = datasets.load("folder", str(tmp_path), "train")
        np.testing.assert_array_equal(again[0].label, source[0].label)
        assert datasets.info("folder", str(tmp_path)).class_names == self.CLASSES
        assert again.info.palette[0].tolist() == [0, 160, 0]
        written.write_text("classes: [grass\nwater")
        text = sentence(lambda: datasets.load("folder", str(tmp_path), "train"))
        assert str(written) in text
        assert "\n" not in text

    def test_missing_classes_file(self, tmp_path, index):
        self.lay(tmp_path, [index], {"classes": self.CLASSES})
        (tmp_path / "classes.json").unlink()
        text = sentence(lambda: datasets.load("folder", str(tmp_path), "train"))
        assert "docs/datasets.md" in text
