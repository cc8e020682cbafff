"""Share I of N of some work, as it is written on a command line."""

import re

from fastfcn_jax.errors import UserError


def parse(words: str) -> tuple[int, int]:
    """(index, count) of the share written as "I/N", counted from 0.

    Raises:
      UserError: it is something else, or I is not 0 to N - 1.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", words, re.ASCII)
    if not found or int(found[1]) >= int(found[2]):
        count = int(found[2]) if found else 0
        listed = f": 0/{count} to {count - 1}/{count}" if count else ""
        raise UserError(f"--shard {words}: write I/N, share I of N counted from 0{listed}.")
    return int(found[1]), int(found[2])
