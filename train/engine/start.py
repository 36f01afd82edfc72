"""The state from which a run starts."""

from contextlib import nullcontext

from train.engine.experiment import Experiment
from train.engine.step import TrainState, abstract_state, create_state
from train.runtime import distributed
from train.workdir.checkpoints import Checkpoints, restore_on_all


def initial_state(experiment: Experiment, checkpoints: Checkpoints | None) -> TrainState:
    """Return the latest readable checkpoint, or the state before the first step.

    Args:
      experiment: the run.
      checkpoints: those of process 0, which selects one; None in other processes.
    """
    step_config, image_shape = experiment.step_config, experiment.image_shape
    if not distributed.allgather(experiment.resumes)[0]:
        return create_state(step_config, image_shape, experiment.variables)
    with distributed.raise_if_any_failed():
        opened = nullcontext(checkpoints) if checkpoints else Checkpoints(experiment.workdir)
    with opened as reader:
        return restore_on_all(reader, "last", abstract_state(step_config, image_shape))
