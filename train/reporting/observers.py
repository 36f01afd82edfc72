"""Everything that receives what a run measures: metrics.jsonl, report, loggers and callbacks."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from train.engine.callbacks import Callback
from train.engine.evaluation import Evaluated
from train.engine.experiment import Experiment
from train.engine.profiling import Profiler
from train.reporting import task_reports
from train.reporting.console import Console
from train.reporting.loggers.fan_out import Loggers
from train.reporting.plots import Pictures
from train.reporting.report.run_report import NUM_SAMPLES, LiveReport
from train.reporting.result_lines import result_lines
from train.reporting.time_estimate import TimeEstimate
from train.runtime.errors import RunError
from train.workdir.metrics_log import MetricsLog, has_metrics


class Observers(contextlib.ExitStack):
    """Output of the primary process; exceptions of callbacks end the run, those of loggers do not.

    Args:
      experiment: the run.
      start: the step from which it continues.
      console: for warnings.
      callbacks: callbacks of a training that was started from Python.

    Raises:
      RunError: metrics.jsonl cannot be read or written.
    """

    def __init__(
        self,
        experiment: Experiment,
        start: int,
        console: Console,
        callbacks: Sequence[Callback] = (),
    ):
        super().__init__()
        config, workdir = experiment.config, experiment.workdir
        self._metrics_log = self.enter_context(MetricsLog(workdir, start, console.warn))
        self._loggers = self.enter_context(Loggers(config, workdir, start, console))
        self._report = LiveReport(workdir, console.warn, experiment.findings)
        stop, images = config.stop, experiment.batch_sizes.train
        may_stop = bool(stop.patience or stop.minutes)
        self._time_estimate = TimeEstimate(console, experiment.intervals, images, may_stop)
        profiler = Profiler(config.log.profile_steps, start, workdir, console.info, console.warn)
        self._profiler = self.enter_context(profiler)
        self._workdir = workdir
        self._callbacks, self._console, self._is_smoke = callbacks, console, config.smoke
        # Of the newest evaluation; computed once for the report and the cautions.
        self._get_metrics: Callable[[], Any] | None = None
        self._get_evaluation: Callable[[], Evaluated] | None = None

    def before_step(self, call: range, state: Any) -> None:
        """Prepare for the steps of ``call``, counted from 0."""
        self._profiler.before(call, state)

    def after_step(self, call: range, metrics: Any) -> bool:
        """Return whether something took long after the steps of ``call``, which may still run."""
        took_long = self._profiler.after(call, metrics)
        self._time_estimate.after(call)
        for callback in self._callbacks:
            callback.on_step(call.stop)
        return took_long

    def log(self, row: dict[str, float]) -> None:
        """Write a row of metrics, if it has any."""
        if has_metrics(row):
            self._metrics_log.write(row)
            self._loggers.log(row)

    def draw_samples(self, take: Callable[[], Pictures]) -> None:
        """Show the training images that ``take`` returns."""

        def take_and_log() -> Pictures:
            pictures = take()
            first = pictures.images[:NUM_SAMPLES], pictures.captions[:NUM_SAMPLES]
            self._loggers.samples(*first)
            return pictures

        self._report.draw_samples(take_and_log)

    def set_evaluation(self, get: Callable[[], Evaluated]) -> None:
        """Set the newest evaluation; ``get`` is called when the report is next written."""
        self._get_evaluation = get = functools.cache(get)
        self._get_metrics = functools.cache(lambda: task_reports.task_report(get()).compute(get()))

        def get_and_log() -> Evaluated:
            evaluated = get()
            self._loggers.evaluated(evaluated)
            return evaluated

        self._report.set_evaluation(get_and_log, self._get_metrics)

    def update(self, row: dict[str, float], evaluation: dict[str, Any] | None, force: bool) -> None:
        """Write the report if the last one is old, or ``force``, and call the callbacks."""
        self._report.update(force)
        for callback in self._callbacks:
            callback.on_log(row)
            if evaluation is not None:
                callback.on_evaluation(row["step"], evaluation)

    def finish(self, result: dict[str, Any]) -> None:
        """Log the result of the complete run, and warn if it is worse than it looks."""
        if self._get_evaluation is not None:
            self._store_predictions(self._get_evaluation())
        if self._get_evaluation is not None and not self._is_smoke:
            evaluated, report = self._get_evaluation(), task_reports.task_report
            for text in report(evaluated).cautions(evaluated.result, self._get_metrics()):
                self._console.warn(text)
            self._print_result(result, evaluated)
        self._loggers.finish(result)
        for callback in self._callbacks:
            callback.on_end(result)

    def _store_predictions(self, evaluated: Evaluated) -> None:
        """Keep the predictions of the last evaluation, for comparisons with other runs."""
        source, step = evaluated.loader.source, evaluated.result["step"]
        try:
            store = task_reports.task_report(evaluated).store
            store(self._workdir, step, evaluated.predictions, source)
        except RunError as error:
            self._console.warn(error)

    def _print_result(self, result: dict[str, Any], evaluated: Evaluated) -> None:
        intervals = self._get_metrics().intervals
        for line in result_lines(self._workdir, result, evaluated, intervals):
            self._console.info(line)
