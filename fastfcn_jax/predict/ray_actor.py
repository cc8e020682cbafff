"""What works on a Ray cluster for `predict --ray`: a model on its device, which labels batches."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastfcn_jax import ray_cluster
from fastfcn_jax.errors import UserError
from fastfcn_jax.predict import outputs, ray_rows, tiled
from fastfcn_jax.predict.inputs import Photograph
from fastfcn_jax.predict.manifest import Call, Records
from fastfcn_jax.predict.settings import Settings
from fastfcn_jax.predict.unfinished import Earlier
from fastfcn_jax.predict.writer import Writer


class Labeller:
    """Labels the photographs of a table and writes their results, as `outputs.predict` does.

    Args:
      load: returns the model.
      checksum: returns its checksum, which has to be that of `call`.
      folder: of the results, the same one on all nodes.
      sizes: of images, for which padded sizes are planned.
      skips: whether to leave out what is done already; False if the driver has done so.
      given: what Ray gives to the actor.
    """

    def __init__(
        self,
        load: Callable[[], Any],
        checksum: Callable[[Any], str],
        folder: Path,
        call: Call,
        settings: Settings,
        sizes: Sequence[tuple[int, int]],
        skips: bool,
        given: ray_cluster.Workers,
    ):
        self._call, self._settings = call, settings
        self._refusal = ""
        try:
            self._prepare(load, checksum, folder, sizes, skips, given)
        except UserError as error:  # told with the first table: Ray repeats a failed constructor
            self._refusal = f"{platform.node()}: {error}"

    def _prepare(self, load, checksum, folder, sizes, skips, given) -> None:
        ray_cluster.use_device(given)
        if not os.path.isfile(folder / "predictions.jsonl"):
            raise UserError(f"--output {folder}: not seen here; give a folder that all nodes see.")
        self._model = load()
        if checksum(self._model) != self._call.model:
            raise UserError("the model here is another one; give one that all nodes see.")
        if sizes:
            self._model.predictor.expect(sizes)
        self._writer = Writer(folder, self._model.info, self._settings)
        self._earlier = Earlier(self._writer, self._call) if skips else None

    def __call__(self, table: Any) -> dict[str, list[str]]:
        """The records of the photographs, as JSON; those left out give an empty one."""
        if self._refusal:
            return {"record": [""], ray_cluster.REFUSED: [self._refusal]}
        records = Records(self._call)
        photographs, skipped = [], 0
        for row in ray_rows.photographs(table, self._settings):
            if isinstance(row, Photograph):
                if self._earlier is not None and self._earlier.made(row):
                    skipped += 1
                else:
                    photographs.append(row)
            else:
                records.failed(*row)
        step = tiled.predict if self._settings.tile else outputs.predict_photographs
        step(self._model, photographs, self._writer, records)
        lines = [json.dumps(record) for record in records.lines] + [""] * skipped
        return {"record": lines, ray_cluster.REFUSED: [""] * len(lines)}
