"""Where weights are cached on this machine, and whether the network may be used."""

import os
from pathlib import Path

from fastfcn_jax import files


def cache() -> Path:
    """`$XDG_CACHE_HOME/fastfcn_jax/weights` (`~/.cache/...`); it may not exist yet."""
    return files.cache_folder() / "weights"


def in_hub_cache(repository: str, file: str) -> Path | None:
    """A file that the Hugging Face hub's library has fetched (`HF_HUB_CACHE`, `HF_HOME`)."""
    home = Path(os.environ.get("HF_HOME") or files.cache_home() / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    snapshots = hub / f"models--{repository.replace('/', '--')}" / "snapshots"
    return max(snapshots.glob(f"*/{file}"), default=None)


def is_offline(asked: bool = False) -> bool:
    """Whether the network must not be used."""
    return asked or os.environ.get("FASTFCN_OFFLINE", "0").lower() not in ("", "0", "false", "no")
