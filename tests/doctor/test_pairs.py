"""Which photographs and labels the doctor pairs, in the layouts of programs and data sets."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from layouts import sentence
from messy import COLORS, index, lay, listed, photo, put

from fastfcn_jax.data import datasets
from fastfcn_jax.doctor import adopt
from fastfcn_jax.errors import UserError


def names(root):
    return {Path(p).name: Path(label).name for p, label in listed(root).items()}


def color(seed):
    return COLORS[index(seed)]


@pytest.mark.parametrize(
    ("photos", "labels"),
    [
        ("{}_sat.jpg", "{}_mask.png"),  # DeepGlobe
        ("top_{}_RGB.tif", "top_{}_label.tif"),  # ISPRS Potsdam
        ("{}_image.png", "{}_mask.png"),
        ("img/{}.jpg", "masks_machine/{}.jpg.png"),  # Supervisely
        ("images/{}.jpg", "annotations/{}_labelTrainIds.png"),  # COCO-Stuff of mmsegmentation
        ("images/image_{}.png", "masks/mask_{}.png"),
        ("imgs/{}.jpg", "masks/{}_mask.gif"),  # Carvana
        ("images/{}_l.jpg", "masks/{}_l.png"),
        ("leftImg8bit/bonn/bonn_{}_leftImg8bit.png", "gtFine/bonn/bonn_{}_gtFine_labelIds.png"),
        ("data/a_jpg.rf.{}.jpg", "data/a_jpg.rf.{}_mask.png"),  # Roboflow
        ("image {}.png", "segmentation {}.png"),
        ("{}_json/img.png", "{}_json/label.png"),  # labelme_json_to_dataset
    ],
)
def test_names_that_differ_by_what_a_picture_is(tmp_path, photos, labels):
    lay(tmp_path, photos, labels)
    adopt.adopt(tmp_path)
    expected = {photos.format(i): Path(labels.format(i)).stem for i in range(6)}
    assert {p: Path(label).stem for p, label in listed(tmp_path).items()} == (
        expected
        if not labels.endswith("gif")
        else {
            p: Path(p).stem for p in expected
        }  # the converted copy has the name of the photograph
    )
    source = datasets.load("folder", str(tmp_path), "train")
    number = int("".join(c for c in source.ids[0].replace("8bit", "") if c.isdigit()))
    np.testing.assert_array_equal(source[0].label, index(number))


def test_an_ending_is_stripped_only_where_no_photo_has_the_whole_name(tmp_path):
    for i in range(3):
        put(tmp_path / f"images/{i}.jpg", photo(i + 10))
    lay(tmp_path, "images/{}_l.jpg", "masks/{}_l.png", 3)
    lines = adopt.adopt(tmp_path)
    assert names(tmp_path) == {f"{i}_l.jpg": f"{i}_l.png" for i in range(3)}
    assert "  left out, without a partner: images/0.jpg" in lines


def test_the_label_of_the_very_name_is_taken_before_one_with_an_ending(tmp_path):
    lay(tmp_path, "images/{}.jpg", "masks/{}.png", 3)
    put(tmp_path / "masks/1_l.png", index(9))
    adopt.adopt(tmp_path)
    assert names(tmp_path)["1.jpg"] == "1.png"


def test_two_photographs_for_a_label_are_refused_with_both_names(tmp_path):
    lay(tmp_path, "image_2/{}.png", "semantic/{}.png", 3)
    lay(tmp_path, "image_3/{}.png", "semantic/{}.png", 3)  # the right camera
    text = sentence(lambda: adopt.adopt(tmp_path))
    assert "image_2/0.png and image_3/0.png could be its photograph" in text
    assert "--photos" in text
    adopt.adopt(tmp_path, photos="image_3")
    assert set(listed(tmp_path)) == {f"image_3/{i}.png" for i in range(3)}


def test_two_labels_of_a_photograph_are_refused_with_both_names(tmp_path):
    lay(tmp_path, "images/{}.jpg", "masks/alice/{}.png", 3)
    lay(tmp_path, "images/{}.jpg", "masks/bob/{}.png", 3)
    text = sentence(lambda: adopt.adopt(tmp_path))
    assert "masks/alice/0.png and masks/bob/0.png could be its label" in text
    adopt.adopt(tmp_path, labels="masks/bob")
    assert set(listed(tmp_path).values()) == {f"masks/bob/{i}.png" for i in range(3)}


def test_names_that_repeat_in_scenes_stay_in_their_scene(tmp_path):
    for s in range(2):
        lay(tmp_path, f"seq{s}/Images/00{{}}.png", f"seq{s}/Labels/00{{}}.png", 3)
    # A photograph without a label and a label without a photograph are not a pair.
    (tmp_path / "seq0/Images/001.png").unlink()
    (tmp_path / "seq1/Labels/001.png").unlink()
    adopt.adopt(tmp_path)
    pairs = listed(tmp_path)
    assert len(pairs) == 4
    assert all(p.replace("Images", "Labels") == label for p, label in pairs.items())


def test_scenes_below_the_folders_of_photographs_and_labels(tmp_path):
    for s in ("bonn", "ulm"):
        lay(tmp_path, f"images/{s}/{{}}.png", f"labels/{s}/{{}}.png", 2)
    adopt.adopt(tmp_path)
    assert all(p.replace("images", "labels") == label for p, label in listed(tmp_path).items())


def test_accents_that_macos_stores_in_two_parts(tmp_path):
    for i, name in enumerate(("Bäume", "Fußweg", "Allée")):
        put(tmp_path / "images" / unicodedata.normalize("NFD", f"{name}.jpg"), photo(i))
        put(tmp_path / "masks" / unicodedata.normalize("NFC", f"{name}.png"), index(i))
    assert adopt.adopt(tmp_path)[0] == "3 photos with a label each"
    assert len(datasets.load("folder", str(tmp_path), "train")) == 2


def test_names_that_are_not_utf_8(tmp_path):
    """As old zip files leave them; the folder's own name too."""
    root = tmp_path / os.fsdecode(b"fo\xdfo")
    lay(root, os.fsdecode(b"images/stra\xdfe{}.png"), os.fsdecode(b"masks/stra\xdfe{}.png"))
    assert adopt.adopt(root)[0] == "6 photos with a label each"
    train = datasets.load("folder", str(root), "train")
    assert len(train) == 5
    assert all("stra\udcdfe" in name for name in train.ids)


