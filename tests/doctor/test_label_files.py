"""What the doctor makes of label files: classes, names, ignored values, and repaired labels."""

import json

import cv2
import numpy as np
import pytest
from layouts import sentence
from messy import COLORS, index, lay, listed, photo, put
from PIL import Image

from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import adopt
from fastfcn_jax.errors import UserError

PALETTE = np.vstack([COLORS, np.zeros((253, 3), np.uint8)])


def classes(root):
    return json.loads((root / "classes.json").read_text("utf-8"))


def values(root, key="value"):
    return {c["name"]: c[key] for c in classes(root)["classes"]}


def labels(root):
    """Number of the photograph -> class indices as training reads them."""
    found = {}
    for split in ("train", "val"):
        source = datasets.load("folder", str(root), split)
        found |= {
            int(name.rpartition("/")[2]): source[i].label for i, name in enumerate(source.ids)
        }
    return found


def laid(root, label, **options):
    lay(root, "images/{}.jpg", "masks/{}.png", label=label, **options)
    return root


class TestValues:
    def test_a_background_of_much_black_is_a_class_and_said(self, tmp_path):
        lines = adopt.adopt(laid(tmp_path, lambda i: COLORS[index(i)]))
        assert values(tmp_path, "color") == {
            f"class_{k}": c for k, c in enumerate(COLORS[[0, 2, 1]].tolist())
        }
        assert "  [0, 0, 0] is a class here: it covers 33.33 % of the pixels" in "".join(lines)

    def test_the_share_of_what_is_ignored_is_said(self, tmp_path):
        def label(i):
            return np.where(index(i) == 2, 255, index(i)).astype(np.uint8)

        lines = adopt.adopt(laid(tmp_path, label))
        assert classes(tmp_path)["ignore"] == [255]
        (line,) = [x for x in lines if x.startswith("  (ignored)")]
        assert "255" in line
        assert "33.33 % of the pixels" in line

    @pytest.mark.parametrize("step", [127, 85])
    def test_numbers_spread_to_be_seen_are_classes_up_to_255(self, tmp_path, step):
        def label(i):
            return (
                index(i, classes=255 // step + 1).astype(int) * step * 255 // (255 // step * step)
            )

        lines = adopt.adopt(laid(tmp_path, lambda i: label(i).astype(np.uint8)))
        assert len(values(tmp_path)) == 255 // step + 1
        assert any("255 is a class here: the values are spread" in line for line in lines)

    def test_16_bit_labels_of_small_numbers_become_bytes(self, tmp_path):
        lines = adopt.adopt(laid(tmp_path, lambda i: index(i).astype(np.uint16)))
        assert values(tmp_path) == {"class_0": 0, "class_1": 1, "class_2": 2}
        assert any("6 labels converted into copies in fastfcn_labels" in x for x in lines)
        for i, label in labels(tmp_path).items():
            np.testing.assert_array_equal(label, index(i))

    def test_16_bit_labels_of_large_numbers_are_refused(self, tmp_path):
        large = laid(tmp_path, lambda i: index(i).astype(np.uint16) * 300)
        words = "masks/0.png: a 16-bit label with values from 0 to 600; store one class number"
        with pytest.raises(UserError, match=words):
            adopt.adopt(large)

    def test_equal_channels_are_grey(self, tmp_path):
        lines = adopt.adopt(laid(tmp_path, lambda i: np.repeat(index(i)[..., None], 3, 2)))
        assert values(tmp_path) == {"class_0": 0, "class_1": 1, "class_2": 2}
        assert any("6 labels of three equal channels are read as grey" in x for x in lines)
        for i, label in labels(tmp_path).items():
            np.testing.assert_array_equal(label, index(i))

    @pytest.mark.parametrize("alpha", [255, 0, 128])
    def test_constant_alpha_is_dropped(self, tmp_path, alpha):
        def label(i):
            return np.dstack([index(i), np.full((24, 32), alpha, np.uint8)])

        adopt.adopt(laid(tmp_path, label))
        assert classes(tmp_path)["ignore"] == []
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, index(i))

    @pytest.mark.parametrize("is_color", [True, False])
    def test_transparent_pixels_are_ignored_and_said(self, tmp_path, is_color):
        def label(i):
            alpha = np.where(index(i) == 0, 0, 255).astype(np.uint8)
            return np.dstack([COLORS[index(i)] if is_color else index(i), alpha])

        lines = adopt.adopt(laid(tmp_path, label))
        assert len(classes(tmp_path)["classes"]) == 2
        assert any("transparent" in x and "33.33 %" in x for x in lines)
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read == 255, index(i) == 0)

    def test_masks_of_one_bit(self, tmp_path):
        for i in range(3):
            put(tmp_path / f"images/{i}.jpg", photo(i))
            put(tmp_path / f"masks/{i}.png", index(i, classes=2).astype(bool))
        adopt.adopt(tmp_path)
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, index(i, classes=2))

    def test_a_single_value_is_refused(self, tmp_path):
        laid(tmp_path, lambda i: np.zeros((24, 32), np.uint8))
        assert "all labels hold the one value 0" in sentence(lambda: adopt.adopt(tmp_path))

    def test_palette_colours_are_taken_over(self, tmp_path):
        adopt.adopt(laid(tmp_path, index, palette=PALETTE))
        assert values(tmp_path) == {"class_0": 0, "class_1": 1, "class_2": 2}
        palette = datasets.load("folder", str(tmp_path), "train").info.palette
        np.testing.assert_array_equal(palette, COLORS)


