"""Evaluation of a state on a split: every example counts exactly once."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
import tqdm

from flax_resnet.calibration import Calibration
from flax_resnet.dense.views import SAME, PictureView, make_views
from flax_resnet.resnet import ResNet
from train.config.keys import KEYS
from train.config.task_defaults import learns_several_labels
from train.data.canvas import SHRUNK
from train.data.corrupt_records import CorruptRecords
from train.data.datasets import describe_substitute
from train.data.label_sets import SEPARATOR
from train.data.loader import DataLoader
from train.data.prefetch import Prefetcher
from train.data.sampler import ProcessShard
from train.data.tiled_masks import tile_pictures
from train.engine.devices import Devices, DispatchThrottle, make_devices
from train.engine.experiment import (
    check_same_in_all_processes,
    make_batch_sizes,
    make_model,
    make_step_config,
)
from train.engine.other_data import OtherData
from train.engine.predictions import PredictionCollector
from train.engine.preemption import with_stop_flag
from train.engine.step import StepConfig, abstract_state, eval_step, evaluated_variables
from train.engine.stored_thresholds import find_calibration, read_thresholds
from train.engine.tile_collector import TileCollector
from train.runtime import distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError, note, print_line
from train.runtime.formatting import run_name
from train.runtime.host import core_count, decoding_threads, max_images
from train.tasks.base import BaseTask
from train.tasks.metrics import MAX_PROBABILITIES
from train.workdir.checkpoints import Checkpoints, restore_on_all
from train.workdir.run_files import best_by, check_data, read_config, read_description


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


def limit_to_machine(loader: ConfigDict) -> None:
    """Limit ``config.loader`` of a run that may have been trained on a larger machine."""
    loader.threads = min(loader.threads, decoding_threads())
    loader.workers = min(loader.workers, core_count())
    # Each image is used once, so that caching saves nothing.
    loader.device_cache_gib = min(loader.device_cache_gib, KEYS["loader.device_cache_gib"].default)
    if loader.cache_on_device == "always":
        loader.cache_on_device = "auto"


def evaluate_run(
    path: str,
    step: int | str,
    ema: bool | None = None,
    other: OtherData = OtherData(),  # noqa: B008 (a constant)
    tta: str = "",
    keep_probabilities: bool = False,
    keep_logits: bool = False,
    use_thresholds: bool = True,
    keep_features: bool = False,
    scales: Sequence[float] = (1.0,),
    window: bool = False,
) -> Evaluated:
    """Evaluate a checkpoint of the run in ``path``. All processes must call this.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``.
      ema: whether to evaluate the moving average; by default as configured for the run.
      other: data to evaluate on; by default the run's evaluation split.
      tta: test-time augmentation: ``"flip"`` averages each image and its mirror image: the logits
        of images, the probabilities of pixels.
      keep_probabilities: whether the predictions include the probabilities of all classes even if
        they are more than ``MAX_PROBABILITIES``.
      keep_logits: whether they include the logits.
      use_thresholds: whether stored thresholds decide about the classes of images that may have
        several; otherwise 0.5.
      keep_features: whether the predictions include the features before the head.
      scales: of the images, over which the probabilities of pixels are averaged.
      window: whether images larger than the canvas are evaluated at their own size in overlapping
        windows of the canvas, if every pixel has a class, instead of shrunk.

    Raises:
      UsageError, RunError: there is no such run, checkpoint or data, or the data have other
        classes.
    """
    with distributed.raise_if_any_failed():
        config = read_config(path)
        if ema and not config.ema.decay:
            raise UsageError(f"the run in {path!r} has no moving average: its ema.decay is 0")
        config.eval.use_ema = config.eval.use_ema if ema is None else ema
        separator = SEPARATOR if learns_several_labels(config) else ""
        name = other.apply(config.dataset, separator)
        if config.dataset.name == "table":  # which may lack some classes
            config.dataset.class_names = read_description(path).class_names
        limit_to_machine(config.loader)
        shard = ProcessShard(distributed.process_index(), distributed.process_count())
        loader = DataLoader(config, name, training=False, shard=shard)
        check_data(path, loader, other_data=other.is_other_dataset)
        model = make_model(config, len(loader.source.class_names))
        # The schedule is not used, but the state includes that of the optimizer.
        step_config = make_step_config(config, model, steps_per_epoch=1, num_steps=1)
        task = step_config.task
        task.check_labels(config, loader.source)
        if not (use_thresholds or task.probabilities):
            raise UsageError(
                f"--calibrate and --decide are for one or several classes per image; the run in"
                f" {path!r} has task={config.task!r}"
            )
        if keep_features and not task.has_features:
            raise UsageError(
                f"--features needs one vector per image, which networks of task={config.task!r}"
                " do not have"
            )
        for flag, given in {"--scales": tuple(scales) != (1.0,), "--window": window}.items():
            if given and not task.per_pixel:
                raise UsageError(
                    f"{flag} is for networks with outputs of every pixel; the run in {path!r} has"
                    f" task={config.task!r}"
                )
    check_same_in_all_processes(config, loader)

    def warn(text: str) -> None:
        process = "" if distributed.is_primary() else f" of process {distributed.process_index()}"
        print_line(f"warning{process}: {text}", sys.stderr)

    substitute = describe_substitute(loader.source, name)
    if substitute and distributed.is_primary():
        note(substitute)
    findings = [] if loader.source.table is None else list(loader.source.table.findings())
    if distributed.is_primary():
        for finding in (*findings, *loader.findings()):
            if window and finding.kind == SHRUNK:
                continue
            (warn if finding.is_warning else note)(finding.text)
    with distributed.raise_if_any_failed():
        checkpoints = Checkpoints(path, warn=warn, best_by=best_by(config))
    with checkpoints:
        state = restore_on_all(checkpoints, step, abstract_state(step_config, loader.image_shape))
    stored, calibration = None, None
    with distributed.raise_if_any_failed():
        stored_with = path, int(state.step), evaluated_weights(config)
        if task.has_thresholds and use_thresholds:
            stored = read_thresholds(*stored_with)
        if task.probabilities and use_thresholds:
            calibration = find_calibration(*stored_with, task.probabilities, warn)
    if stored is not None and stored.were_chosen_on(loader.source) and distributed.is_primary():
        note("half of these images chose the stored thresholds; new ones may give a lower F1")

    pictures = loader
    if window:
        with distributed.raise_if_any_failed():
            size, fill = loader.image_shape[:2], loader.preprocessing.fill
            tiled = tile_pictures(loader.source, size, fill)
            loader = DataLoader(config, name, training=False, shard=shard, source=tiled)
    # Decoding all images that are cached takes long, so it comes after all checks.
    with distributed.raise_if_any_failed():
        loader.load(CorruptRecords(warn=warn))
    devices = make_devices(config.parallel)
    # The run may have been trained on a larger machine.
    pixels = round(math.prod(loader.image_shape[:2]) * max(1, *scales) ** 2)
    limit = min(distributed.allgather(max_images(pixels)))
    images = min(len(loader), max(limit, len(devices)))
    batch_size = make_batch_sizes(config, len(devices), images).eval
    views = make_views(scales, flip=tta == "flip")
    keep_probabilities |= len(loader) * model.num_classes <= MAX_PROBABILITIES
    keep_probabilities |= task.keeps_probabilities(config, len(loader), model.num_classes)
    keeps = keep_probabilities, keep_logits, keep_features
    compiled = make_eval_step(devices, step_config, loader, views, *keeps)
    collector = PredictionCollector(task, model.num_classes, None if stored is None else stored.raw)
    if window:
        collector = TileCollector(task, model.num_classes, tiled)
    progress_bar = partial(  # on a terminal, if the batches take more than a second
        tqdm.tqdm,
        desc=f"evaluating {loader.source.split}",
        total=-(-len(loader) // batch_size),
        unit=" batches",
        delay=1,
        leave=False,
        disable=not distributed.is_primary() or not sys.stderr.isatty(),
    )
    result = evaluate(
        task,
        devices,
        compiled,
        devices.replicate(state),
        devices.replicate(loader.cached),
        loader,
        batch_size,
        collect=collector.add,
        summarize=collector.summarize,
        progress=progress_bar,
    )
    if window:
        result |= collector.count_pictures()
    loader = pictures
    result = {"split": loader.source.split} | result | {"step": int(state.step)}
    if other.is_other_dataset:
        result["dataset"] = loader.source.name
    if tta:
        result["tta"] = tta
    if tuple(scales) != (1.0,):
        result["scales"] = list(scales)
    if stored is not None:
        result["thresholds"] = stored.by_class
    variables = evaluated_variables(step_config, state)
    run = run_name(path)
    about = loader, config, model, variables, run, calibration
    return Evaluated(result, collector.predictions(), *about)