@pytest.mark.parametrize(
    ("photos", "taken", "others"),
    [
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", ["SegmentationObject/{}.png"]),
        (
            "JPEGImages/{}.jpg",  # labelme2voc
            "SegmentationClassPNG/{}.png",
            ["SegmentationClassVisualization/{}.jpg", "SegmentationObjectPNG/{}.png"],
        ),
        ("img/{}.jpg", "masks_machine/{}.png", ["masks_human/{}.png"]),  # Supervisely
        ("image_2/{}.png", "semantic/{}.png", ["semantic_rgb/{}.png", "instance/{}.png"]),  # KITTI
        (
            "dataset/original_images/{}.jpg",  # Semantic Drone
            "dataset/label_images_semantic/{}.png",
            ["RGB_color_image_masks/{}.png"],
        ),
        (
            "leftImg8bit/{}_leftImg8bit.png",
            "gtFine/{}_gtFine_labelTrainIds.png",
            [f"gtFine/{{}}_gtFine_{x}.png" for x in ("color", "instanceIds", "labelIds")],
        ),
        ("images/{}.jpg", "annotations/{}.png", ["annotations_instance/{}.png"]),  # ADE20K
    ],
)
def test_of_several_renderings_the_class_numbers_are_taken(tmp_path, photos, taken, others):
    lay(tmp_path, photos, taken)
    for other in others:
        lay(tmp_path, photos, other, label=lambda i: COLORS[index(i + 50)])
    lines = adopt.adopt(tmp_path)
    assert listed(tmp_path) == {photos.format(i): taken.format(i) for i in range(6)}
    said = [line for line in lines if "--labels DIR" in line]
    assert len(said) == len(others)
    assert all(f"labels are taken from {Path(taken).parent.name}" in line for line in said)


