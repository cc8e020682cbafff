"""Sinks of records besides metrics.jsonl: TensorBoard, and optionally Weights & Biases."""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.errors import UserError


class TensorBoard:
    """Writes scalars of every record, per-class IoU, and prediction pictures.

    Events are written directly: tensorboardX's `SummaryWriter` passes them to a thread, which dies
    on a full disk, and training would wait for it forever.

    Every call raises OSError if the disk is full or cannot be written.
    """

    def __init__(self, folder: Path, *, start_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._events, self._proto, self._summaries = _tensorboardx()
        self._writer = self._events.EventsWriter(str(folder / "events"))
        if start_step:  # makes TensorBoard hide steps written after the checkpoint
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            self._add(start_step + 1, session_log=start)

    def __call__(self, record: Mapping[str, Any]) -> None:
        values = [
            self._summaries.Summary.Value(tag=name.replace(" ", "_"), simple_value=value)
            for name, value in scalars(record)
        ]
        self._add(record["step"], summary=self._summaries.Summary(value=values))
        self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        height, width, channels = image.shape
        picture = self._summaries.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png
        )
        value = self._summaries.Summary.Value(tag=f"predictions/{name}", image=picture)
        self._add(step, summary=self._summaries.Summary(value=[value]))

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._proto.Event(wall_time=time.time(), step=step, **content))


class WandB:
    """Logs the same scalars to a Weights & Biases run, which is resumed with the training.

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
    """Yields (tag, value) for every number in a record.

    IoU per class is eval/IoU/<class>; the foreground's scores are eval/foreground/<score>.
    """
    for name, value in record.items():
        if name not in ("kind", "step") and isinstance(value, int | float):
            yield f"{record['kind']}/{name}", value
    for name, value in record.get("foreground", {}).items():
        if isinstance(value, float):
            yield f"eval/foreground/{name}", value
    for name, scores in record.get("per_class", {}).items():
        if scores["IoU"] is not None:
            yield f"eval/IoU/{name}", scores["IoU"]


def _tensorboardx():
    """Imports tensorboardX's event files and message types without PyTorch.

    If PyTorch is installed, tensorboardX imports it, which takes seconds but is
    not needed.
    """
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2, summary_pb2
    finally:
        if hide:
            del sys.modules["torch"]
    return event_file_writer, event_pb2, summary_pb2
