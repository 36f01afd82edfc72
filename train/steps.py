"""One step of training, one of evaluation: pure functions of arrays, without I/O.

Both run inside a mapped axis (``train/parallel.py``): each device sees its part of the
batch, and gradients, statistics and metrics are averaged or summed over the axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from flax_resnet import ResNet, init_variables
from train.augment import Augment, example_keys, normalize
from train.mixing import Targets

AXIS = "batch"


class TrainState(struct.PyTreeNode):
    """All that training changes, and so all that a checkpoint holds.

    ``step`` counts finished steps (int32); ``params`` and ``batch_stats`` are the model's
    collections; ``opt_state`` is Optax's.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


@dataclass(frozen=True)
class Task:
    """What the steps need beside arrays: the net, the optimiser and the images' treatment.

    ``mean`` and ``std`` normalise images in 0…1; ``seed`` decides the augmentation.
    """

    model: ResNet
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augment: Augment
    mean: Sequence[float]
    std: Sequence[float]
    seed: int
    label_smoothing: float = 0.0


def abstract_state(task: Task, image_shape: tuple[int, int, int]) -> TrainState:
    """Shapes and types of a state, for restoring into it: nothing is drawn."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(task.model.init, jax.random.key(0), images)
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=jax.eval_shape(task.optimizer.init, variables["params"]),
    )


def create_state(task: Task, image_shape: tuple[int, int, int]) -> TrainState:
    """The state before the first step, for images ``(H, W, C)``."""
    variables = init_variables(task.model, task.seed, image_shape)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),  # group norm has none
        opt_state=task.optimizer.init(variables["params"]),
    )


def train_step(
    task: Task, state: TrainState, batch: dict[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. ``batch``: this device's ``image`` uint8 ``(N, H, W, C)`` and ``label`` ``(N,)``.

    Gives the new state and the batch's ``loss``, ``top1`` (share of right answers; of a mixed
    image the label with the larger share is right) and ``learning_rate``, averaged over the axis.
    """
    count = batch["label"].shape[0]
    places = jax.lax.axis_index(AXIS) * count + jnp.arange(count)  # in the global batch
    keys = example_keys(task.seed, state.step, places)
    images, targets = task.augment.batch(batch["image"], batch["label"], keys)
    images = normalize(images, task.mean, task.std)

    def loss_of(params):
        logits, updates = task.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = mixed_cross_entropy(logits, targets, task.label_smoothing)
        return losses.mean(), (logits, updates.get("batch_stats", {}))

    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
        state.params
    )
    top1 = jnp.mean(rank_of(logits, targets.dominant()) < 1)
    # Devices hold equal shares of the batch: means of means are the batch's means.
    gradients, batch_stats, loss, top1 = jax.lax.pmean((gradients, batch_stats, loss, top1), AXIS)

    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return new_state, {
        "loss": loss,
        "top1": top1,
        "learning_rate": jnp.asarray(task.schedule(state.step), jnp.float32),
    }


def eval_step(task: Task, state: TrainState, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Sums over a batch: ``examples``, ``top1`` and ``top5`` counts (int32), and ``loss``.

    ``batch`` is as in :func:`train_step`, with ``valid`` bool ``(N,)``: examples that only
    fill the batch up, or are ``bad``, count nowhere but as ``bad``.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = task.model.apply(variables, normalize(batch["image"], task.mean, task.std))
    rank = rank_of(logits, batch["label"])
    losses = jnp.where(batch["valid"], cross_entropy(logits, batch["label"]), 0)
    sums = {
        "examples": batch["valid"].sum(dtype=jnp.int32),
        "bad": batch["bad"].sum(dtype=jnp.int32),
        "top1": (batch["valid"] & (rank < 1)).sum(dtype=jnp.int32),
        "top5": (batch["valid"] & (rank < 5)).sum(dtype=jnp.int32),
        "loss": losses.sum(),
    }
    return jax.lax.psum(sums, AXIS)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Losses ``(N,)`` of float32 logits ``(N, K)`` against labels ``(N,)``, in nats.

    With smoothing s the target is 1 − s for the label plus s / K for each of the K classes
    (Szegedy et al. 2015, arXiv:1512.00567, section 7).
    """
    log_p = jax.nn.log_softmax(logits)
    of_label = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -(1 - smoothing) * of_label - smoothing * log_p.mean(axis=1)


def mixed_cross_entropy(logits: jax.Array, targets: Targets, smoothing: float = 0.0) -> jax.Array:
    """Losses ``(N,)`` as :func:`cross_entropy`'s, of mixed images weighted over both labels.

    Cross entropy is linear in the target, so this is that of the mixture of both smoothed ones.
    """
    losses = cross_entropy(logits, targets.label, smoothing)
    if targets.other is None:
        return losses
    others = cross_entropy(logits, targets.other, smoothing)
    return targets.weight * losses + (1 - targets.weight) * others


def rank_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes come before the label, int32 ``(N,)``; 0 is a right answer.

    Of equal logits the lower class comes first, as with argmax, so a net that gives the same
    to all classes is not right by chance; NaN comes before everything.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    lower = jnp.arange(logits.shape[1]) < labels[:, None]
    return (~(logits <= own)).sum(axis=1) + ((logits == own) & lower).sum(axis=1)