def test_a_rendering_that_lost_is_no_label_where_it_is_alone(tmp_path):
    lay(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", 4)
    lay(tmp_path, "JPEGImages/{}.jpg", "SegmentationObject/{}.png", 6)
    assert "4 photos with a label each" in adopt.adopt(tmp_path)


def test_numbers_are_taken_before_colours_where_names_say_nothing(tmp_path):
    lay(tmp_path, "images/{}.jpg", "masks/a/{}.png", 3, label=color)
    lay(tmp_path, "images/{}.jpg", "masks/b/{}.png", 3)
    lines = adopt.adopt(tmp_path)
    assert set(listed(tmp_path).values()) == {f"masks/b/{i}.png" for i in range(3)}
    said = "  labels are taken from masks/b/*, not from masks/a/* (--labels DIR for others)"
    assert said in lines


def test_a_pattern_names_the_labels(tmp_path):
    lay(tmp_path, "leftImg8bit/{}_leftImg8bit.png", "gtFine/{}_gtFine_labelIds.png", 3)
    lay(tmp_path, "leftImg8bit/{}_leftImg8bit.png", "gtFine/{}_gtFine_color.png", 3, label=color)
    lines = adopt.adopt(tmp_path, labels="gtFine/*_color.png")
    assert "color labels, 3 classes:" in lines
    assert any("--update --labels 'gtFine/*_color.png'" in line for line in lines)
    text = sentence(lambda: adopt.adopt(tmp_path, labels="nowhere", overwrite=True))
    assert "nowhere: no pictures in it" in text


def test_folders_that_are_links_and_hidden_copies(tmp_path):
    lay(tmp_path / "store", "a/{}.jpg", "b/{}.png", 3)
    root = tmp_path / "root"
    root.mkdir()
    os.symlink(tmp_path / "store/a", root / "images")
    os.symlink(tmp_path / "store/b", root / "masks")
    put(root / "images/.ipynb_checkpoints/2-checkpoint.jpg", photo())
    adopt.adopt(root)
    assert listed(root) == {f"images/{i}.jpg": f"masks/{i}.png" for i in range(3)}


def test_folders_of_segnets_camvid(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        lay(tmp_path, f"{part}/{part}{{}}.png", f"{part}annot/{part}{{}}.png", count)
        rows = (
            f"/SegNet/CamVid/{part}/{part}{i}.png /SegNet/CamVid/{part}annot/{part}{i}.png"
            for i in range(count)
        )
        (tmp_path / f"{part}.txt").write_text("\n".join(rows))
    lines = adopt.adopt(tmp_path, overwrite=True)
    assert "3 photos to train on, 2 to validate" in lines
    assert listed(tmp_path)["val/val1.png"] == "valannot/val1.png"


def test_a_list_says_the_split(tmp_path):
    lay(tmp_path, "JPEGImages/2007_{}.jpg", "SegmentationClass/2007_{}.png")
    for place in ("Main", "Segmentation"):
        (tmp_path / "ImageSets" / place).mkdir(parents=True)
    for part, numbers in (("train", (0, 3)), ("val", (1, 4)), ("trainval", (0, 1, 3, 4))):
        text = "".join(f"2007_{i}\n" for i in numbers)
        (tmp_path / "ImageSets/Segmentation" / f"{part}.txt").write_text(text)
        (tmp_path / "ImageSets/Main" / f"{part}.txt").write_text("2007_5\n")
    lines = adopt.adopt(tmp_path)
    assert set(listed(tmp_path, "train")) == {f"JPEGImages/2007_{i}.jpg" for i in (0, 3)}
    assert set(listed(tmp_path, "val")) == {f"JPEGImages/2007_{i}.jpg" for i in (1, 4)}
    assert any("split follows ImageSets/Segmentation/train.txt and" in line for line in lines)
    adopt.adopt(tmp_path, split="fifth", overwrite=True)
    assert len(listed(tmp_path, "train")) == 5


def test_lists_of_the_users_own_at_the_top_are_followed_and_kept(tmp_path):
    lay(tmp_path, "images/{}.jpg", "labels/{}.png", 4)
    (tmp_path / "train.txt").write_text("images/0.jpg labels/0.png\nimages/1.jpg labels/1.png\n")
    (tmp_path / "val.txt").write_text("\ufeffimages/2.jpg labels/2.png\n", "utf-8")
    for _ in range(2):  # the second time the list is found where it was kept
        adopt.adopt(tmp_path, overwrite=True)
        assert set(listed(tmp_path, "train")) == {"images/0.jpg", "images/1.jpg"}
        assert set(listed(tmp_path, "val")) == {"images/2.jpg"}


def test_lists_of_something_else_say_nothing(tmp_path):
    lay(tmp_path, "images/{}.jpg", "labels/{}.png", 5)
    for part in ("train", "val"):
        (tmp_path / f"labels/{part}.txt").write_text("epoch 1\nepoch 2\n")
    assert "4 photos to train on, 1 to validate" in adopt.adopt(tmp_path)


def test_a_fifth_is_spread_over_the_classes(tmp_path):
    # Five photographs have a rare class: exactly one of them is for validation.
    lay(tmp_path, "images/{}.jpg", "labels/{}.png", 40, lambda i: index(i, classes=2 + (i < 5)))
    adopt.adopt(tmp_path)
    held = [int(Path(p).stem) for p in listed(tmp_path, "val")]
    assert len(held) == 8
    assert sum(i < 5 for i in held) == 1


def test_all_bad_files_are_named_at_once_and_can_be_left_out(tmp_path):
    lay(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "images/1.jpg").write_bytes(b"")
    put(tmp_path / "masks/2.png", index(0, (10, 10)))
    (tmp_path / "masks/3.png").write_bytes((tmp_path / "masks/3.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"3 files cannot be used.*--skip_bad") as caught:
        adopt.adopt(tmp_path)
    for part in ("1.jpg: an empty file", "2.png: label of 10x10", "3.png: cut off"):
        assert part in str(caught.value)
    lines = adopt.adopt(tmp_path, skip_bad=True)
    assert "left out, as --skip_bad says: 3 bad files" in lines
    assert set(listed(tmp_path)) == {f"images/{i}.jpg" for i in (0, 4, 5)}
