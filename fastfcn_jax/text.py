"""Reads the user's text files as UTF-8, and writes file names of any bytes as valid text."""

import codecs
import re
from pathlib import Path

from fastfcn_jax.errors import UserError

_MARKS = {  # UTF-32 first: its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = 0xDC00  # Python decodes a byte that is not UTF-8 as this code point plus the byte
MAX_BYTES = 1 << 26  # larger than any list or table meant for people


def read(path: Path) -> str:
    """Reads a UTF-8 text file, with or without a byte order mark.

    Raises:
      UserError: the file cannot be read, is not UTF-8, or is larger than 64 MiB.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror}).") from error
    if len(data) > MAX_BYTES:
        raise UserError(f"{shown(path)}: larger than {MAX_BYTES >> 20} MiB; is it a text file?")
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{shown(path)}: is in {encoding}; save it as UTF-8.")
    if b"\0" in data:
        raise UserError(f"{shown(path)}: holds zero bytes, as UTF-16 does; save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{shown(path)}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8 (perhaps "
            "cp1252 or Latin-1); save the file as UTF-8."
        ) from error


def lines(text: str) -> list[str]:
    """Splits text at line feeds only; names may contain other separators of `str.splitlines`."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def shown(text: object) -> str:
    """Makes text encodable: a byte of a file name that is not UTF-8 becomes `\\xdf`."""
    return _SURROGATE.sub(_spelled, str(text))


def escaped(name: str) -> str:
    r"""Writes a file name on one line of text; `unescaped` reverses it.

    Bytes that are not UTF-8, control characters and backslashes become `\xdf`.
    """
    return re.sub("[\ud800-\udfff\\x00-\\x1f\\x7f\\\\]", _spelled, name)


def unescaped(text: str) -> str:
    """Returns the file name that was passed to `escaped`."""
    return _ESCAPE.sub(_unspelled, text)


def _spelled(match: re.Match) -> str:
    code = ord(match[0])
    byte = code - _BYTE if _BYTE + 0x80 <= code <= _BYTE + 0xFF else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"


def _unspelled(match: re.Match) -> str:
    byte = int(match[1], 16)
    return chr(byte if byte < 0x80 else _BYTE + byte)
