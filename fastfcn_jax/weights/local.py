"""Where weights are cached on this machine, and whether the network may be used."""

import os
from pathlib import Path


def cache() -> Path:
    """`$XDG_CACHE_HOME/fastfcn_jax/weights` (`~/.cache/...`); it may not exist yet."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastfcn_jax" / "weights"


def in_hub_cache(repository: str, file: str) -> Path | None:
    """A file that the Hugging Face hub's library has fetched (`HF_HUB_CACHE`, `HF_HOME`)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("HF_HOME") or base / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = hub / f"models--{repository.replace('/', '--')}" / "snapshots"
    return max(snapshots.glob(f"*/{file}"), default=None)


def is_offline(asked: bool = False) -> bool:
    """Whether the network must not be used."""
    return asked or os.environ.get("FASTFCN_OFFLINE", "0").lower() not in ("", "0", "false", "no")
