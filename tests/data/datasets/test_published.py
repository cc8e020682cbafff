"""Layouts, class tables and archives of the published data sets."""

import json
import shutil
import zipfile

import numpy as np
import oracle
import pytest
from layouts import photo, sentence, write_png
from PIL import Image

from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import ade20k, camvid, cityscapes, pascal_context, pascal_detail


@pytest.mark.parametrize(
    ("module", "reference"),
    [
        (cityscapes, "CityscapesDataset"),
        (ade20k, "ADE20KDataset"),
        (pascal_context, "PascalContextDataset59"),
    ],
)
def test_classes_and_palettes_are_mmsegs(module, reference):
    oracle.import_mmseg()
    import mmseg.datasets

    meta = getattr(mmseg.datasets, reference).METAINFO
    assert module.INFO.class_names == tuple(name.strip() for name in meta["classes"])
    np.testing.assert_array_equal(module.INFO.palette, np.array(meta["palette"], np.uint8))


def test_ade20k_classes_are_in_the_order_of_the_official_list(shared_data):
    table = (shared_data / "ADEChallengeData2016" / "objectInfo150.txt").read_text().splitlines()
    names = [line.split("\t")[-1].split(", ") for line in table[1:]]
    assert len(names) == 150
    wrong = [
        (ours, official)
        for ours, official in zip(ade20k.INFO.class_names, names, strict=True)
        if ours not in [n.strip() for n in official]
    ]
    assert not wrong


def test_camvid_palette_is_the_one_of_its_readme(shared_data):
    text = (shared_data / "README.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    listed = {
        row[2].strip(): [int(v) for v in row[3].split()]
        for row in rows
        if row[1].strip().isdigit() and int(row[1]) < 11
    }
    assert listed == dict(zip(camvid.INFO.class_names, camvid.INFO.palette.tolist(), strict=True))


def test_real_ade20k_reduces_zero_to_ignore(shared_data):
    root = shared_data / "ADEChallengeData2016"
    for given in (root, root.parent):  # the folder itself, and the one that holds it
        source = datasets.load("ade20k", str(given), "train")
        assert len(source) == 5
    stored = np.array(Image.open(root / "annotations/training/ADE_train_00000001.png"))
    sample = source[0]
    assert sample.id == "ADE_train_00000001"
    np.testing.assert_array_equal(sample.label, stored - np.uint8(1))  # 0 wraps to 255
    assert len(datasets.load("ade20k", str(root), "val")) == 2
    assert len(datasets.load("ade20k", str(root), "trainval")) == 7


