"""Evaluation of a state on a split: every example counts exactly once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from flax_resnet.calibration import Calibration
from flax_resnet.dense.views import SAME, PictureView
from flax_resnet.resnet import ResNet
from train.data.loader import DataLoader
from train.data.prefetch import Prefetcher
from train.engine.devices import Devices, DispatchThrottle
from train.engine.preemption import with_stop_flag
from train.engine.step import StepConfig, eval_step
from train.runtime.config_dict import ConfigDict
from train.tasks.base import BaseTask


def evaluate(
    task: BaseTask,
    devices: Devices,
    step: Callable,
    state: Any,
    data: Any,
    loader: DataLoader,
    batch_size: int,
    give_up: Callable[[Any], bool] = lambda _: False,
    flag: Callable[[], jax.Array | None] = lambda: None,
    collect: Callable[[dict[str, np.ndarray]], None] = lambda _: None,
    summarize: Callable[[Mapping[str, Any]], dict[str, float]] = lambda _: {},
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> dict[str, float] | None:
    """Evaluate a state on a split.

    Args:
      task: what the network learns.
      devices: the devices on which the compiled ``step`` runs.
      step: ``(state, data, batch, stop) -> sums``, see :func:`make_eval_step`.
      state: the train state, replicated.
      data: the cached arrays of ``loader``, replicated.
      loader: the split.
      batch_size: global evaluation batch size, a multiple of the number of devices.
      give_up: called after each step with the sums of the step that was waited for, or None; if
        it returns true, the evaluation ends without a result.
      flag: returns the next step's ``stop``, see ``preemption.StopAgreement``.
      collect: receives ``per_example`` of every batch in order, if the step returns that.
      summarize: returns the metrics of everything that was collected; receives the sums.
      progress: wraps the iterable of batches, for a progress bar.

    Returns:
      ``examples``, the metrics of the task, such as ``top1`` and the mean ``loss``, and those of
      ``summarize``; also ``bad``, the number of images that could not be decoded, if there are
      any. They are excluded.
    """
    sums, per_example = [], []
    in_flight = DispatchThrottle()
    with Prefetcher(progress(loader.eval_batches(batch_size)), devices.split) as batches:
        for batch in batches:
            sums.append(step(state, data, batch, flag()))
            if "per_example" in sums[-1]:
                per_example.append(sums[-1].pop("per_example"))
            if give_up(in_flight.add(sums[-1])):
                return None
            if len(per_example) > 1:  # while the devices compute the next one
                collect(devices.fetch(per_example.pop(0)))
    for last in per_example:
        collect(devices.fetch(last))
    sums = devices.fetch(sums)
    totals = {name: _add(part[name] for part in sums) for name in sums[0] if name != "stop"}
    examples, bad = totals["examples"], totals.pop("bad")
    if examples + bad != len(loader):
        raise AssertionError(f"evaluated {examples} examples and skipped {bad} of {len(loader)}")
    means = task.means(totals, len(loader.source.class_names))
    first = task.headline[0]
    result = {"examples": examples, first: means[first]} | ({"bad": bad} if bad else {})
    return result | means | summarize(totals)


def _add(parts: Iterable[np.ndarray]) -> Any:
    """Return the sum of numbers of all batches, exact for integers."""
    parts = list(parts)
    if parts[0].ndim == 0:
        return sum(part.item() for part in parts)
    wide = np.int64 if np.issubdtype(parts[0].dtype, np.integer) else np.float64
    return sum(part.astype(wide) for part in parts)


def make_eval_step(
    devices: Devices,
    step_config: StepConfig,
    loader: DataLoader,
    views: Sequence[PictureView] = SAME,
    keep_probabilities: bool = False,
    keep_logits: bool = False,
    keep_features: bool = False,
) -> Callable:
    """Compile ``(state, data, batch, stop) -> sums`` for the batches of ``loader``.

    The sums include ``per_example``, for ``PredictionCollector``.

    Args:
      devices: the devices.
      step_config: the steps' configuration.
      loader: the split.
      views: as in ``step.eval_step``.
      keep_probabilities: as in ``BaseTask.per_example``.
      keep_logits: as in ``BaseTask.per_example``.
      keep_features: as in ``step.eval_step``.
    """
    per_example = partial(
        step_config.task.per_example,
        keep_probabilities=keep_probabilities,
        keep_logits=keep_logits,
    )

    def step(state: Any, data: Any, batch: Any) -> Any:
        examples = loader.examples(data, batch)
        return eval_step(step_config, state, examples, views, per_example, keep_features)

    return devices.evaluate(with_stop_flag(step))


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of a run.

    Attributes:
      result: the result of :func:`evaluate` with ``split`` and ``step``, with ``dataset`` and
        ``tta`` if these are not the run's own, and with ``thresholds`` if some are stored.
      predictions: the task's predictions for all valid examples, such as
        :class:`train.tasks.predictions.Predictions`.
      loader: the split.
      config: the configuration of the run and of this evaluation.
      model: the network.
      variables: its variables on the host, or None if they are not needed.
      run: name of the run, for titles.
      calibration: what is stored with the checkpoint, if it is known.
    """

    result: dict[str, Any]
    predictions: Any
    loader: DataLoader
    config: ConfigDict
    model: ResNet
    variables: dict[str, Any] | None
    run: str = ""
    calibration: Calibration | None = None

    @property
    def weights(self) -> str:
        """The evaluated weights: ``"ema"`` or ``"raw"``."""
        return evaluated_weights(self.config)


def evaluated_weights(config: ConfigDict) -> str:
    """Return the weights that an evaluation uses: ``"ema"`` or ``"raw"``."""
    return "ema" if config.ema.decay and config.eval.use_ema else "raw"
