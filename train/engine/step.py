"""One training step and one evaluation step: pure functions of arrays, without I/O.

Both run inside a mapped axis (``train/engine/devices.py``): each device sees its share of the
batch; gradients, batch statistics and metrics are averaged or summed over the axis. Without an axis
they run on one device, for example under plain ``jax.jit``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from flax_resnet import ResNet
from flax_resnet.dense.views import SAME, PictureView
from flax_resnet.init import abstract_variables, init_variables
from flax_resnet.preprocessing import normalize
from flax_resnet.runs import network_outputs
from train.config.registries import STEP_FIELDS
from train.data.augment.pipeline import Augment, example_keys
from train.engine.host_values import call_on_host
from train.runtime.errors import UsageError
from train.tasks.base import BaseTask

AXIS = "batch"
DROPOUT = 2**31 - 1  # beyond any step number


class TrainState(struct.PyTreeNode):
    """Everything that training changes, and therefore everything in a checkpoint.

    Attributes:
      step: number of finished steps, int32.
      params, batch_stats: the model's collections.
      opt_state: Optax's state for the parameters that are not frozen.
      ema: exponential moving average ``{"params", "batch_stats"}``, or empty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any


@dataclass(frozen=True)
class StepConfig:
    """Everything that the steps need apart from arrays.

    Attributes:
      model: the network.
      optimizer: turns gradients into updates.
      schedule: learning rate as a function of the step, for the metrics; the optimizer applies
        it as well.
      augment: augmentation of uint8 images, and of labels if images are mixed.
      task: what the network learns, and how that is measured.
      mean, std: per-channel normalization of images in 0…1.
      seed: seed of augmentation, dropout and stochastic depth.
      grad_accum_steps: micro-batches into which each device's batch is split; they are computed
        one after another and their gradients averaged.
      ema_decay: decay per step of the moving average of parameters and batch statistics, in
        0…1; 0 for no average.
      frozen: names of the model's modules that keep their parameters and batch statistics.
      evaluate_ema: whether evaluation uses the moving average, if there is one.
      skip_nonfinite: whether a step with a loss or gradients that are not finite is skipped.
      axis_name: mapped axis of the devices; None: the step runs on one device, under ``jax.jit``.
    """

    model: ResNet
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augment: Augment
    task: BaseTask
    mean: Sequence[float]
    std: Sequence[float]
    seed: int
    grad_accum_steps: int = 1
    ema_decay: float = 0.0
    frozen: tuple[str, ...] = ()
    evaluate_ema: bool = True
    skip_nonfinite: bool = False
    axis_name: str | None = AXIS

    @property
    def frozen_statistics(self) -> tuple[str, ...]:
        """Names of the model's modules that keep their batch statistics."""
        return (*self.frozen, *getattr(self.model, "frozen_statistics", ()))

    def on_one_device(self) -> Self:
        """Return the configuration of steps without a mapped axis, for ``jax.jit``."""
        return replace(self, axis_name=None, model=self.model.clone(axis_name=None))

    def across(self, operation: Callable, values: Any, **arguments: Any) -> Any:
        """Apply a collective operation of ``jax.lax`` over the devices, if there are several."""
        return operation(values, self.axis_name, **arguments) if self.axis_name else values


