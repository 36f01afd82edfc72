"""Evaluating a state on a split: every example counts exactly once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from train import processes, steps, workdir
from train.build import make_model, make_task
from train.checkpoints import Checkpoints, restore_together
from train.data.ahead import Ahead
from train.data.bad_records import BadRecords
from train.data.order import Share
from train.data.resident import gather
from train.data.splits import Split
from train.errors import UsageError
from train.parallel import Devices, InFlight, make_devices
from train.run import check_alike
from train.stopping import hearing

TOP5_FROM = 6  # with five classes or fewer a top-5 is 100 % by definition


def evaluate(
    devices: Devices,
    step: Callable,
    state: Any,
    data: Any,
    split: Split,
    batch_size: int,
    give_up: Callable[[Any], bool] = lambda _: False,
    mark: Callable[[Iterable], Iterable] = lambda batches: batches,
) -> dict[str, float] | None:
    """Gives ``examples``, ``top1``, ``top5`` (with six classes or more) and mean ``loss``.

    With ``bad`` images that could not be decoded and count nowhere, where there are any.

    Args:
      devices: where the compiled ``step`` runs.
      step: ``(state, data, batch) -> sums``, see ``steps.eval_step``.
      state: the train state, replicated.
      data: the split's resident arrays, replicated.
      split: what to evaluate on.
      batch_size: examples in a step, of all processes; rounded up to what the devices divide.
      give_up: asked after each step, with the sums of the step that it waited for or None;
        where it says so there is no result.
      mark: adds to the batches what the step wants besides.
    """
    batch_size += -batch_size % len(devices)
    sums = []
    in_flight = InFlight()
    with Ahead(mark(split.eval_batches(batch_size)), devices.split) as batches:
        for batch in batches:
            sums.append(step(state, data, batch))
            if give_up(in_flight.add(sums[-1])):
                return None
    sums = devices.fetch(sums)
    total = {name: sum(part[name].item() for part in sums) for name in sums[0]}
    examples, bad = total["examples"], total["bad"]
    if examples + bad != len(split):
        raise AssertionError(f"evaluated {examples} examples and left out {bad} of {len(split)}")
    result = {"examples": examples, "top1": total["top1"] / examples}
    if bad:
        result["bad"] = bad
    if len(split.source.class_names) >= TOP5_FROM:
        result["top5"] = total["top5"] / examples
    return result | {"loss": total["loss"] / examples}


def make_eval_step(devices: Devices, task: steps.Task) -> Callable:
    """The compiled ``(state, data, batch) -> sums``, of resident or streamed batches."""
    return devices.evaluate(
        hearing(lambda state, data, batch: steps.eval_step(task, state, gather(data, batch)))
    )


def eval_batch_size(config: ml_collections.ConfigDict) -> int:
    """Images in an evaluation step: as many as training has in memory at once, unless told."""
    return config.eval.batch_size or max(1, config.batch_size // config.accumulate)


def evaluate_run(path: str, step: int | str, ema: bool | None = None) -> dict[str, Any]:
    """Evaluates a checkpoint of the run in ``path`` on the run's evaluation split.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``.
      ema: whether to evaluate the moving average; by default as the run's configuration says.

    Gives what :func:`evaluate` gives with ``split`` and ``step``. Raises UsageError or
    RunError where there is no such run, checkpoint or data.
    """
    with processes.together():
        config = workdir.read_config(path)
        if ema and not config.ema.decay:
            raise UsageError(f"the run in {path!r} keeps no moving average: its ema.decay is 0")
        config.eval.ema = config.eval.ema if ema is None else ema
        share = Share(*processes.place())
        split = Split(config, config.dataset.eval_split, training=False, share=share)
        workdir.check_data(path, split)
        model = make_model(config, len(split.source.class_names))
        # Neither schedule nor optimiser matter here, but the state holds the optimiser's part.
        task = make_task(config, model, steps_per_epoch=1, num_steps=1)
    check_alike(config, split)

    def warn(text: str) -> None:
        who = "" if processes.is_first() else f" of process {processes.place()[0]}"
        print(f"warning{who}: {text}", file=sys.stderr, flush=True)

    like = steps.abstract_state(task, split.image_shape)
    with processes.together():
        checkpoints = Checkpoints(path, warn=warn)
    with checkpoints:
        state = restore_together(checkpoints, step, like)

    # Only now what takes its time: decoding all images that stay in memory.
    with processes.together():
        split.load(BadRecords(warn=warn))
    devices = make_devices(config.parallel)
    result = evaluate(
        devices,
        make_eval_step(devices, task),
        devices.replicate(state),
        devices.replicate(split.resident),
        split,
        eval_batch_size(config),
    )
    return {"split": split.source.split} | result | {"step": int(state.step)}
