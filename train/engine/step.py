"""One step of training, one of evaluation: pure functions of arrays, without I/O.

Both run inside a mapped axis (``train/engine/devices.py``): each device sees its part of the
batch, and gradients, statistics and metrics are averaged or summed over the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from flax_resnet import ResNet, init_variables
from flax_resnet.preprocessing import normalize
from train.data.augment.mixup import Targets
from train.data.augment.pipeline import Augment, example_keys
from train.tasks.classification import label_rank

AXIS = "batch"
DROPOUT = 2**31 - 1  # no run has so many steps


class TrainState(struct.PyTreeNode):
    """All that training changes, and so all that a checkpoint holds.

    ``step`` counts finished steps (int32); ``params`` and ``batch_stats`` are the model's
    collections; ``opt_state`` is Optax's, of what is not frozen; ``ema`` is the moving average
    ``{"params", "batch_stats"}``, or empty.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any


@dataclass(frozen=True)
class StepConfig:
    """What the steps need beside arrays: the net, the optimiser and the images' treatment.

    Attributes:
      model, optimizer: the net, and what makes updates of its gradients.
      schedule: the learning rate of a step, as it is told; the optimiser has it, too.
      augment: of uint8 images, and of their labels where it mixes.
      loss, eval_loss: ``(logits, targets) -> (N,)``, in training and in evaluation.
      mean, std: normalise images in 0…1.
      seed: decides augmentation, dropout and stochastic depth.
      accumulate: parts that a device's batch is computed in, one after another.
      ema_decay: of the moving average of parameters and statistics; 0 for none.
      frozen: the model's modules that keep their parameters and statistics.
      evaluate_ema: whether evaluation takes the moving average where there is one.
      skip_nonfinite: whether a step whose loss or gradients are not finite changes nothing.
    """

    model: ResNet
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augment: Augment
    loss: Callable[[jax.Array, Targets], jax.Array]
    eval_loss: Callable[[jax.Array, Targets], jax.Array]
    mean: Sequence[float]
    std: Sequence[float]
    seed: int
    grad_accum_steps: int = 1
    ema_decay: float = 0.0
    frozen: tuple[str, ...] = ()
    evaluate_ema: bool = True
    skip_nonfinite: bool = False


def abstract_state(step_config: StepConfig, image_shape: tuple[int, int, int]) -> TrainState:
    """Shapes and types of a state, for restoring into it: nothing is drawn."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(step_config.model.init, jax.random.key(0), images)
    return jax.eval_shape(lambda variables: init_state(step_config, variables), variables)


def create_state(
    step_config: StepConfig, image_shape: tuple[int, int, int], variables: Any = None
) -> TrainState:
    """The state before the first step, for images ``(H, W, C)``.

    ``variables`` are the model's collections to begin with; by default random ones.
    """
    return init_state(
        step_config, variables or init_variables(step_config.model, step_config.seed, image_shape)
    )


def init_state(step_config: StepConfig, variables: Any) -> TrainState:
    """The state before the first step, of given ``{"params", "batch_stats"}``."""
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})  # group norm has none
    # The average is another array than what it averages: the step is given both away.
    average = {"params": params, "batch_stats": batch_stats} if step_config.ema_decay else {}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=step_config.optimizer.init(trainable_params(params, step_config.frozen)),
        ema=jax.tree.map(jnp.array, average),
    )


def trainable_params(params: Any, frozen: tuple[str, ...]) -> Any:
    """The parameters of the modules that are not frozen."""
    return {name: module for name, module in params.items() if name not in frozen}


def frozen_subtree(collection: Any, frozen: tuple[str, ...]) -> Any:
    """What a collection has of the frozen modules."""
    return {name: module for name, module in collection.items() if name in frozen}


def train_step(
    step_config: StepConfig, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. ``batch``: this device's ``image`` uint8 ``(N, H, W, C)`` and ``label`` ``(N,)``.

    Gives the new state and the batch's ``loss``, ``top1`` (share of right answers; of a mixed
    image the label with the larger share is right) and ``learning_rate``, averaged over the axis,
    and ``nonfinite``, 1 where the loss or a gradient is not finite. Where such a step is skipped
    its ``loss`` and ``top1`` are 0.
    """
    count = batch["label"].shape[0]
    device = jax.lax.axis_index(AXIS)
    places = device * count + jnp.arange(count)  # in the global batch
    keys = example_keys(step_config.seed, state.step, places)
    images, targets = step_config.augment.batch(batch["image"], batch["label"], keys)
    # A row of keys of its own: augmentation folds examples' places into the step's.
    dropout = jax.random.fold_in(jax.random.key(step_config.seed), DROPOUT)
    dropout = jax.random.fold_in(jax.random.fold_in(dropout, state.step), device)

    def loss_of(params, batch_stats, images, targets, dropout):
        logits, updates = step_config.model.apply(
            {"params": state.params | params, "batch_stats": batch_stats},
            normalize(images, step_config.mean, step_config.std),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout},
        )
        top1 = jnp.mean(label_rank(logits, targets.dominant()) < 1)
        return step_config.loss(logits, targets).mean(), (updates.get("batch_stats", {}), top1)

    def part(batch_stats, images, targets, dropout):
        """Gradients and what else comes of a part of the batch."""
        (loss, (batch_stats, top1)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable_params(state.params, step_config.frozen),
            batch_stats,
            images,
            targets,
            dropout,
        )
        return batch_stats, (gradients, loss, top1)

    batch_stats, means = accumulate_gradients(
        part, step_config.grad_accum_steps, state.batch_stats, images, targets, dropout
    )
    # Devices hold equal shares of the batch: means of means are the batch's means.
    batch_stats, (gradients, loss, top1) = jax.lax.pmean((batch_stats, means), AXIS)

    finite = jnp.isfinite(loss)
    for leaf in jax.tree.leaves(gradients):
        finite &= jnp.isfinite(leaf).all()

    params = trainable_params(state.params, step_config.frozen)
    updates, opt_state = step_config.optimizer.update(gradients, state.opt_state, params)
    params = state.params | optax.apply_updates(params, updates)
    # The very bits: a mean over three devices may round.
    batch_stats = batch_stats | frozen_subtree(state.batch_stats, step_config.frozen)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=update_ema(step_config, state, {"params": params, "batch_stats": batch_stats}),
    )
    if step_config.skip_nonfinite:
        new_state = select_if_finite(finite, new_state, state.replace(step=new_state.step))
        loss, top1 = (jnp.where(finite, metric, 0) for metric in (loss, top1))
    return new_state, {
        "loss": loss,
        "top1": top1,
        "learning_rate": jnp.asarray(step_config.schedule(state.step), jnp.float32),
        "nonfinite": 1.0 - finite,
    }


