"""What a run needs of the machine, checked before anything is decoded or compiled.

All amounts are lower bounds, so that nothing is refused that would have worked.
"""

import itertools
from typing import Any

import jax

from train.engine.experiment import Experiment
from train.runtime import limits
from train.runtime.errors import RunError
from train.workdir import run_files

_COMPRESSED = 0.8  # of the size of a state; trained weights are compressed by 7 % to 10 %
_BATCHES = 3  # that the prefetching thread holds


def check_requirements(experiment: Experiment, state: Any) -> None:
    """Raise RunError for the first limit that the run would exceed.

    Args:
      experiment: the run.
      state: its first train state.
    """
    if found := problems(experiment, state):
        raise RunError(found[0])


def problems(experiment: Experiment, state: Any) -> list[str]:
    """Return a line for each limit that the run would exceed."""
    start, workdir = int(state.step), experiment.workdir
    found = [limits.memory(_image_bytes(experiment, start), _workers(experiment))]
    if count := checkpoint_count(experiment, start):
        sizes = [_COMPRESSED * leaf.nbytes for leaf in jax.tree.leaves(state)]
        found.append(limits.disk_space(workdir, round(sum(sizes)), count))
        found.append(limits.file_size(workdir, round(max(sizes))))
    return [problem for problem in found if problem]


def checkpoint_count(experiment: Experiment, start: int) -> int:
    """Return by how many the checkpoints will grow: those that are kept, and one being written."""
    intervals, most = experiment.intervals, experiment.config.checkpoint.max_to_keep + 1
    saves = filter(intervals.saves, range(start + 1, intervals.num_steps + 1))
    new = len(list(itertools.islice(saves, most)))
    existing = len(run_files.saved_steps(experiment.workdir))
    return max(1, min(existing + new, most) - existing) if new else 0


def _workers(experiment: Experiment) -> int:
    streams = not experiment.train_loader.cached_on_device
    return experiment.config.loader.workers if streams else 0


def _image_bytes(experiment: Experiment, start: int) -> int:
    """Return the host memory of all cached images, or of the batches that wait for a step."""
    train, evaluation = experiment.train_loader, experiment.eval_loader
    cached = round((train.cached_gib + evaluation.cached_gib) * 2**30)
    if train.cached_on_device:
        return cached
    steps = min(_BATCHES, experiment.intervals.num_steps - start)
    images = len(train.shard.positions(experiment.batch_sizes.train))
    size = min((train.preprocessing.shorter_side, *train.sizes.train_sizes))
    return cached + steps * images * train.preprocessing.at(size).nbytes
