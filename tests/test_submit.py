"""Submission files: a round trip through the official scorer, and all findings of the check."""

import dataclasses
import io
import subprocess
import tarfile
import zipfile
from types import SimpleNamespace

import cv2
import layouts
import numpy as np
import pytest
from PIL import Image

from fastfcn_jax import api, servers, submit
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.metrics import confusion_matrix, scores

CITYSCAPES = servers.SERVERS["cityscapes"]
ADE = servers.SERVERS["ade20k"]


def unzip(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return sorted(folder.iterdir())


def test_cityscapes_labels_score_100_and_noise_scores_as_ours(shared_data, tmp_path):
    """cityscapesScripts on our files gives our own scores, to the last printed digit."""
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    source = datasets.load("cityscapes", str(shared_data / "cityscapes"), "val")
    sample = source[0]
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 19, (16, 32), dtype=np.uint8)
    noise = cv2.resize(coarse, sample.label.shape[::-1], interpolation=cv2.INTER_NEAREST)
    mixed = np.where(rng.random(noise.shape) < 0.5, sample.label, noise)
    mixed[mixed == 255] = 0
    images = CITYSCAPES.images(shared_data / "cityscapes/leftImg8bit/val")
    truth = sorted((shared_data / "cityscapes/gtFine/val").rglob("*_gtFine_labelIds.png"))
    for name, labels in {"perfect": sample.label, "mixed": mixed}.items():
        path = tmp_path / f"{name}.zip"
        servers.write(CITYSCAPES, path, [(next(iter(images)), labels)])
        findings = submit.check(CITYSCAPES, path, images)
        assert findings == ["1 test images are here, the server has 1525."]
        (png,) = unzip(path, tmp_path / name)
        official.args.quiet = True
        official.args.evalInstLevelScore = False
        result = official.evaluateImgLists([str(png)], [str(truth[0])], official.args)
        kept = labels.copy()
        kept[labels == 255] = 0
        ours = scores(confusion_matrix(sample.label, kept, 19))
        assert f"{result['averageScoreClasses']:.3f}" == f"{ours.miou / 100:.3f}"
        theirs = [f"{result['classScores'][c]:.3f}" for c in source.info.class_names]
        assert theirs == [f"{iou / 100:.3f}" for iou in ours.iou]
        if name == "perfect":
            assert ours.miou == 100
    assert 10 < ours.miou < 90


def test_ade_labels_survive_a_round_trip(shared_data, tmp_path):
    source = datasets.load("ade20k", str(shared_data / "ADEChallengeData2016"), "val")
    images = ADE.images(shared_data / "ADEChallengeData2016/images/validation")
    path = tmp_path / "ade.zip"
    samples = [source[i] for i in range(len(source))]
    names = list(images)
    servers.write(ADE, path, zip(names, (s.label for s in samples), strict=True))
    assert submit.check(ADE, path, images) == ["2 test images are here, the server has 3352."]
    stored = shared_data / "ADEChallengeData2016/annotations/validation"
    for png in unzip(path, tmp_path / "ade"):
        original = cv2.imread(str(stored / png.name), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(cv2.imread(str(png), cv2.IMREAD_UNCHANGED), original)


@pytest.fixture
def three(tmp_path):
    """Three small images, and a server that expects them."""
    folder = tmp_path / "images" / "town"
    folder.mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(folder / f"town_00000{i}_000019_leftImg8bit.png"), np.zeros((8, 16, 3)))
    server = dataclasses.replace(CITYSCAPES, expected=3)
    return server, server.images(tmp_path / "images")


def png(values, shape=(8, 16)):
    return cv2.imencode(".png", np.full(shape, values, np.uint8))[1].tobytes()


def test_a_good_zip_has_no_finding_for_any_text_after_the_frame(three, tmp_path):
    server, images = three
    path = tmp_path / "good.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in images:
            archive.writestr(f"results/{name}_my_method.png", png(7))
    assert submit.check(server, path, images) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(255), "not label ids"),
        (png(34), "not label ids"),
        (png(7, (8, 8)), "8x8 pixels"),
        (png(7, (8, 16, 3)), "colour"),
        (png(7)[:40], "cut off"),
        (None, "0 predictions"),
    ],
)
def test_each_reason_for_rejection_is_found(three, tmp_path, data, words):
    server, images = three
    path = tmp_path / "bad.zip"
    first, *others = images
    with zipfile.ZipFile(path, "w") as archive:
        if data is not None:
            archive.writestr(f"{first}.png", data)
        for name in others:
            archive.writestr(f"{name}.png", png(7))
    (finding,) = submit.check(server, path, images)
    assert words in finding
    assert first in finding