class TestMixtures:
    def test_palette_grey_and_colour_labels_of_one_meaning(self, tmp_path):
        laid(tmp_path, index, palette=PALETTE)
        put(tmp_path / "masks/1.png", index(1))
        put(tmp_path / "masks/2.png", COLORS[index(2)])
        lines = adopt.adopt(tmp_path)
        assert any("1 colour label (such as 2.png) get the numbers" in x for x in lines)
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, index(i))
        assert listed(tmp_path)["images/1.jpg"] == "masks/1.png"  # needs no writing

    def test_a_list_says_which_number_a_colour_is(self, tmp_path):
        laid(tmp_path, index)
        put(tmp_path / "masks/2.png", COLORS[index(2)])
        assert "some index images" in sentence(lambda: adopt.adopt(tmp_path))
        text = "".join(f"{k} {r} {g} {b} name{k}\n" for k, (r, g, b) in enumerate(COLORS))
        (tmp_path / "colors.txt").write_text(text)
        adopt.adopt(tmp_path)
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, index(i))

    def test_palettes_that_differ_from_file_to_file(self, tmp_path):
        lay(tmp_path, "images/{}.jpg", "masks/{}.png")
        for i in range(6):
            order = np.roll(np.arange(3), i)
            put(
                tmp_path / f"masks/{i}.png",
                order.argsort().astype(np.uint8)[index(i)],
                COLORS[order],
            )
        lines = adopt.adopt(tmp_path)
        assert any("their numbers (--palettes numbers uses these)" in x for x in lines)
        palette = datasets.load("folder", str(tmp_path), "train").info.palette
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(palette[read], COLORS[index(i)])

    def test_the_user_says_what_a_palette_means(self, tmp_path):
        laid(tmp_path, index, palette=PALETTE)
        adopt.adopt(tmp_path, palettes="colors")
        assert sorted(values(tmp_path, "color").values()) == sorted(COLORS.tolist())
        put(tmp_path / "masks/0.png", index(0), PALETTE[::-1])
        adopt.adopt(tmp_path, palettes="numbers", overwrite=True)
        assert values(tmp_path) == {"class_0": 0, "class_1": 1, "class_2": 2}

    def test_palettes_beside_a_colour_that_they_do_not_have(self, tmp_path):
        laid(tmp_path, index, palette=PALETTE)
        picture = COLORS[index(2)]
        picture[:9, :9] = (9, 200, 9)
        put(tmp_path / "masks/2.png", picture)
        lines = adopt.adopt(tmp_path)
        assert "  labels with palettes are read as colours, like the others" in lines
        assert len(values(tmp_path, "color")) == 4

    def test_binary_masks_of_1_and_of_255(self, tmp_path):
        def label(i):
            return index(i, classes=2) * np.uint8(1 if i % 2 else 255)

        lines = adopt.adopt(laid(tmp_path, label))
        assert any("255 in 3 labels is read as the 1 of the others" in x for x in lines)
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, index(i, classes=2))