def abstract_state(step_config: StepConfig, image_shape: tuple[int, int, int]) -> TrainState:
    """Return the shapes and dtypes of a state, as a template to restore into."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = abstract_variables(step_config.model, images)
    return jax.eval_shape(lambda v: create_state(step_config, image_shape, v), variables)


def create_state(
    step_config: StepConfig, image_shape: tuple[int, int, int], variables: Any = None
) -> TrainState:
    """Return the state before the first step.

    Args:
      step_config: the steps' configuration.
      image_shape: ``(H, W, C)``.
      variables: initial ``{"params", "batch_stats"}``; by default randomly initialized.
    """
    variables = variables or init_variables(step_config.model, step_config.seed, image_shape)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})  # empty with group norm
    # The average needs arrays of its own, since the step donates all of its state.
    average = {"params": params, "batch_stats": batch_stats} if step_config.ema_decay else {}
    return TrainState(
        step=np.zeros((), np.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=call_on_host(
            step_config.optimizer.init, trainable_params(params, step_config.frozen)
        ),
        ema=jax.tree.map(jnp.array, average),
    )


def trainable_params(params: Any, frozen: tuple[str, ...]) -> Any:
    """Return the parameters of the modules that are not frozen."""
    return without_modules(params, frozen)


def without_modules(collection: Any, names: tuple[str, ...]) -> Any:
    """Return a collection without some modules."""
    return {name: module for name, module in collection.items() if name not in names}


def frozen_subtree(collection: Any, frozen: tuple[str, ...]) -> Any:
    """Return the part of a collection that belongs to frozen modules."""
    return {name: module for name, module in collection.items() if name in frozen}


def train_step(
    step_config: StepConfig, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Compute one update of the state.

    Args:
      step_config: the steps' configuration.
      state: the state, the same on all devices.
      batch: this device's ``image`` uint8 ``(N, H, W, C)``, ``label`` as the task learns it, such
        as int32 ``(N,)``, or uint8 ``(N, K)`` of images with several classes, and, if the records
        have weights, ``weight`` float32 ``(N,)``. Classes must be in 0…K - 1: the data loader
        checks that, the compiled step does not. Of a label of K or more the cross entropy is NaN,
        -1 counts as the last class, and to the binary cross entropy both are images of no class.

    Returns:
      The new state and the metrics, averaged over the axis: ``loss``, weighted as the gradients;
      those of the task, such as ``top1``; ``learning_rate`` and ``nonfinite``, 1 if the loss or a
      gradient is not finite. If such a step is skipped, its loss and the task's metrics are 0.
    """
    count = batch["label"].shape[0]
    device = jax.lax.axis_index(step_config.axis_name) if step_config.axis_name else 0
    positions = device * count + jnp.arange(count)  # in the global batch
    keys = example_keys(step_config.seed, state.step, positions)
    images, targets = step_config.augment.batch(batch["image"], batch["label"], keys)
    mean = lambda values: step_config.across(jax.lax.pmean, values.mean())  # noqa: E731
    targets = step_config.task.prepare(targets, batch.get("weight"), mean)
    # A separate sequence of keys: augmentation folds positions into the keys of steps.
    dropout = jax.random.fold_in(jax.random.key(step_config.seed), DROPOUT)
    dropout = jax.random.fold_in(jax.random.fold_in(dropout, state.step), device)
    trainable = trainable_params(state.params, step_config.frozen)

    def loss_fn(params, batch_stats, images, targets, dropout):
        outputs, updates = step_config.model.apply(
            {"params": state.params | params, "batch_stats": batch_stats},
            normalize(images, step_config.mean, step_config.std),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        loss, metrics = step_config.task.training_loss(outputs, targets)
        return loss, (updates.get("batch_stats", {}), metrics)

    def compute(batch_stats, images, targets, dropout):
        """Return gradients, loss and metrics of one micro-batch."""
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (batch_stats, metrics)), gradients = grad_fn(
            trainable, batch_stats, images, targets, dropout
        )
        return batch_stats, (gradients, loss, metrics)

    batch_stats, means = accumulate_gradients(
        compute, step_config.grad_accum_steps, state.batch_stats, images, targets, dropout
    )
    # Frozen statistics stay out of the mean, which may round: of three devices, for example.
    batch_stats = without_modules(batch_stats, step_config.frozen_statistics)
    # Devices have equally many images, so the mean of their means is the mean of the batch.
    means = step_config.across(jax.lax.pmean, (batch_stats, means))
    batch_stats, (gradients, loss, metrics) = means
    batch_stats = state.batch_stats | batch_stats

    finite = jnp.isfinite(loss)
    for leaf in jax.tree.leaves(gradients):
        finite &= jnp.isfinite(leaf).all()

    updates, opt_state = step_config.optimizer.update(gradients, state.opt_state, trainable)
    params = state.params | optax.apply_updates(trainable, updates)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=update_ema(step_config, state, {"params": params, "batch_stats": batch_stats}),
    )
    if step_config.skip_nonfinite:
        new_state = select_if_finite(finite, new_state, state.replace(step=new_state.step))
        loss, metrics = jax.tree.map(lambda metric: jnp.where(finite, metric, 0), (loss, metrics))
    if taken := [name for name in STEP_FIELDS if name in metrics]:
        raise UsageError(
            f"the training loss of the task returns a metric {taken[0]!r}, a name that the training"
            " step uses itself; choose another name"
        )
    return new_state, metrics | {
        "loss": loss,
        "learning_rate": jnp.asarray(step_config.schedule(state.step), jnp.float32),
        "nonfinite": 1.0 - finite,
    }


