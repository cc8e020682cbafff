"""Collects files that cannot be used while all are read; then refuses or leaves out all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastfcn_jax.errors import UserError


class BadFile(NamedTuple):
    """A file, with a sentence that says what is wrong with it and how to repair it."""

    path: Path
    sentence: str


def settle(bad: Sequence[BadFile], *, skip: bool) -> list[str]:
    """Lines about the files that are left out.

    Raises:
      UserError: there are bad files and `skip` is not set; it names all of them.
    """
    if not bad:
        return []
    if skip:
        lines = [f"  {b.sentence.rstrip('.')}" for b in bad]
        return [f"left out, as --skip_bad says: {counted(len(bad), 'bad file')}", *lines]
    if len(bad) == 1:
        raise UserError(f"{bad[0].sentence.rstrip('.')} (or leave it out with --skip_bad).")
    listed = "\n  ".join(b.sentence for b in bad)
    remedy = "repair them, or leave them out with --skip_bad"
    raise UserError(f"{len(bad)} files cannot be used; {remedy}:\n  {listed}")


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
