"""Photographs in every form that users have: taken as the same pixels, or refused with a remedy."""

import io

import cv2
import jax.numpy as jnp
import loopback
import numpy as np
import pytest
import torch
from PIL import Image

from fastfcn_jax import photographs
from fastfcn_jax.errors import UserError
from fastfcn_jax.photographs import as_array

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
GREY3 = np.stack([GREY] * 3, axis=2)
PNG = cv2.imencode(".png", RGB[..., ::-1])[1].tobytes()
ALPHA = np.concatenate([RGB, GREY[..., None]], axis=2)
CHW = RGB.transpose(2, 0, 1)


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        io.BytesIO(PNG),
        Image.fromarray(RGB),
        Image.open(io.BytesIO(PNG)),
        Image.fromarray(ALPHA, "RGBA"),
        RGB.tolist(),
        (RGB / 255).tolist(),
        RGB / 255,
        (RGB / 255).astype(np.float32),
        (RGB / 255).astype(np.float16),
        np.asfortranarray(RGB),
        RGB[::-1][::-1],
        ALPHA,
        CHW,
        CHW[None],
        RGB[None],
        CHW.astype(np.float32) / 255,
        torch.from_numpy(CHW.copy()),
        torch.from_numpy(CHW.copy())[None],
        torch.from_numpy(RGB),
        (torch.from_numpy(CHW.copy()).float() / 255).requires_grad_(),
        jnp.asarray(RGB),
        jnp.asarray(CHW),
        jnp.asarray(RGB).astype(jnp.float32) / 255,
    ],
    ids=lambda image: f"{type(image).__name__}{getattr(image, 'shape', '')}",
)
def test_the_same_photograph_in_other_forms_is_the_same_pixels(image):
    found = as_array(image)
    np.testing.assert_array_equal(found, RGB)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        GREY[None],
        GREY / 255,
        GREY.tolist(),
        torch.from_numpy(GREY)[None],
        Image.fromarray(GREY),
        Image.fromarray(np.stack([GREY, 255 - GREY], axis=2), "LA"),
        cv2.imencode(".png", GREY)[1].tobytes(),
    ],
    ids=lambda image: f"{type(image).__name__}{getattr(image, 'shape', '')}",
)
def test_grey_is_repeated(image):
    np.testing.assert_array_equal(as_array(image), GREY3)


def test_bfloat16_is_taken_within_its_precision():
    for image in (torch.from_numpy(RGB) / 255, jnp.asarray(RGB) / jnp.uint8(1)):
        is_torch = isinstance(image, torch.Tensor)
        half = image.to(torch.bfloat16) if is_torch else (RGB / 255).astype(jnp.bfloat16)
        np.testing.assert_allclose(as_array(half).astype(int), RGB, atol=1)


def test_files_by_name_and_palettes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(PNG)
    for name in (tmp_path / "a.png", str(tmp_path / "a.png"), "~/a.png"):
        np.testing.assert_array_equal(as_array(name), RGB)
    indexed = Image.fromarray(GREY // 64)
    indexed.putpalette(list(range(12)))
    np.testing.assert_array_equal(as_array(indexed)[..., 1], 3 * (GREY // 64) + 1)


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_is_respected_as_pil_does(value):
    exif = Image.Exif()
    exif[0x0112] = value
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", exif=exif)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))))
    np.testing.assert_array_equal(as_array(Image.open(buffer)), upright)
    np.testing.assert_array_equal(as_array(buffer.getvalue()), upright)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "NoneType object () is not an image; give a file name"),
        (object(), "object object () is not an image"),
        (np.zeros((0, 60, 3), np.uint8), "ndarray uint8 (0, 60, 3) is not an image"),
        (["a.jpg", "b.jpg"], "2 names are several photographs; model.predict_batch(names)"),
        ([[1, 2], [3]], "is not an image ("),
        (np.stack([RGB, RGB]), "is 2 images; model.predict_batch(images) takes them"),
        (RGB.astype(np.uint16) * 257, "pass (image // 256).astype('uint8') if 65535 is white"),
        (RGB.astype(np.int64), "pass image.astype('uint8') if the values are 0 to 255"),
        (RGB > 100, "is a mask, not a photograph; pass image.astype('uint8') * 255"),
        (RGB.astype(np.float32), "are 0 to 255; pass image.astype('uint8') if white is 255"),
        ((RGB - 120.0) / 57, "pass the photograph before it was normalised"),
        (np.full((4, 4, 3), np.nan), "replace what is not finite: np.nan_to_num(image)"),
        (RGB[..., :2], "has neither 1, 3 nor 4 channels"),
        (np.zeros((3, 20, 4), np.uint8), "may have its channels first or last"),
        (torch.zeros((3, 20, 3)), "may have its channels first or last"),
        (np.zeros((1, 1, 1, 2, 3), np.uint8), "an array has to be (height, width, 3)"),
        (np.zeros((20, 30, 3), complex), "is not an image"),
        (Image.new("I;16", (4, 4)), "pass (np.asarray(image) // 256).astype('uint8')"),
        (Image.new("F", (4, 4)), "a PIL image of mode F has more than 8 bits"),
        (Image.new("RGB", (0, 4)), "has no pixel"),
        (io.StringIO("text"), "open it as open(name, 'rb')"),
        (b"", "the bytes given as an image"),
        (PNG[:-40], "the bytes given as an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_ambiguous_is_refused_in_one_sentence_with_the_remedy(image, words):
    with pytest.raises(UserError) as caught:
        as_array(image)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        (RGB.astype(np.uint16) * 257, lambda image: (image // 256).astype("uint8")),
        (RGB.astype(np.int64), lambda image: image.astype("uint8")),
        (RGB.astype(np.float32), lambda image: image.astype("uint8")),
        (
            np.zeros((3, 20, 4), np.uint8),
            lambda image: np.moveaxis(np.asarray(image), 0, 2)[..., :3],
        ),
    ],
)
def test_the_remedies_work(image, remedy):
    assert as_array(remedy(image)).shape[2] == 3


def test_an_address_is_fetched_unless_the_run_is_offline(monkeypatch):
    with loopback.serving() as server:
        server.files["/a.png"] = PNG
        np.testing.assert_array_equal(as_array(f"{server.address}/a.png"), RGB)
        with pytest.raises(UserError, match=r"404.*; save the photograph and give its file name"):
            as_array(f"{server.address}/b.png")
        monkeypatch.setenv("FASTFCN_OFFLINE", "1")
        with pytest.raises(UserError, match="the run is offline"):
            as_array(f"{server.address}/a.png")


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, torch.from_numpy, list, iter])
def test_a_stack_is_several_photographs(kind):
    stack = np.stack([RGB, 255 - RGB])
    found = [as_array(image) for image in photographs.several(kind(stack))]
    np.testing.assert_array_equal(found, stack)


@pytest.mark.parametrize(
    "one", ["a.jpg", PNG, RGB, GREY, Image.fromarray(RGB), torch.zeros(3, 8, 9)]
)
def test_one_photograph_is_not_several(one):
    with pytest.raises(UserError, match=r"takes several photographs, not one .*model\(image\)"):
        list(photographs.several(one))
