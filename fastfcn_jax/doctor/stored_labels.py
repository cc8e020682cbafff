"""Reads label files in all the forms that programs write, and summarises their values."""

import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from fastfcn_jax.data import decode
from fastfcn_jax.data.source import read_file
from fastfcn_jax.errors import UserError

Value = int | tuple[int, int, int]
Kind = Literal["grey", "palette", "color"]
MAX_KEPT = 1024  # distinct values counted per label; an intact label has fewer


class Stored(NamedTuple):
    """Values of a label, (h, w) for numbers or (h, w, 3) for colours.

    transparent: pixels whose alpha is 0, or None; palette: the colours of a palette image;
    is_plain: whether training reads the same values directly from the file.
    """

    kind: Kind
    pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]
    transparent: Bool[np.ndarray, "h w"] | None
    palette: UInt8[np.ndarray, "n 3"] | None
    is_plain: bool


class Facts(NamedTuple):
    """Statistics of one label.

    counts: pixels of each value; solid: those whose four neighbours have the same value, which
    never happens on smooth edges; rest: pixels of values beyond the `MAX_KEPT` most frequent;
    transparent: pixels whose alpha is 0, not counted elsewhere.
    """

    kind: Kind
    counts: dict[Value, int]
    solid: dict[Value, int]
    rest: int
    transparent: int
    palette: dict[int, tuple[int, int, int]]
    is_plain: bool


def read(path: Path) -> Stored:
    """Reads a label in any of the forms; of an animated GIF, the first frame.

    Raises:
      UserError: the file is empty, truncated, damaged, not an image, or has values above 255.
    """
    data = read_file(str(path))
    picture = _opened(data)
    bits = _grey_bits(data)
    is_wide = picture is not None and picture.mode.startswith("I")  # 16 or 32 bits
    if picture is None or not (
        is_wide or picture.format == "GIF" or picture.mode in ("1", "LA", "RGBA") or bits < 8
    ):
        pixels = decode.label(data, str(path))
        palette = None if picture is None or picture.mode != "P" else _palette(picture)
        if palette is None or pixels.ndim == 3:
            return Stored("grey" if pixels.ndim == 2 else "color", pixels, None, None, True)
        return Stored("palette", pixels, None, palette, True)
    if picture.format != "GIF":
        decode.image(data, str(path))  # raises UserError if the file is damaged
    try:
        if is_wide:
            return Stored("grey", _narrowed(np.array(picture), path), None, None, False)
        return _by_pillow(picture, bits)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a picture; replace the file.") from error


def facts(stored: Stored) -> Facts:
    """Counts the values of a label."""
    code = codes(stored.pixels)
    visible = np.ones(code.shape, bool) if stored.transparent is None else ~stored.transparent
    found, counts = np.unique(code[visible], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_KEPT]
    found_solid, solid = np.unique(code[_is_solid(code) & visible], return_counts=True)
    inside = dict(zip(found_solid.tolist(), solid.tolist(), strict=True))
    kept = [(int(found[i]), int(counts[i])) for i in order]
    name = color_of if stored.kind == "color" else int
    palette = {}
    if stored.palette is not None:
        rows = stored.palette
        palette = {v: tuple(rows[v].tolist()) for v, _ in kept if v < len(rows)}
    return Facts(
        kind=stored.kind,
        counts={name(v): n for v, n in sorted(kept)},
        solid={name(v): inside.get(v, 0) for v, _ in kept},
        rest=int(counts.sum()) - sum(n for _, n in kept),
        transparent=int((~visible).sum()),
        palette=palette,
        is_plain=stored.is_plain,
    )


def codes(pixels: np.ndarray) -> Shaped[np.ndarray, "h w"]:
    """One number per pixel: the value itself, or red, green and blue in three bytes."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[..., i].astype(np.uint32) for i in range(3))
    return red << 16 | green << 8 | blue


def color_of(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def code_of(value: Value) -> int:
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def _is_solid(code: np.ndarray) -> np.ndarray:
    """Pixels, except at the border, whose four neighbours have the same value."""
    solid = np.zeros(code.shape, bool)
    centre = code[1:-1, 1:-1]
    solid[1:-1, 1:-1] = (
        (centre == code[:-2, 1:-1])
        & (centre == code[2:, 1:-1])
        & (centre == code[1:-1, :-2])
        & (centre == code[1:-1, 2:])
    )
    return solid


def _opened(data: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError):
        return None


def _grey_bits(data: bytes) -> int:
    """Bits per pixel of a grey PNG (training reads only 8); 8 for any other file."""
    is_grey_png = data.startswith(b"\x89PNG") and len(data) > 25 and data[25] == 0
    return data[24] if is_grey_png else 8


def _palette(picture: Image.Image) -> np.ndarray:
    return np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)


def _narrowed(values: np.ndarray, path: Path) -> UInt8[np.ndarray, "h w"]:
    """The values of a label of 16 or 32 bits as bytes, which most such labels fit into."""
    if values.min() < 0 or values.max() > 255:
        raise UserError(
            f"{path}: a 16-bit label with values from {values.min()} to {values.max()}; store one "
            "class number per pixel, 0 to 255."
        )
    return values.astype(np.uint8)


def _by_pillow(picture: Image.Image, bits: int) -> Stored:
    """Reads labels with alpha or fewer bits, and GIF, whose palette differs from file to file."""
    if picture.format == "GIF":
        colors = np.array(picture.convert("RGB"), np.uint8)
        if (colors == colors[..., :1]).all():
            return Stored("grey", colors[..., 0], None, None, False)
        return Stored("color", colors, None, None, False)
    pixels = np.array(picture, np.uint8)
    if pixels.ndim == 2:  # Pillow scales 2 and 4 bits to 0..255
        return Stored("grey", pixels // {2: 85, 4: 17}.get(bits, 1), None, None, False)
    alpha, values = pixels[..., -1], pixels[..., :-1]
    transparent = alpha == 0
    is_alike = bool(not transparent.any() or transparent.all())
    if values.shape[2] == 1:
        return Stored("grey", values[..., 0], None if is_alike else transparent, None, False)
    values = np.ascontiguousarray(values)
    return Stored("color", values, None if is_alike else transparent, None, is_alike)
