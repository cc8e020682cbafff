"""Writes a `.pth` file that a lineage's PyTorch code loads; the only module that needs PyTorch."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastfcn_jax import files
from fastfcn_jax.data.source import DatasetInfo
from fastfcn_jax.errors import UserError


def write(path: Path, tensors: Mapping[str, np.ndarray], lineage: str, info: DatasetInfo) -> None:
    """Writes the state dict and the metadata that the lineage's own code reads.

    mmsegmentation's `init_model` takes class names and palette from `meta.dataset_meta`; the
    official code reads `epoch` and `best_pred`.

    Raises:
      UserError: PyTorch is not installed, or the file cannot be written.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("writing a .pth file needs PyTorch: pip install torch.") from error
    state = OrderedDict((n, torch.tensor(t)) for n, t in tensors.items())
    content: dict[str, Any] = {"state_dict": state}
    if lineage == "official":
        content |= {"epoch": 0, "best_pred": 0.0}
    else:
        palette = np.asarray(info.palette).tolist()
        content["meta"] = {"dataset_meta": {"classes": info.class_names, "palette": palette}}
    buffer = io.BytesIO()  # on a full disk, torch.save to a file raises an unrelated error
    torch.save(content, buffer)
    with files.replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
