"""Each data set from its own layout; each thing that can be wrong gives its one sentence."""

import json

import cv2
import numpy as np
import pytest
from layouts import photo, sentence, write_png
from PIL import Image

from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import camvid, cityscapes, folder


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
    assert "label value 37 is no class of CamVid" in text


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
    """All there, but the compressed pixels are not what was written."""
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
        assert "colour [7, 7, 7] is no class" in sentence(lambda: source[0])

    @pytest.mark.parametrize("kind", ["color", "index"])
    def test_more_classes_than_a_label_has_room_for(self, tmp_path, kind):
        classes = [{"name": f"c{k}", "color": [k, 0, 0], "value": k} for k in range(255)]
        (tmp_path / "classes.json").write_text(json.dumps({"labels": kind, "classes": classes}))
        wrong = sentence(lambda: folder.read_classes(tmp_path / "classes.json"))
        assert "classes.json" in wrong
        assert "at most 254 classes" in wrong

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
        ],
    )
    def test_bad_classes_file(self, tmp_path, index, content, says):
        self.lay(tmp_path, [index], {"classes": self.CLASSES})
        (tmp_path / "classes.json").write_text(content)
        text = sentence(lambda: datasets.load("folder", str(tmp_path), "train"))
        assert str(tmp_path / "classes.json") in text
        assert says in text

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
