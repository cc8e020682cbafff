"""FastFCN in JAX: semantic segmentation with Joint Pyramid Upsampling (arXiv 1903.11816).

import fastfcn_jax
model = fastfcn_jax.load("runs/demo")
labels = model("photo.jpg")  # class indices, uint8 (height, width)

Importing this reads no configuration and starts no device; the first call does.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastfcn_jax.api import Model, build, load, load_pth

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "build", "load", "load_pth"]


def __getattr__(name: str):
    # Late, so that `python -m fastfcn_jax.config` and bad flags do not wait for JAX.
    if name in ("Model", "build", "load", "load_pth"):
        from fastfcn_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'fastfcn_jax' has no attribute {name!r}")
