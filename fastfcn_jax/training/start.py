"""Starts a training: determinism and processes are seen to before JAX computes, then the loop."""

from pathlib import Path

from ml_collections import ConfigDict

from fastfcn_jax import runtime
from fastfcn_jax.config import experiment


def train(
    config: str | Path | ConfigDict,
    workdir: str | Path,
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> int:
    """Trains an experiment to its last step; called again with the same workdir, it goes on.

    Args:
      config: a configuration, or the name or file of one.
      workdir: folder for checkpoints, metrics.jsonl, model.json, run.json, report and pictures.
      coordinator: "host:port" of process 0 where several train together; then
        `num_processes` and `process_id` too. Slurm and Open MPI need none of them.

    Returns:
      The exit status: 0, or where a signal ended the training 128 and its number (Ctrl-C: 130).

    Raises:
      UserError: data, workdir or configuration are at fault, or the loss is not finite.
    """
    if not isinstance(config, ConfigDict):
        config = experiment.load(str(config))
    if config.train.deterministic:
        runtime.make_deterministic()
    runtime.join_processes(coordinator, num_processes, process_id)
    from fastfcn_jax.training import loop  # JAX may start only now

    return loop.train(config, Path(workdir).expanduser())


def default_workdir(spec: str) -> Path:
    """`runs/<configuration>[-variant]` of what was given as --config."""
    file, _, variant = spec.partition(":")
    name = Path(file).stem
    if name == "fastfcn_config":  # the doctor's, of the same name in every folder of photographs
        name = Path(file).absolute().parent.name
    return Path("runs") / "-".join(filter(None, (name, variant)))