def select_if_finite(finite: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """The old state where a step is not finite, but for its place in the schedule.

    The learning rate belongs to the step's number, which goes on.
    """

    def pick(new: Any, old: Any) -> Any:
        if isinstance(new, optax.ScaleByScheduleState):
            return new
        return jnp.where(finite, new, old)

    is_leaf = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    return jax.tree.map(pick, new, old, is_leaf=is_leaf)


def accumulate_gradients(
    part: Callable, count: int, batch_stats: Any, images: jax.Array, targets: Targets, key: Any
) -> tuple[Any, Any]:
    """Runs ``part`` on ``count`` equal parts of a batch: the last statistics, and mean results.

    One part after another, so that memory is needed for one. On a CPU they are written out,
    since XLA runs the gradients of convolutions inside a loop many times slower there.
    """
    if count == 1:
        return part(batch_stats, images, targets, key)
    split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), (images, targets))

    def step(carry: tuple[Any, Any], i: Any) -> tuple[Any, None]:
        batch_stats, total = carry
        images, targets = jax.tree.map(lambda x: x[i], split)
        batch_stats, result = part(batch_stats, images, targets, jax.random.fold_in(key, i))
        return (batch_stats, jax.tree.map(jnp.add, total, result)), None

    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(part, batch_stats, *first, key)[1]
    carry = batch_stats, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    if jax.default_backend() == "cpu":
        for i in range(count):
            carry, _ = step(carry, i)
    else:
        carry, _ = jax.lax.scan(step, carry, jnp.arange(count))
    batch_stats, total = carry
    return batch_stats, jax.tree.map(lambda leaf: leaf / count, total)


def update_ema(step_config: StepConfig, state: TrainState, new: Any) -> Any:
    """``ema_decay`` of the old average and the rest of the new values; empty without a decay.

    At the n-th step at most n / (n + 9) of the old one: at first there is little to average,
    and the initial weights should not count for long.
    """
    if not step_config.ema_decay:
        return {}
    old = jnp.minimum(step_config.ema_decay, (state.step + 1) / (state.step + 10))
    average = jax.tree.map(lambda a, b: old * a + (1 - old) * b, state.ema, new)
    return {
        name: average[name] | frozen_subtree(state.ema[name], step_config.frozen)
        for name in average
    }


def evaluated_variables(step_config: StepConfig, state: TrainState) -> dict[str, Any]:
    """The collections that are evaluated: the weights, or their moving average."""
    if step_config.ema_decay and step_config.evaluate_ema:
        return state.ema
    return {"params": state.params, "batch_stats": state.batch_stats}


def eval_step(
    step_config: StepConfig,
    state: TrainState,
    batch: dict[str, jax.Array],
    flip: bool = False,
    each: Callable[[jax.Array, jax.Array], dict[str, jax.Array]] | None = None,
) -> dict[str, Any]:
    """Sums over a batch: ``examples``, ``top1`` and ``top5`` counts (int32), and ``loss``.

    ``batch`` is as in :func:`train_step`, with ``valid`` bool ``(N,)``: examples that only
    fill the batch up, or are ``bad``, count nowhere but as ``bad``. With ``flip`` logits are the
    mean of the image's and its mirror image's. With ``each``, which is given logits and labels,
    there is also ``each``: what that gives, ``label``, ``rank`` of the label and ``valid`` of the
    global batch's examples, in order.
    """
    variables = evaluated_variables(step_config, state)
    images = normalize(batch["image"], step_config.mean, step_config.std)
    logits = step_config.model.apply(variables, images)
    if flip:
        logits = (logits + step_config.model.apply(variables, images[:, :, ::-1])) / 2
    rank = label_rank(logits, batch["label"])
    losses = jnp.where(batch["valid"], step_config.eval_loss(logits, Targets(batch["label"])), 0)
    sums = {
        "examples": batch["valid"].sum(dtype=jnp.int32),
        "bad": batch["bad"].sum(dtype=jnp.int32),
        "top1": (batch["valid"] & (rank < 1)).sum(dtype=jnp.int32),
        "top5": (batch["valid"] & (rank < 5)).sum(dtype=jnp.int32),
        "loss": losses.sum(),
    }
    sums = jax.lax.psum(sums, AXIS)
    if each is None:
        return sums
    own = {"label": batch["label"], "rank": rank, "valid": batch["valid"]}
    own |= each(logits, batch["label"])
    return sums | {"each": jax.lax.all_gather(own, AXIS, tiled=True)}