class TestMending:
    def test_a_smooth_binary_mask(self, tmp_path):
        def label(i):
            small = index(i, (12, 16), 2) * np.uint8(255)
            return cv2.resize(small, (96, 72))

        for i in range(4):
            put(tmp_path / f"images/{i}.jpg", photo(i, (72, 96)))
            put(tmp_path / f"masks/{i}.png", label(i))
        text = sentence(lambda: adopt.adopt(tmp_path))
        assert "4 labels of 4 (such as masks/0.png)" in text
        assert "2 that fill areas (0, 255)" in text
        assert "--clean" in text
        assert not (tmp_path / "classes.json").exists()
        adopt.adopt(tmp_path, clean=True)
        assert values(tmp_path) == {"class_0": 0, "class_1": 255}
        for i, read in labels(tmp_path).items():
            np.testing.assert_array_equal(read, label(i) >= 128)

    def test_colours_with_smooth_edges(self, tmp_path):
        sharp = {i: index(i, (72, 96)) for i in range(4)}
        for i in range(4):
            put(tmp_path / f"images/{i}.jpg", photo(i, (72, 96)))
            put(tmp_path / f"masks/{i}.png", cv2.blur(COLORS[sharp[i]], (3, 3)))
        assert "--clean" in sentence(lambda: adopt.adopt(tmp_path))
        adopt.adopt(tmp_path, clean=True)
        assert sorted(values(tmp_path, "color").values()) == sorted(COLORS.tolist())
        palette = datasets.load("folder", str(tmp_path), "train").info.palette
        for i, read in labels(tmp_path).items():
            assert (palette[read] == COLORS[sharp[i]]).all(-1).mean() > 0.98

    def test_labels_in_jpeg(self, tmp_path):
        for i in range(4):
            put(tmp_path / f"images/{i}.jpg", photo(i, (72, 96)))
            put(tmp_path / f"masks/{i}.jpg", COLORS[index(i, (72, 96))])
        with pytest.raises(Exception, match="4 files cannot be used") as caught:
            adopt.adopt(tmp_path)
        assert "0.jpg: a label in JPEG" in str(caught.value)
        adopt.adopt(tmp_path, clean=True)
        assert len(classes(tmp_path)["classes"]) == 3
        order = np.argsort([0, 2, 1])  # the classes are in the order of their colours
        for i, read in labels(tmp_path).items():
            assert (read == order[index(i, (72, 96))]).mean() > 0.98

    def test_one_smooth_label_among_good_ones_is_a_bad_file(self, tmp_path):
        laid(tmp_path, lambda i: index(i, classes=2) * np.uint8(255), count=12)
        put(tmp_path / "masks/3.png", cv2.blur(index(3, classes=2) * np.uint8(255), (5, 5)))
        text = sentence(lambda: adopt.adopt(tmp_path))
        assert "masks/3.png: " in text
        assert "fill no area" in text
        assert "images/3.jpg" not in listed(adopt_skipping(tmp_path))

    @pytest.mark.parametrize("clean", [False, True])
    def test_a_stray_pixel_is_not_a_class(self, tmp_path, clean):
        laid(tmp_path, lambda i: COLORS[index(i, (72, 96))])
        for i in range(6):
            put(tmp_path / f"images/{i}.jpg", photo(i, (72, 96)))
        picture = COLORS[index(3, (72, 96))]
        picture[2, 2] = (251, 50, 83)
        put(tmp_path / "masks/3.png", picture)
        lines = adopt.adopt(tmp_path, clean=clean)
        assert len(classes(tmp_path)["classes"]) == 3
        assert any("[251, 50, 83] is taken for noise" in x for x in lines) == (not clean)
        stray = labels(tmp_path)[3][2, 2]
        order = np.argsort([0, 2, 1])
        assert stray == (order[1] if clean else 255)

    def test_thin_lines_are_a_class(self, tmp_path):
        def label(i):
            picture = index(i, classes=2)
            picture[5, ::2] = 2  # no pixel has four equal neighbours
            return picture

        adopt.adopt(laid(tmp_path, label))
        assert len(classes(tmp_path)["classes"]) == 3


def adopt_skipping(root):
    adopt.adopt(root, skip_bad=True)
    return root


