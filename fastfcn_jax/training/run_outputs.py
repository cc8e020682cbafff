"""Opens the log of a run and everything else that its records go to."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from fastfcn_jax import files, provenance
from fastfcn_jax.checkpoints import model_folder
from fastfcn_jax.data.source import Source
from fastfcn_jax.terminal import notebook
from fastfcn_jax.training import metrics_log, mlflow_tracker, run_card, sinks
from fastfcn_jax.training.callbacks import Callback


class Outputs(NamedTuple):
    """The log of a run, the other sinks of its records, and trackers that are callbacks."""

    records: metrics_log.Records
    tensorboard: sinks.TensorBoard | None
    extra: list[Any]
    trackers: list[Callback]


def open_outputs(
    config: ConfigDict,
    workdir: Path,
    source: Source,
    card: dict[str, Any],
    start: int,
    curves: notebook.Curves | None,
) -> Outputs:
    """Opens them; processes other than the first get the log alone, and do not write it.

    Args:
      card: what run.json will hold.
      start: the step that training begins or resumes from.
      curves: in a notebook, its display.

    Raises:
      UserError: a package is missing, a tracker does not answer, or a file cannot be written.
    """
    writes = jax.process_index() == 0
    extra = [sinks.WandB(workdir, card["config"])] if writes and config.train.wandb else []
    extra += [] if curves is None else [curves]
    trackers: list[Callback] = []
    if writes and config.train.mlflow:
        trackers.append(mlflow_tracker.MLflow(workdir, config, resumes=start > 0))
    if writes:
        run_card.write(workdir, card, start)
        info = model_folder.model_card(config, source.info, provenance.versions())
        files.write_json(workdir / "model.json", info)
    tensorboard = sinks.TensorBoard(workdir / "tensorboard", start_step=start) if writes else None
    records = metrics_log.Records(
        workdir / "metrics.jsonl",
        start_step=start,
        writes=writes,
        sinks=[sink for sink in (tensorboard, *extra) if sink is not None],
    )
    if curves is not None:
        for record in records.kept:
            curves(record)
    return Outputs(records, tensorboard, extra, trackers)
