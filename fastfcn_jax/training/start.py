"""Starts a training: sets up determinism and processes before JAX computes, then runs the loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax import peers, provenance, runtime
from fastfcn_jax.config import experiment


def train(
    config: str | Path | ConfigDict,
    workdir: str | Path,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    callbacks: Sequence[Any] = (),
) -> int:
    """Trains an experiment to its last step; a second call with the same workdir resumes it.

    Args:
      config: a configuration, or its name or file.
      workdir: folder for checkpoints, metrics.jsonl, model.json, run.json, report and pictures.
      coordinator: "host:port" of process 0 if several processes train together; needs
        `num_processes` and `process_id` too. All three may be left out under Slurm and Open MPI.
      num_processes: how many processes train together.
      process_id: index of this process, from 0.
      callbacks: objects that are told when the training starts, logs, validates, saves and ends;
        see `fastfcn_jax.Callback`.

    Returns:
      The exit status: 0, or 128 plus the signal's number if a signal ended the training
      (Ctrl-C: 130). A job of several processes that has lost one does not return: the others
      end with status 75, see `peers.watch`.

    Raises:
      UserError: the data, workdir or configuration are invalid, or the loss is not finite.
    """
    if not isinstance(config, ConfigDict):
        config = experiment.load(str(config))
    if config.train.deterministic:
        runtime.make_deterministic()
    relay = runtime.join_processes(coordinator, num_processes, process_id)
    from fastfcn_jax.training import loop  # after the settings above, which must precede JAX

    advice = (
        "the training goes on from its last checkpoint when all processes are started again, "
        f"this one by: {provenance.command()}"
    )
    with peers.watch(advice, relay):
        return loop.train(config, Path(workdir).expanduser(), callbacks)


def default_workdir(spec: str) -> Path:
    """Returns `runs/<configuration>[-variant]` for the value of --config."""
    file, _, variant = spec.partition(":")
    name = Path(file).stem
    if name == "fastfcn_config":  # `fastfcn doctor` gives its configurations the same name
        name = Path(file).absolute().parent.name
    return Path("runs") / "-".join(filter(None, (name, variant)))
