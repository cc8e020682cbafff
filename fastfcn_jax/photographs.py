"""Photographs as users have them (files, addresses, bytes, PIL, arrays, tensors) as RGB arrays."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped, UInt8
from PIL import Image

from fastfcn_jax.data import exif, rasters
from fastfcn_jax.data.pixel_type import RGB, PixelType
from fastfcn_jax.errors import UserError
from fastfcn_jax.weights import fetch, local

CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency
_KINDS = "a file name, an https:// address, bytes, a PIL image, or an array (height, width, 3)"
_SIXTEEN = "(image // 256).astype('uint8') if 65535 is white"


def as_array(image: object, wanted: PixelType = RGB) -> Num[np.ndarray, "h w c"]:
    """The pixels of a photograph, by default RGB.

    Taken are: a file name or address; the bytes of a file, or an open file; a PIL image, turned
    upright by its EXIF orientation; an array of NumPy, JAX or PyTorch, or nested lists. An array is
    uint8, or floating-point from 0 to 1; it is (h, w, 3), grey (h, w) or has transparency, which is
    dropped; its channels may come first. A batch of one counts as its image.

    Nothing is converted for a model of other images than 8-bit RGB: the type must be `wanted`.

    Raises:
      UserError: the file cannot be decoded, or what an array means is ambiguous; the message says
        what to pass instead.
    """
    if isinstance(image, str) and image.startswith(("https://", "http://")):
        return rasters.image(_fetched(image), image, wanted)
    if isinstance(image, str | Path):
        return read(Path(image).expanduser(), wanted)
    if isinstance(image, bytes | bytearray | memoryview):
        return rasters.image(bytes(image), "the bytes given as an image", wanted)
    if isinstance(image, Image.Image):
        return _of_pil(image) if wanted == RGB else _as_given(image, wanted)
    if hasattr(image, "read"):
        return rasters.image(_contents(image), "the open file", wanted)
    if wanted != RGB:
        return _as_given(image, wanted)
    pixels = _numbers(image)
    what = f"{type(image).__name__} {pixels.dtype} {pixels.shape}"
    if pixels.dtype.kind not in "buif" or not pixels.size:
        raise UserError(f"{what} is not an image; give {_KINDS}.")
    last = _channels_last(pixels, what, _is_torch(image))
    values = _eight_bits(last, what, is_list=isinstance(image, list | tuple))
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    return np.ascontiguousarray(values[..., :3])


def several(images: Any) -> Iterator[Any]:
    """Yields the photographs of a list, of any other iterable, or of a stacked array.

    Raises:
      UserError: it is a single photograph.
    """
    axes = getattr(images, "ndim", None)
    single = isinstance(images, str | Path | bytes | bytearray | memoryview | Image.Image)
    if single or hasattr(images, "read") or (axes is not None and axes != 4):
        shape = "" if axes is None else f" {tuple(getattr(images, 'shape', ()))}"
        raise UserError(
            f"predict_batch takes several photographs, not one {type(images).__name__}{shape}; "
            "give a list of them or a stack (n, height, width, 3), or call model(image) for one."
        )
    if axes == 4 and not _is_torch(images):
        images = np.asarray(images)  # a JAX array would be sliced on the device, image by image
    yield from images


def read(path: Path, wanted: PixelType = RGB) -> Num[np.ndarray, "h w c"]:
    """Decodes a photograph, by default to RGB.

    Raises:
      UserError: the file is missing, damaged, not an image, or of another type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    return rasters.image(data, str(path), wanted)


def _as_given(image: Any, wanted: PixelType) -> Num[np.ndarray, "h w c"]:
    """The pixels of an array that has the type `wanted`."""
    pixels = _numbers(image)
    if pixels.ndim == 2 and wanted.channels == 1:
        pixels = pixels[..., None]
    is_wanted = pixels.ndim == 3 and (pixels.shape[2], pixels.dtype.name) == wanted
    if not is_wanted or not pixels.size:
        raise UserError(
            f"an image is a {wanted.dtype} array (height, width, {wanted.channels}) or the name of "
            f"a file for this model, not {type(image).__name__} {pixels.dtype} {pixels.shape}."
        )
    return exif.turn(pixels, _orientation(image)) if isinstance(image, Image.Image) else pixels


