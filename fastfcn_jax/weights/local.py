"""Where weights are cached on this machine, and whether the network may be used."""

import os
from pathlib import Path


def cache() -> Path:
    """`$XDG_CACHE_HOME/fastfcn_jax/weights` (`~/.cache/...`); it may not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastfcn_jax" / "weights"


def is_offline(asked: bool = False) -> bool:
    """Whether the network must not be used."""
    return asked or os.environ.get("FASTFCN_OFFLINE", "0").lower() not in ("", "0", "false", "no")
