"""Logs a training to MLflow, as a callback."""

import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fastfcn_jax import files, stored
from fastfcn_jax.config import schema
from fastfcn_jax.errors import UserError
from fastfcn_jax.files import first_line
from fastfcn_jax.training.callbacks import FAILED, FINISHED, Callback
from fastfcn_jax.training.sinks import scalars

EXPERIMENT = "fastfcn_jax"
LONGEST = 6000  # characters of a parameter's value that MLflow takes
AT_ONCE = 100  # parameters, or a tenth of the metrics, that it takes in a request
KEPT = "mlflow.json"  # in the workdir: which run goes on when the training does


class MLflow(Callback):
    """Logs every number of every record to an MLflow run, which is resumed with the training.

    The server is that of the variable MLFLOW_TRACKING_URI, the experiment `fastfcn_jax` unless
    MLFLOW_EXPERIMENT_NAME says another.

    Raises:
      UserError: the package is not installed, or the server does not answer.
    """

    def __init__(self, workdir: Path, config: ConfigDict, *, resumes: bool):
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
            from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise UserError(
                "config.train.mlflow needs the package: pip install 'fastfcn-jax[mlflow]', or set "
                "it to False."
            ) from error
        self._metric, self._param = Metric, Param
        try:
            self._client = MlflowClient()
            resumed = self._resumed(workdir) if resumes else None
            name = MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT
            self._run = resumed or self._created(name, workdir.absolute().name, config)
            files.write_json(workdir / KEPT, {"run": self._run})
        except (MlflowException, ImportError) as error:  # ImportError: that store's packages
            raise UserError(
                f"config.train.mlflow: {first_line(error)[:300]} Set MLFLOW_TRACKING_URI to the "
                "address of an MLflow server, or config.train.mlflow to False."
            ) from error

    def _resumed(self, workdir: Path) -> str | None:
        """The run of this workdir; None if the server does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            run = stored.read(workdir / KEPT, {"run": str}, "a new MLflow run is made")["run"]
            self._client.update_run(run, status="RUNNING")
        except (UserError, MlflowException):
            return None
        return run

    def _created(self, experiment: str, name: str, config: ConfigDict) -> str:
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        run = self._client.create_run(place, run_name=name).info.run_id
        settings = [self._param(key, str(value)[:LONGEST]) for key, value in schema.flatten(config)]
        for start in range(0, len(settings), AT_ONCE):
            self._client.log_batch(run, params=settings[start : start + AT_ONCE])
        return run

    def on_log(self, record: dict[str, Any]) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._metric(_name(name), float(value), now, record["step"])
            for name, value in scalars(record)
        ]
        for start in range(0, len(metrics), 10 * AT_ONCE):
            self._client.log_batch(self._run, metrics=metrics[start : start + 10 * AT_ONCE])

    on_validation = on_log

    def on_end(self, step: int, outcome: str) -> None:
        status = {FINISHED: "FINISHED", FAILED: "FAILED"}.get(outcome, "KILLED")
        self._client.set_terminated(self._run, status)


def _name(name: str) -> str:
    """A metric's name with the characters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]
