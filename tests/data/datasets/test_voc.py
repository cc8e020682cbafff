"""Pascal VOC, SBD and COCO in VOC's classes, against mmsegmentation and the official rules."""

import json

import numpy as np
import oracle
import pytest
from layouts import label_of, photo, sentence, write_jpg, write_png
from mmseg_data import assert_same, converter, mmseg_samples
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO
from scipy.io import savemat

from fastfcn_jax.data import cache, datasets
from fastfcn_jax.data.datasets import coco_voc, pascal_voc

NAMES = ("2007_000032", "2007_000039", "2008_000008")


def test_classes_and_palette_are_mmsegs():
    oracle.import_mmseg()
    import mmseg.datasets

    meta = mmseg.datasets.PascalVOCDataset.METAINFO
    assert pascal_voc.INFO.class_names == tuple(meta["classes"])
    np.testing.assert_array_equal(pascal_voc.INFO.palette, meta["palette"])
    for name in ("pascal_aug", "coco"):  # so that a classifier can be kept from one to the next
        assert datasets.info(name, "").class_names == pascal_voc.INFO.class_names


@pytest.fixture
def devkit(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    palette = [c for color in pascal_voc.INFO.palette.tolist() for c in color]
    for i, name in enumerate(NAMES):
        write_jpg(base / f"JPEGImages/{name}.jpg", photo(i))
        write_png(base / f"SegmentationClass/{name}.png", label_of([*range(21), 255], i), palette)
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(NAMES[:2]) + "\n")
    (lists / "val.txt").write_text(NAMES[2] + "\n")
    (lists / "trainval.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val", "trainval"])
def test_pascal_voc(devkit, split):
    base = devkit / "VOCdevkit" / "VOC2012"
    expected = mmseg_samples(
        *("PascalVOCDataset", base, "JPEGImages", "SegmentationClass"),
        ann_file=f"ImageSets/Segmentation/{split}.txt",
    )
    for root in (devkit, base):
        assert_same(datasets.load("pascal_voc", str(root), split), expected)


