"""Outlines of regions, rasterised again by pycocotools and GDAL, give the label map back."""

import contextlib
import io
import json

import numpy as np
import pytest
import toy
from pycocotools import mask
from pycocotools.coco import COCO

from fastfcn_jax import polygons
from fastfcn_jax.predict import coco_results, geojson

features = pytest.importorskip("rasterio.features")


def label_maps():
    rng = np.random.default_rng(0)
    ring = np.zeros((9, 11), np.uint8)  # holes, and a region in a hole
    ring[1:8, 1:10], ring[2:7, 2:9], ring[4, 4] = 1, 2, 1
    diagonal = np.eye(6, dtype=np.uint8)
    pinched = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)  # the hole meets the outside
    return [
        ring,
        diagonal,
        pinched,
        np.kron([[0, 1], [1, 0]], np.ones((3, 3))).astype(np.uint8),
        np.ones((4, 5), np.uint8),
        np.arange(3, dtype=np.uint8)[:, None].repeat(4, axis=1),  # runs from edge to edge
        *(rng.integers(0, 3, (17, 23), dtype=np.uint8) for _ in range(3)),
        rng.integers(0, 2, (30, 1), dtype=np.uint8),
    ]


@pytest.mark.parametrize("labels", label_maps())
def test_regions_rasterised_again_give_the_label_map(labels):
    """By their outlines (GDAL) and their run lengths (pycocotools)."""
    by_rings, by_runs = np.full_like(labels, 99), np.full_like(labels, 99)
    for region in polygons.regions(labels, 3):
        rings = [ring.tolist() for ring in polygons.rings(region)]
        shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}
        drawn = features.rasterize([shape], labels.shape) == 1
        counts = polygons.run_lengths(region, labels.shape)
        runs = mask.frPyObjects({"size": list(labels.shape), "counts": counts}, *labels.shape)
        for painted, pixels in ((by_rings, drawn), (by_runs, mask.decode(runs) == 1)):
            assert pixels.sum() == region.area
            assert (painted[pixels] == 99).all(), "regions do not overlap"
            painted[pixels] = region.label
        assert tuple(mask.toBbox(runs)) == region.box
    np.testing.assert_array_equal(by_rings, labels)
    np.testing.assert_array_equal(by_runs, labels)


def test_gdal_finds_the_same_polygons():
    for labels in label_maps():
        ours = [
            (region.label, sorted(tuple(p) for ring in polygons.rings(region) for p in ring))
            for region in polygons.regions(labels, 3)
        ]
        theirs = [
            (int(value), sorted(tuple(p) for ring in shape["coordinates"] for p in ring[:-1]))
            for shape, value in features.shapes(labels, connectivity=4)
        ]
        assert sorted(ours) == sorted(theirs)


def test_geojson_is_that_of_the_standard(tmp_path):
    labels = label_maps()[0]
    geojson.write(tmp_path / "a.geojson", labels, toy.INFO, None)
    content = json.loads((tmp_path / "a.geojson").read_text())
    drawn = np.full_like(labels, 99)
    for feature in content["features"]:
        properties = feature["properties"]
        assert toy.INFO.class_names[properties["label"]] == properties["class"]
        outer, *holes = feature["geometry"]["coordinates"]
        areas = []
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            x, y = np.array(ring).T
            areas.append((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
        assert areas[0] > 0, "anticlockwise"
        assert all(area < 0 for area in areas[1:]), "holes are clockwise"
        assert sum(areas) == properties["pixels"]
        features.rasterize([(feature["geometry"], properties["label"])], out=drawn)
    np.testing.assert_array_equal(drawn, labels)
    colors = {f["properties"]["class"]: f["properties"]["color"] for f in content["features"]}
    assert colors == {"background": "#0a141e", "road": "#ff0000", "car": "#0000ff"}


def read_coco(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_a_coco_file_is_read_by_pycocotools(tmp_path):
    maps = {f"x/{i}.jpg": labels for i, labels in enumerate(label_maps())}
    maps["y.jpg"] = np.full((5, 5), 255, np.uint8)  # nothing
    assert coco_results.write(tmp_path / "c.json", maps.items(), toy.INFO) == len(maps)
    found = read_coco(tmp_path / "c.json")
    names = [found.cats[i]["name"] for i in found.getCatIds()]
    assert names == list(toy.INFO.class_names)
    for image in found.loadImgs(found.getImgIds()):
        labels = maps.pop(image["file_name"])
        assert (image["height"], image["width"]) == labels.shape
        drawn = np.full(labels.shape, 255, np.uint8)
        for annotation in found.loadAnns(found.getAnnIds([image["id"]])):
            pixels = found.annToMask(annotation) == 1
            assert pixels.sum() == annotation["area"]
            drawn[pixels] = annotation["category_id"] - 1
        np.testing.assert_array_equal(drawn, labels)
    assert not maps


@pytest.mark.parametrize("values", ["classes", "stored"])
def test_polygons_of_a_folder(tmp_path, monkeypatch, values):
    toy.lay(tmp_path / "in", "a.png", "x/b.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    options = {"values": values, "overlay": False}
    for _ in range(2):  # the second time nothing is predicted, and the file is the same
        toy.predict(
            monkeypatch,
            *(tmp_path / "in", tmp_path / "out"),
            polygons="coco",
            skip_existing=True,
            **options,
        )
        found = read_coco(tmp_path / "out" / "predictions_coco.json")
        assert [image["file_name"] for image in found.imgs.values()] == ["a.png", "x/b.png"]
        expected = toy.labels_of(toy.photograph(1))
        for annotation in found.loadAnns(found.getAnnIds([2])):
            label = annotation["category_id"] - 1
            assert (expected[found.annToMask(annotation) == 1] == label).all()
        assert sum(found.anns[i]["area"] for i in found.getAnnIds([2])) == expected.size
    toy.predict(monkeypatch, tmp_path / "in", tmp_path / "json", polygons="geojson", **options)
    assert {p.name for p in (tmp_path / "json").rglob("*.*")} == {
        *("a.png", "a.geojson", "b.png", "b.geojson", "predictions.jsonl")
    }