@pytest.fixture
def voc(tmp_path, shared_data):
    """The VOC 2010 layout around the one real Pascal Context image."""
    base = tmp_path / "VOCdevkit" / "VOC2010"
    shutil.copytree(shared_data / "pascal_context", base)
    (base / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    (base / "ImageSets" / "SegmentationContext" / "val.txt").write_text("2009_001858\n")
    return tmp_path


def test_real_pascal_context_from_label_maps(voc):
    source = datasets.load("pascal_context", str(voc), "val")
    sample = source[0]
    maps = voc / "VOCdevkit/VOC2010/SegmentationClassContext59"
    stored = np.array(Image.open(maps / "2009_001858.png"))
    np.testing.assert_array_equal(sample.label, stored - np.uint8(1))
    assert sample.image.shape == (500, 396, 3)


def test_pascal_context_without_a_split_list(voc):
    assert "train.txt: missing" in sentence(
        lambda: datasets.load("pascal_context", str(voc), "train")
    )


def encode_runs(mask):
    """COCO's compressed run lengths, written from their description, for the test alone."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + (group | 32 if more else group))
    return text


def test_pascal_context_from_detail_annotations(voc):
    """The official route: category ids and run lengths give the same label map."""
    base = voc / "VOCdevkit" / "VOC2010"
    expected = datasets.load("pascal_context", str(voc), "val")[0]
    stored = np.array(Image.open(base / "SegmentationClassContext59" / "2009_001858.png"))
    segments = [
        {
            "id": number,
            "image_id": 2009001858,
            "category_id": pascal_detail.CATEGORIES[value],
            "segmentation": {
                "size": list(stored.shape),
                "counts": encode_runs((stored == value).astype(np.uint8)),
            },
        }
        for number, value in enumerate(np.unique(stored))
    ]
    whole = {"size": list(stored.shape), "counts": encode_runs(np.ones_like(stored))}
    covered = {"id": -1, "image_id": 2009001858, "category_id": 2, "segmentation": whole}
    content = {
        "images": [
            {
                "image_id": 2009001858,
                "file_name": "2009_001858.jpg",
                "phase": "val",
                "height": stored.shape[0],
                "width": stored.shape[1],
            }
        ],
        "annos_segmentation": [covered, *segments],
    }
    shutil.rmtree(base / "SegmentationClassContext59")
    (base / "trainval_merged.json").write_text(json.dumps(content))
    sample = datasets.load("pascal_context", str(voc), "val")[0]
    np.testing.assert_array_equal(sample.label, expected.label)
    np.testing.assert_array_equal(sample.image, expected.image)
    assert "no image of split" in sentence(
        lambda: datasets.load("pascal_context", str(voc), "train")
    )


def test_run_lengths_written_by_hand():
    """Rows 1..2, columns 1..3 of a 4x5 image: runs 5 2 2 2 2 2 5, the last four as differences."""
    mask = pascal_detail.decode_runs("5220003", (4, 5))
    assert np.argwhere(mask).tolist() == [[r, c] for r in (1, 2) for c in (1, 2, 3)]


def test_detail_categories_are_sixty_sorted_ids():
    assert len(pascal_detail.CATEGORIES) == 60
    assert list(pascal_detail.CATEGORIES) == sorted(set(pascal_detail.CATEGORIES))


@pytest.fixture
def zipped(tmp_path, shared_data):
    """The two official archives made from the real frames, inner folders included."""
    source = shared_data / "cityscapes"
    for name, folder in zip(cityscapes.ARCHIVES, ("leftImg8bit", "gtFine"), strict=True):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("README", "")
            for path in sorted((source / folder).rglob("*.png")):
                archive.write(path, path.relative_to(source))
    return tmp_path


def test_cityscapes_out_of_the_two_zip_files_in_place(zipped, shared_data):
    plain = datasets.load("cityscapes", str(shared_data / "cityscapes"), "train")
    packed = datasets.load("cityscapes", str(zipped), "train")
    assert packed.ids == plain.ids
    np.testing.assert_array_equal(packed[4].image, plain[4].image)
    np.testing.assert_array_equal(packed[4].label, plain[4].label)
    assert len(datasets.load("cityscapes", str(zipped), "val")) == 1


def test_a_half_downloaded_zip(zipped):
    path = zipped / cityscapes.ARCHIVES[1]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    text = sentence(lambda: datasets.load("cityscapes", str(zipped), "train"))
    assert text.startswith(f"{path}: not a complete zip file")


def test_a_zip_whose_label_archive_lacks_a_frame(zipped):
    with zipfile.ZipFile(zipped / cityscapes.ARCHIVES[0], "a") as archive:
        archive.writestr("leftImg8bit/train/aachen/new_leftImg8bit.png", b"x")
    text = sentence(lambda: datasets.load("cityscapes", str(zipped), "train"))
    assert "no gtFine/train/aachen/new_gtFine_labelIds.png" in text


def test_ade20k_label_out_of_range(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    write_png(root / "images/training/a.png", photo())
    shutil.move(root / "images/training/a.png", root / "images/training/a.jpg")
    write_png(root / "annotations/training/a.png", np.full((12, 20), 151, np.uint8))
    source = datasets.load("ade20k", str(tmp_path), "train")
    assert "label value 151" in sentence(lambda: source[0])
