"""GeoTIFFs written by rasterio: their labels are GeoTIFFs of the same place."""

import json
import sys

import cv2
import numpy as np
import pytest
import toy

from fastfcn_jax.data.pixel_type import PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import geotiff

rasterio = pytest.importorskip("rasterio")
features = pytest.importorskip("rasterio.features")
warp = pytest.importorskip("rasterio.warp")
Affine = rasterio.Affine

SIZE = (70, 90)
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0.1, 399000.0, 0.1, -0.5, 5820000.0)}


def write(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    profile = {"driver": "GTiff", "dtype": bands.dtype, **shape, **PLACE, **options}
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
    return path


@pytest.fixture
def predict(tmp_path, monkeypatch):
    def run(**options):
        return toy.predict(monkeypatch, tmp_path / "in", tmp_path / "out", **options)

    return run


@pytest.mark.parametrize("tile", [0, 32])
def test_labels_lie_where_the_picture_lies(predict, tmp_path, tile):
    image = toy.photograph(size=SIZE)
    write(tmp_path / "in" / "x" / "a.tif", image)
    toy.lay(tmp_path / "in", "plain.png")
    summary, _ = predict(tile=tile, legend=True)
    assert summary.failures == []
    with rasterio.open(tmp_path / "out" / "x" / "a.tif") as file:
        assert (file.crs, file.transform) == (PLACE["crs"], PLACE["transform"])
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), None)
        np.testing.assert_array_equal(file.read(1), toy.labels_of(image))
        assert [file.colormap(1)[k][:3] for k in range(3)] == [tuple(c) for c in toy.PALETTE]
    overlay = cv2.imread(str(tmp_path / "out" / "x" / "a_overlay.png"))
    assert overlay.shape[1] == SIZE[1]
    assert overlay.shape[0] > SIZE[0]
    assert not (tmp_path / "out" / "x" / "a.png").exists()
    assert (tmp_path / "out" / "plain.png").is_file()
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    outputs = {r["name"]: r["outputs"] for r in map(json.loads, lines) if "name" in r}
    assert outputs["x/a"] == ["x/a.tif", "x/a_overlay.png"]
    assert predict(tile=tile, legend=True, skip_existing=True)[1].predictor.seen == []


@pytest.mark.parametrize("tile", [0, 32])
def test_tiles_and_whole_pictures_are_drawn_alike(predict, tmp_path, tile):
    image = toy.photograph(size=SIZE)
    write(tmp_path / "in" / "a.tif", image, compress="deflate", tiled=True, blockxsize=16,
          blockysize=16)  # fmt: skip
    predict(tile=tile)
    overlay = cv2.imread(str(tmp_path / "out" / "a_overlay.png"))[..., ::-1]
    labels = toy.labels_of(image)
    expected = (image.astype(int) + toy.PALETTE[labels]) / 2
    expected[labels == 0] = image[labels == 0]  # the background is clear
    np.testing.assert_allclose(overlay, expected, atol=1)


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("marked", ["alpha", "nodata", "nodata and 255 is a class"])
def test_empty_pixels_stay_empty(predict, tmp_path, tile, marked):
    image = toy.photograph(size=SIZE)
    empty = np.zeros(SIZE, bool)
    empty[:30, 40:] = True
    if marked == "alpha":
        alpha = np.where(empty, 0, 255).astype(np.uint8)
        write(tmp_path / "in" / "a.tif", np.dstack([image, alpha]), photometric="RGB", alpha="yes")
    else:
        image = np.where(empty[..., None], 7, np.maximum(image, 8)).astype(np.uint8)
        write(tmp_path / "in" / "a.tif", image, nodata=7)
    values = "stored" if "255" in marked else "classes"
    predict(tile=tile, values=values)
    with rasterio.open(tmp_path / "out" / "a.tif") as file:
        labels = toy.labels_of(image)
        if values == "stored":
            assert file.nodata is None
            np.testing.assert_array_equal(file.read(1), np.array(toy.INFO.values)[labels])
        else:
            assert file.nodata == 255
            np.testing.assert_array_equal(file.read(1), np.where(empty, 255, labels))


