"""The compiled steps of runs, which the runs of one process may share."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.config.access import flatten
from train.config.registries import OPTIMIZERS, SCHEDULES
from train.engine.evaluation import make_eval_step
from train.engine.experiment import Experiment
from train.engine.multi_step import run_steps
from train.engine.optim.optimizers import make_optimizer
from train.engine.preemption import with_stop_flag
from train.engine.step import StepConfig, train_step

SHARING_JAX = (0, 12)  # with JAX 0.10.2 the results differ in the last bits
MAX_RATES = 2**22  # steps of a run whose learning rates are an argument: 16 MiB


class Programs:
    """Compiled steps, each for one run."""

    def train_step(self, experiment: Experiment, steps_per_call: int) -> Callable:
        """Compile ``(state, data, batch, stop) -> (state, metrics)``.

        Args:
          experiment: the run; ``data`` are the replicated cached arrays of its training data.
          steps_per_call: steps of one dispatch, if above 1 for ``multi_step.stack_batches``.
        """
        examples = experiment.train_loader.examples

        def step(state: Any, data: Any, batch: Any) -> Any:
            return train_step(experiment.step_config, state, examples(data, batch))

        return _compile(experiment, step, steps_per_call)

    def eval_step(self, experiment: Experiment) -> Callable:
        """Compile the step of :func:`train.engine.evaluation.evaluate`."""
        return make_eval_step(
            experiment.devices,
            experiment.step_config,
            experiment.eval_loader,
            keep_probabilities=_keeps_probabilities(experiment),
        )


UNSHARED = Programs()


class SharedPrograms(Programs):
    """Compiled steps, each for all runs of a process that differ only in seed and schedule.

    The seed and the learning rate of every step are arguments of the program. Their values are
    those that :class:`Programs` compiles into it, and on a CPU the results are bit-identical. Runs
    for which that is not sure share no training step: own schedules and optimizers may use a
    schedule in any way, and GPUs were not tried.
    """

    def __init__(self):
        self._compiled: dict[Any, Callable] = {}

    def train_step(self, experiment: Experiment, steps_per_call: int) -> Callable:
        """Return the step of an earlier run, or compile it, as :class:`Programs` does."""
        config = experiment.config
        if not _takes_rates(experiment):
            return super().train_step(experiment, steps_per_call)

        def step(state: Any, data: Any, batch: Any) -> Any:
            data, numbers = data
            batch = experiment.train_loader.examples(data, batch)
            return train_step(_with_numbers(experiment, **numbers), state, batch)

        program = self._shared(
            ("train", steps_per_call, *_key(experiment)),
            lambda: _compile(experiment, step, steps_per_call),
        )
        rates = learning_rates(experiment)
        numbers = {"rates": rates, "seed": np.uint32(config.seed)}
        numbers = experiment.devices.replicate(numbers)
        return lambda state, data, *batch: program(state, (data, numbers), *batch)

    def eval_step(self, experiment: Experiment) -> Callable:
        """Return the step of an earlier run, or compile it."""
        key = ("evaluate", *_key(experiment))
        return self._shared(key, lambda: Programs.eval_step(self, experiment))

    def _shared(self, key: Any, make: Callable[[], Callable]) -> Callable:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]


def learning_rates(experiment: Experiment) -> np.ndarray:
    """Return the learning rates of steps 0 to N, the length of the run, as float32."""
    schedule = experiment.step_config.schedule
    rate = lambda step: jnp.asarray(schedule(step), jnp.float32)  # noqa: E731
    steps = jnp.arange(experiment.intervals.num_steps + 1, dtype=jnp.int32)
    return np.asarray(jax.jit(jax.vmap(rate))(steps))


def _compile(experiment: Experiment, step: Callable, steps_per_call: int) -> Callable:
    calls = run_steps(step) if steps_per_call > 1 else step
    return experiment.devices.train(with_stop_flag(calls))


def _with_numbers(experiment: Experiment, rates: jax.Array, seed: jax.Array) -> StepConfig:
    """Return the step's configuration with traced numbers in place of constants."""

    def schedule(count: jax.Array) -> jax.Array:
        return rates.at[count].get(mode="clip")

    optimizer = make_optimizer(experiment.config.optimizer, schedule)
    return dataclasses.replace(
        experiment.step_config, seed=seed, schedule=schedule, optimizer=optimizer
    )


def _takes_rates(experiment: Experiment) -> bool:
    """Return whether a step with the learning rates as arguments computes the same bits."""
    config = experiment.config
    own = OPTIMIZERS.owner(config.optimizer.name), SCHEDULES.owner(config.schedule.name)
    return (
        own == (None, None)
        # XLA multiplies constant factors first, which rounds differently.
        and config.optimizer.backbone_lr_scale == 1
        and (experiment.devices.platform == "cpu" or not config.deterministic)
        # Earlier compilers round a rate that they compute inside the step differently.
        and jax.__version_info__ >= SHARING_JAX
        and experiment.intervals.num_steps <= MAX_RATES
    )


def _keeps_probabilities(experiment: Experiment) -> bool:
    config, task = experiment.config, experiment.step_config.task
    size = len(experiment.eval_loader), experiment.model.num_classes
    keeps = bool(config.dataset.fold)  # for metrics of all folds together
    return keeps or task.keeps_probabilities(config, *size)


def _key(experiment: Experiment) -> tuple:
    """Return whatever a program depends on, apart from the shapes of its arguments.

    Besides the configuration that is whatever follows from the data, which may be others with the
    same configuration if they were given as arrays.
    """
    varying = ("seed", "num_epochs", "num_steps")
    values = flatten(experiment.config).items()
    loaders = experiment.train_loader, experiment.eval_loader
    cached = (loader.cached_on_device for loader in loaders)
    fixed = (kv for kv in values if kv[0] not in varying and not kv[0].startswith("schedule."))
    classes, weights = experiment.model.num_classes, experiment.step_config.task.constants()
    return *fixed, *cached, classes, _keeps_probabilities(experiment), *weights
