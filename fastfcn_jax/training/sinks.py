"""Where records go besides metrics.jsonl: TensorBoard, and Weights & Biases on request."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.errors import UserError


class TensorBoard:
    """Scalars of every record, per-class IoU, and prediction pictures."""

    def __init__(self, folder: Path, *, start_step: int):
        writer = _summary_writer()
        # What an interrupted run wrote beyond its checkpoint is hidden by the purge.
        self._writer = writer(str(folder), purge_step=start_step + 1 if start_step else None)

    def __call__(self, record: Mapping[str, Any]) -> None:
        for name, value in scalars(record):
            self._writer.add_scalar(name, value, record["step"])
        if record["kind"] == "eval":
            self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        self._writer.add_image(f"predictions/{name}", image, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WandB:
    """The same scalars as a Weights & Biases run that goes on when training resumes.

    Raises:
      UserError: the package is not installed.
    """

    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                "config.train.wandb needs the package: pip install wandb, or set it to False."
            ) from error
        self._run = wandb.init(
            project="fastfcn_jax",
            id=workdir.absolute().name,
            resume="allow",
            dir=workdir,
            config=dict(config),
        )

    def __call__(self, record: Mapping[str, Any]) -> None:
        self._run.log(dict(scalars(record)), step=record["step"])

    def close(self) -> None:
        self._run.finish()


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of every number in a record; classes as eval/IoU/<class>."""
    for name, value in record.items():
        if name not in ("kind", "step") and isinstance(value, int | float):
            yield f"{record['kind']}/{name}", value
    for name, scores in record.get("per_class", {}).items():
        if scores["IoU"] is not None:
            yield f"eval/IoU/{name}", scores["IoU"]


def _summary_writer():
    """tensorboardX's writer, imported without PyTorch.

    Where PyTorch is installed tensorboardX imports it, for seconds of start-up;
    where it is absent it does without.
    """
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hide:
            del sys.modules["torch"]
    return SummaryWriter
