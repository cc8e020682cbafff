"""Image files in practice: damaged ones are refused, intact ones keep their pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from fastfcn_jax import photographs
from fastfcn_jax.data import decode, exif
from fastfcn_jax.errors import UserError

RNG = np.random.default_rng(0)
COARSE = RNG.integers(0, 256, (12, 16, 3), np.uint8)
PHOTO = cv2.resize(COARSE, (331, 237), interpolation=cv2.INTER_CUBIC)
LABEL = np.kron(RNG.integers(0, 11, (9, 12), np.uint8), np.ones((10, 10), np.uint8))


def encoded(pixels, kind, mode=None, **options):
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette(list(range(256)) * 3)
    elif mode:
        picture = picture.convert(mode)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opencv(data, flags=cv2.IMREAD_COLOR_RGB):
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


class TestDamage:
    @pytest.mark.parametrize("mode", ["P", "L", "RGB", "RGBA", "LA", "I;16", "1"])
    def test_no_flipped_bit_of_a_png_gives_other_pixels(self, mode):
        if mode == "I;16":
            data = cv2.imencode(".png", LABEL.astype(np.uint16) * 257)[1].tobytes()
        else:
            data = encoded(LABEL, "PNG", mode)
        read = decode.label if mode in "PL" else decode.image
        sound, refused = read(data, "x.png"), 0
        for _ in range(200):
            damaged = bytearray(data)
            damaged[RNG.integers(8, len(data))] ^= 1 << int(RNG.integers(8))
            try:
                np.testing.assert_array_equal(read(bytes(damaged), "x.png"), sound)
            except UserError:
                refused += 1
        assert refused > 190

    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_palette_labels_of_every_depth_give_their_indices(self, bits):
        label = LABEL[:37, :53] % min(2**bits, 11)
        data = encoded(label, "PNG", "P", bits=bits)
        assert data[24] == bits
        np.testing.assert_array_equal(decode.label(data, "x.png"), label)

    def test_a_palette_shorter_than_its_indices_does_not_change_them(self):
        data = encoded(LABEL, "PNG", "P")
        start = data.index(b"PLTE") - 4
        (length,) = struct.unpack_from(">I", data, start)
        short = b"PLTE" + bytes(9)
        chunk = struct.pack(">I", 9) + short + struct.pack(">I", zlib.crc32(short))
        data = data[:start] + chunk + data[start + 12 + length :]
        np.testing.assert_array_equal(decode.label(data, "x.png"), LABEL)

    @pytest.mark.parametrize("quality", [40, 90])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_a_jpeg_that_lost_a_part_or_has_a_hole_of_zeros_is_refused(self, quality, progressive):
        noise = np.random.default_rng(1).integers(-9, 9, (474, 662, 3))
        photo = np.clip(cv2.resize(PHOTO, (662, 474)) + noise, 0, 255).astype(np.uint8)
        data = encoded(photo, "JPEG", quality=quality, progressive=progressive)
        first = data.index(b"\xff\xda") + 20
        for place in np.linspace(first, len(data) - 5000, 12).astype(int):
            end = place + 4096
            for damaged in (data[:place] + bytes(4096) + data[end:], data[:place] + data[end:]):
                with pytest.raises(UserError, match=r"x\.jpg: damaged"):
                    decode.image(damaged, "x.jpg")

    def test_an_even_jpeg_holds_runs_of_zeros_and_is_sound(self):
        pixels = np.full((2000, 1000), 128, np.uint8)
        data = encoded(pixels, "JPEG", optimize=True)
        assert bytes(64) in data[data.index(b"\xff\xda") :]
        assert (decode.image(data, "x.jpg") == 128).all()

    def test_a_cut_jpeg_whose_thumbnail_has_an_end_is_truncated(self):
        data = encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\xff\xd9")
        with pytest.raises(UserError, match="truncated"):
            decode.image(data[: len(data) // 2], "x.jpg")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_bytes_after_the_end_are_ignored(self, kind):
        data = encoded(PHOTO, kind)
        expected = decode.image(data, "x")
        for extra in (b"\0" * 10000, data, b"\xff\xd8\xff"):
            np.testing.assert_array_equal(decode.image(data + extra, "x"), expected)


class TestParity:
    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    @pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"])
    @pytest.mark.parametrize("size", [(237, 331), (8, 16), (1, 1)])
    def test_jpeg_pixels_are_opencvs(self, mode, subsampling, size):
        for options in ({}, {"progressive": True}, {"restart_marker_blocks": 3}):
            pixels = PHOTO[: size[0], : size[1]]
            data = encoded(pixels, "JPEG", mode, subsampling=subsampling, **options)
            np.testing.assert_array_equal(decode.image(data, "x.jpg"), opencv(data))

    def test_a_jpeg_of_rgb_components_too(self):
        data = encoded(PHOTO, "JPEG", keep_rgb=True)
        np.testing.assert_array_equal(decode.image(data, "x.jpg"), opencv(data))

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "RGB"])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
    def test_pixels_of_other_kinds_are_opencvs(self, mode, kind):
        if kind == "WEBP" and mode == "P":
            pytest.skip("WebP has no palette")
        data = encoded(LABEL, kind, mode)
        np.testing.assert_array_equal(decode.image(data, "x"), opencv(data))

    def test_the_shared_photographs(self, shared_data):
        files = sorted(shared_data.rglob("*.jpg"))
        assert len(files) > 400
        for path in files[::8]:
            data = path.read_bytes()
            np.testing.assert_array_equal(decode.image(data, path.name), opencv(data))


def with_exif(entry, order="<", values=b""):
    """A JPEG of 40x64 pixels with a one-entry EXIF directory."""
    data = encoded(np.kron(COARSE[:5, :8], np.ones((8, 8, 1), np.uint8)), "JPEG")
    start = b"II*\0" if order == "<" else b"MM\0*"
    block = b"Exif\0\0" + start + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4) + values
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


SHORT, BYTE, ASCII, LONG, RATIONAL = 3, 1, 2, 4, 5


def short(value, order="<"):
    return with_exif(struct.pack(f"{order}HHIHH", 0x112, SHORT, 1, value, 0), order)


class TestOrientation:
    @pytest.mark.parametrize(
        "data",
        [
            *(short(value, order) for value in range(10) for order in "<>"),
            with_exif(struct.pack("<HHIB3x", 0x112, BYTE, 1, 6)),
            with_exif(struct.pack(">HHIB3x", 0x112, BYTE, 1, 6), ">"),
            with_exif(struct.pack("<HHII", 0x112, LONG, 1, 8)),
            with_exif(struct.pack("<HHII", 0x112, ASCII, 11, 26), values=b"Horizontal\0"),
            with_exif(struct.pack("<HHI4s", 0x112, ASCII, 2, b"6")),
            with_exif(
                struct.pack("<HHII", 0x112, RATIONAL, 1, 26), values=struct.pack("<II", 6, 1)
            ),
            with_exif(struct.pack("<HHII", 0x112, RATIONAL, 1, 6)),
        ],
    )
    def test_whatever_the_tag_says_size_and_pixels_agree_and_are_opencvs(self, data):
        pixels = decode.image(data, "x.jpg")
        np.testing.assert_array_equal(pixels, opencv(data))
        assert decode.size(data, "x.jpg") == pixels.shape[:2]
        assert decode.is_turned(data) == (pixels.shape[:2] == (64, 40))

    @pytest.mark.parametrize("value", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_in_other_formats(self, value, kind):
        tags = Image.Exif()
        tags[0x112] = value
        data = encoded(PHOTO, kind, exif=tags)
        pixels = decode.image(data, "x")
        np.testing.assert_array_equal(pixels, opencv(data))
        assert decode.size(data, "x") == pixels.shape[:2]
        assert decode.is_turned(data) == (value >= 5)

    @pytest.mark.parametrize("value", range(1, 10))
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_a_picture_given_to_python_is_turned_like_its_file(self, value, kind, tmp_path):
        path = tmp_path / "x"
        tags = Image.Exif()
        tags[0x112] = value
        path.write_bytes(encoded(PHOTO, kind, exif=tags))
        expected = photographs.as_array(path)
        assert expected.shape[0] == (331 if 5 <= value <= 8 else 237)
        np.testing.assert_array_equal(photographs.as_array(Image.open(path)), expected)

    def test_a_truncated_exif_directory_is_ignored(self):
        block = b"II*\0" + struct.pack("<IH", 8, 500) + struct.pack("<HHIHH", 0x112, 3, 1, 6, 0)
        assert exif.orientation(block) == 6
        for length in range(len(block)):
            assert exif.orientation(block[:length]) == 1


def tiff(bands, bits, sample_format):
    """An intact TIFF of 4x4 pixels."""
    at = 8 + 2 + 12 * 9 + 4
    tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 1), (273, at), (277, bands)]
    tags += [(279, 16 * bands * bits // 8), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + bytes(16 * bands * bits // 8)


class TestReasons:
    def test_a_tiff_that_pil_does_not_know_has_a_size(self, monkeypatch):
        data = cv2.imencode(".tif", PHOTO.astype(np.uint16) * 200)[1].tobytes()
        assert decode.size(data, "x.tif") == decode.image(data, "x.tif").shape[:2] == (237, 331)
        monkeypatch.setattr(cv2, "imdecode", None)
        assert decode.size(data, "x.tif") == (237, 331), "from the header alone"

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (
                b"\0\0\0\x18ftypheic" + bytes(40),
                "a HEIC picture, which is not supported; save it as",
            ),
            (b"\0\0\0\x18ftypisom" + bytes(40), "a video"),
            (tiff(8, 8, 1), "a TIFF of 8 bands"),
            (cv2.imencode(".tif", PHOTO.astype(np.float32))[1].tobytes(), "floating-point|float32"),
            (b"%PDF-1.7" + bytes(40), "a PDF document"),
            (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged"),
            (b"\xff\xd8\xff" + bytes(40), "damaged"),
            (b"hello", "damaged, or not a picture"),
        ],
    )
    def test_a_picture_of_another_kind_is_not_called_damaged(self, data, words):
        for read in (decode.image, decode.label):
            with pytest.raises(UserError, match=words):
                read(data, "x")

    @pytest.mark.parametrize("mode", ["P", "RGB"])
    def test_the_first_picture_of_a_gif(self, mode):
        second = Image.fromarray(PHOTO)
        first = LABEL if mode == "P" else np.full((9, 9, 3), (255, 0, 0), np.uint8)
        data = encoded(first, "GIF", mode, save_all=True, append_images=[second])
        pixels = decode.image(data, "x.gif")
        assert decode.size(data, "x.gif") == pixels.shape[:2] == first.shape[:2]
        if mode == "RGB":
            np.testing.assert_array_equal(pixels, first)
        else:
            np.testing.assert_array_equal(decode.label(data, "x.gif"), LABEL)


def declared(kind, width, height):
    """An image whose header claims a size, with almost no data."""
    data = bytearray(encoded(LABEL, kind, "P" if kind == "PNG" else "L"))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    else:
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("read", [decode.label, decode.image])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_no_memory_is_taken_for_pixels_that_cannot_be_there(kind, read):
    with pytest.raises(UserError, match=r"x: 60000x60000 pixels, more than OpenCV decodes"):
        read(declared(kind, 60000, 60000), "x")
    with pytest.raises(UserError, match=r"says that it has 30000x30000 pixels.* fit into its"):
        read(declared(kind, 30000, 30000), "x")


def test_the_limit_can_be_raised(monkeypatch):
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "4000000000")
    with pytest.raises(UserError, match="do not fit into its"):
        decode.label(declared("PNG", 60000, 60000), "x")