class TestNames:
    CASES = (
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nback:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n",
        ),
        ("names.txt", "\ufeff0 0 0 back\n250 50 83 cat\n51 221 255 dog\n"),
        ("colors.csv", "name,r,g,b\nback,0,0,0\ncat,250,50,83\ndog,51,221,255\n"),
        ("quoted.csv", '"back","0","0","0"\n"cat","250","50","83"\n"dog","51","221","255"\n'),
        ("hex.txt", "#000000 back\n#FA3253 cat\n#33ddff dog\n"),
        ("hex.csv", "name;color\nback;#000000\ncat;#FA3253\ndog;#33DDFF\n"),
        (
            "meta.json",
            '{"classes": [{"title": "back", "color": "#000000"}, {"title": "cat", '
            '"color": "#FA3253"}, {"title": "dog", "color": "#33DDFF"}]}',
        ),
        ("map.json", '{"back": [0, 0, 0], "cat": [250, 50, 83], "dog": [51, 221, 255]}'),
    )

    @pytest.mark.parametrize(("name", "text"), CASES)
    def test_lists_of_colours(self, tmp_path, name, text):
        laid(tmp_path, lambda i: COLORS[index(i)])
        (tmp_path / name).write_text(text, "utf-8")
        lines = adopt.adopt(tmp_path)
        assert values(tmp_path, "color") == {
            n: c for n, c in zip(("back", "dog", "cat"), COLORS[[0, 2, 1]].tolist(), strict=True)
        }
        assert any(f"names from {name} (--names FILE" in x for x in lines)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("_classes.csv", "Pixel Value, Class\n0, back\n1, big cat\n2, dog\n"),  # Roboflow
            ("list.txt", "0: back\n1: big cat\n2: dog\n"),
            ("list.txt", "0 back\n1 big cat\n2 dog\n"),
            ("classes.txt", "back\nbig cat\ndog\n"),
            ("labels.txt", "__ignore__\nback\nbig cat\ndog\n"),  # labelme
            ("list.csv", "back,0\nbig cat,1\ndog,2\n"),
            ("machine.json", '{"back": [0,0,0], "big cat": [1, 1, 1], "dog": [2, 2, 2]}'),
        ],
    )
    def test_lists_of_numbers(self, tmp_path, name, text):
        laid(tmp_path, index)
        (tmp_path / name).write_text(text, "utf-8")
        adopt.adopt(tmp_path)
        assert values(tmp_path) == {"back": 0, "big cat": 1, "dog": 2}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("notes.txt", "Version 0\n"),
            ("notes.txt", "Street data, version 1 here\n"),
            ("README.txt", "0 problems\n1 author\n2 years\n"),
            ("photos.csv", "file,camera,city\n0.jpg,2,Bonn\n1.jpg,1,Ulm\n"),
            ("poem.txt", "roses\nviolets\nsugar\n"),
            ("log.txt", "0 began\n1 went on\nthen it stopped\nand more\nof it\n"),
            ("classes.txt", "back\ncat\n"),  # too few for the numbers
        ],
    )
    def test_files_that_are_not_lists_name_nothing(self, tmp_path, name, text):
        laid(tmp_path, index)
        (tmp_path / name).write_text(text)
        lines = adopt.adopt(tmp_path)
        assert values(tmp_path) == {"class_0": 0, "class_1": 1, "class_2": 2}
        assert not any("names from" in x for x in lines)

    def test_a_list_in_another_encoding_is_named(self, tmp_path):
        laid(tmp_path, index)
        (tmp_path / "classes.txt").write_text("back\ncat\ndog\n", "utf-16")
        lines = adopt.adopt(tmp_path)
        assert any("no names from" in x and "save it as UTF-8" in x for x in lines)

    @pytest.mark.parametrize("word", ["void", "Unlabeled", "ignore"])
    def test_what_a_list_calls_void_is_ignored(self, tmp_path, word):
        laid(tmp_path, lambda i: COLORS[index(i)])
        (tmp_path / "list.txt").write_text(f"0 0 0 {word}\n250 50 83 cat\n51 221 255 dog\n")
        lines = adopt.adopt(tmp_path)
        assert classes(tmp_path)["ignore"] == [[0, 0, 0]]
        assert list(values(tmp_path, "color")) == ["dog", "cat"]
        assert any("33.33 % of the pixels; list it" in x for x in lines)

    def test_the_user_says_which_list_or_none(self, tmp_path):
        laid(tmp_path, index)
        (tmp_path / "classes.txt").write_text("a\nb\nc\n")
        (tmp_path / "other.txt").write_text("x\ny\nz\nnever seen\n")
        lines = adopt.adopt(tmp_path, names="other.txt")
        assert list(values(tmp_path)) == ["x", "y", "z"]
        assert any("in the list but in no label, so not a class: never seen" in x for x in lines)
        adopt.adopt(tmp_path, names="none", overwrite=True)
        assert list(values(tmp_path)) == ["class_0", "class_1", "class_2"]
        (tmp_path / "empty.txt").write_text("")
        text = sentence(lambda: adopt.adopt(tmp_path, names="empty.txt", overwrite=True))
        assert "empty.txt: not a list of classes" in text

    def test_the_list_in_a_folder_of_the_split(self, tmp_path):
        for part, count in (("train", 4), ("valid", 2)):  # Roboflow
            for i in range(count):
                put(tmp_path / part / f"{part}{i}_jpg.rf.0a.jpg", photo(i))
                put(tmp_path / part / f"{part}{i}_jpg.rf.0a_mask.png", index(i))
            text = "Pixel Value, Class\n0, background\n1, pothole\n2, crack\n"
            (tmp_path / part / "_classes.csv").write_text(text)
        lines = adopt.adopt(tmp_path)
        assert list(values(tmp_path)) == ["background", "pothole", "crack"]
        assert "4 photos to train on, 2 to validate" in lines


def test_nothing_of_the_users_is_changed(tmp_path):
    laid(tmp_path, lambda i: np.repeat(index(i)[..., None], 3, 2))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    adopt.adopt(tmp_path)
    assert all(p.read_bytes() == data for p, data in before.items())
    written = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()} - {
        p.relative_to(tmp_path) for p in before
    }
    assert len(written) == 6 + 4
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    with Image.open(tmp_path / "fastfcn_labels/images/0.png") as picture:
        np.testing.assert_array_equal(np.array(picture), index(0))
