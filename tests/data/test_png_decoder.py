"""The fast PNG decoder gives OpenCV's pixels, or leaves the file to OpenCV."""

import io
import resource
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fastfcn_jax.data import decode, malloc, png_decoder
from fastfcn_jax.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])


def encoded(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


def with_chunk(kind, content):
    info = PngImagePlugin.PngInfo()
    info.add(kind, content)
    return encoded(RGB, pnginfo=info)


@pytest.mark.parametrize("pixels", [RGB, GREY], ids=["rgb", "grey"])
def test_pixels_are_those_that_were_stored(pixels):
    np.testing.assert_array_equal(png_decoder.decode(encoded(pixels)), pixels)


@pytest.mark.parametrize(("kind", "content"), [(b"gAMA", b"\0\3\r@"), (b"sBIT", b"\5\6\5")])
def test_colour_metadata_do_not_change_pixels(kind, content):
    np.testing.assert_array_equal(png_decoder.decode(with_chunk(kind, content)), RGB)


def test_an_orientation_is_left_to_opencv_which_follows_it():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = encoded(RGB, exif=exif)
    assert png_decoder.decode(data) is None
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decode.image(data, "x.png"), expected)
    assert decode.size(data, "x.png") == expected.shape[:2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        encoded(RGB)[:30],
        encoded(RGB)[:500],
        encoded(RGB, transparency=(1, 2, 3)),
        encoded(GREY.astype(np.uint16)),
        encoded(np.dstack([RGB, GREY])),
    ],
)
def test_other_kinds_and_damaged_files_are_left_to_opencv(data):
    assert png_decoder.decode(data) is None


def test_no_damaged_byte_gives_wrong_pixels():
    rng, pixels, refused = np.random.default_rng(1), RGB[:8, :8], 0
    data = encoded(pixels)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(8, len(data))] ^= int(rng.integers(1, 256))
        try:
            np.testing.assert_array_equal(decode.image(bytes(damaged), "x.png"), pixels)
        except UserError:
            refused += 1
    assert refused > 200


def test_threads_get_their_own_files():
    images = [np.roll(RGB, i, axis=0) for i in range(37)]
    files = [encoded(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for pixels, image in zip(pool.map(png_decoder.decode, files * 5), images * 5, strict=True):
            np.testing.assert_array_equal(pixels, image)


@pytest.mark.skipif(sys.platform != "linux", reason="tells glibc")
def test_a_large_array_gets_the_pages_of_the_last_one():
    malloc.keep_freed()
    np.ones(8 << 20, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(8 << 20, np.uint8)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 20 * 2048 / 10  # 2048 pages each
