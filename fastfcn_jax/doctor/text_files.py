"""Text files as other programs write them: with a byte order mark, in UTF-16, in cp1252."""

from pathlib import Path

from fastfcn_jax.data.source import read_file


def read_text(path: Path) -> str:
    data = read_file(str(path))
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")
