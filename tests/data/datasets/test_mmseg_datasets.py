"""Data sets that mmsegmentation reads too: the same classes, pixels and labels as its loaders."""

import argparse
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import oracle
import pytest
from layouts import label_of, photo, sentence, write_jpg, write_png
from mmseg_data import assert_same, converter, mmseg_samples
from PIL import Image
from scipy.io import savemat

from fastfcn_jax.data import datasets
from fastfcn_jax.data.datasets import cityscapes, coco_stuff164k, isprs, loveda, mapillary

CLASSES_OF = {
    "coco_stuff164k": "COCOStuffDataset",
    "coco_stuff10k": "COCOStuffDataset",
    "loveda": "LoveDADataset",
    "potsdam": "PotsdamDataset",
    "vaihingen": "ISPRSDataset",
    "dark_zurich": "DarkZurichDataset",
    "nighttime_driving": "NightDrivingDataset",
}


def write_tif(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("name", CLASSES_OF)
def test_classes_and_palettes_are_mmsegs(name):
    oracle.import_mmseg()
    import mmseg.datasets

    meta = getattr(mmseg.datasets, CLASSES_OF[name]).METAINFO
    info = datasets.info(name, "")
    assert info.name == name
    assert info.class_names == tuple(meta["classes"])
    np.testing.assert_array_equal(info.palette, np.array(meta["palette"], np.uint8))


class TestCocoStuff164k:
    @pytest.fixture
    def root(self, tmp_path):
        for i in range(3):
            write_jpg(tmp_path / f"images/val2017/{i:012}.jpg", photo(i))
            label = label_of([*coco_stuff164k.IDS, 255], i)
            write_png(tmp_path / f"annotations/val2017/{i:012}.png", label)
        return tmp_path

    def test_published_ids_are_the_train_ids_of_mmsegs_converter(self, root):
        published = datasets.load("coco_stuff164k", str(root), "val")
        before = [published[i].label for i in range(3)]
        folder = root / "annotations"
        for path in sorted((folder / "val2017").iterdir()):
            converter("coco_stuff164k").convert_to_trainID(str(path), str(folder), False)
        expected = mmseg_samples("COCOStuffDataset", root, "images/val2017", "annotations/val2017")
        assert_same(published, expected)
        for i in range(3):  # a copy that has only mmsegmentation's files
            (folder / f"val2017/{i:012}.png").unlink()
        converted = datasets.load("coco_stuff164k", str(root), "val")
        assert converted.to_classes is not published.to_classes
        for i in range(3):
            np.testing.assert_array_equal(converted[i].label, before[i])

    def test_an_id_that_coco_removed(self, root):
        write_png(root / "annotations/val2017/000000000000.png", np.full((12, 20), 11, np.uint8))
        source = datasets.load("coco_stuff164k", str(root), "val")
        assert "label value 11 is not a class of COCO-Stuff 164k" in sentence(lambda: source[0])


class TestCocoStuff10k:
    @pytest.fixture
    def root(self, tmp_path):
        for folder in ("images", "annotations", "imageLists"):
            (tmp_path / folder).mkdir()
        names = [f"COCO_train2014_{i:012}" for i in range(3)]
        for i, name in enumerate(names):
            write_jpg(tmp_path / f"images/{name}.jpg", photo(i))
            stored = label_of([0, *(k + 1 for k in coco_stuff164k.IDS)], i).astype(np.uint16)
            content = {"S": stored, "names": np.array(["unlabeled"], object), "captions": "x"}
            savemat(tmp_path / f"annotations/{name}.mat", content)
        (tmp_path / "imageLists/train.txt").write_text("\n".join(names[:2]) + "\n")
        (tmp_path / "imageLists/test.txt").write_text(names[2] + "\n")
        return tmp_path

    def test_mat_files_are_the_label_maps_of_mmsegs_converter(self, root, tmp_path_factory):
        copy = tmp_path_factory.mktemp("converted")
        for folder in ("images", "annotations"):
            (copy / folder / "train2014").mkdir(parents=True)
        module = converter("coco_stuff10k")
        module.COCO_LEN = 3
        for pair in module.generate_coco_list(str(root))[0]:
            module.convert_to_trainID(
                pair,
                str(root / "images"),
                str(root / "annotations"),
                str(copy / "images"),
                str(copy / "annotations"),
                True,
            )
        expected = mmseg_samples(
            *("COCOStuffDataset", copy, "images/train2014", "annotations/train2014"),
            reduce_zero_label=True,
        )
        assert_same(datasets.load("coco_stuff10k", str(root), "train"), expected)
        assert_same(datasets.load("coco_stuff10k", str(copy), "train"), expected)
        assert len(datasets.load("coco_stuff10k", str(root), "val")) == 1

    def test_a_bad_mat_file(self, root):
        path = root / "annotations" / "COCO_train2014_000000000000.mat"
        whole = path.read_bytes()
        for data in (
            b"",
            whole[:100],
            whole[:150],
            whole[:400],
            b"<html>",
            whole[:140] + b"x" * 99,
        ):
            path.write_bytes(data)
            source = datasets.load("coco_stuff10k", str(root), "train")
            assert sentence(lambda: source[0]).startswith(f"{path}: ")  # noqa: B023
        savemat(path, {"T": np.zeros((12, 20), np.uint8)})
        assert "label map 'S'" in sentence(lambda: source[0])
        savemat(path, {"S": np.full((12, 20), 0.5)})
        assert "whole numbers" in sentence(lambda: source[0])

    def test_a_missing_list(self, root):
        (root / "imageLists/test.txt").unlink()
        assert "test.txt: missing" in sentence(
            lambda: datasets.load("coco_stuff10k", str(root), "val")
        )


class TestMapillary:
    @pytest.mark.parametrize("labels", ["training/v1.2/labels", "training/labels"])
    def test_palette_labels_of_both_archives(self, tmp_path, labels):
        palette = np.random.default_rng(0).integers(0, 256, 768).tolist()
        for i in range(2):
            write_jpg(tmp_path / f"training/images/x{i}.jpg", photo(i))
            write_png(tmp_path / labels / f"x{i}.png", label_of(range(66), i), palette)
        expected = mmseg_samples(
            *("MapillaryDataset_v1", tmp_path, "training/images", labels),
            metainfo={"classes": mapillary.INFO.class_names},
        )
        assert_same(datasets.load("mapillary", str(tmp_path), "train"), expected)

    def test_classes_are_those_of_mmsegs_65_class_version(self):
        oracle.import_mmseg()
        import mmseg.datasets

        meta = mmseg.datasets.MapillaryDataset_v1.METAINFO
        assert (*mapillary.INFO.class_names, "Unlabeled") == tuple(meta["classes"])
        np.testing.assert_array_equal(mapillary.INFO.palette, meta["palette"][:65])


class TestLoveDA:
    def test_published_folders_and_what_mmsegs_converter_makes_of_them(self, tmp_path, monkeypatch):
        archives = tmp_path / "archives"
        archives.mkdir()
        for part in ("Train", "Val", "Test"):
            for k, scene in enumerate(loveda.SCENES):
                for i in range(2):
                    folder, name = tmp_path / "raw" / part / scene, f"{2 * k + i}.png"
                    write_png(folder / "images_png" / name, photo(2 * k + i))
                    write_png(folder / "masks_png" / name, label_of(range(8), 2 * k + i))
            with zipfile.ZipFile(archives / f"{part}.zip", "w") as archive:
                for path in (tmp_path / "raw" / part).rglob("*.png"):
                    archive.write(path, path.relative_to(tmp_path / "raw"))
        made = tmp_path / "made"
        monkeypatch.setattr(sys, "argv", ["x", str(archives), "-o", str(made)])
        converter("loveda").main()
        expected = mmseg_samples("LoveDADataset", made, "img_dir/train", "ann_dir/train")
        assert_same(datasets.load("loveda", str(tmp_path / "raw"), "train"), expected)
        assert_same(datasets.load("loveda", str(made), "train"), expected)


class TestIsprs:
    SIZE = (40, 56)

    def colors(self, seed):
        """A colour label of the six classes, black boundaries and a wrong yellow."""
        known = [(0, 0, 0), *(c for _, c in isprs.CLASSES), (252, 255, 0)]
        share = [0.1, *[0.14] * 6, 0.06]
        pick = np.random.default_rng(seed).choice(8, self.SIZE, p=share)
        return np.array(known, np.uint8)[pick]

    def check(self, city, kind, raw, made, ids):
        """Compares published files with mmsegmentation's tiles of 16 pixels cut from them."""
        expected = mmseg_samples(kind, made, "img_dir/train", "ann_dir/train")
        assert_same(datasets.load(city, str(made), "train"), expected)
        source = datasets.load(city, str(raw), "train")
        assert list(source.ids) == ids
        seen = 0
        for sample in (source[i] for i in range(len(source))):
            for name, (image, label) in expected.items():
                *area, left, top, right, bottom = Path(name).stem.split("_")
                if sample.id.endswith("_".join(area)):
                    box = slice(int(top), int(bottom)), slice(int(left), int(right))
                    np.testing.assert_array_equal(sample.image[box], image)
                    np.testing.assert_array_equal(sample.label[box], label)
                    seen += 1
        assert seen == len(expected) > 0

    def test_potsdam(self, tmp_path):
        raw, made = tmp_path / "raw", tmp_path / "made"
        cut = argparse.Namespace(clip_size=16, stride_size=8)
        for folder in ("img_dir/train", "ann_dir/train"):
            (made / folder).mkdir(parents=True)
        clip = converter("potsdam").clip_big_image
        for i, area in enumerate(("2_10", "7_9")):
            image = raw / f"2_Ortho_RGB/top_potsdam_{area}_RGB.tif"
            label = raw / f"5_Labels_all_noBoundary/top_potsdam_{area}_label_noBoundary.tif"
            write_tif(image, photo(i, self.SIZE))
            write_tif(label, self.colors(i))
            clip(str(image), str(made / "img_dir/train"), cut)
            clip(str(label), str(made / "ann_dir/train"), cut, to_label=True)
        ids = ["top_potsdam_2_10", "top_potsdam_7_9"]
        self.check("potsdam", "PotsdamDataset", raw, made, ids)

    def test_vaihingen(self, tmp_path):
        raw, made = tmp_path / "raw", tmp_path / "made"
        for folder in ("img_dir/train", "ann_dir/train"):
            (made / folder).mkdir(parents=True)
        module = converter("vaihingen")
        module.args = argparse.Namespace(clip_size=16, stride_size=8)
        archive = raw / "ISPRS_semantic_labeling_Vaihingen"
        for i, area in enumerate((1, 37)):
            name = f"top_mosaic_09cm_area{area}"
            image = archive / f"top/{name}.tif"
            eroded = f"{archive}_ground_truth_eroded_COMPLETE"
            label = Path(eroded, f"{name}_noBoundary.tif")
            write_tif(image, photo(i, self.SIZE))
            write_tif(label, self.colors(i))
            module.clip_big_image(str(image), str(made / "img_dir/train"))
            module.clip_big_image(str(label), str(made / "ann_dir/train"), to_label=True)
        ids = ["top_mosaic_09cm_area1", "top_mosaic_09cm_area37"]
        self.check("vaihingen", "ISPRSDataset", raw, made, ids)

    @pytest.mark.parametrize("city", ["potsdam", "vaihingen"])
    def test_splits_are_those_of_mmsegs_converter(self, city):
        """They stand inside of `main`: its code is searched for the names."""
        constants = [c for c in converter(city).main.__code__.co_consts if isinstance(c, tuple)]
        named = [set(c) for c in constants if len(c) > 10]
        prefix = "area" if city == "vaihingen" else ""
        ours = datasets.DATASETS[city].SPLITS
        assert [{f"{prefix}{area}" for area in ours[s]} for s in ("train", "val")] == named

    def test_a_label_that_was_saved_as_jpeg(self):
        lossy = cv2.imencode(".jpg", self.colors(0))[1]
        text = sentence(lambda: isprs.ColorLabels("Potsdam")(cv2.imdecode(lossy, 1), "x.tif"))
        assert "x.tif: " in text
        assert "none of the colours of Potsdam" in text


class TestNight:
    def test_dark_zurich(self, tmp_path):
        for i in range(2):
            name = f"GOPR0356_frame_{i:06}"
            write_png(tmp_path / f"rgb_anon/val/night/GOPR0356/{name}_rgb_anon.png", photo(i))
            label = label_of([*range(19), 255], i)
            gt = tmp_path / f"gt/val/night/GOPR0356/{name}"
            write_png(Path(f"{gt}_gt_labelTrainIds.png"), label)
            write_png(Path(f"{gt}_gt_labelIds.png"), label)
        expected = mmseg_samples(
            "DarkZurichDataset", tmp_path, "rgb_anon/val/night/GOPR0356", "gt/val/night/GOPR0356"
        )
        source = datasets.load("dark_zurich", str(tmp_path), "val")
        assert source.ids[1] == "GOPR0356_frame_000001"
        assert_same(source, expected)

    def test_nighttime_driving(self, tmp_path):
        images = "leftImg8bit/test/night"
        labels = "gtCoarse_daytime_trainvaltest/test/night"
        for i in range(2):
            write_png(tmp_path / images / f"0_{i}_leftImg8bit.png", photo(i))
            label = label_of([*range(19), 255], i)
            write_png(tmp_path / labels / f"0_{i}_gtCoarse_labelTrainIds.png", label)
        expected = mmseg_samples("NightDrivingDataset", tmp_path, images, labels)
        assert_same(datasets.load("nighttime_driving", str(tmp_path), "val"), expected)

    @pytest.mark.parametrize("name", ["dark_zurich", "nighttime_driving"])
    def test_they_are_for_testing_alone(self, name, tmp_path):
        assert datasets.info(name, "").class_names == cityscapes.INFO.class_names
        text = sentence(lambda: datasets.load(name, str(tmp_path), "train"))
        assert "train on Cityscapes" in text
