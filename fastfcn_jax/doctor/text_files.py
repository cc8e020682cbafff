"""Text files that may say something about a folder, of which none has to be readable."""

from pathlib import Path

from fastfcn_jax import text
from fastfcn_jax.errors import UserError


def lines(path: Path) -> list[str]:
    """The lines of a file without blanks around them; none if it is no text in UTF-8."""
    try:
        return [x.strip() for x in text.lines(text.read(path)) if x.strip()]
    except UserError:
        return []
