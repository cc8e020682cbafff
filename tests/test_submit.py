"""Submission files: a round trip through the official scorer, and all findings of the check."""

import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastfcn_jax import api, submit
from fastfcn_jax.data import datasets
from fastfcn_jax.errors import UserError
from fastfcn_jax.evaluation.metrics import confusion_matrix, scores

CITYSCAPES = submit.SERVERS["cityscapes"]
ADE = submit.SERVERS["ade20k"]


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
        submit.write_zip(CITYSCAPES, path, [(next(iter(images)), labels)])
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
    submit.write_zip(ADE, path, zip(names, (s.label for s in samples), strict=True))
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
    server = submit.dataclasses.replace(CITYSCAPES, expected=3)
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


def test_a_failed_write_leaves_no_file(tmp_path):
    def fails():
        yield "a", np.zeros((2, 2), np.uint8)
        raise UserError("no more")

    with pytest.raises(UserError):
        submit.write_zip(ADE, tmp_path / "a.zip", fails())
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