def test_pascal_aug_reads_what_mmsegs_converter_reads(tmp_path):
    base = tmp_path / "benchmark_RELEASE" / "dataset"
    (base / "cls").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        write_jpg(base / f"img/{name}.jpg", photo(i))
        segmentation = {"Segmentation": label_of(range(21), i), "CategoriesPresent": [1]}
        savemat(base / f"cls/{name}.mat", {"GTcls": {**segmentation, "Boundaries": "none"}})
    (base / "train.txt").write_text("\n".join(NAMES[:2]) + "\n")
    (base / "val.txt").write_text(NAMES[2] + "\n")
    source = datasets.load("pascal_aug", str(tmp_path), "trainval")
    assert list(source.ids) == list(NAMES)
    module = converter("voc_aug")
    for i, name in enumerate(NAMES):
        module.convert_mat(f"{name}.mat", str(base / "cls"), str(tmp_path))
        expected = np.array(Image.open(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(source[i].label, expected)
        np.testing.assert_array_equal(
            source[i].image, np.array(Image.open(base / f"img/{name}.jpg"))
        )
    assert [len(datasets.load("pascal_aug", str(base), s)) for s in ("train", "val")] == [2, 1]
    (base / "val.txt").unlink()
    text = sentence(lambda: datasets.load("pascal_aug", str(tmp_path), "trainval"))
    assert "val.txt: missing" in text


SIZE = (40, 60)


@pytest.fixture
def coco(tmp_path):
    """Overlapping polygons, one in two parts, a crowd, a foreign category, small images."""
    (tmp_path / "annotations").mkdir()
    rng = np.random.default_rng(0)

    def polygon(x, y, w, h):
        return [x, y, x + w, y + 1.5, x + w - 2, y + h, x + 1, y + h - 0.5]

    def crowd():
        packed = mask.encode(np.asfortranarray(rng.random(SIZE) < 0.3, np.uint8))
        runs, flat = [0], mask.decode(packed).ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        return {"size": list(SIZE), "counts": runs if flat[0] == 0 else [0, *runs]}

    outlines = [
        (1, 17, [polygon(2, 3, 40, 30)]),
        (1, 1, [polygon(10, 10, 45, 28), polygon(0, 30, 8, 9)]),
        (1, 3, crowd()),
        (1, 13, [polygon(0, 0, 59, 39)]),  # a stop sign is not one of VOC's classes
        (2, 62, [polygon(5, 5, 20, 20)]),  # fewer than 1000 pixels
        (3, 1, [polygon(0, 0, 39, 30)]),
        (3, 1, [polygon(2, 2, 39, 30)]),  # together more than 1000, with the overlap counted once
        (4, 13, [polygon(0, 0, 59, 39)]),
        (5, 72, [polygon(1, 1, 58, 38)]),
        (6, 44, crowd()),
        (6, 44, [polygon(0.3, 2.7, 30, 31.2)]),
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "segmentation": outline,
         "iscrowd": int(isinstance(outline, dict)), "area": 1, "bbox": [0, 0, 1, 1]}
        for i, (image, category, outline) in enumerate(outlines)
    ]  # fmt: skip
    images = [
        {"id": i, "file_name": f"{i:012}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for i in (5, 3, 1, 2, 4, 6, 7)
    ]
    categories = [{"id": i, "name": str(i)} for i in range(1, 91)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    for image in images:
        write_jpg(tmp_path / "train2017" / image["file_name"], photo(image["id"], SIZE))
    return tmp_path


def official_labels(root):
    """{id: label} as the official loader describes them: the first instance stays on top."""
    coco = COCO(root / "annotations/instances_train2017.json")
    labels = {}
    for number in coco.imgs:
        label = np.zeros(SIZE, int)
        for found in coco.loadAnns(coco.getAnnIds(imgIds=number)):
            pixels = mask.decode(mask.frPyObjects(found["segmentation"], *SIZE))
            pixels = pixels.any(2) if pixels.ndim == 3 else pixels > 0
            if found["category_id"] in coco_voc.CATEGORIES:
                value = coco_voc.CATEGORIES.index(found["category_id"])
                label = np.where((label == 0) & pixels, value, label)
        if (label > 0).sum() > 1000:
            labels[f"{number:012}"] = label
    return labels


def test_coco_in_vocs_classes(coco, capsys):
    expected = official_labels(coco)
    assert 1 < len(expected) < 7
    source = datasets.load("coco", str(coco), "train")
    assert list(source.ids) == list(expected)  # in the order of the file
    assert f"{len(expected)} of 7 images" in capsys.readouterr().err
    for i, (name, label) in enumerate(expected.items()):
        np.testing.assert_array_equal(source[i].label, label)
        picture = np.array(Image.open(coco / f"train2017/{name}.jpg"))
        np.testing.assert_array_equal(source[i].image, picture)


def test_coco_can_be_cached(coco, tmp_path):
    source = datasets.load("coco", str(coco), "train")
    cached = cache.open_or_build(str(tmp_path / "cache"), source)
    np.testing.assert_array_equal(cached[1].label, source[1].label)


def test_coco_files_that_are_missing_or_something_else(coco):
    assert "no such folder" in sentence(lambda: datasets.load("coco", str(coco), "val"))
    (coco / "val2017").mkdir()
    path = coco / "annotations/instances_val2017.json"
    assert str(path) in sentence(lambda: datasets.load("coco", str(coco), "val"))
    for content in ("[]", '{"images": [{"id": 1}], "annotations": []}', "{", ""):
        path.write_text(content)
        text = sentence(lambda: datasets.load("coco", str(coco), "val"))
        assert text.startswith(f"{path}: not COCO's instances of 2017")
    path.write_text('{"images": [], "annotations": []}')
    assert "no image with 1000 pixels" in sentence(lambda: datasets.load("coco", str(coco), "val"))