def _fetched(address: str) -> bytes:
    if local.is_offline():
        raise UserError(f"{address}: the run is offline (FASTFCN_OFFLINE); give a file's name.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph"
        fetch.download(address, path, remedy="save the photograph and give its file name")
        return path.read_bytes()


def _contents(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise UserError(
            f"the open file gives {type(data).__name__}, not bytes; open it as open(name, 'rb')."
        )
    return data


def _of_pil(picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if picture.mode.startswith(("I", "F")):
        wide = _SIXTEEN.replace("image", "np.asarray(image)")
        raise UserError(
            f"a PIL image of mode {picture.mode} has more than 8 bits a channel, and where white "
            f"is nobody says; pass {wide}."
        )
    try:
        pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"the PIL image of mode {picture.mode} cannot be read as RGB ({error}); pass another."
        ) from error
    if not pixels.size:
        raise UserError(f"a PIL image of {picture.width}x{picture.height} has no pixel.")
    return exif.turn(pixels, _orientation(picture))


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 to 8. PIL has already rotated a TIFF and removed its tag."""
    value = picture.getexif().get(exif.ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_torch(image: object) -> bool:
    return type(image).__module__.partition(".")[0] == "torch"


def _numbers(image: Any) -> Shaped[np.ndarray, "..."]:
    if _is_torch(image) and hasattr(image, "detach"):
        image = image.detach().cpu()
        image = (image.float() if "bfloat16" in str(image.dtype) else image).numpy()
    try:
        pixels = np.asarray(image)
    except (ValueError, TypeError) as error:  # rows of several lengths, for example
        raise UserError(
            f"{type(image).__name__} is not an image ({error}); give {_KINDS}, and several images "
            "to model.predict_batch."
        ) from error
    if pixels.dtype.kind in "US" and pixels.ndim:
        raise UserError(
            f"{pixels.size} names are several photographs; model.predict_batch(names) takes them."
        )
    return pixels.astype(np.float32) if pixels.dtype.name == "bfloat16" else pixels


def _channels_last(pixels, what: str, is_torch: bool) -> Shaped[np.ndarray, "h w c"]:
    if pixels.ndim == 4:
        if len(pixels) > 1:
            raise UserError(
                f"{what} is {len(pixels)} images; model.predict_batch(images) takes them."
            )
        pixels = pixels[0]
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.ndim != 3:
        raise UserError(f"{what} is not an image; an array has to be (height, width, 3).")
    first, last = pixels.shape[0] in CHANNELS, pixels.shape[2] in CHANNELS
    if pixels.shape[2] == 3 and not is_torch:  # what the interface promises
        return pixels
    if first and last:
        raise UserError(
            f"{what} may have its channels first or last; pass np.moveaxis(np.asarray(image), 0, "
            "2)[..., :3] or np.asarray(image)[..., :3]."
        )
    if not first and not last:
        raise UserError(
            f"{what} has neither 1, 3 nor 4 channels; pass three of them, for example "
            "image[..., [0, 1, 2]]."
        )
    return pixels if last else np.moveaxis(pixels, 0, 2)


def _eight_bits(pixels, what: str, *, is_list: bool) -> UInt8[np.ndarray, "h w c"]:
    kind, name = pixels.dtype.kind, pixels.dtype.name
    if name == "uint8":
        return pixels
    if kind == "f":
        return _of_floats(pixels, what)
    if kind in "iu" and is_list and pixels.min() >= 0 and pixels.max() <= 255:
        return pixels.astype(np.uint8)
    if name == "uint16":
        raise UserError(f"{what}: where white is nobody says; pass {_SIXTEEN}.")
    if kind == "b":
        raise UserError(f"{what} is a mask, not a photograph; pass image.astype('uint8') * 255.")
    raise UserError(
        f"{what}: integers are taken as uint8 alone; pass image.astype('uint8') if the values are "
        f"0 to 255 (they are {pixels.min()} to {pixels.max()})."
    )


def _of_floats(pixels, what: str) -> UInt8[np.ndarray, "h w c"]:
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return np.rint(pixels.astype(np.float32) * np.float32(255)).astype(np.uint8)
    found = f"{what}: floating-point values are taken as 0 to 1, these are {low:.4g} to {high:.4g}"
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{found}; replace what is not finite: np.nan_to_num(image).")
    if low < 0:
        raise UserError(
            f"{found}; pass the photograph before it was normalised, the model does that itself."
        )
    if high <= 255:
        raise UserError(f"{found}; pass image.astype('uint8') if white is 255.")
    raise UserError(f"{found}; pass image / {high:.4g} if that is white.")
