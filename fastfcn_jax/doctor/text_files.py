"""Reads text files that may describe a folder; unreadable ones are ignored."""

from pathlib import Path

from fastfcn_jax import text
from fastfcn_jax.errors import UserError


def lines(path: Path) -> list[str]:
    """The lines of a file, stripped, without empty ones; none if it is not UTF-8 text."""
    try:
        return [x.strip() for x in text.lines(text.read(path)) if x.strip()]
    except UserError:
        return []