def test_outlines_are_in_degrees(predict, tmp_path):
    image = toy.photograph(size=SIZE)
    write(tmp_path / "in" / "a.tif", image)
    predict(polygons="geojson", overlay=False)
    content = json.loads((tmp_path / "out" / "a.geojson").read_text())
    found = np.full(SIZE, 99, np.uint8)
    for feature in content["features"]:
        outer = np.array(feature["geometry"]["coordinates"][0])
        x, y = (outer - outer[0]).T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "anticlockwise"
        assert (np.abs(outer - [13.5, 52.5]) < 1).all()
        there = warp.transform_geom("EPSG:4326", PLACE["crs"], feature["geometry"])
        shape = (there, feature["properties"]["label"])
        features.rasterize([shape], out=found, transform=PLACE["transform"])
    np.testing.assert_array_equal(found, toy.labels_of(image))


@pytest.mark.parametrize("bigtiff", ["no", "yes"])
def test_only_a_georeferenced_tiff_is_taken_for_one(tmp_path, bigtiff):
    image = toy.photograph()
    assert geotiff.has_georeference(write(tmp_path / "a.tif", image, bigtiff=bigtiff))
    options = {"crs": None, "transform": None, "bigtiff": bigtiff}
    assert not geotiff.has_georeference(write(tmp_path / "b.tif", image, **options))
    toy.lay(tmp_path, "c.tif", "d.png")
    for name in ("c.tif", "d.png", "absent.tif"):
        assert not geotiff.has_georeference(tmp_path / name)
    data = (tmp_path / "a.tif").read_bytes()
    for length in (0, 3, 7, 9, 40, len(data) // 2):
        (tmp_path / f"{length}.tif").write_bytes(data[:length])
        geotiff.has_georeference(tmp_path / f"{length}.tif")


def test_without_rasterio_one_sentence_names_the_extra_and_the_way_around(
    predict, tmp_path, monkeypatch
):
    write(tmp_path / "in" / "a.tif", toy.photograph())
    toy.lay(tmp_path / "in", "b.png")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for tile in (0, 32):
        (sentence,) = predict(tile=tile)[0].failures
        assert 'a.tif: keeping its georeference needs rasterio: pip install "fastfcn-jax[geo]"' in (
            sentence
        )
        assert not list((tmp_path / "out").glob("a*"))
    assert predict(georeference=False)[0].failures == []
    assert {p.name for p in (tmp_path / "out").glob("a*")} == {"a.png", "a_overlay.png"}


def test_a_damaged_geotiff_is_one_sentence_and_leaves_nothing(predict, tmp_path):
    path = write(tmp_path / "in" / "a.tif", toy.photograph(size=(300, 400)), compress="deflate")
    data = bytearray(path.read_bytes())
    data[2000:-4000] = bytes(len(data) - 6000)
    path.write_bytes(data)
    toy.lay(tmp_path / "in", "b.png")
    (sentence,) = predict(tile=32)[0].failures
    assert "a.tif: cannot be read (" in sentence
    assert "\n" not in sentence
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"b.png", "b_overlay.png", "predictions.jsonl"}


def test_other_pixels_are_decoded_as_a_whole(predict, tmp_path):
    """A palette and 16 bits: windows of the file do not hold the colours."""
    grey = toy.photograph(size=SIZE)[..., 0].astype(np.uint16) * 256
    write(tmp_path / "in" / "a.tif", grey)
    _, model = predict(tile=32)
    whole = model.predictor.seen
    assert len(whole) > 1
    with rasterio.open(tmp_path / "out" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), toy.labels_of(grey[..., None] // 256))


@pytest.mark.parametrize(("dtype", "overlay"), [("uint8", True), ("uint16", False)])
def test_many_bands_are_read_in_windows(predict, tmp_path, monkeypatch, dtype, overlay):
    image = toy.photograph(size=SIZE)
    bands = np.dstack([image, image[..., :2]]).astype(dtype)
    write(tmp_path / "in" / "a.tif", bands)
    monkeypatch.delattr("fastfcn_jax.predict.inputs.Photograph.decode")
    monkeypatch.setattr(toy.Model, "pixel", PixelType(5, dtype))
    assert predict(tile=32, overlay=overlay)[0].failures == []
    with rasterio.open(tmp_path / "out" / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), toy.labels_of(image))
    assert (tmp_path / "out" / "a_overlay.png").exists() == overlay


def test_a_picture_that_its_orientation_turns_is_refused(predict, tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.tif", toy.photograph(size=SIZE))
    turned = toy.photograph(size=SIZE[::-1])
    monkeypatch.setattr("fastfcn_jax.predict.inputs.Photograph.decode", lambda *_: turned)
    (sentence,) = predict()[0].failures
    assert "orientation tag" in sentence
    with pytest.raises(UserError):
        geotiff.opened(tmp_path / "absent.tif").__enter__()
