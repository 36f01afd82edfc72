"""Rank of the label among the outputs of a network, behind top-1 and top-k accuracy."""

import jax
import jax.numpy as jnp


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the number of classes ranked before the label, int32 ``(N,)``; 0 is correct.

    Among equal logits the lower class comes first, as in argmax, so that a model with constant
    logits is not correct by chance. NaN ranks before everything.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    lower = jnp.arange(logits.shape[1]) < labels[:, None]
    return (~(logits <= own)).sum(axis=1) + ((logits == own) & lower).sum(axis=1)