def test_unknown_and_duplicate_files_and_a_bad_zip_are_found(three, tmp_path):
    server, images = three
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in images:
            archive.writestr(f"{name}.png", png(7))
        archive.writestr(f"again/{next(iter(images))}_x.png", png(7))
        archive.writestr("readme.txt", "hello")
    findings = " ".join(submit.check(server, path, images))
    assert "2 predictions instead of one" in findings
    assert "readme.txt: belongs to no test image" in findings
    path.write_text("no zip")
    with pytest.raises(UserError, match="not a zip"):
        submit.check(server, path, images)


VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.fixture
def voc(tmp_path):
    """JPEGImages/ with three photographs, two of which are listed, and a server for two."""
    images = tmp_path / "VOC2012" / "JPEGImages"
    for i in range(3):
        layouts.write_jpg(images / f"2008_00000{i}.jpg", layouts.photo(i))
    lists = tmp_path / "VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("2008_000000\n2008_000002\n")
    server = dataclasses.replace(servers.SERVERS["voc"], expected=2)
    return server, server.images(images)


def test_a_voc_archive_is_one_of_palette_pngs_that_another_program_unpacks(voc, tmp_path, capsys):
    server, images = voc
    assert list(images) == ["2008_000000", "2008_000002"]
    server.images(tmp_path / "VOC2012/JPEGImages")
    assert "test images: the 2 of 3 that" in capsys.readouterr().out
    labels = {name: layouts.label_of([*range(21), 255], i) for i, name in enumerate(images)}
    path = tmp_path / "voc.tgz"
    servers.write(server, path, labels.items())
    assert submit.check(server, path, images) == []
    subprocess.run(["tar", "xzf", path, "-C", tmp_path], check=True)
    source_palette = datasets.info("pascal_voc", "").palette
    for name, label in labels.items():
        picture = Image.open(tmp_path / VOC_FOLDER / f"{name}.png")
        assert picture.mode == "P"
        stored = np.where(label == 255, 0, label)
        np.testing.assert_array_equal(np.array(picture), stored)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), source_palette[stored])


def test_what_is_wrong_with_a_voc_archive(voc, tmp_path):
    server, images = voc
    path = tmp_path / "bad.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (
            (f"./{VOC_FOLDER}/2008_000000.png", png(21, (12, 20))),
            (f"{VOC_FOLDER}/2008_000001.png", png(1, (12, 20))),
            ("comp6_test_cls/2008_000002.png", png(1, (12, 20))),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    findings = submit.check(server, path, images)
    assert len(findings) == 4
    assert findings[0] == "2008_000002: 0 predictions instead of one."
    assert "2008_000000.png: values [21] are not label ids (0..20)" in findings[1]
    for finding in findings[2:]:
        assert f"not {VOC_FOLDER}/ and the name of a test image" in finding
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="not a tar file"):
        submit.check(server, path, images)


def test_a_listed_voc_image_that_is_missing(voc):
    server, images = voc
    images["2008_000002"].unlink()
    with pytest.raises(UserError, match=r"names 2008_000002, which is not in --images"):
        server.images(images["2008_000000"].parent)


def test_a_failed_write_leaves_no_file(tmp_path):
    def fails():
        yield "a", np.zeros((2, 2), np.uint8)
        raise UserError("no more")

    with pytest.raises(UserError):
        servers.write(ADE, tmp_path / "a.zip", fails())
    assert not list(tmp_path.iterdir())


def test_a_model_with_classes_in_another_order_is_refused(three, tmp_path, monkeypatch):
    """The ids written would mean other classes; converting custom weights can give such a model."""
    server, _ = three
    info = datasets.info("cityscapes", "")
    turned = datasets.DatasetInfo("cityscapes", info.class_names[::-1], info.palette)
    monkeypatch.setattr(api, "load", lambda *_, **__: SimpleNamespace(info=turned))
    with pytest.raises(UserError, match="in another order: class 0 is 'bicycle'"):
        submit.submit(server, tmp_path / "images", checkpoint=tmp_path, output=tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
