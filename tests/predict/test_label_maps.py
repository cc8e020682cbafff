"""Label maps as PNG: class numbers with a palette, or the values that a data set stores."""

import dataclasses
import json

import cv2
import numpy as np
import PIL.Image
import pytest
import tiny
import toy

from fastfcn_jax import pictures
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data import datasets, decode
from fastfcn_jax.data.datasets import isprs
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError
from fastfcn_jax.export import metadata
from fastfcn_jax.predict.label_maps import LabelMaps
from fastfcn_jax.predict.settings import Settings

LABELS = toy.labels_of(toy.photograph(size=(600, 40)))  # several strips


def test_class_numbers_have_the_classes_colours(tmp_path):
    maps = LabelMaps(toy.INFO, "classes")
    maps.write_png(tmp_path / "a.png", LABELS)
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), LABELS)
        np.testing.assert_array_equal(np.array(picture.convert("RGB")), toy.PALETTE[LABELS])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1],
                                  toy.PALETTE[LABELS])  # fmt: skip
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode.label(data, "a.png"), LABELS)  # can be trained on
    np.testing.assert_array_equal(maps.read(tmp_path / "a.png"), LABELS)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ({"classes": [{"name": "no", "value": 0}, {"name": "yes", "value": 255}]}, (0, 255)),
        ({"classes": ["no", "yes", "maybe"]}, (0, 1, 2)),
        ({"classes": [{"name": "no", "value": [4, 5]}, {"name": "yes", "value": [2, 9]}]}, (4, 2)),
        (
            {
                "labels": "color",
                "classes": [
                    {"name": "no", "color": [[9, 8, 7], [1, 1, 1]]},
                    {"name": "yes", "color": "#ff0080"},
                ],
            },
            ((9, 8, 7), (255, 0, 128)),
        ),
    ],
)
def test_stored_values_come_from_the_list_of_classes_by_the_model_folder(tmp_path, written, stored):
    """The data set is not needed for the prediction, only for the training."""
    (tmp_path / "classes.json").write_text(json.dumps(written))
    card = model_folder.model_card(tiny.get_config(), datasets.info("folder", str(tmp_path)), {})
    (tmp_path / "classes.json").unlink()
    (tmp_path / "model.json").write_text(json.dumps(card))
    _, info = model_folder.from_card(model_folder.read_card(tmp_path), tmp_path / "model.json")
    assert info.values == stored
    labels = LABELS % len(stored)
    maps = LabelMaps(info, "stored")
    maps.write_png(tmp_path / "a.png", labels)
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == ("L" if np.ndim(stored) == 1 else "RGB")
        np.testing.assert_array_equal(np.array(picture), np.array(stored)[labels])
    np.testing.assert_array_equal(maps.read(tmp_path / "a.png"), labels)
    assert metadata.info(json.loads(json.dumps(card))).values == stored


def test_published_data_sets_know_their_values():
    """The classes of these values are 0, 1, 2 … again."""
    published = {name: m for name, m in datasets.DATASETS.items() if hasattr(m, "LABELS")}
    assert len(published) >= 4
    for name, module in published.items():
        values = module.INFO.values
        is_colored = isinstance(values[0], tuple)
        table = isprs.ColorLabels(name) if is_colored else module.LABELS
        stored = np.array([values], np.uint8)
        np.testing.assert_array_equal(table(stored, name)[0], range(len(values)))


def test_a_model_that_does_not_know_them_says_what_to_add():
    info = DatasetInfo("old", ("a", "b"), np.zeros((2, 3), np.uint8))
    with pytest.raises(UserError, match=r'model\.json, one for each class: "values": \[0, 255\]'):
        LabelMaps(info, "stored")


@pytest.mark.parametrize("values", [[0], [0, 256], [0, "1"], [0, [1, 2]], 3])
def test_wrong_values_in_a_model_folder_are_one_sentence(tmp_path, values):
    info = DatasetInfo("two", ("a", "b"), np.zeros((2, 3), np.uint8), (0, 255))
    card = model_folder.model_card(tiny.get_config(), info, {})
    card["dataset"]["values"] = values
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"dataset.*values.*fix it, or convert or train"):
        model_folder.read_card(tmp_path)
    with pytest.raises(ValueError, match="one stored value for each class"):
        metadata.info(card)


@pytest.mark.parametrize("name", ["background", "Background", "_background_", "bg", "BG"])
def test_overlays_leave_the_background_clear(name):
    names = ("road", name, "backgrounds")
    assert pictures.background(names) == (1,)
    image = toy.photograph()
    drawn = pictures.overlay(image, toy.labels_of(image), toy.PALETTE, clear=(1,))
    is_clear = toy.labels_of(image) == 1
    np.testing.assert_array_equal(drawn[is_clear], image[is_clear])
    plain = pictures.overlay(image, toy.labels_of(image), toy.PALETTE)
    np.testing.assert_array_equal(drawn[~is_clear], plain[~is_clear])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"values": "store"}, "--values store: must be classes or stored"),
        ({"polygons": "svg"}, "--polygons svg: must be geojson or coco"),
        ({"legend": True, "overlay": False}, "--legend stands below the overlay"),
        ({"tile": 64, "confidence": True}, "--tile writes labels and overlays only"),
    ],
)
def test_choices_that_exclude_each_other_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        Settings(**options)


def test_without_overlays_labels_alone_are_written(tmp_path, monkeypatch):
    toy.lay(tmp_path / "in", "a.png")
    _, model = toy.predict(monkeypatch, tmp_path / "in", tmp_path / "out", overlay=False)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"a.png", "predictions.jsonl"}
    info = dataclasses.replace(toy.INFO, values=None)
    with pytest.raises(UserError, match="--values stored"):
        toy.predict(monkeypatch, tmp_path / "in", tmp_path / "no", toy.Model(info), values="stored")
    assert not (tmp_path / "no").exists()
    assert model.predicted == ["a"]
