"""Images of any number of channels and bits, as the programs that write them store them."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from layouts import sentence
from PIL import Image

from fastfcn_jax.data import decode, rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType

SIZE = (23, 31)


def values(channels, dtype, size=SIZE):
    rng = np.random.default_rng(channels)
    if dtype == "float32":
        return rng.normal(0, 1e3, (*size, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)


def tiff(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def npy(pixels):
    stream = io.BytesIO()
    np.save(stream, pixels)
    return stream.getvalue()


def png(pixels):
    """As OpenCV writes it, with the colours in its own order."""
    if pixels.shape[2] >= 3:
        pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)
    return cv2.imencode(".png", pixels)[1].tobytes()


def interleaved(pixels, **options):
    return tiff(pixels, photometric="minisblack", planarconfig="contig", **options)


def planes(pixels, **options):
    bands = np.moveaxis(pixels, 2, 0)
    return tiff(bands, photometric="minisblack", planarconfig="separate", **options)


WRITERS = {
    "npy": npy,
    "npy in columns": lambda x: npy(np.asfortranarray(x)),
    "tiff": interleaved,
    "planes": planes,
    "pages": lambda x: tiff(np.moveaxis(x, 2, 0), photometric="minisblack"),
    "rows as pages": tiff,  # what tifffile makes of (h, w, 5) unless it is told
    "deflate": lambda x: interleaved(x, compression="zlib", predictor=x.dtype.kind == "u"),
    "tiles": lambda x: planes(x, tile=(16, 16), compression="zlib"),
    "big-endian": lambda x: interleaved(x, byteorder=">"),
    "BigTIFF": lambda x: planes(x, bigtiff=True),
    "imagej": lambda x: tiff(np.moveaxis(x, 2, 0), imagej=True),
}


class TestFormats:
    @pytest.mark.parametrize("written", WRITERS)
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    def test_five_channels(self, written, dtype):
        pixels = values(5, dtype)
        data, kind = WRITERS[written](pixels), PixelType(5, dtype)
        read = rasters.image(data, "x", kind)
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, pixels, strict=True)
        assert rasters.stored_type(data, "x") == (kind, False)
        assert rasters.size(data, "x", kind) == SIZE

    @pytest.mark.parametrize(
        ("write", "channels"),
        [(w, c) for w in (npy, interleaved) for c in (1, 2, 3, 4)] + [(planes, 2), (planes, 3)],
    )
    def test_few_channels(self, write, channels):
        pixels = values(channels, "uint16")
        data = write(pixels if channels > 1 else pixels[..., 0])
        np.testing.assert_array_equal(
            rasters.image(data, "x", PixelType(channels, "uint16")), pixels, strict=True
        )

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_png(self, channels, dtype):
        pixels = values(channels, dtype)
        data, kind = png(pixels), PixelType(channels, dtype)
        np.testing.assert_array_equal(rasters.as_stored(data, "x"), pixels, strict=True)
        assert rasters.stored_type(data, "x") == (kind, channels == 4)

    def test_grey_with_transparency(self):
        pixels, stream = values(2, "uint8"), io.BytesIO()
        Image.fromarray(pixels, "LA").save(stream, "PNG")
        data = stream.getvalue()
        assert rasters.stored_type(data, "x") == (PixelType(2, "uint8"), True)
        np.testing.assert_array_equal(rasters.as_stored(data, "x"), pixels)

    def test_a_grey_jpeg(self):
        smooth = cv2.GaussianBlur(values(1, "uint8"), (9, 9), 5)
        data = cv2.imencode(".jpg", smooth)[1].tobytes()
        kind = PixelType(1, "uint8")
        assert rasters.stored_type(data, "x") == (kind, False)
        expected = np.array(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(rasters.image(data, "x", kind)[..., 0], expected)

    @pytest.mark.parametrize("dtype", ["int16", "int32", "float64"])
    def test_other_numbers_become_float32(self, dtype):
        pixels = np.arange(-300, 300).reshape(10, 12, 5).astype(dtype)
        for data in (npy(pixels), planes(pixels)):
            read = rasters.image(data, "x", PixelType(5, "float32"))
            np.testing.assert_array_equal(read, pixels.astype(np.float32), strict=True)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_tiff_is_turned_upright_as_by_opencv(self, orientation):
        pixels = values(3, "uint8")
        data = tiff(pixels, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        expected = decode.image(data, "x")
        np.testing.assert_array_equal(rasters.as_stored(data, "x"), expected)
        assert rasters.size(data, "x", PixelType(3, "uint16")) == expected.shape[:2]

    def test_lzw_of_few_channels_needs_no_other_package(self):
        pixels = values(3, "uint16")
        flags = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        data = cv2.imencode(".tif", pixels[..., ::-1], flags)[1].tobytes()
        np.testing.assert_array_equal(rasters.image(data, "x", PixelType(3, "uint16")), pixels)

    def test_8_bit_rgb_is_read_as_before(self):
        for pixels in (values(1, "uint8"), values(4, "uint8"), values(3, "uint16")):
            np.testing.assert_array_equal(
                rasters.image(png(pixels), "x"), decode.image(png(pixels), "x")
            )
        pixels = values(3, "uint8")
        np.testing.assert_array_equal(rasters.image(npy(pixels), "x"), pixels)


FIVE = planes(values(5, "uint16"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "wanted", "words"),
        [
            (interleaved(values(4, "uint16")), (3, "uint16"), "has 4 channels, the configuration"),
            (FIVE, RGB, "x: has 5 channels, the configuration 3 (data.channels)"),
            (FIVE, (5, "uint8"), "has 16-bit values (uint16), the configuration uint8"),
            (png(values(3, "uint8")), (1, "uint8"), "has 3 channels, the configuration 1"),
            (npy(values(5, "uint8")), RGB, "has 5 channels, the configuration 3"),
            (interleaved(values(3, "float32")), RGB, "has floating-point values (float32)"),
            (npy(np.zeros((3, 40, 50))), (3, "float32"), "the channels come last"),
            (npy(np.zeros((2, 3, 4, 5))), (5, "float32"), "not an image (height, width, channels)"),
            (npy(np.zeros((0, 4, 5))), (5, "float32"), "not an image"),
            (npy(np.zeros((4, 4), "U3")), (1, "float32"), "has values of type <U3"),
            (npy(np.zeros((4, 4), complex)), (1, "float32"), "has values of type complex128"),
            (npy(values(5, "uint8"))[:-1], (5, "uint8"), "truncated"),
            (npy(values(5, "uint8"))[:20], (5, "uint8"), "damaged"),
            (FIVE[: len(FIVE) // 2], (5, "uint16"), "truncated"),
            (FIVE[:30], (5, "uint16"), "damaged|without an image"),
            (tiff(np.zeros((20, 30, 40), "uint8")), (3, "uint16"), "holds an array (20, 30, 40)"),
        ],
    )
    def test_one_sentence_names_file_and_fault(self, data, wanted, words):
        text = sentence(lambda: rasters.image(data, "x", PixelType(*wanted)))
        assert text.startswith("x: ")
        assert any(part in text for part in words.split("|")), text

    def test_pickled_objects_are_not_loaded(self):
        stream = io.BytesIO()
        np.save(stream, np.array([[object()]]), allow_pickle=True)
        assert "type object" in sentence(lambda: rasters.image(stream.getvalue(), "x"))

    def test_a_size_that_does_not_fit_the_file_is_refused_before_memory_is_taken(self):
        data = bytearray(interleaved(np.zeros((8, 8, 5), "uint16"), compression="zlib"))
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            places = [file.pages[0].tags[tag].valueoffset for tag in (256, 257, 278)]
        for place in places:
            data[place : place + 4] = (20_000).to_bytes(4, "little")
        text = sentence(lambda: rasters.image(bytes(data), "x", PixelType(5, "uint16")))
        assert "do not fit into its" in text