def select_if_finite(finite: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """Return the new state if the step is finite, otherwise the old one.

    Counts of schedules always advance, since the learning rate belongs to the step number.
    """

    def pick(new: Any, old: Any) -> Any:
        if isinstance(new, optax.ScaleByScheduleState):
            return new
        return jnp.where(finite, new, old)

    is_leaf = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    return jax.tree.map(pick, new, old, is_leaf=is_leaf)


def accumulate_gradients(
    compute: Callable, count: int, batch_stats: Any, images: jax.Array, targets: Any, key: Any
) -> tuple[Any, Any]:
    """Compute a device's batch in ``count`` equal micro-batches, one after another.

    Memory is needed for one micro-batch at a time. On CPU the loop is unrolled, since XLA runs
    the gradients of convolutions inside a loop many times slower there.

    Args:
      compute: ``(batch_stats, images, targets, key) -> (batch_stats, results)`` of a micro-batch.
      count: number of micro-batches.
      batch_stats: statistics before the first micro-batch.
      images: ``(N, H, W, C)``, with N a multiple of ``count``.
      targets: of the images, with a leading axis of N.
      key: random key; each micro-batch gets its own.

    Returns:
      The statistics after the last micro-batch, and the mean of the results.
    """
    if count == 1:
        return compute(batch_stats, images, targets, key)
    split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), (images, targets))

    def step(carry: tuple[Any, Any], i: Any) -> tuple[Any, None]:
        batch_stats, total = carry
        images, targets = jax.tree.map(lambda x: x[i], split)
        batch_stats, result = compute(batch_stats, images, targets, jax.random.fold_in(key, i))
        return (batch_stats, jax.tree.map(jnp.add, total, result)), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(compute, batch_stats, *first, key)[1]
    carry = batch_stats, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if jax.default_backend() == "cpu":
        for i in range(count):
            carry, _ = step(carry, i)
    else:
        carry, _ = jax.lax.scan(step, carry, jnp.arange(count))
    batch_stats, total = carry
    return batch_stats, jax.tree.map(lambda leaf: leaf / count, total)


def update_ema(step_config: StepConfig, state: TrainState, new: Any) -> Any:
    """Return the new exponential moving average; empty without ``ema_decay``.

    At the n-th step the decay is at most n / (n + 9), so that the initial weights are soon
    forgotten.
    """
    if not step_config.ema_decay:
        return {}
    decay = jnp.minimum(step_config.ema_decay, (state.step + 1) / (state.step + 10))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, new)
    frozen = {"params": step_config.frozen, "batch_stats": step_config.frozen_statistics}
    return {name: average[name] | frozen_subtree(state.ema[name], frozen[name]) for name in average}


def evaluated_variables(step_config: StepConfig, state: TrainState) -> dict[str, Any]:
    """Return the collections to evaluate: the moving average or the weights themselves."""
    if step_config.ema_decay and step_config.evaluate_ema:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}


def eval_step(
    step_config: StepConfig,
    state: TrainState,
    batch: dict[str, jax.Array],
    views: Sequence[PictureView] = SAME,
    per_example: Callable[[jax.Array, jax.Array], dict[str, jax.Array]] | None = None,
    keep_features: bool = False,
) -> dict[str, Any]:
    """Compute sums over a global batch.

    Args:
      step_config: the steps' configuration.
      state: the state, the same on all devices.
      batch: as in :func:`train_step`, with ``valid`` and ``bad``, bool ``(N,)``: padding and
        images that could not be decoded are not valid; the latter are ``bad``.
      views: forms of each image whose outputs are averaged.
      per_example: ``(outputs, labels) -> dict`` of arrays with a leading axis of N.
      keep_features: whether ``per_example`` includes the ``features`` before the head.

    Returns:
      The number of valid ``examples``, of ``bad`` ones, and the task's sums over valid examples.
      With ``per_example`` also ``per_example``: its result and ``valid``, of all devices' examples
      in order.
    """
    variables = evaluated_variables(step_config, state)
    images = normalize(batch["image"], step_config.mean, step_config.std)
    compute = partial(network_outputs, step_config.model, variables, with_features=keep_features)
    task, size = step_config.task, images.shape[1:3]
    answers, features = zip(*(compute(view.of(images)) for view in views), strict=True)
    outputs = task.average(
        [task.undo(answer, view, size) for answer, view in zip(answers, views, strict=True)]
    )
    sums = {
        "examples": batch["valid"].sum(dtype=jnp.int32),
        "bad": batch["bad"].sum(dtype=jnp.int32),
        **task.sums(outputs, batch["label"], batch["valid"]),
    }
    sums = step_config.across(jax.lax.psum, sums)
    if per_example is None:
        return sums
    examples = {"valid": batch["valid"]} | per_example(outputs, batch["label"])
    examples |= {"features": sum(features) / len(features)} if keep_features else {}
    return sums | {"per_example": step_config.across(jax.lax.all_gather, examples, tiled=True)}
