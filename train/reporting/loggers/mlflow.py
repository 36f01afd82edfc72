"""MLflow: parameters, metrics and the report."""

import json
import os
import time
from typing import Any

from train.config.access import flatten
from train.config.registries import register_logger
from train.reporting.loggers.logger import Logger
from train.reporting.loggers.run_ids import read_id, write_id
from train.workdir.metrics_log import read_rows

EXPERIMENT = "flax-resnet"
_MAX_TEXT = 6000  # characters of a parameter; MLflow's limits are in mlflow.utils.validation
_MAX_PARAMS, _MAX_METRICS = 100, 1000  # of a request


@register_logger("mlflow")
class MlflowLogger(Logger):
    """A run of MLflow, which is continued when the run is resumed.

    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` are respected. The default is a file
    store, ``mlruns`` in the current folder; a resumed run finds it from any folder.
    """

    package = "mlflow"

    def start(self, step: int) -> None:
        """Create the run or continue it, and log the parameters and the rows that it lacks."""
        saved = read_id(self.workdir, "mlflow") if step else {}
        uri = os.environ.get("MLFLOW_TRACKING_URI") or saved.get("tracking_uri")
        uri = uri or f"file://{os.path.abspath('mlruns')}"
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # of MLflow 3, or it refuses

        import mlflow  # takes several seconds

        self._mlflow = mlflow
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._start, self._logged = step, {}  # value by name and step, up to the step
        run = self._find_run(saved.get("run_id"))
        if run is None:
            run = self._client.create_run(
                self._experiment(), run_name=os.path.basename(os.path.abspath(self.workdir))
            )
        self._id = run.info.run_id
        write_id(self.workdir, "mlflow", run_id=self._id, tracking_uri=uri)
        self._client.update_run(self._id, status="RUNNING")
        self._client.set_tag(self._id, "workdir", os.path.abspath(self.workdir))
        self._log_parameters(run.data.params)
        for name in run.data.metrics:
            for metric in self._client.get_metric_history(self._id, name):
                self._logged[name, metric.step] = metric.value
        if step:  # those that a process that died had not logged yet
            rows = [row for row in read_rows(self.workdir) if row["step"] <= step]
            self._log_rows(rows)

    def log(self, row: dict[str, float]) -> None:
        """Log a row of metrics."""
        self._log_rows([row])

    def finish(self, result: dict[str, Any]) -> None:
        """Log ``report.html`` as an artifact, and end the run."""
        report = os.path.join(self.workdir, "report.html")
        if os.path.exists(report):
            self._client.log_artifact(self._id, report)
        self._client.set_terminated(self._id, "FINISHED")

    def close(self) -> None:
        """Mark a run that did not finish."""
        if self._client.get_run(self._id).info.status == "RUNNING":
            self._client.set_terminated(self._id, "KILLED")

    def _find_run(self, run_id: str | None) -> Any:
        """Return the run to continue; None if there is none, or it was deleted."""
        try:
            run = self._client.get_run(run_id) if run_id else None
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run and run.info.lifecycle_stage == "active" else None

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if existing := self._client.get_experiment_by_name(name):
            return existing.experiment_id
        return self._client.create_experiment(name)

    def _log_parameters(self, existing: dict[str, str]) -> None:
        """Log the configuration, completely as the artifact ``config.json``."""
        self._client.log_artifact(self._id, os.path.join(self.workdir, "config.json"))
        values = {name: parameter(value) for name, value in flatten(self.config).items()}
        new = [self._mlflow.entities.Param(*item) for item in values.items() - existing.items()]
        changed = [param.key for param in new if param.key in existing]
        new = [param for param in new if param.key not in existing]
        for i in range(0, len(new), _MAX_PARAMS):
            self._client.log_batch(self._id, params=new[i : i + _MAX_PARAMS])
        for key in changed:  # parameters cannot change, but some keys may when a run is resumed
            self._client.set_tag(self._id, f"config.{key}", values[key])

    def _log_rows(self, rows: list[dict[str, float | None]]) -> None:
        now = round(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(name, value, now, row["step"])
            for row in rows
            for name, value in row.items()
            if name not in ("step", "time")
            and value is not None
            # Steps that a resumed run repeats have the same values, except for times.
            and self._logged.get((name, row["step"])) != value
        ]
        for metric in metrics:
            if metric.step <= self._start:
                self._logged[metric.key, metric.step] = metric.value
        for i in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._id, metrics=metrics[i : i + _MAX_METRICS])


def parameter(value: Any) -> str:
    """Return a value of the configuration as a parameter: text unchanged, others as JSON.

    Text with line breaks, which files of parameters cannot hold, is JSON, too. Longer ones than
    MLflow's limit end with an ellipsis.
    """
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
