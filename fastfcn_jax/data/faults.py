"""Names the format of a file that is not supported: often it is intact, only of another kind."""

from fastfcn_jax.data import exif

_SIGNATURES = {
    b"%PDF": "a PDF document",
    b"8BPS": "a Photoshop document",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"BPG\xfb": "a BPG picture",
    b"<svg": "an SVG drawing",
    b"\x93NUMPY": "a NumPy array",
}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "a HEIC picture"),
    **dict.fromkeys((b"mif1", b"msf1"), "a HEIF picture"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF picture"),
}
_BITS, _BANDS, _SAMPLES = 258, 277, 339  # tags of a TIFF
_FLOAT, _COMPLEX = 3, (5, 6)


def reason(data: bytes) -> str:
    """What the file is, e.g. `a HEIC picture`; "" if its format is not recognised."""
    for start, what in _SIGNATURES.items():
        if data.startswith(start):
            return what
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video or a picture in a video's format")
    if data[:4] in exif.TIFF:
        return _kind_of_tiff(data)
    return ""


def tiff_kind(data: bytes) -> tuple[int, bool]:
    """Bands of a TIFF, and whether they are floating-point numbers; (0, False) for other files."""
    found = _numbers(data)
    return found.get(_BANDS, 1 if found else 0), found.get(_SAMPLES) == _FLOAT


def _kind_of_tiff(data: bytes) -> str:
    found = _numbers(data)
    bits, bands = found.get(_BITS, 1), found.get(_BANDS, 1)
    if bands > 4:
        return f"a TIFF of {bands} bands"
    if found.get(_SAMPLES) == _FLOAT:
        return f"a TIFF of {bits}-bit floating-point numbers"
    if found.get(_SAMPLES) in _COMPLEX:
        return "a TIFF of complex numbers"
    return f"a TIFF of {bits} bits per sample" if bits not in (8, 16) else ""


def _numbers(data: bytes) -> dict[int, int]:
    """The first value of every tag of a TIFF."""
    order = "little" if data.startswith(b"II") else "big"
    found = {}
    for entry in exif.entries(data):
        value, size = entry.value, 2 * entry.count
        if entry.tag in (_BITS, _SAMPLES) and size > 4:  # `value` is the values' offset
            place = int.from_bytes(value, order)
            value = data[place : place + 2]
        found[entry.tag] = int.from_bytes(value[:2], order)
    return found
