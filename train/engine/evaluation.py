"""Evaluating a state on a split: every example counts exactly once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from flax_resnet.resnet import ResNet
from train.data.image_folder import ALL, has_splits
from train.data.loader import DataLoader
from train.data.prefetch import Prefetcher
from train.data.corrupt_records import CorruptRecords
from train.data.sampler import ProcessShard
from train.engine.devices import Devices, DispatchThrottle, make_devices
from train.engine.experiment import check_alike, make_model, make_step_config
from train.engine.predictions import PredictionCollector, Predictions, answers
from train.engine.preemption import with_stop_flag
from train.engine.step import StepConfig, abstract_state, eval_step, evaluated_variables
from train.runtime import distributed
from train.runtime.errors import UsageError
from train.tasks.classification import MIN_TOP5_CLASSES
from train.workdir.checkpoints import Checkpoints, restore_on_all
from train.workdir.run_files import check_data, read_config


def evaluate(
    devices: Devices,
    step: Callable,
    state: Any,
    data: Any,
    split: DataLoader,
    batch_size: int,
    give_up: Callable[[Any], bool] = lambda _: False,
    flag: Callable[[], jax.Array | None] = lambda: None,
    take: Callable[[dict[str, np.ndarray]], None] = lambda _: None,
    progress: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> dict[str, float] | None:
    """Gives ``examples``, ``top1``, ``top5`` (with six classes or more) and mean ``loss``.

    With ``bad`` images that could not be decoded and count nowhere, where there are any.

    Args:
      devices: where the compiled ``step`` runs.
      step: ``(state, data, batch, stop) -> sums``, see :func:`make_eval_step`.
      state: the train state, replicated.
      data: the split's cached arrays, replicated.
      split: what to evaluate on.
      batch_size: examples in a step, of all processes; rounded up to what the devices divide.
      give_up: asked after each step, with the sums of the step that it waited for or None;
        where it says so there is no result.
      flag: returns the next step's ``stop``, see ``preemption.StopAgreement``.
      take: is given ``each`` of every step's result, in order, where the step gives that.
      progress: wraps the iterable of batches, for a progress bar.
    """
    batch_size += -batch_size % len(devices)
    sums, each = [], []
    in_flight = DispatchThrottle()
    with Prefetcher(progress(split.eval_batches(batch_size)), devices.split) as batches:
        for batch in batches:
            sums.append(step(state, data, batch, flag()))
            if "each" in sums[-1]:
                each.append(sums[-1].pop("each"))
            if give_up(in_flight.add(sums[-1])):
                return None
            if len(each) > 1:  # while the devices do the next one
                take(devices.fetch(each.pop(0)))
    for last in each:
        take(devices.fetch(last))
    sums = devices.fetch(sums)
    total = {name: sum(part[name].item() for part in sums) for name in sums[0]}
    examples, bad = total["examples"], total["bad"]
    if examples + bad != len(split):
        raise AssertionError(f"evaluated {examples} examples and left out {bad} of {len(split)}")
    result = {"examples": examples, "top1": total["top1"] / examples}
    if bad:
        result["bad"] = bad
    if len(split.source.class_names) >= MIN_TOP5_CLASSES:
        result["top5"] = total["top5"] / examples
    return result | {"loss": total["loss"] / examples}


def make_eval_step(
    devices: Devices,
    step_config: StepConfig,
    loader: DataLoader,
    loss: str,
    flip: bool = False,
    keep: bool = False,
) -> Callable:
    """The compiled ``(state, data, batch, stop) -> sums``, of the batches of ``loader``.

    With ``each``, what ``predictions.Collector`` takes; ``keep`` and ``loss`` are as in
    ``predictions.answers``, ``flip`` as in ``steps.eval_step``.
    """
    each = partial(answers, loss=loss, keep=keep)

    def step(state: Any, data: Any, batch: Any) -> Any:
        return eval_step(step_config, state, loader.examples(data, batch), flip, each)

    return devices.evaluate(with_stop_flag(step))


def eval_batch_size(config: ml_collections.ConfigDict) -> int:
    """Images in an evaluation step: as many as training has in memory at once, unless told."""
    return config.eval.batch_size or max(1, config.batch_size // config.grad_accum_steps)


@dataclass(frozen=True)
class Other:
    """What to evaluate on where it is not the run's own evaluation split; '' is the run's."""

    split: str = ""
    dataset: str = ""
    data_dir: str = ""

    def apply(self, dataset: ml_collections.ConfigDict) -> str:
        """Sets ``config.dataset`` to it, and gives the split."""
        if self.dataset and self.dataset != dataset.name:
            dataset.name, dataset.data_dir = self.dataset, ""
            if self.dataset == "folder" and not self.data_dir:
                raise UsageError("--dataset folder needs --data_dir, the folder with the pictures")
        if self.data_dir:
            dataset.data_dir = self.data_dir
        if self.split:
            return self.split
        if self.is_other_data and dataset.name == "folder" and not has_splits(dataset.data_dir):
            return ALL  # or only the part would count that training holds out
        return dataset.eval_split

    @property
    def is_other_data(self) -> bool:
        """Whether it is not merely another split."""
        return bool(self.dataset or self.data_dir)


@dataclass(frozen=True)
class Evaluated:
    """What came out of evaluating a run.

    Attributes:
      result: what :func:`evaluate` gives with ``split`` and ``step``, and with ``dataset`` and
        ``tta`` where these are not the run's own.
      predictions: of every example that counts.
      split: what was evaluated on.
      config: of the run, and of this evaluation.
      weights: ``"ema"`` or ``"raw"``.
      model, variables: what was evaluated, on the host; the variables may be left out.
    """

    result: dict[str, Any]
    predictions: Predictions
    split: DataLoader
    config: ml_collections.ConfigDict
    weights: str
    model: ResNet
    variables: dict[str, Any] | None


def evaluate_run(
    path: str,
    step: int | str,
    ema: bool | None = None,
    other: Other = Other(),
    tta: str = "",
    keep: bool = False,
) -> Evaluated:
    """Evaluates a checkpoint of the run in ``path``. Of several processes all must call it.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``.
      ema: whether to evaluate the moving average; by default as the run's configuration says.
      other: what to evaluate on; by default the run's evaluation split.
      tta: ``"flip"`` takes the mean of the logits of each image and its mirror image.
      keep: whether the predictions keep the probabilities of all classes.

    Raises UsageError or RunError where there is no such run, checkpoint or data, or the data
    have other classes.
    """
    with distributed.raise_if_any_failed():
        config = read_config(path)
        if ema and not config.ema.decay:
            raise UsageError(f"the run in {path!r} keeps no moving average: its ema.decay is 0")
        config.eval.use_ema = config.eval.use_ema if ema is None else ema
        name = other.apply(config.dataset)
        shard = ProcessShard(*distributed.place())
        split = DataLoader(config, name, training=False, shard=shard)
        check_data(path, split, other_data=other.is_other_data)
        model = make_model(config, len(split.source.class_names))
        # Neither schedule nor optimiser matter here, but the state holds the optimiser's part.
        step_config = make_step_config(config, model, steps_per_epoch=1, num_steps=1)
    check_alike(config, split)

    def warn(text: str) -> None:
        who = "" if distributed.is_primary() else f" of process {distributed.place()[0]}"
        print(f"warning{who}: {text}", file=sys.stderr, flush=True)

    like = abstract_state(step_config, split.image_shape)
    with distributed.raise_if_any_failed():
        checkpoints = Checkpoints(path, warn=warn)
    with checkpoints:
        state = restore_on_all(checkpoints, step, like)

    # Only now what takes its time: decoding all images that stay in memory.
    with distributed.raise_if_any_failed():
        split.load(CorruptRecords(warn=warn))
    devices = make_devices(config.parallel)
    collector = PredictionCollector(model.num_classes)
    result = evaluate(
        devices,
        make_eval_step(devices, step_config, split, config.loss, flip=tta == "flip", keep=keep),
        devices.replicate(state),
        devices.replicate(split.cached),
        split,
        eval_batch_size(config),
        take=collector.take,
        progress=lambda batches: _with_bar(batches, split, eval_batch_size(config)),
    )
    result = {"split": split.source.split} | result | {"step": int(state.step)}
    if other.is_other_data:
        result["dataset"] = split.source.name
    if tta:
        result["tta"] = tta
    return Evaluated(
        result=result,
        predictions=collector.predictions(),
        split=split,
        config=config,
        weights=weights_of(config),
        model=model,
        variables=evaluated_variables(step_config, state),
    )


def weights_of(config: ml_collections.ConfigDict) -> str:
    """Which weights are evaluated: ``"ema"`` or ``"raw"``."""
    return "ema" if config.ema.decay and config.eval.use_ema else "raw"


def _with_bar(batches: Iterable, split: DataLoader, batch_size: int) -> Iterable:
    """The batches, with a bar on a terminal where they take more than a second."""
    hidden = not distributed.is_primary() or not sys.stderr.isatty()
    return tqdm.tqdm(
        batches,
        desc=f"evaluating {split.source.split}",
        total=-(-len(split) // batch_size),
        unit=" batches",
        delay=1,
        leave=False,
        disable=hidden,
    )
